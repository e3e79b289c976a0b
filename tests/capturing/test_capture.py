import inspect

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import xarray as xr

from vlmlab import capture, methods
from vlmlab.capturing.sites import SITES

TEXTS = ["a cat", "a photo of a very big dog", "two birds"]
KERNEL = F.scaled_dot_product_attention
OWN_SITES = [site for site in SITES if not site.startswith("cross.")]  # a CLIP has no cross-attention
WIDTHS = {"feature": 64, "neuron": 256, "head_feature": 32, "head": 2, "joint": 32, "branch": 1, "layer": 4}


def grab(model, data, sites, **options):
    return capture(model, data, sites, progress=False, **options)


class Pictures:
    """A split with the parts that capture reads."""

    def __init__(self, pixels):
        self.pixels, self.labels = pixels, np.array([0, 0, 1, 1, 2])
        self.ids = [f"picture-{i}" for i in range(len(pixels))]

    def __len__(self):
        return len(self.ids)

    def image(self, i):
        return self.pixels[i]


@pytest.fixture
def split(vlm, images, monkeypatch):
    monkeypatch.setattr(vlm, "preprocess", lambda picture: picture)
    return Pictures(images)


# --- every site ---------------------------------------------------------------------------------


@pytest.mark.parametrize("site", OWN_SITES)
@pytest.mark.parametrize("tower", ["image", "text"])
def test_every_site_is_hit_and_shaped(vlm, images, tower, site):
    data, n = (images, 5) if tower == "image" else (TEXTS, 3)
    x = grab(vlm, data, f"{tower}.{site}", batch_size=2)[f"{tower}.{site}"]
    tokens = 17 if tower == "image" else 9  # the longest text has 7 words
    sizes = WIDTHS | {"sample": n, "token": tokens, "query": tokens}
    expected = (*(["layer"] if site not in ("embed", "final") else []), "sample", *SITES[site])
    assert x.dims == expected
    assert x.shape == tuple(sizes[d] for d in expected)
    assert x.notnull().all()


@pytest.mark.parametrize(("tower", "data"), [("image", None), ("text", TEXTS)])
def test_sites_add_up_to_the_block(vlm, images, tower, data):
    acts = grab(vlm, images if data is None else data, f"{tower}.*")
    site = {name: acts[f"{tower}.{name}"].values for name in OWN_SITES}
    assert np.array_equal(site["embed"], site["resid.pre"][0])
    assert np.array_equal(site["resid.post"][:-1], site["resid.pre"][1:])
    assert np.abs(site["resid.pre"] + site["attn.out"] - site["resid.mid"]).max() < 1e-5
    assert np.abs(site["resid.mid"] + site["mlp.out"] - site["resid.post"]).max() < 1e-5
    assert np.abs(site["attn.probs"] @ site["attn.v"] - site["attn.z"]).max() < 1e-5
    scores = site["attn.q"] @ site["attn.k"].swapaxes(-1, -2) / np.sqrt(32)
    if tower == "image":
        weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        assert np.abs(weights - site["attn.probs"]).max() < 1e-6
    # heads side by side through the output projection are what attention adds
    out = getattr(vlm, tower).blocks[3].attn.out_proj
    z = torch.tensor(site["attn.z"][3]).transpose(1, 2).flatten(2)
    assert (out(z) - torch.tensor(site["attn.out"][3])).abs().max() < 1e-5


def test_attention_rows_sum_to_one_and_text_is_causal(vlm, images):
    image = grab(vlm, images, "image.attn.probs")["image.attn.probs"]
    text = grab(vlm, TEXTS, "text.attn.probs")["text.attn.probs"]
    for p in (image, text):
        assert np.abs(p.sum("token") - 1).max() < 1e-6
    assert np.abs(np.triu(text.values, 1)).max() == 0


def test_probabilities_equal_need_weights(vlm, images):
    acts = grab(vlm, images, ["image.attn.probs", "image.resid.pre"])
    for layer, block in enumerate(vlm.image.blocks):
        x = block.ln_1(torch.tensor(acts["image.resid.pre"].values[layer]))
        with torch.no_grad():
            _, weights = block.attn(x, x, x, average_attn_weights=False)
        assert np.abs(weights.numpy() - acts["image.attn.probs"].values[layer]).max() < 1e-6


# --- nothing is disturbed -----------------------------------------------------------------------


def test_output_is_unchanged_and_hooks_are_gone(vlm, images, hooks_left):
    before = vlm.encode_image(images)
    acts = grab(vlm, images, "image.*")
    assert np.abs(acts["image.final"].sel(branch="cls").values - before.numpy()).max() < 2e-6
    assert acts.attrs["difference"] < 2e-6
    assert torch.equal(vlm.encode_image(images), before)
    assert not hooks_left(vlm) and F.scaled_dot_product_attention is KERNEL and vlm.image.shortcuts


def test_text_output_does_not_depend_on_batch_or_capture(vlm):
    one = grab(vlm, TEXTS, ["text.resid.post", "text.final"], batch_size=1)
    all_ = grab(vlm, TEXTS, ["text.resid.post", "text.final"], batch_size=3)
    assert np.abs(one["text.resid.post"] - all_["text.resid.post"]).max() < 1e-5
    assert np.abs(all_["text.final"].values[:, 0] - vlm.encode_text(TEXTS).numpy()).max() < 2e-6


def test_hooks_are_gone_after_an_exception(vlm, images, hooks_left):
    def broken(x, table):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        grab(vlm, images, ["image.resid.post", "image.attn.probs"], keep=broken)
    assert not hooks_left(vlm) and F.scaled_dot_product_attention is KERNEL and vlm.image.shortcuts
    grab(vlm, images, "image.attn.probs")  # the tap is free again


def test_a_model_whose_output_changes_is_refused(vlm, images, monkeypatch):
    noise = iter(range(100))
    monkeypatch.setattr(vlm, "encode_image", lambda x: vlm.image(x) + 0.01 * next(noise))
    with pytest.raises(ValueError, match="changed the model's output"):
        grab(vlm, images, "image.resid.post")


def test_kept_values_do_not_follow_later_changes_in_place(vlm, images):
    kept = []

    def remember(x, table):
        kept.append(x)
        return x

    acts = grab(vlm, images, "image.resid.post[2]", keep=remember, batch_size=5)
    old = acts["image.resid.post"].values.copy()
    kept[-1].zero_()
    assert np.array_equal(acts["image.resid.post"].values, old)


# --- labels -------------------------------------------------------------------------------------


def test_tokens_that_appear_mid_network_are_nan_before(mmrlpp, vlm, images):
    acts = grab(mmrlpp, images, ["image.embed", "image.resid.*", "image.attn.probs"])
    x = acts["image.resid.pre"]
    assert x["role"].values.tolist() == ["cls"] + ["prompt"] * 2 + ["patch"] * 16
    assert x["index"].values.tolist() == [0, 0, 1, *range(16)]
    prompt, rest = x.isel(token=x["role"] == "prompt"), x.isel(token=x["role"] != "prompt")
    assert prompt.sel(layer=[1, 2]).isnull().all() and prompt.sel(layer=[3, 4]).notnull().all()
    assert rest.notnull().all() and acts["image.embed"].isel(token=1).isnull().all()
    plain = grab(vlm, images, "image.resid.pre")["image.resid.pre"]
    assert np.abs(rest.sel(layer=[1, 2, 3]) - plain.sel(layer=[1, 2, 3])).max() < 1e-5  # aligned by label
    assert np.ptp(prompt.sel(layer=3).values, axis=0).max() == 0  # inserted: equal for all images
    p = acts["image.attn.probs"]
    assert np.isnan(p.sel(layer=1).isel(query=1)).all() and np.isnan(p.sel(layer=1).isel(token=1)).all()
    assert np.abs(p.sel(layer=1).isel(query=0).sum("token") - 1).max() < 1e-6


def test_method_branches_and_text_prompts(mmrlpp, images):
    z = mmrlpp.encode_image(images)
    final = grab(mmrlpp, images, "image.final")["image.final"]
    for branch in ("cls", "prompt"):
        assert np.abs(final.sel(branch=branch).values - z[branch].detach().numpy()).max() < 2e-6
    acts = grab(mmrlpp, None, ["text.resid.pre", "text.final"])
    assert np.abs(acts["text.final"].values[:, 0] - mmrlpp.class_features().detach().numpy()).max() < 2e-6
    x = acts["text.resid.pre"]
    assert x["id"].values.tolist() == ["cat", "big dog", "bird house"]
    assert [r.tolist().count("eos") for r in x["role"].values] == [1, 1, 1]
    assert x["role"].values[0].tolist() == ["sos"] + ["prompt"] * 2 + ["word"] * 6 + ["eos", "pad"]
    assert x.sel(layer=2).isel(token=1).isnull().all() and x.sel(layer=3).notnull().all()
    prompts = x.sel(layer=4).isel(token=[1, 2]).values
    assert np.ptp(prompts, axis=0).max() < 1e-6  # causal: prompts see only SOS, so all classes agree


def test_cached_blocks_of_a_method_are_captured_too(mmrlpp):
    with torch.no_grad():
        mmrlpp.current_class_features()  # fills the cache of the blocks before the first edit
    first = grab(mmrlpp, None, "text.resid.post[1]")["text.resid.post"]
    assert first.notnull().all()


def test_samples_carry_ids_labels_and_a_spread_limit(vlm, split, images):
    acts = grab(vlm, split, "image.final", limit=3, batch_size=2)
    assert acts["id"].values.tolist() == ["picture-0", "picture-2", "picture-4"]
    assert acts["label"].values.tolist() == [0, 1, 2]
    assert np.abs(acts["image.final"].values[:, 0] - vlm.encode_image(images[::2]).numpy()).max() < 2e-6


def test_the_record_is_a_dataset_and_survives_selection(vlm, images, tmp_path):
    acts = grab(
        vlm,
        images,
        ["image.resid.post", "image.attn.probs"],
        keep={"*.resid.*": capture.roles("cls"), "*.probs": capture.cls_row},
    )
    assert isinstance(acts, xr.Dataset)
    probs = acts.isel(sample=[1, 2])["image.attn.probs"]  # its tokens are not those of the other site
    assert probs.dims == ("layer", "sample", "head", "token") and probs.sizes["token"] == 17
    assert probs["role"].values[0] == "cls" and probs.sizes["sample"] == 2
    assert acts["image.resid.post"].sizes["token"] == 1
    assert acts["image.resid.post"].sel(layer=4).dims == ("sample", "token", "feature")
    assert "image.attn.probs" in repr(acts) and len(acts.attrs["sites"].split()) == 2


def test_sites_with_different_layers(vlm, images):
    acts = grab(vlm, images, ["image.resid.post", "image.attn.out[-2:]", "image.mlp.out[-2:]"])
    assert acts["image.resid.post"]["layer"].values.tolist() == [1, 2, 3, 4]
    assert acts["image.attn.out"]["layer"].values.tolist() == [3, 4]
    assert acts["image.attn.out"].notnull().all() and acts["image.mlp.out"].sizes["layer"] == 2


# --- reducers -----------------------------------------------------------------------------------


def test_reducers_equal_the_same_on_the_full_record(mmrlpp, images):
    full = grab(mmrlpp, images, ["image.resid.post", "image.attn.probs"])
    x, p = full["image.resid.post"], full["image.attn.probs"]
    norms = grab(mmrlpp, images, "image.resid.post", keep=capture.norms)["image.resid.post"]
    assert norms.dims == ("layer", "sample", "token")
    assert np.allclose(norms, np.linalg.norm(x, axis=-1), rtol=1e-5, equal_nan=True)
    some = grab(mmrlpp, images, ["image.resid.post", "image.attn.probs"], keep=capture.roles("prompt", "cls"))
    assert some["image.resid.post"]["role"].values.tolist() == ["prompt", "prompt", "cls"]
    assert np.array_equal(some["image.resid.post"], x.isel(token=[1, 2, 0]), equal_nan=True)
    assert np.array_equal(some["image.attn.probs"], p.isel(query=[1, 2, 0]), equal_nan=True)
    assert some["image.attn.probs"]["query_role"].values.tolist() == ["prompt", "prompt", "cls"]
    row = grab(mmrlpp, images, "image.attn.probs", keep=capture.cls_row)["image.attn.probs"]
    assert np.array_equal(row, p.isel(query=0), equal_nan=True)
    own = grab(mmrlpp, images, "image.attn.probs", keep=capture.row("prompt"))["image.attn.probs"]
    assert np.array_equal(own, p.isel(query=1), equal_nan=True)
    mean = grab(mmrlpp, images, "image.resid.post", keep=capture.mean("patch", "prompt"))["image.resid.post"]
    assert mean["role"].values.tolist() == ["patch", "prompt"]
    assert np.allclose(mean.isel(token=0), x.isel(token=slice(3, None)).mean("token"), atol=1e-6)
    assert mean.isel(token=1).sel(layer=[1, 2]).isnull().all()


def test_text_reducers_follow_eos(vlm):
    full = grab(vlm, TEXTS, ["text.resid.post", "text.attn.probs"])
    x, p = full["text.resid.post"], full["text.attn.probs"]
    ends = [r.tolist().index("eos") for r in x["role"].values]
    assert ends == [3, 8, 3]
    eos = grab(vlm, TEXTS, "text.resid.post", keep=capture.roles("eos", "word"))["text.resid.post"]
    assert eos["role"].values.tolist() == ["eos"] + ["word"] * 8
    row = grab(vlm, TEXTS, "text.attn.probs", keep=capture.row("eos"))["text.attn.probs"]
    for sample, end in enumerate(ends):
        assert np.allclose(eos.values[:, sample, 0], x.values[:, sample, end], atol=1e-5)
        words = eos.values[:, sample, 1:]
        assert np.allclose(words[:, : end - 1], x.values[:, sample, 1:end], atol=1e-5)
        assert np.isnan(words[:, end - 1 :]).all()
        assert np.array_equal(row.values[:, sample], p.values[:, sample, :, end])
    mean = grab(vlm, TEXTS, "text.resid.post", keep=capture.mean("word"))["text.resid.post"]
    assert np.allclose(mean.values[:, 0, 0], x.values[:, 0, 1:3].mean(1), atol=1e-6)


def test_own_functions_reduce_on_the_tensor(vlm, images):
    def first(x, table):
        return x[:, table.positions("cls")[0]]

    acts = grab(vlm, images, "image.resid.post", keep=first)
    assert acts["image.resid.post"].dims == ("layer", "sample", "axis_1")
    first.dims = ("feature",)
    named = grab(vlm, images, ["image.resid.post", "image.mlp.act"], keep={"image.resid.post": first})
    assert named["image.resid.post"].dims == ("layer", "sample", "feature")
    full = grab(vlm, images, "image.resid.post")["image.resid.post"]
    assert np.array_equal(named["image.resid.post"], full.isel(token=0))
    with pytest.raises(ValueError, match="5 samples"):
        grab(vlm, images, "image.resid.post", keep=lambda x, t: x.sum())
    first.dims = ("feature", "token")
    with pytest.raises(ValueError, match="names axes"):
        grab(vlm, images, "image.resid.post", keep=first)


def test_float16_record(vlm, images):
    site = "image.resid.post"
    exact, half = (grab(vlm, images, site, dtype=d)[site] for d in ("float32", "float16"))
    assert half.dtype == np.float16 and np.abs(half - exact).max() < 2e-3 * np.abs(exact).max()


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sites", "options", "message"),
    [
        ("image.resid.pots", {}, "it has image.embed"),
        (["image.final", "text.final"], {}, "once for each tower"),
        ("image.resid.post", {"keep": capture.roles("promt")}, "no token has role promt.*cls, patch"),
        (
            "image.resid.post",
            {"keep": {"image.attn.*": capture.norms}},
            "the sites asked for are image.resid",
        ),
        ("image.resid.post", {"keep": capture.cls_row}, "needs attention probabilities"),
        ("image.attn.probs", {"keep": capture.norms}, "norms are of feature vectors"),
        ("image.resid.post", {"budget": 1000}, r"5 samples would take 0.1 MiB .*budget of 0.0 MiB"),
        ("image.resid.post", {"dtype": "int8"}, "float16, float32 or float64"),
        ("image.resid.post", {"batch_size": 0}, "at least 1"),
        ("text.resid.post", {}, "list of texts"),
    ],
)
def test_one_clear_error_each(vlm, images, sites, options, message, hooks_left):
    with pytest.raises(ValueError, match=message):
        grab(vlm, images, sites, **options)
    assert not hooks_left(vlm) and F.scaled_dot_product_attention is KERNEL


def test_nan_in_an_image_is_an_error_with_its_id(vlm, split):
    split.pixels = split.pixels.clone()
    split.pixels[3, 0, 5, 5] = torch.nan
    with pytest.raises(ValueError, match=r"1 images hold NaN.*picture-3"):
        grab(vlm, split, "image.resid.post", batch_size=2)


def test_training_mode_and_wrong_data(vlm, mmrlpp, images):
    with pytest.raises(
        ValueError,
        match=r"no file 'a cat'; image sites need a tensor .*a Split, PIL images.*a map-style dataset",
    ):
        grab(vlm, ["a cat"], "image.final")
    with pytest.raises(ValueError, match="own class prompts"):
        grab(mmrlpp, ["a cat"], "text.final")
    mmrlpp.train()
    try:
        with pytest.raises(ValueError, match=r"model.eval\(\)"):
            grab(mmrlpp, images, "image.final")
    finally:
        mmrlpp.eval()


def test_attention_outside_the_kernel_is_reported(vlm, images, monkeypatch):
    def eager(q_x, k_x=None, v_x=None, attn_mask=None):
        block = vlm.image.blocks[1]
        return block.attn(q_x, q_x, q_x, need_weights=True, attn_mask=attn_mask)[0]

    monkeypatch.setattr(vlm.image.blocks[1], "attention", eager)
    message = r"image.attn.probs was never hit in blocks \[2\].*eager.*fired: .*probs\[1,3,4\]"
    with pytest.raises(ValueError, match=message):
        grab(vlm, images, ["image.attn.probs", "image.resid.post"])


def test_a_tower_that_runs_twice_is_refused(vlm, images, monkeypatch):
    monkeypatch.setattr(vlm, "encode_image", lambda x: vlm.image(x) + vlm.image(x))
    with pytest.raises(RuntimeError, match="hit twice"):
        grab(vlm, images, "image.resid.post")


def test_capture_is_a_function_with_its_sisters_as_attributes():
    import vlmlab

    assert vlmlab.capture.roles("cls").name == "roles(cls)"
    assert inspect.isfunction(vlmlab.capture)
    assert list(inspect.signature(vlmlab.capture).parameters)[:4] == ["model", "data", "sites", "keep"]
    beside = (
        "roles row mean norms cls_row edit patch ablate attention_grads reader open_run check_layout SITES"
    )
    assert set(beside.split()) <= set(dir(vlmlab.capture))


# --- methods ------------------------------------------------------------------------------------

METHODS = {
    "zero_shot": {},
    "mmrlpp": {"first_block": 3},
    "aligned_norm": {"first_block": 2},
    "maple": {"depth": 3},
}


@pytest.mark.parametrize("name", METHODS)
def test_every_site_of_a_method_and_its_output_unchanged(vlm, images, name, hooks_left):
    torch.manual_seed(0)
    method = methods.build(name, vlm, ["cat", "big dog"], **METHODS[name]).eval()
    before = {k: z.detach() for k, z in method.encode_image(images).items() if z is not None}
    words = method.class_features().detach()
    image, text = grab(method, images, "image.*", batch_size=2), grab(method, None, "text.*")
    for acts, tower in ((image, "image"), (text, "text")):
        assert set(acts.data_vars) == {f"{tower}.{site}" for site in OWN_SITES}
        assert acts[f"{tower}.resid.post"].isel(token=0).notnull().all()
        assert acts[f"{tower}.attn.probs"].dims == ("layer", "sample", "head", "query", "token")
        assert acts.attrs["difference"] < 2e-6 and acts.attrs["method"] == type(method).__name__
    assert image["branch"].values.tolist() == list(before)
    for branch, z in before.items():
        assert np.abs(image["image.final"].sel(branch=branch).values - z.numpy()).max() < 2e-6
    assert np.abs(text["text.final"].values[:, 0] - words.numpy()).max() < 2e-6
    assert not hooks_left(method)


def test_a_method_without_a_text_tower_of_its_own(vlm):
    probe = methods.build("linear_probe", vlm, ["cat", "big dog"]).eval()
    with pytest.raises(ValueError, match="LinearProbe does not run the text tower"):
        grab(probe, None, "text.final")
