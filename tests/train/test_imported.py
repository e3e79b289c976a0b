"""Checkpoints of the authors' own code become runs: the golden parameters give the golden logits."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import vlmlab
from vlmlab.train import imported

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
import reference
import small_clip

SETTINGS = {
    "maple": {},
    "promptsrc": {},
    "mmrl": {"rep_dim": 32},
    "mmrlpp": {"rep_dim": 32, "proj_rank": 8, "token_mix": 0.7},
}
LOGITS = {"maple": "logits", "promptsrc": "logits", "mmrl": "logits_fused", "mmrlpp": "logits_fused"}


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    path = tmp_path_factory.mktemp("imported") / "small_clip.safetensors"
    save_file(small_clip.state_dict(), path)
    return vlmlab.load(path, device="cpu", quick_gelu=True, heads=2, pixels={})


@pytest.fixture(scope="module")
def task():
    return vlmlab.task("emoji/food", protocol="few_shot", shots=1, seed=1)


def checkpoint(path, parameters, **more):
    """As Dassl's save_checkpoint writes it: the whole model in half precision, optimiser and scheduler."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 3)
    state = {**parameters, "prompt_learner.token_prefix": torch.ones(2, 1, 64)}
    for name, value in small_clip.state_dict().items():
        image, text = (
            name.removeprefix("visual."),
            name.startswith(("transformer", "ln_final", "text_proj", "posi")),
        )
        if image != name or text:
            state[f"{'image' if image != name else 'text'}_encoder.{image}"] = value.half()
    state |= more
    held = {"state_dict": state, "epoch": 5, "optimizer": optimiser.state_dict(), "val_result": 71.5}
    torch.save(held | {"scheduler": {"successor": schedule}}, path)
    return path


def alone(path, state):
    """A checkpoint without CLIP, which is quick to write."""
    torch.save({"state_dict": state}, path)
    return path


def parameters(method):
    golden = reference.load(method)
    return {k.removeprefix("param/"): v for k, v in golden.items() if k.startswith("param/")}, golden


@pytest.mark.parametrize("method", SETTINGS)
def test_golden_parameters_give_golden_logits(tmp_path, vlm, task, method):
    theirs, golden = parameters(method)
    file = checkpoint(tmp_path / "model.pth.tar-5", theirs)
    run = vlmlab.fit(method, vlm, task, out=tmp_path, imported=file, **SETTINGS[method])
    assert run.status == "finished" and run.info["steps"] == 0 and len(run.info["job"]["imported"]) == 64
    learner = vlmlab.train.run.Run(run.path).attach(vlm).model
    learner.set_classes(small_clip.CLASSES, small_clip.TEMPLATE)
    with torch.no_grad():
        assert (learner.logits(small_clip.images()) - golden[LOGITS[method]]).abs().max() < 1e-4
    assert vlmlab.fit(method, vlm, task, out=tmp_path, imported=file, **SETTINGS[method]).path == run.path


@pytest.mark.parametrize("shape", [(4, 64), (16, 64), (3, 4, 64)])
def test_coop_saves_its_prompt_learner_alone(tmp_path, vlm, task, shape):
    context = torch.randn(*shape)
    state = {
        "ctx": context.half(),
        "token_prefix": torch.ones(3, 1, 64),
        "token_suffix": torch.ones(3, 60, 64),
    }
    torch.save({"state_dict": state, "epoch": 50}, tmp_path / "model.pth.tar-50")
    given = {"tokens": shape[-2], "class_specific": len(shape) == 3}
    if len(shape) == 3:
        with pytest.raises(ValueError, match=r"context: \(3, 4, 64\) instead of .* trained with tokens=4"):
            vlmlab.fit("coop", vlm, task, out=tmp_path, imported=tmp_path / "model.pth.tar-50", **given)
        return
    run = vlmlab.fit("coop", vlm, task, out=tmp_path, imported=str(tmp_path / "model.pth.tar-50"), **given)
    assert torch.equal(run.model.context, context.half().float())


@pytest.mark.parametrize(
    ("method", "trained"),
    [
        ("maple", "tokens=2, depth=9"),
        ("promptsrc", "tokens=4, depth=9, image_tokens=4, image_depth=9"),
        ("mmrl", "tokens=5, rep_dim=32"),
        ("mmrlpp", "tokens=5, rep_dim=32, rank=4, proj_rank=8"),
    ],
)
def test_all_settings_that_it_was_trained_with_are_said(tmp_path, vlm, task, method, trained):
    file = checkpoint(tmp_path / "model.pth.tar-5", parameters(method)[0])
    with pytest.raises(ValueError, match=f"it was trained with {trained}, on a CLIP"):
        vlmlab.fit(method, vlm, task, out=tmp_path, imported=file, tokens=3)


BLOCK = "encoder.transformer.resblocks"
# method -> settings that a checkpoint was trained with -> the authors' tensors of these sizes
TRAINED = {
    "coop": ({"tokens": 7}, {"prompt_learner.ctx": (7, 64)}),
    "maple": (
        {"tokens": 3, "depth": 5},
        {"prompt_learner.ctx": (3, 64), "prompt_learner.proj.weight": (128, 64)}
        | {"prompt_learner.proj.bias": (128,)}
        | {f"prompt_learner.compound_prompts_text.{i}": (3, 64) for i in range(4)}
        | {f"prompt_learner.compound_prompt_projections.{i}.weight": (128, 64) for i in range(4)}
        | {f"prompt_learner.compound_prompt_projections.{i}.bias": (128,) for i in range(4)},
    ),
    "promptsrc": (
        {"tokens": 3, "depth": 5, "image_tokens": 2, "image_depth": 6},
        {"prompt_learner.ctx": (3, 64), "image_encoder.VPT": (2, 128)}
        | {f"text_{BLOCK}.{i}.VPT_shallow": (3, 64) for i in range(1, 5)}
        | {f"image_{BLOCK}.{i}.VPT_shallow": (2, 128) for i in range(1, 6)},
    ),
    "mmrl": (
        {"tokens": 3, "rep_dim": 16},
        {"representation_learner.compound_rep_tokens": (3, 16), "image_encoder.proj_rep": (128, 64)}
        | {
            f"representation_learner.compound_rep_tokens_r2{side}proj.{i}.{part}": shape
            for side, width in (("v", 128), ("t", 64))
            for i in range(7)
            for part, shape in (("weight", (width, 16)), ("bias", (width,)))
        },
    ),
    "mmrlpp": (
        {"tokens": 3, "rep_dim": 16, "rank": 2, "proj_rank": 6},
        {"representation_learner.compound_rep_tokens": (3, 16)}
        | {"image_encoder.A": (128, 6), "image_encoder.B": (6, 64)}
        | {
            f"representation_learner.srra_r2{side}proj.weight": (width, 16)
            for side, width in (("v", 128), ("t", 64))
        }
        | {
            f"representation_learner.srra_r2{side}proj.srra.{i}.{part}": shape
            for side, width in (("v", 128), ("t", 64))
            for i in range(7)
            for part, shape in (("bias", (width,)), ("A", (width, 2)), ("B", (2, 16)))
        },
    ),
}


@pytest.mark.parametrize("method", TRAINED)
def test_settings_of_a_checkpoint_are_said_and_fit(tmp_path, vlm, method):
    settings, shapes = TRAINED[method]
    drawn = {name: torch.randn(shape) for name, shape in shapes.items()}
    file = alone(tmp_path / "model.pth.tar-5", drawn)
    said = ", ".join(f"{name}={value}" for name, value in settings.items())
    with pytest.raises(ValueError, match=f"does not fit {method} .*; it was trained with {said}, on a CLIP"):
        imported.adopt(vlmlab.methods.build(method, vlm, small_clip.CLASSES), file)
    m = vlmlab.methods.build(method, vlm, small_clip.CLASSES, **settings)
    imported.adopt(m, file)
    assert m.stages(None, None, 1) == []
    kept = [row for x in m.own().values() for row in x.flatten().tolist()]
    assert {x for value in drawn.values() for x in value.flatten().tolist()} == {*kept}


def test_tensors_are_taken_in_the_order_of_their_numbers():
    names = [f"a.{i}.b" for i in (10, 9, 100, 0)]
    found = imported.like("a.*.b", dict.fromkeys([*names, "a.x.b", "xa.1.b", "a.1.bb"]))
    assert found == ["a.0.b", "a.9.b", "a.10.b", "a.100.b"]


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ([0.0, 0.0], [0.0, 0.0], True),
        ([-10.0, 1.0], [-10.0, 1.19], True),  # 2 % of the largest
        ([-10.0, 1.0], [-10.0, 1.21], False),
        ([-10.0, 1.0], [10.0, -1.0], False),
        ([100.0], [98.5], True),
        ([100.0], [97.0], False),
    ],
)
def test_clip_is_the_same_but_for_its_precision(ours, theirs, same):
    assert imported.alike(torch.tensor(ours), torch.tensor(theirs)) is same


CLIPS = {
    "image_encoder.class_embedding": "visual.class_embedding",
    "text_encoder.text_projection": "text_projection",
    "clip_model.visual.proj": "visual.proj",
    "logit_scale": "logit_scale",
}


@pytest.mark.parametrize("name", CLIPS)
def test_every_part_of_clip_is_compared(tmp_path, vlm, name):
    """With it stands what is made again from names and from CLIP, which is not looked at."""
    made = {f"prompt_learner.{k}": torch.ones(1) for k in ("token_suffix", "ZS_image_encoder.a.b")}
    value = small_clip.state_dict()[CLIPS[name]]
    m = vlmlab.methods.build("maple", vlm, small_clip.CLASSES)
    theirs = parameters("maple")[0]
    imported.adopt(m, alone(tmp_path / "a", theirs | made | {name: value}))
    for wrong in (2 * value + 1, torch.cat([value.flatten(), value.flatten()])):
        with pytest.raises(ValueError, match=f"trained on another CLIP: {name} is not that of"):
            imported.adopt(m, alone(tmp_path / "b", theirs | {name: wrong}))


def test_prompts_of_different_shapes_are_no_list(tmp_path, vlm):
    theirs = parameters("maple")[0] | {"prompt_learner.compound_prompts_text.3": torch.ones(3, 64)}
    m = vlmlab.methods.build("maple", vlm, small_clip.CLASSES)
    with pytest.raises(
        ValueError, match=r"prompt_learner.ctx and those after it have .* \[\(2, 64\), \(3, 64\)\]"
    ):
        imported.adopt(m, alone(tmp_path / "a", theirs))


def test_the_digest_is_that_of_the_bytes(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"abc")
    monkeypatch.setenv("HOME", str(tmp_path))
    wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert imported.digest(tmp_path / "a") == imported.digest("~/a") == wanted


def test_what_does_not_fit_is_named(tmp_path, vlm, task):
    theirs, _ = parameters("maple")

    def refused(pattern, state=theirs, method="maple", **more):
        file = checkpoint(tmp_path / "model.pth.tar-5", state, **more)
        with pytest.raises(ValueError, match=pattern):
            vlmlab.fit(method, vlm, task, out=tmp_path, imported=file)

    refused(
        r"holds 1 tensors that maple has no place for: prompt_learner.surprise",
        **{"prompt_learner.surprise": torch.ones(1)},
    )
    refused(r"another CLIP: image_encoder.proj is not", **{"image_encoder.proj": torch.ones(128, 64)})
    refused(r"has no prompt_learner.ctx, which promptsrc|has no image_encoder.VPT", method="promptsrc")
    refused(
        r"prompt_learner.ctx has .* nan",
        state=theirs | {"prompt_learner.ctx": torch.full((2, 64), torch.nan)},
    )
    refused(r"linear_probe imports no checkpoints; coop, maple", method="linear_probe")
    file = checkpoint(tmp_path / "model.pth.tar-5", theirs)
    with pytest.raises(ValueError, match=r"trained with tokens=2, depth=9"):
        vlmlab.fit("maple", vlm, task, out=tmp_path, imported=file, depth=3)
    with pytest.raises(FileNotFoundError, match="imported: there is no file"):
        vlmlab.fit("maple", vlm, task, out=tmp_path, imported=tmp_path / "nope")
    assert not [r for r in vlmlab.train.run.runs(tmp_path) if r.status == "finished"]
