"""Networks whose blocks hand on maps that become smaller and wider: places are tokens, missing features NaN."""

import functools

import numpy as np
import pytest
import timm
import torch

import vlmlab
from vlmlab import measures

SITE = "image.resid.post"


@functools.cache
def network():
    torch.manual_seed(0)
    return timm.create_model("mobilenetv3_small_050", pretrained=False).eval().requires_grad_(False)


def images(n=6):
    return torch.randn(n, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@functools.cache
def outputs():
    """The network's own maps behind every stage, (image, feature, row, column)."""
    found, x = [], network().bn1(network().conv_stem(images()))
    for stage in network().blocks:
        x = stage(x)
        found.append(x)
    return found


def whole():
    return vlmlab.capture(network(), images(), [SITE, "image.final"], progress=False)


def test_a_map_becomes_tokens_row_by_row():
    record = whole()
    x = record[SITE]
    assert x.sizes["layer"] == len(outputs()) and set(x["role"].values) == {"patch"} and "row" not in x.coords
    assert len({y.shape[1] for y in outputs()}) > 2 and len({y.shape[2] for y in outputs()}) > 2
    for layer, y in enumerate(outputs(), start=1):
        mine = x.sel(layer=layer).dropna("token", how="all").dropna("feature", how="all")
        assert mine.shape == (6, y.shape[2] * y.shape[3], y.shape[1])
        assert np.allclose(mine.values.transpose(0, 2, 1).reshape(y.shape), y, atol=1e-5)
    with torch.no_grad():
        assert np.allclose(record["image.final"].values[:, 0], network()(images()), atol=1e-5)


def test_what_enters_a_stage_is_what_left_the_one_before():
    after = vlmlab.capture(network(), images(), f"{SITE}[2]", progress=False)[SITE].isel(layer=0)
    before = vlmlab.capture(network(), images(), "image.resid.pre[3]", progress=False)[
        "image.resid.pre"
    ].isel(layer=0)
    assert np.array_equal(after.values, before.values)


def test_measures_leave_out_what_a_layer_has_not(tmp_path):
    mean = vlmlab.capture.mean("patch")
    record = vlmlab.capture(network(), images(), SITE, keep=mean, progress=False)
    x, y = record[SITE], [y.mean(dim=(2, 3)) for y in outputs()]
    lengths = measures.norm_by_role(x).isel(role=0)
    assert np.allclose(lengths, torch.stack([m.norm(dim=1) for m in y]), rtol=1e-4)
    cka, rsa = measures.cka(x), measures.rsa(x)
    for i, j in ((1, 3), (1, 5), (4, 5)):
        alone = [x.sel(layer=[k]).dropna("feature", how="all") for k in (i, j)]
        assert measures.cka(*alone).item() == pytest.approx(cka.sel(layer=i, layer_other=j).item(), abs=1e-6)
        assert measures.rsa(*alone).item() == pytest.approx(rsa.sel(layer=i, layer_other=j).item(), abs=1e-6)
    assert np.allclose(np.diag(cka), 1)
    running = measures.RunningCKA()
    with pytest.raises(ValueError, match=r"layers \[1, .*hold NaN"):
        running.add(x)
    stored = vlmlab.capture(
        network(), images(), SITE, keep=mean, progress=False, out=tmp_path / "r", batch_size=4
    )
    assert np.allclose(stored[SITE], x, atol=1e-5, equal_nan=True)


def test_a_map_is_edited_in_place():
    _, channel, rows, _ = outputs()[2].shape
    with vlmlab.capture.edit(
        network(), {f"{SITE}[3]": lambda x, table: x * (torch.arange(x.shape[1]) == 3)[:, None]}
    ):
        x = vlmlab.capture(network(), images(), f"{SITE}[3]", progress=False)[SITE].isel(layer=0).values
    kept = outputs()[2].flatten(2).transpose(1, 2)
    assert x.shape == (6, rows * rows, channel) and np.allclose(x[:, 3], kept[:, 3], atol=1e-5)
    assert not np.delete(x, 3, axis=1).any()
    with torch.no_grad(), vlmlab.capture.edit(network(), {f"{SITE}[3]": vlmlab.capture.ablate("patch")}):
        out = network()(images())
    assert torch.allclose(out, out[:1].expand_as(out), atol=1e-6)  # nothing of the image passes
