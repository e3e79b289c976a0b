"""Checkpoints of the authors' own code become runs: the golden parameters give the golden logits."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import vlmlab

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
