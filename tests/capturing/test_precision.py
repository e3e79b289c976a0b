"""Half precision and damaged weights: what overflows is named, not recorded."""

import inspect

import numpy as np
import pytest
import torch
from family_models import CASES, built, timm_model

import vlmlab
from vlmlab import capture


def grab(model, data, sites, **options):
    return capture(model, data, sites, progress=False, **options)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return timm_model().eval().requires_grad_(False)


@pytest.fixture
def pictures():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("keep", [None, capture.norms, capture.roles("cls"), capture.mean("patch")])
def test_a_record_too_narrow_for_its_numbers_is_an_error(model, pictures, keep):
    model.blocks[1].mlp.fc2.weight.mul_(1e8)
    with pytest.raises(
        ValueError, match=r"image\.resid\.post\[2\] holds numbers above 65,504.*dtype='float32'"
    ):
        grab(model, pictures, "image.resid.post", keep=keep, dtype="float16")
    assert np.isfinite(grab(model, pictures, "image.resid.post", keep=keep)["image.resid.post"]).all()
    model.norm = torch.nn.Identity()
    with pytest.raises(ValueError, match=r"image\.final holds numbers above 65,504"):
        grab(model, pictures, "image.final", dtype="float16")


@pytest.mark.parametrize("keep", [None, capture.norms])
def test_an_overflow_of_the_model_is_named_by_site_and_block(model, pictures, keep):
    model.blocks[1].mlp.fc2.weight.mul_(1e8)
    half = model.half()
    with pytest.raises(
        ValueError, match=r"image\.resid\.post\[2\] holds NaN or infinity: the (model runs in float16|weight)"
    ):
        grab(half, pictures.half(), "image.resid.post", keep=keep)


def test_large_numbers_in_half_precision_are_an_overflow(model, pictures):
    model.half()
    model.blocks[1].mlp.fc2.bias[0] = 60000
    model.blocks[2].mlp.fc2.bias[0] = 60000
    with pytest.raises(
        ValueError, match=r"image\.resid\.post\[3\].*model runs in float16, which ends at 6\.55e\+04"
    ):
        grab(model, pictures.half(), "image.resid.post")


@pytest.mark.parametrize("sites", ["image.resid.post", "image.final", "image.attn.q[-1]"])
def test_damaged_weights_are_named(model, pictures, sites):
    model.blocks[0].attn.proj.weight.view(-1)[3] = torch.nan
    with pytest.raises(ValueError, match=r"the weight blocks\.0\.attn\.proj\.weight does"):
        grab(model, pictures, sites)


def test_norms_of_half_precision_are_computed_in_float32(model, pictures):
    """Squares of numbers above 255 overflow in float16."""
    model.half()
    model.blocks[0].mlp.fc2.bias.fill_(3000)
    found = grab(model, pictures.half(), "image.resid.post[1]", keep=capture.norms)["image.resid.post"]
    whole = grab(model, pictures.half(), "image.resid.post[1]")["image.resid.post"]
    assert np.abs(found / np.linalg.norm(whole.astype(np.float64), axis=-1) - 1).max() < 1e-5
    assert found.min() > 3000


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("blocks", [slice(None), slice(1, 2)])
def test_some_blocks_in_half_precision(kind, blocks, pictures):
    """The tolerance is that of the coarsest weights, wherever they stand."""

    class Cast(torch.nn.Module):
        def __init__(self, block):
            super().__init__()
            self.block = block.to(kind)

        def forward(self, x, **more):
            return self.block(x.to(kind), **more).float()

    model = timm_model().eval().requires_grad_(False)
    for block in model.blocks[blocks]:
        inner, plain = block, block.forward
        inner.to(kind)
        block.forward = lambda x, plain=plain, **more: plain(x.to(kind), **more).float()
    record = grab(model, pictures, "image.attn.probs")
    assert record.attrs["precision"] == ("amp_fp16" if kind == torch.float16 else "amp_bf16")
    assert np.abs(record["image.attn.probs"].sum("token") - 1).max() < 1e-2


def test_words_of_texts_in_early_blocks_are_what_they_are(vlm):
    """Prompts that a method inserts in the middle move EOS there and not in the blocks before."""
    from vlmlab import methods

    torch.manual_seed(0)
    names = ["cat", "big dog", "bird house"]
    method = methods.build("mmrl", vlm, names, first_block=3, tokens=2, rep_dim=8).eval()
    record = grab(method, None, "text.resid.post")
    x = record["text.resid.post"]
    ids = vlm.tokenize(method.prompts())
    for sample, end in enumerate(ids.argmax(dim=1).tolist()):
        for layer in (1, 2, 3, 4):
            here = x.isel(sample=sample).sel(layer=layer).dropna("token", how="all")
            roles = [r for r in here["role"].values.tolist() if r != "prompt"]
            assert roles[: end + 1] == ["sos"] + ["word"] * (end - 1) + ["eos"]
    inside = grab(method, None, "text.resid.post", keep=capture.roles("eos"))["text.resid.post"]
    expected = x.where(x["role"] == "eos").mean("token")
    assert np.abs(inside.isel(token=0) - expected).max() < 1e-5


def test_completion_and_signature_show_what_there_is():
    assert list(inspect.signature(vlmlab.capture).parameters)[:4] == ["model", "data", "sites", "keep"]
    shown = [name for name in dir(vlmlab.capture) if not name.startswith("_")]
    assert {
        "norms",
        "roles",
        "row",
        "mean",
        "cls_row",
        "edit",
        "patch",
        "ablate",
        "reader",
        "open_run",
    } <= set(shown)
    assert not {"importlib", "sys", "torch", "numpy"} & set(shown)
    lines = [line for line in inspect.getdoc(vlmlab.capture).splitlines() if line.startswith("    ")]
    assert len(lines) >= 3 and "vlmlab.capture(" in "".join(lines)


def test_padding_may_hold_anything():
    case = next(c for c in CASES if c.name == "HF LLaMA, padded on both sides")
    assert np.isfinite(grab(built(case), case.data("text"), "text.resid.post")["text.resid.post"]).all()
