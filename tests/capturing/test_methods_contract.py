"""The contract of test_families.py for the towers of every method."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import vlmlab
from vlmlab import methods
from vlmlab.capturing.module_tower import towers_of
from vlmlab.capturing.sites import SITES, names

KERNEL = F.scaled_dot_product_attention
REP = {"first_block": 3, "tokens": 2, "rep_dim": 8}
SMALL = {
    "mmrl": REP,
    "mmrlpp": REP,
    "aligned_norm": REP,
    "maple": {"depth": 3},
    "promptsrc": {"depth": 3},
    "hicropl": {"tokens": 3, "depth": 4, "cross_layer": 2},
    "lafter": {"tokens": 2},
    "lafter_nga": {"stages": "2-3,4", "tokens": 2, "placement": "append"},
}


NO_TEXT = {"linear_probe": "LinearProbe", "lafter": "LaFTer", "lafter_nga": "LaFTerNGA"}


@pytest.mark.parametrize("kind", ["image", "text"])
@pytest.mark.parametrize("name", methods.names())
def test_every_site_of_every_method(vlm, images, hooks_left, name, kind):
    torch.manual_seed(1)
    method = methods.build(name, vlm, ["cat", "big dog", "bird house"], **SMALL.get(name, {})).eval()
    if kind == "text" and name in NO_TEXT:
        with pytest.raises(
            ValueError, match=f"^{NO_TEXT[name]} does not run the text tower: it has no text sites"
        ):
            vlmlab.capture(method, None, "text.*", progress=False)
        return
    data = images if kind == "image" else None
    with torch.no_grad():

        def output():
            return method.encode_image(images) if kind == "image" else {"eos": method.class_features()}

        before = {k: v.clone() for k, v in output().items() if v is not None}
        record = vlmlab.capture(method, data, f"{kind}.*", progress=False)
        after = output()
    assert list(record.data_vars) == names({kind: towers_of(method)[kind]})
    assert record.attrs["difference"] < 2e-6 and record.attrs["method"] == type(method).__name__
    for place, (branch, x) in enumerate(before.items()):
        assert torch.equal(x, after[branch])
        assert np.abs(record[f"{kind}.final"].values[:, place] - x.numpy()).max() < 2e-6 * x.abs().max()
    for site in record.data_vars:
        layers = () if site.split(".", 1)[1] in ("embed", "final") else ("layer",)
        assert record[site].dims == (*layers, "sample", *SITES[site.split(".", 1)[1]])
    x = record[f"{kind}.resid.post"]
    roles = set(x["role"].values.ravel().tolist())
    assert roles <= {"cls", "patch", "prompt", "sos", "word", "eos", "pad"}
    at_the_end = x.sel(layer=4)
    assert np.isfinite(at_the_end.values[..., 0, :]).all()
    assert not hooks_left(vlm) and F.scaled_dot_product_attention is KERNEL
