"""What a record says of itself, and what a call does when it is told no more than it must be."""

import importlib
import inspect
import re

import numpy as np
import pytest
import torch
from capture_model import small_vlm
from family_models import timm_model
from stored import Images

import vlmlab
from vlmlab import capture, methods
from vlmlab.capturing.capture import TOLERANCE, compare
from vlmlab.capturing.record import spans
from vlmlab.models.load import load

TEXTS = ["a cat", "a photo of a very big dog", "two birds"]
module = importlib.import_module("vlmlab.capturing.capture")


def grab(model, data, sites, **options):
    return capture(model, data, sites, progress=False, **options)


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    return timm_model().eval().requires_grad_(False)


# --- attributes ---------------------------------------------------------------------------------


def test_a_record_says_what_it_was_taken_from(vlm, mmrlpp, images, tower):
    import open_clip

    sites = ["image.resid.post[2:4]", "image.final"]
    method = {"model": "small", "method": "MMRLpp", "config": str(mmrlpp.config)}
    for model, data, expected in (
        (vlm, images, {"model": "small", "tower": "image", "method": "", "grid": [4, 4]}),
        (mmrlpp, images, {**method, "tower": "image", "grid": [4, 4]}),
        (tower, images, {"model": "VisionTransformer", "tower": "image", "method": "", "grid": [4, 4]}),
        (vlm, TEXTS, {"model": "small", "tower": "text", "method": ""}),
        (mmrlpp, None, {**method, "tower": "text"}),
    ):
        wanted = sites if data is images else [s.replace("image", "text") for s in sites]
        attrs = dict(grab(model, data, wanted).attrs)
        assert 0 <= attrs.pop("difference") < 2e-6
        assert attrs == expected | {
            "sites": f"{expected['tower']}.resid.post[2,3] {expected['tower']}.final",
            "precision": "fp32",
            "torch": torch.__version__,
            "open_clip": open_clip.__version__,
            "vlmlab": vlmlab.__version__,
        }


def test_gradients_say_it_too(vlm, mmrlpp, images, tower):
    def total(z):
        return (z["cls"] if isinstance(z, dict) else z).sum(dim=1)

    for model, each in ((vlm, False), (vlm, True), (mmrlpp, False), (tower, False)):
        attrs = capture.attention_grads(model, images, total, each_layer=each).attrs
        name = "VisionTransformer" if model is tower else "small"
        assert (attrs["model"], attrs["tower"], attrs["each_layer"]) == (name, "image", str(each))
        assert attrs["grid"] == [4, 4] and attrs["method"] == ("MMRLpp" if model is mmrlpp else "")
    with pytest.raises(ValueError, match="MMRLpp has a read-out of its own"):
        capture.attention_grads(mmrlpp, images, total, each_layer=True)


@pytest.mark.parametrize("precision", ["amp_bf16", "amp_fp16"])
def test_a_model_runs_in_its_precision(images, precision):
    torch.manual_seed(0)
    model = load(small_vlm().clip, tokenizer=small_vlm().tokenizer, precision=precision, device="cpu")
    record = grab(model, images, ["image.attn.q", "image.final"])
    assert record.attrs["precision"] == precision
    kind = torch.bfloat16 if precision == "amp_bf16" else torch.float16
    x = record["image.attn.q"].values
    assert np.array_equal(x, torch.from_numpy(x).to(kind).float().numpy())


def test_a_module_in_two_precisions_is_as_coarse_as_its_coarsest(images):
    model = timm_model().eval().requires_grad_(False)
    for block, kind in zip(model.blocks[1:], (torch.float16, torch.bfloat16)):
        plain = block.to(kind).forward
        block.forward = lambda x, plain=plain, kind=kind, **more: plain(x.to(kind), **more).float()
    assert grab(model, images, "image.resid.post").attrs["precision"] == "amp_bf16"


def test_class_prompts_are_numbered(mmrlpp):
    class Split:
        classnames = tuple(mmrlpp.classnames)

    record = grab(mmrlpp, None, "text.final")
    assert record["label"].values.tolist() == [0, 1, 2]
    assert grab(mmrlpp, Split(), "text.final").identical(record)
    Split.classnames = ("cat", "dog")
    for data, options in ((Split(), {}), (None, {"limit": 2}), (["cat"], {})):
        with pytest.raises(ValueError, match="runs its own class prompts: pass data=None and no limit"):
            grab(mmrlpp, data, "text.final", **options)


def test_damaged_weights_of_a_vlm_are_named(images):
    vlm = small_vlm()
    with torch.no_grad():
        vlm.clip.visual.proj[0, 0] = torch.nan
    with pytest.raises(
        ValueError,
        match=r"the output 'cls' of the image tower holds NaN or infinity: the weight .*visual\.proj does",
    ):
        grab(vlm, images, "image.resid.post")  # fmt: skip


def test_an_overflow_in_float32_is_no_fault_of_the_weights(images):
    model = timm_model().eval().requires_grad_(False)
    model.blocks[2].attn.proj.bias[0] = 3e38
    model.blocks[2].mlp.fc2.bias[0] = 3e38
    message = (
        r"image\.resid\.post\[3\] holds NaN or infinity: its weights do not, so it comes about in the model"
    )
    with pytest.raises(ValueError, match=message):
        grab(model, images, "image.resid.post[2:]")
    model.pos_embed[0, 0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"image\.embed holds NaN or infinity: the weight pos_embed does"):
        grab(model, images, "image.embed")


# --- axes and panel -----------------------------------------------------------------------------


def test_sites_with_reducers_of_their_own_have_tokens_of_their_own(vlm, images):
    keep = {"*.pre": capture.roles("patch"), "*.mid": capture.roles("cls"), "*.post": capture.roles("cls")}
    record = grab(vlm, images, ["image.resid.*", "image.attn.out[-1]"], keep=keep)
    assert [record[f"image.resid.{s}"].sizes["token"] for s in ("pre", "mid", "post")] == [16, 1, 1]
    assert record["image.attn.out"].sizes["token"] == 17 and record["image.attn.out"]["layer"].values == [4]
    one = record[["image.resid.mid", "image.resid.post"]]
    assert isinstance(one, type(record)) and list(one.data_vars) == ["image.resid.mid", "image.resid.post"]
    assert all(record[s].notnull().all() for s in record.data_vars)


def test_texts_in_small_batches_keep_the_roles_of_each(vlm, images):
    for keep in (capture.roles("eos", "word"), capture.mean("word", "eos"), None):
        one, all_ = (grab(vlm, TEXTS, "text.resid.post", keep=keep, batch_size=n) for n in (1, 3))
        assert np.allclose(one["text.resid.post"], all_["text.resid.post"], atol=1e-5, equal_nan=True)
        assert one["role"].equals(all_["role"]) and one["index"].equals(all_["index"])
    mean = grab(vlm, TEXTS, "text.resid.post", keep=capture.mean("word", "eos"))
    assert mean["index"].values.tolist() == [0, 0]
    eos = grab(vlm, TEXTS, "text.resid.post", keep=capture.roles("eos", "word"))
    assert eos["index"].values.tolist() == [0, *range(8)]


def test_a_mean_of_tokens_that_come_later_is_nan_before(mmrlpp, images):
    full = grab(mmrlpp, images, "image.resid.post")["image.resid.post"]
    x = grab(mmrlpp, images, "image.resid.post", keep=capture.mean("prompt"))["image.resid.post"]
    assert x.sizes["token"] == 1 and x.sel(layer=[1, 2]).isnull().all()
    expected = full.isel(token=[1, 2]).sel(layer=[3, 4]).mean("token")
    assert np.allclose(x.sel(layer=[3, 4]).isel(token=0), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("blocks", "text"),
    [([1, 2, 3], "1 to 3"), ([3, 4], "3 to 4"), ([5], "5"), ([1, 3], "1, 3"), ([2, 3, 5], "2, 3, 5"), ([4, 3], "4, 3")],
)  # fmt: skip
def test_blocks_in_words(blocks, text):
    assert spans(np.array(blocks)) == text


def rows_of(record):
    """The cells of the table that a notebook shows."""
    lines = re.findall(r"<tr>(.*?)</tr>", record._repr_html_(), re.S)
    return [[re.sub(r"<.*?>", "", c) for c in re.findall(r"<t[dh].*?</t[dh]>", line, re.S)] for line in lines]


def test_a_record_shows_its_sites(vlm, images):
    record = grab(
        vlm, images, ["image.resid.post", "image.attn.probs[1,3]".replace("1,3", "::2"), "image.final"]
    )
    rows = {row[0]: row[1:4] for row in rows_of(record) if row}
    assert rows["image.resid.post"] == [
        "4 layer × 5 sample × 17 token × 64 feature",
        "1 to 4",
        "cls 1, patch 16",
    ]
    probs = ["2 layer × 5 sample × 2 head × 17 query × 17 token", "1, 3", "cls 1, patch 16"]
    assert rows["image.attn.probs"] == probs
    assert rows["image.final"] == ["5 sample × 1 branch × 32 joint", "–", "–"]
    assert repr(record).startswith("Record(3 sites of 5 samples, ") and "xr-wrap" in record._repr_html_()
    words = {row[0]: row[1:4] for row in rows_of(grab(vlm, TEXTS, "text.embed")) if row}
    assert words["text.embed"] == ["3 sample × 9 token × 64 feature", "–", "eos, pad, sos, word"]


# --- reducers of one's own ----------------------------------------------------------------------


def test_what_functions_return(vlm, images):
    full = grab(vlm, images, "image.resid.post[1]")["image.resid.post"].values[0]
    one = grab(vlm, images, "image.resid.post[1]", keep=lambda x, t: x.mean(dim=(1, 2)))["image.resid.post"]
    assert one.dims == ("layer", "sample") and np.allclose(one[0], full.mean(axis=(1, 2)), atol=1e-6)
    same = grab(vlm, images, "image.resid.post[1]", keep=lambda x, t: 2 * x)["image.resid.post"]
    assert same.dims == ("layer", "sample", "token", "feature") and np.array_equal(same[0], 2 * full)

    def some(x, table):
        return x[:, :3]

    some.dims = ("token", "feature")
    for keep, message in (
        (lambda x, t: 3.0, r"returned float; a tensor with the 5 samples first"),
        (lambda x, t: x[:3], r"returned \(3, 17, 64\); a tensor with the 5 samples"),
        (lambda x, t: x.sum(), r"returned \(\); a tensor with the 5 samples"),
        (some, r"names axes \('sample', 'token', 'feature'\) for a result of shape \(5, 3, 64\)"),
    ):
        with pytest.raises(ValueError, match=message):
            grab(vlm, images, "image.resid.post", keep=keep)

    def changing(x, table):
        return x if table.layer > 1 else x[:, 0]

    with pytest.raises(ValueError, match="returned other axes in other layers"):
        grab(vlm, images, "image.resid.post", keep=changing)


# --- defaults and limits ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-5), ("amp_bf16", 2e-2), ("amp_fp16", 2e-3)])
def test_how_far_an_output_may_move(precision, most, size):
    assert set(TOLERANCE) == set(vlmlab.precision.PRECISIONS)
    plain = {"cls": size * torch.tensor([[1.0, -0.5]], dtype=torch.float64), "prompt": torch.zeros(1, 2)}
    for share, fits in ((0.0, True), (0.9, True), (1.1, False)):
        moved = {**plain, "cls": plain["cls"] + size * share * most}
        if fits:
            assert compare(plain, moved, precision) == pytest.approx(share * most, rel=1e-6)
            continue
        with pytest.raises(
            ValueError, match=f"by {1.1 * most:.1e} of its largest entry, more than {most:.0e}"
        ):
            compare(plain, moved, precision)


def test_a_record_of_two_gigabytes_is_the_most_in_memory(vlm, monkeypatch):
    monkeypatch.setattr(vlm, "preprocess", lambda x: x)
    samples = 2**31 // (4 * 17 * 64 * 4) + 1  # float32 of all tokens behind four blocks

    class Many(Images):
        """Read as far as the first batch."""

        def __init__(self):
            super().__init__(1)
            self.ids, self.labels = range(samples), np.zeros(samples, int)

        def image(self, i):
            assert i < 2, "nothing behind the first batch is read"
            return super().image(i)

    with pytest.raises(ValueError, match=r"would take 2,048\.\d MiB .* above the budget of 2,048\.0 MiB"):
        grab(vlm, Many(), "image.resid.post", batch_size=2)


def test_a_budget_is_enough_to_the_byte(vlm, images):
    size = 5 * 17 * 64 * 4 + 5 * 32 * 4
    sites = ["image.embed", "image.final"]
    assert grab(vlm, images, sites, budget=size)["image.embed"].nbytes == 5 * 17 * 64 * 4
    with pytest.raises(ValueError, match="above the budget"):
        grab(vlm, images, sites, budget=size - 1)


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"batch_size": 2.5}, {"limit": 0}, {"limit": -1}, {"batch_size": -1}]
)
def test_batches_and_limits_are_at_least_one(vlm, images, options):
    with pytest.raises(ValueError, match=r"batch_size .* and limit .* must be at least 1"):
        grab(vlm, images, "image.final", **options)
    assert grab(vlm, images, "image.final", batch_size=1, limit=1)["id"].values.tolist() == ["0"]


@pytest.mark.parametrize("out", [False, True])
def test_progress_counts_samples(vlm, images, monkeypatch, tmp_path, out):
    """A bar that appears after a second and goes when all is done; by default it is shown."""
    bars, real = [], module.progress_bar

    def bar(**options):
        made = real(**{**options, "shown": False})
        made.update = lambda n: bars[-1][1].append(n)
        bars.append((options, []))
        return made

    monkeypatch.setattr(module, "progress_bar", bar)
    monkeypatch.setattr(vlm, "preprocess", lambda x: x)
    where = {"out": tmp_path} if out else {}
    capture(vlm, images, "image.final", batch_size=2, **where)
    options, counted = bars[0]
    assert options == {
        "total": 5,
        "desc": "capture",
        "unit": "image",
        "shown": True,
        "leave": False,
        "delay": 1,
    }
    assert counted == [2, 2, 1]
    grab(vlm, images[:2], "image.final")
    assert bars[1][0]["shown"] is False and bars[1][0]["total"] == 2


def test_a_call_is_one_process_with_batches_of_64(tmp_path, vlm, images):
    grab(vlm, images, "image.final", out=tmp_path)
    assert '"batch_size": 64,' in (tmp_path / "record.json").read_text()
    assert inspect.signature(capture).parameters["part"].default == (1, 1)


def test_an_edit_rests_while_the_labels_are_checked(vlm, images):
    """Patches without any image in them would be refused as patches."""
    alike = {"image.resid.pre[2]": capture.ablate("patch", values="zero")}
    for sites in (alike, {"image.resid.post[1]": alike["image.resid.pre[2]"]}):
        with capture.edit(vlm, sites):
            record = grab(vlm, images, "image.resid.pre")["image.resid.pre"]
        assert not record.sel(layer=2).isel(token=slice(1, None)).any()


def test_every_verb_takes_a_method_and_its_class_names(vlm):
    method = methods.build("zero_shot", vlm, ["cat", "dog"]).eval()
    assert grab(method, None, "text.final")["id"].values.tolist() == ["cat", "dog"]
    assert [k for k in grab(method, torch.randn(2, 3, 32, 32), "image.final")["branch"].values] == ["cls"]
