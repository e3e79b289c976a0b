import dataclasses
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from forked import Fork

import vlmlab
from vlmlab import capture
from vlmlab.capturing import store, store_parts
from vlmlab.capturing.store_key import describe

TEXTS = ["a cat", "a photo of a very big dog", "two birds"]
SITES = ["image.resid.post", "image.attn.probs[-1]", "image.final"]
KEEP = {"*.resid.*": capture.roles("cls"), "*.probs": capture.cls_row}


def grab(model, data, sites, **options):
    return capture(model, data, sites, progress=False, **options)


def files(folder):
    return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_record_on_disk_is_the_record_in_memory(vlm, mmrlpp, images, tmp_path, tower):
    data = images if tower == "image" else TEXTS
    for model, given, options in (
        (vlm, data, {"batch_size": 2}),
        (mmrlpp, data if tower == "image" else None, {}),
    ):
        folder = tmp_path / type(model).__name__
        memory = grab(model, given, f"{tower}.*", **options)
        disk = grab(model, given, f"{tower}.*", **options, out=folder)
        xr.testing.assert_identical(disk, memory)
        assert isinstance(disk, type(memory)) and list(disk.attrs) == list(memory.attrs)
        again = capture.open_run(folder)
        xr.testing.assert_identical(again, memory)
        name = f"{tower}.resid.post"
        assert isinstance(again.variables[name]._data, np.memmap)  # nothing is read until it is used
        assert np.array_equal(np.load(folder / f"{name}.npy"), memory[name], equal_nan=True)


def test_the_same_call_reopens_and_runs_nothing(vlm, images, tmp_path, monkeypatch):
    first = grab(vlm, images, SITES, keep=KEEP, out=tmp_path)
    before = files(tmp_path)
    monkeypatch.setattr(vlm, "encode_image", None)
    again = grab(vlm, images.clone(), SITES, keep=dict(KEEP), batch_size=3, out=tmp_path)
    xr.testing.assert_identical(again, first)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"sites": ["image.resid.post", "image.attn.probs", "image.final"]}, "sites"),
        ({"keep": {"*.resid.*": capture.roles("patch")}}, "keep: image.resid.post: roles.cls"),
        ({"dtype": "float16"}, "dtype: float32 there, float16 asked"),
        ({"limit": 3}, "data"),
        ({"data": "other"}, "data"),
        ({"weights": "other"}, "weights"),
        ({"model": "method"}, "method: none there, MMRLpp"),
    ],
)
def test_another_key_is_one_clear_error_and_loses_nothing(vlm, mmrlpp, images, tmp_path, change, part):
    grab(vlm, images, SITES, keep=KEEP, out=tmp_path)
    before, options = files(tmp_path), {"keep": KEEP, **change}
    sites, model = options.pop("sites", SITES), mmrlpp if options.pop("model", None) else vlm
    data = images + 1e-3 if options.pop("data", None) else images
    weight, other = vlm.clip.visual.proj, options.pop("weights", None)
    with torch.no_grad():
        weight.mul_(2 if other else 1)
    try:
        with pytest.raises(ValueError, match=f"record of another run .*{part}"):
            grab(model, data, sites, out=tmp_path, **options)
    finally:
        with torch.no_grad():
            weight.div_(2 if other else 1)
    assert files(tmp_path) == before


def test_trained_parameters_and_class_names_are_part_of_the_key(mmrlpp, images, tmp_path):
    grab(mmrlpp, images, "image.final", out=tmp_path)
    parameter = next(iter(mmrlpp.trainable().values()))
    with torch.no_grad():
        parameter.add_(0.5)
    try:
        with pytest.raises(ValueError, match=r"another run \(method"):
            grab(mmrlpp, images, "image.final", out=tmp_path)
    finally:
        with torch.no_grad():
            parameter.sub_(0.5)


# --- kills --------------------------------------------------------------------------------------

CHILD = """
import os, signal, sys
import torch, vlmlab
from vlmlab.capturing import store, store_parts
out, store.SYNC_EVERY = sys.argv[1], 0
vlm = vlmlab.load("tiny", device="cpu")
images = torch.randn(11, 3, 64, 64, generator=torch.Generator().manual_seed(0))
sync, calls = store.Store._sync, []
def killed(self):
    calls.append(self.todo)
    if len(calls) == 3:  # rows of the third batch are written, but not counted
        os.kill(os.getpid(), signal.SIGKILL)
    sync(self)
store.Store._sync = killed
vlmlab.capture(vlm, images, ["image.resid.post", "image.attn.probs[-1]", "image.final"],
               keep={"*.resid.*": vlmlab.capture.roles("cls"), "*.probs": vlmlab.capture.cls_row},
               batch_size=2, progress=False, out=out)
"""


def test_a_killed_run_goes_on_and_ends_bit_identical(tmp_path):
    cut = Fork(CHILD, tmp_path / "cut").finish()
    assert cut.returncode == -signal.SIGKILL, cut.stderr
    with pytest.warns(UserWarning, match="7 of 11 samples are missing, rows 4:11"):
        part = capture.open_run(tmp_path / "cut")
    assert part.sizes["sample"] == 4 and part["image.final"].notnull().all()
    vlm = vlmlab.load("tiny", device="cpu")
    images = torch.randn(11, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    ran, encode = [], vlm.encode_image
    vlm.encode_image = lambda x: ran.append(len(x)) or encode(x)
    # another batch size is asked for: the rest runs with that of the run that began
    resumed = grab(vlm, images, SITES, keep=KEEP, batch_size=5, out=tmp_path / "cut")
    assert ran == [4, 2, 2, 2, 2, 1]  # the layout check, the plain run, then only the four batches left
    whole = grab(vlm, images, SITES, out=tmp_path / "whole", keep=KEEP, batch_size=2)
    xr.testing.assert_identical(resumed, whole)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_a_run_that_ended_before_it_was_described_begins_again(vlm, images, tmp_path, monkeypatch):
    def interrupted(folder, info):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(store, "write_info", interrupted)
        grab(vlm, images, SITES, keep=KEEP, out=tmp_path)
    assert (tmp_path / "image.final.npy").exists() and not (tmp_path / "record.json").exists()
    disk = grab(vlm, images, SITES, keep=KEEP, out=tmp_path)
    xr.testing.assert_identical(disk, grab(vlm, images, SITES, keep=KEEP))


def test_text_goes_on_after_an_interruption(vlm, tmp_path, monkeypatch):
    texts = [*TEXTS, "five green apples on a table"]
    encode, calls = vlm.text.forward, []

    def interrupted(ids):
        calls.append(ids)
        if len(calls) == 4:  # the plain run, then one run for each batch
            raise KeyboardInterrupt
        return encode(ids)

    monkeypatch.setattr(vlm.text, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        grab(vlm, texts, "text.resid.post", batch_size=1, out=tmp_path)
    monkeypatch.undo()
    assert np.load(tmp_path / "done.npy").tolist() == [True, True, False, False]
    disk = grab(vlm, texts, "text.resid.post", batch_size=1, out=tmp_path)
    xr.testing.assert_identical(disk, grab(vlm, texts, "text.resid.post", batch_size=1))


# --- damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "keep_bytes", "message"),
    [
        ("image.resid.post.npy", 3000, "image.resid.post.npy is missing, damaged or truncated"),
        ("image.final.npy", 0, "image.final.npy is missing, damaged or truncated"),
        ("done.npy", 100, "done.npy is missing, damaged or truncated"),
        ("sample.id.npy", 100, "sample.id.npy is missing, damaged or truncated"),
        ("record.json", 40, "record.json is damaged"),
    ],
)
def test_a_truncated_file_is_one_clear_error(vlm, images, tmp_path, name, keep_bytes, message):
    grab(vlm, images, SITES, keep=KEEP, out=tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:keep_bytes])
    before = files(tmp_path)
    with pytest.raises(ValueError, match=f"{message}.*capture again"):
        capture.open_run(tmp_path)
    with pytest.raises(ValueError, match=f"{message}.*capture again"):
        grab(vlm, images, SITES, keep=KEEP, out=tmp_path)
    assert files(tmp_path) == before


def test_files_of_another_shape_and_folders_without_a_run(vlm, images, tmp_path):
    grab(vlm, images, "image.final", out=tmp_path / "run")
    np.save(tmp_path / "run" / "image.final.npy", np.zeros((5, 1, 31), np.float32))
    with pytest.raises(
        ValueError, match=r"holds float32 \(5, 1, 31\), record.json says float32 \(5, 1, 32\)"
    ):
        capture.open_run(tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="no captured run"):
        capture.open_run(tmp_path)


def test_edited_models_have_no_store(vlm, images, tmp_path):
    with (
        pytest.raises(ValueError, match="inside `edit` is not possible"),
        capture.edit(vlm, {"image.resid.post[1]": lambda x, table: 2 * x}),
    ):
        grab(vlm, images, "image.final", out=tmp_path)
    assert not list(tmp_path.iterdir())


# --- reducers in words --------------------------------------------------------------------------


def test_reducers_are_told_apart():
    def one(x, table):
        return x[:, 0]

    def two(x, table):
        return x[:, 1]

    two.__qualname__ = one.__qualname__
    assert describe(one) != describe(two) and describe(one) == describe(one)
    assert describe(None) == "all" and describe(capture.roles("cls")) == "roles(cls)"
    plain = describe(one)
    one.dims = ("feature",)
    assert describe(one) != plain
    place = 3

    def three(x, table):
        return x[:, place]

    with pytest.raises(ValueError, match=r"three\.description"):
        describe(three)
    three.description = "token 3"
    assert describe(three) == "token 3"


def test_the_budget_is_of_memory_not_of_the_disk(vlm, images, tmp_path):
    with pytest.raises(ValueError, match="write to disk with out="):
        grab(vlm, images, "image.resid.post", budget=1000)
    assert grab(vlm, images, "image.resid.post", budget=1000, out=tmp_path)["image.resid.post"].size


def test_a_record_among_runs_is_no_run(vlm, images, tmp_path):
    """Its file has a name of its own: what lists runs passes it by."""
    grab(vlm, images, SITES, keep=KEEP, out=tmp_path / "runs" / "norms")
    assert (tmp_path / "runs" / "norms" / "record.json").exists()
    assert not list((tmp_path / "runs").rglob("run.json"))
    assert vlmlab.results(tmp_path / "runs").empty


# --- what a record's files say of themselves ----------------------------------------------------


def npy(dtype=None, order="C", change=None):
    """Write an array file anew: another type, another order of bytes or axes, a changed header."""

    def damage(path):
        if change:
            data = path.read_bytes()
            assert change[0] in data[:128] and len(change[0]) == len(change[1])
            path.write_bytes(data.replace(*change, 1))
        else:
            np.save(path, np.asarray(np.load(path), dtype=dtype, order=order))

    return damage


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("image.resid.post.npy", npy(change=(b"'<f4'", b"'>f4'")), "another order of bytes or axes"),
        ("image.resid.post.npy", npy(">f4"), "another order of bytes or axes"),
        ("image.resid.post.npy", npy(order="F"), "another order of bytes or axes"),
        ("image.resid.post.npy", npy(change=(b"False, ", b"True , ")), "another order of bytes or axes"),
        ("image.resid.post.npy", npy("i4"), r"holds int32 .*, record\.json says float32"),
        ("image.final.npy", npy("f8"), r"holds float64 .*, record\.json says float32"),
        ("done.npy", npy("i1"), r"holds int8 \(5,\), record\.json says bool"),
        ("done.npy", lambda p: np.save(p, np.ones(3, bool)), r"holds bool \(3,\)"),
        ("sample.id.npy", lambda p: np.save(p, np.array(["a"])), r"expected \(5,\)"),
        ("sample.id.npy", lambda p: np.save(p, np.array(["a", 5], object), allow_pickle=True), "damaged"),
        ("sample.id.npy", lambda p: p.unlink(), "is missing"),
    ],
)
def test_a_file_in_another_order_or_type_is_refused_by_its_path(vlm, images, tmp_path, name, damage, message):
    grab(vlm, images, SITES, keep=KEEP, out=tmp_path)
    damage(tmp_path / name)
    for read in (
        lambda: capture.open_run(tmp_path),
        lambda: grab(vlm, images, SITES, keep=KEEP, out=tmp_path),
    ):
        with pytest.raises(ValueError, match=message) as error:
            read()
        assert str(tmp_path / name) in str(error.value) and "delete" not in str(error.value)


def put(*path):
    """A change of record.json: the last value at the path of the others."""

    def change(info):
        for key in path[:-2]:
            info = info[key]
        info[path[-2]] = path[-1]

    return change


COLUMN = ("columns", 0)
WRONG = {
    "no key": lambda info: info.pop("key"),
    "key 5": put("key", 5),
    "key of a number": put("key", "sites", 5),
    "no columns": lambda info: info.pop("columns"),
    "columns 5": put("columns", 5),
    "columns empty": put("columns", []),
    "columns of nothing": put("columns", [{}]),
    "samples x": put("samples", "x"),
    "samples 3": put("samples", 3),
    "batch_size 0": put("batch_size", 0),
    "batch_size true": put("batch_size", True),
    "no attrs": lambda info: info.pop("attrs"),
    "a grid of words": put("attrs", "grid", ["a", "b"]),
    "a grid of nothing": put("attrs", "grid", [0, 4]),
    "branches 5": put("branches", 5),
    "a coordinate that is a path": put("coords", ["../../x"]),
    "other dims": put(*COLUMN, "dims", ["a"]),
    "too few dims": put(*COLUMN, "dims", []),
    "other layers": put(*COLUMN, "layers", [1, 2, 3, 3]),
    "too few layers": put(*COLUMN, "layers", [1]),
    "no axes": put(*COLUMN, "axes", {}),
    "a name that is a path": put(*COLUMN, "name", "../x"),
    "an unknown site": put(*COLUMN, "name", "image.x"),
    "another shape": put(*COLUMN, "shape", [4, 5, 3]),
    "another dtype": put("dtype", "float16"),
    "an unknown dtype": put("dtype", "evil"),
    "format 99": put("format", 99),
    "tokens that repeat": put(*COLUMN, "axes", "token", "tokens", [["patch", 1]] * 17),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_record_json_that_contradicts_itself_or_its_files_is_refused(vlm, images, tmp_path, name):
    grab(vlm, images, SITES, keep=KEEP, out=tmp_path)
    path = tmp_path / "record.json"
    info = json.loads(path.read_text())
    WRONG[name](info)
    path.write_text(json.dumps(info))
    for read in (
        lambda: capture.open_run(tmp_path),
        lambda: grab(vlm, images, SITES, keep=KEEP, out=tmp_path),
    ):
        with pytest.raises(ValueError, match=r"another out= folder|of another run") as error:
            read()
        assert str(tmp_path) in str(error.value) and "delete" not in str(error.value)


@pytest.mark.parametrize("text", ["[]", "5", "", '{"format": 3', "[" * 5000, '{"format": null}'])
def test_a_record_json_that_is_none_is_refused(vlm, images, tmp_path, text):
    grab(vlm, images, "image.final", out=tmp_path)
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(ValueError, match=r"record\.json (is damaged|has format).*another out= folder"):
        capture.open_run(tmp_path)


def test_roles_that_are_no_roles_are_refused(vlm, tmp_path):
    grab(vlm, TEXTS, "text.embed", out=tmp_path)
    np.save(tmp_path / "roles.npy", np.full_like(np.load(tmp_path / "roles.npy"), 7))
    with pytest.raises(ValueError, match=r"roles\.npy holds uint8 .* below 3"):
        capture.open_run(tmp_path)


def test_a_trained_run_takes_no_record(vlm, images, tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="is the folder of a trained run; name another") as error:
        grab(vlm, images, SITES, keep=KEEP, out=tmp_path)
    assert "delete" not in str(error.value) and [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_grid_is_kept_with_the_record(tmp_path):
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(img_size=(16, 40), patch_size=8, embed_dim=32, depth=1, num_heads=4).eval()
    grab(model, torch.randn(3, 3, 16, 40), "image.resid.post", keep=None, out=tmp_path)
    x = capture.open_run(tmp_path)["image.resid.post"]
    assert x["row"].values.tolist() == [-1] + [i // 5 for i in range(10)]


def test_one_process_needs_no_file_locks(vlm, images, tmp_path, monkeypatch):
    """As on Windows: neither fcntl nor pwrite."""
    whole = grab(vlm, images, SITES, keep=KEEP, out=tmp_path / "whole")
    monkeypatch.setattr(store_parts, "fcntl", None)
    for name in ("pwrite", "posix_fallocate"):
        monkeypatch.delattr(os, name)
    xr.testing.assert_identical(grab(vlm, images, SITES, keep=KEEP, out=tmp_path / "run"), whole)
    with pytest.raises(ValueError, match="needs file locks, which this system has not"):
        grab(vlm, images, SITES, keep=KEEP, out=tmp_path / "parts", part=(1, 2))


# --- what a key holds: change it, and the record is another -------------------------------------


def test_every_part_of_a_key_tells_records_apart(vlm, mmrlpp, images, tmp_path, monkeypatch):
    grab(mmrlpp, images, "image.final", out=tmp_path)
    config = mmrlpp.config
    for change in ({"token_mix": 0.1}, {"prompt_weight": 0.123}):
        monkeypatch.setattr(mmrlpp, "config", dataclasses.replace(config, **change))
        with pytest.raises(ValueError, match=r"holds the record of another run .method: "):
            grab(mmrlpp, images, "image.final", out=tmp_path)
    monkeypatch.setattr(mmrlpp, "config", config)
    monkeypatch.setattr(vlm, "precision", "amp_bf16")
    with pytest.raises(ValueError, match=r"another run .precision: fp32 there, amp_bf16 asked"):
        grab(mmrlpp, images, "image.final", out=tmp_path)


@pytest.mark.parametrize("n", [4, 60])
def test_more_parts_than_batches_take_smaller_batches(vlm, tmp_path, n):
    """The line of the README, part=(1, 4), on 60 images with batches of 64."""
    images = torch.randn(60, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    first = grab(vlm, images, "image.final", out=tmp_path, part=(1, n))
    assert first.sizes["sample"] == 60 // n
    whole = grab(vlm, images, "image.final", out=tmp_path)
    assert np.abs(whole["image.final"] - grab(vlm, images, "image.final")["image.final"]).max() < 1e-5
    with pytest.raises(ValueError, match=r"part=\(1, 61\): 60 samples make 60 parts at most"):
        grab(vlm, images, "image.final", out=tmp_path / "new", part=(1, 61))
