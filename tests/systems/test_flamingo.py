"""Flamingo: gates, the mask of images, the resampler; the language model beneath stays as it is."""

import pytest
import torch
from test_layers import randomised
from torch import nn

import vlmlab
from vlmlab.systems.flamingo import Flamingo
from vlmlab.systems.layers import Attention
from vlmlab.systems.perceiver import GatedBlock, Resampler, ResamplerBlock
from vlmlab.train.run import Run

transformers = pytest.importorskip("transformers")
SMALL = {"latents": 4, "resampler_layers": 1, "heads": 2, "head": 8}
TEXTS = ["a small red circle", "a large blue heart left of a small red circle"]


def made(tiny, language, **config):
    torch.manual_seed(0)
    model = Flamingo({"vlm": tiny, "language": language.model}, Flamingo.Config(**SMALL | config))
    return model


def opened(model):
    """With gates that let something through."""
    with torch.no_grad():
        for block in model.gated:
            block.cross_gate.fill_(0.8), block.mlp_gate.fill_(-0.5)
    return model


@pytest.fixture(scope="module")
def run(tiny, language, pairs, tmp_path_factory):
    out = tmp_path_factory.mktemp("flamingo")
    models = {"vlm": tiny, "language": language}
    return vlmlab.fit("flamingo", models, pairs, out=out, steps=6, batch=8, save_every=3, **SMALL)


def test_models_are_named_in_any_order(run, tiny, language, pairs, tmp_path):
    models = {"language": language, "vlm": tiny}
    again = vlmlab.fit("flamingo", models, pairs, out=tmp_path, steps=6, batch=8, save_every=3, **SMALL)
    assert again.path.name == run.path.name and again.metrics.equals(run.metrics)


@torch.no_grad()
def test_with_gates_closed_it_is_its_language_model_to_the_bit(tiny, language):
    model, images = made(tiny, language), torch.randn(2, 3, 64, 64)
    given = model.inputs(images, TEXTS)
    plain = language.model.llama(given["input_ids"], attention_mask=given["attention_mask"]).logits
    assert torch.equal(model(**given), plain)
    assert not torch.allclose(opened(model)(**given), plain, atol=1e-3)
    again = language.model.llama(given["input_ids"], attention_mask=given["attention_mask"]).logits
    assert torch.equal(again, plain)  # nothing of it is left behind


def test_at_first_only_gates_have_a_gradient(tiny, language, pairs):
    model = made(tiny, language)
    batch = next(model.stages(pairs, model.Options(batch=8), 0)[0].feed(0))
    (loss,) = model.losses(batch).values()
    loss.backward()
    for name, p in model.trainable().items():
        gate = name.endswith("_gate")
        assert (p.grad.abs().sum() > 0) == gate or name == "resampler.times", name
    assert not any(n.startswith(("language", "vision")) for n in model.own())


def test_it_trains_resumes_and_leaves_what_it_stands_on(run, tiny, language, pairs, tmp_path, monkeypatch):
    models = {"vlm": tiny, "language": language}
    before = {n: v.clone() for n, v in language.model.own().items()}
    count, losses = iter(range(100)), Flamingo.losses

    def killed(self, batch, stage=None):
        if next(count) == 4:
            raise KeyboardInterrupt
        return losses(self, batch, stage)

    settings = {"out": tmp_path, "steps": 6, "batch": 8, "save_every": 3, **SMALL}
    monkeypatch.setattr(Flamingo, "losses", killed)
    with pytest.raises(KeyboardInterrupt):
        vlmlab.fit("flamingo", models, pairs, **settings)
    monkeypatch.undo()
    again = vlmlab.fit("flamingo", models, pairs, **settings)
    assert again.digest == run.digest and again.metrics.equals(run.metrics)
    assert all(torch.equal(before[n], v) for n, v in language.model.own().items())
    gates = run.metrics[["cross 1", "mlp 2"]]
    assert (gates.iloc[0] == 0).all() and (gates.iloc[-1] != 0).all()
    opened = Run(run.path).attach(models, pairs)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        given = run.model.inputs(images, TEXTS)
        assert torch.equal(opened.model(**given), run.model(**given))


def test_it_is_measured(run, handful):
    scores = vlmlab.evaluate(run, handful).set_index("metric")["value"]
    assert {"nll_true_image", "nll_shuffled_image", "nll_no_image", "attributes_right"} <= set(scores.index)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        sums, counts = run.model.log_likelihood(images, TEXTS)
        logits = run.model.known(run.model(**run.model.inputs(images, TEXTS)))
    ids = run.model.ids(TEXTS)[0]
    for i, text in enumerate(TEXTS):
        n = len(text.split()) + 1
        log_p = logits[i, :n].log_softmax(1).gather(1, ids[i, 1 : n + 1, None])
        assert counts[i] == n and sums[i].item() == pytest.approx(log_p.sum().item(), rel=1e-4)


@torch.no_grad()
def test_words_look_at_the_latest_image_before_them(tiny, language):
    model = opened(made(tiny, language))
    text = "a heart [IMG] a red circle [IMG] a blue square"
    given = model.inputs(torch.randn(1, 2, 3, 64, 64), [text])
    #        cls a heart | a red circle | a blue square sep
    assert given["images"].tolist() == [[0, 0, 0, 1, 1, 1, 2, 2, 2, 2]]
    block = model.gated[0]
    kept = []
    handle = block.register_forward_hook(lambda m, args, out: kept.append((args[0], out)))
    model(**given)
    moved = given | {"pixel_values": given["pixel_values"].clone()}
    moved["pixel_values"][:, 0] += 1
    model(**moved)
    handle.remove()
    (x, first), (y, second) = kept
    assert torch.equal(x, y)
    changed = (first - second).abs().amax(2)[0] > 1e-6
    assert changed.tolist() == [False] * 3 + [True] * 3 + [False] * 4
    closed = x + block.mlp_gate.tanh() * block.mlp(x)
    assert torch.equal(first[:, :3], closed[:, :3])  # no image, nothing added
    assert not torch.allclose(model(**given)[0, 6:], model(**moved)[0, 6:], atol=1e-6)  # by self-attention
    plain = model.inputs(torch.randn(1, 3, 64, 64), ["a heart"])
    assert plain["images"].tolist() == [[1, 1, 1, 1]]
    with pytest.raises(ValueError, match=r"a text marks 2 images with \[IMG\]; 1 are given"):
        model.inputs(torch.randn(1, 3, 64, 64), [text])


@torch.no_grad()
def test_the_resampler_reads_any_number_of_patches_in_any_order():
    torch.manual_seed(0)
    own, seen = Resampler(16, 4, 2, 2, 8, frames=8), torch.randn(3, 8, 9, 16)
    order = torch.randperm(9)
    assert own(seen).shape == own(seen[:, :1]).shape == own(seen[:, :, :5]).shape == (3, 4, 16)
    assert torch.allclose(own(seen), own(seen[:, :, order]), atol=1e-5)  # within a frame
    assert not torch.allclose(own(seen), own(seen.flip(1)), atol=1e-3)  # frames have their times
    placed = seen + torch.randn(9, 16)  # what an image encoder adds
    assert not torch.allclose(own(placed), own(seen[:, :, order] + placed - seen), atol=1e-3)
    with pytest.raises(ValueError, match=r"a video has 9 frames; raise frames \(8\)"):
        own(torch.randn(1, 9, 2, 16))


def idefics():
    vision = {"embed_dim": 12, "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
    return transformers.IdeficsConfig(
        hidden_size=16,
        num_attention_heads=2,
        intermediate_size=24,
        alpha_type="float",
        vision_config=vision,
        perceiver_config={"use_resampler": True},
        attn_implementation="eager",
    )


def projections(own: Attention, theirs: nn.Module, out: str) -> None:
    for name, other in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", out)):
        own.get_submodule(name).load_state_dict(theirs.get_submodule(other).state_dict())


@torch.no_grad()
def test_its_block_is_that_of_idefics_with_the_same_weights_and_norms():
    from transformers.models.idefics.modeling_idefics import IdeficsGatedCrossAttentionLayer

    config = idefics()
    theirs, own = (
        randomised(IdeficsGatedCrossAttentionLayer(config, layer_idx=0)),
        GatedBlock(16, 12, 2, 8).eval(),
    )
    projections(own.cross, theirs.cross_attn, "o_proj")
    own.norm, own.mlp = theirs.input_layernorm, nn.Sequential(theirs.post_attention_layernorm, theirs.mlp)
    own.cross_gate.copy_(theirs.alpha_cross_attn[0]), own.mlp_gate.copy_(theirs.alpha_dense[0])
    x, seen = torch.randn(2, 5, 16), torch.randn(2, 6, 12)
    mask = torch.ones(2, 1, 5, 6, dtype=torch.bool)
    mask[0, 0, :2], mask[1, 0, :, 3:] = False, False
    found = theirs(
        x,
        image_hidden_states=seen,
        image_attention_mask=torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min),
        cross_attention_gate=mask.any(3)[:, 0].float(),
    )
    assert torch.allclose(own(x, seen, mask), found if torch.is_tensor(found) else found[0], atol=1e-5)


@torch.no_grad()
def test_its_resampler_is_that_of_idefics_with_the_same_weights():
    from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

    theirs = randomised(IdeficsPerceiverResampler(idefics(), 12, 2, 3, 4, 5))
    own = Resampler(12, 5, 2, 3, 4, activation=nn.ReLU).eval()
    own.latents.copy_(theirs.latents), own.times.zero_()
    own.norm.load_state_dict(theirs.layer_norm.state_dict())
    for block, (attention, mlp) in zip(own.blocks, theirs.blocks):
        assert isinstance(block, ResamplerBlock)
        projections(block.cross, attention, "output_proj")
        block.seen_norm.load_state_dict(attention.context_layer_norm.state_dict())
        block.norm.load_state_dict(attention.latents_layer_norm.state_dict())
        for i, part in ((0, mlp.ln), (1, mlp.fc), (3, mlp.c_proj)):
            block.mlp[i].load_state_dict(part.state_dict())
    seen = torch.randn(2, 7, 12)
    assert torch.allclose(own(seen[:, None]), theirs(seen), atol=1e-5)
