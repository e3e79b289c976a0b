import numpy as np
import pytest
import torch
import xarray as xr

from vlmlab import capture, measures, methods
from vlmlab.models.load import load

ROLES = ["cls", "prompt", "patch", "patch"]


@pytest.fixture
def probs():
    """Two layers, one sample, one head, four tokens; the prompt is not there in layer 1."""
    nan = np.nan
    p = np.array(
        [
            [[0.5, nan, 0.25, 0.25], [nan] * 4, [1, nan, 0, 0], [0, nan, 0.5, 0.5]],
            [[0.25] * 4, [0.7, 0.1, 0.1, 0.1], [0, 1, 0, 0], [0, 0, 0, 1]],
        ]
    )[:, None, None]
    return xr.DataArray(
        p,
        {"layer": [1, 2], "role": ("token", ROLES), "query_role": ("query", ROLES)},
        ("layer", "sample", "head", "query", "token"),
    )


def test_mass_by_hand(probs):
    m = measures.mass(probs).squeeze(("sample", "head"))
    assert m.dims == ("layer", "role")
    assert np.allclose(m.sel(layer=1, role=["cls", "patch"]), [1.5 / 3, 1.5 / 3])  # three queries exist
    assert np.isnan(m.sel(layer=1, role="prompt"))
    assert np.allclose(m.sel(layer=2), [0.95 / 4, 1.35 / 4, 1.7 / 4])
    assert np.allclose(m.sum("role"), 1)


def test_mass_from_one_role(probs):
    m = measures.mass(probs, "cls").squeeze(("sample", "head"))
    assert np.allclose(m.sel(layer=2), [0.25, 0.25, 0.5])
    row = probs.isel(query=0, drop=True)
    assert measures.mass(row).squeeze(("sample", "head")).equals(m)
    assert np.isnan(measures.mass(probs, "prompt").sel(layer=1)).all()
    with pytest.raises(ValueError, match="no query axis"):
        measures.mass(row, "cls")
    with pytest.raises(ValueError, match="no query has role sos; there are cls, prompt, patch"):
        measures.mass(probs, "sos")


def test_entropy_by_hand(probs):
    h = measures.entropy(probs).squeeze(("sample", "head"))
    assert np.allclose(h.sel(layer=2), [np.log(4), -0.7 * np.log(0.7) - 0.3 * np.log(0.1), 0, 0])
    assert np.allclose(h.sel(layer=1).isel(query=[0, 2, 3]), [1.5 * np.log(2), 0, np.log(2)])
    assert np.isnan(h.sel(layer=1).isel(query=1))


def test_row_sum_error(probs):
    assert measures.row_sum_error(probs).max() < 1e-12
    probs[1, 0, 0, 3, 3] = 0.75
    assert measures.row_sum_error(probs).values.tolist() == [0, 0.25]


@pytest.fixture
def grid():
    """One layer, sample and two heads over cls and a 2 x 2 grid; head 0 looks at itself, head 1 evenly."""
    p = np.stack([np.eye(5), np.full((5, 5), 0.2)])[None, None]
    roles, place = ["cls"] + ["patch"] * 4, ([-1, 0, 0, 1, 1], [-1, 0, 1, 0, 1])
    coords = {"layer": [1], "role": ("token", roles), "query_role": ("query", roles)}
    for axis, prefix in (("token", ""), ("query", "query_")):
        coords |= {f"{prefix}row": (axis, place[0]), f"{prefix}col": (axis, place[1])}
    return xr.DataArray(p, coords, ("layer", "sample", "head", "query", "token"))


def test_distance_by_hand(grid):
    d = measures.distance(grid)
    assert d.dims == ("layer", "sample", "head")
    assert np.allclose(d.squeeze(), [0, (0 + 1 + 1 + 2**0.5) / 4])
    with pytest.raises(ValueError, match="no query axis"):
        measures.distance(grid.isel(query=0, drop=True))
    with pytest.raises(ValueError, match="square grid"):
        measures.distance(grid.drop_vars("row"))


def test_head_similarity_by_hand(grid):
    s = measures.head_similarity(grid).sel(layer=1)
    assert s.dims == ("head", "head_other")
    assert np.allclose(s, [[1, 5**-0.5], [5**-0.5, 1]])


def test_head_similarity_leaves_missing_tokens_out(probs):
    assert np.allclose(measures.head_similarity(probs), 1)


def test_coupling_by_hand(probs):
    c = measures.coupling(probs).squeeze(("sample", "head"))
    assert c["direction"].values.tolist() == ["prompt>patch", "patch>prompt"]
    assert np.allclose(c.sel(layer=2), [0.2, 0.5]) and np.isnan(c.sel(layer=1)).all()


@pytest.fixture
def keys():
    """q and k of one layer, sample and head: cls, two prompts, one patch."""

    def tokens(values):
        return xr.DataArray(
            np.array(values, float)[None, None, None],
            {"layer": [1], "role": ("token", ["cls", "prompt", "prompt", "patch"])},
            ("layer", "sample", "head", "token", "head_feature"),
        )

    return tokens([[2, 0], [1, 1], [1, 0], [0, 1]]), tokens([[0, 5], [3, 0], [3, 4], [-1, 0]])


def test_keys_by_hand(keys):
    q, k = keys
    n, c, l = (
        x.squeeze(("layer", "sample", "head")).sel(role=["cls", "prompt", "patch"])
        for x in (measures.key_norms(k), measures.key_cosines(q, k), measures.key_logits(q, k))
    )
    assert np.allclose(n, [5, 4, 1])
    assert np.allclose(c, [0, (1 + 0.6) / 2, -1])
    assert np.allclose(l, np.array([0, 6, -2]) / 2**0.5)
    with pytest.raises(ValueError, match=r"expected attn\.k with head"):
        measures.key_cosines(q, k.isel(head=0))
    with pytest.raises(ValueError, match="have no head"):
        measures.key_norms(k.isel(head=0))


def test_norms_do_not_reach_the_keys_of_a_pre_ln_block():
    random = np.random.default_rng(0)
    x, w = random.normal(size=(1, 1, 2, 8)), random.normal(size=(2, 8, 4))  # two heads
    coords = {"layer": [1], "role": ("token", ["cls", "prompt"])}

    def key(x):
        z = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return xr.DataArray(
            np.einsum("lstd,hdf->lshtf", z, w), coords, ("layer", "sample", "head", "token", "head_feature")
        )

    longer = x * np.array([1, 10])[:, None]
    stream = [
        measures.norm_by_role(xr.DataArray(v, coords, ("layer", "sample", "token", "feature")))
        for v in (x, longer)
    ]
    assert np.allclose((stream[1] / stream[0]).squeeze(), [1, 10])
    assert np.allclose(measures.key_norms(key(longer)), measures.key_norms(key(x)), rtol=1e-4)


def longer_prompts(method, factor):
    """MMRL puts pure W R + b in front of every block from J on, so W and b scale the prompts."""
    with torch.no_grad():
        for p in method.image_aligner.parameters():
            p *= factor
    return method


def test_longer_prompts_draw_no_more_attention_in_clip():
    """The length of P_l alone gates nothing in CLIP's pre-LN blocks; its direction does."""
    vlm, random = load("tiny", device="cpu"), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    method = longer_prompts(methods.build("mmrl", vlm, ["dog", "cat"]), 10)  # far above LayerNorm's eps
    images = torch.randn(3, 3, vlm.image_size, vlm.image_size, generator=random)

    def look():
        sites = [f"image.{site}[6:]" for site in ("resid.pre", "attn.q", "attn.k", "attn.probs")]
        return capture(method, images, sites, progress=False)

    def numbers(a):
        q, k = a["image.attn.q"], a["image.attn.k"]
        return [
            measures.key_norms(k),
            measures.key_cosines(q, k),
            measures.key_logits(q, k),
            measures.mass(a["image.attn.probs"], "cls"),
        ]

    short = look()
    longer_prompts(method, 10)
    long = look()
    norms = [measures.norm_by_role(a["image.resid.pre"]) for a in (short, long)]
    assert np.allclose((norms[1] / norms[0]).sel(role="prompt"), 10, rtol=1e-4)
    for before, after in zip(numbers(short), numbers(long)):
        assert np.abs(after - before).max() < 2e-3 * np.abs(before).max(), before.name
    with torch.no_grad():
        method.space.copy_(method.space.flip(1))
    turned = look()
    shift = [np.abs(a - b).sel(role="prompt").max() for a, b in zip(numbers(turned), numbers(long))]
    assert min(shift[0], shift[2]) > 0.1 and shift[1] > 0.02
