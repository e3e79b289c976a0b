"""The folder of a record: what its files hold to the byte, when they are on the disk, who may write which rows."""

import errno
import gc
import json
import os
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from family_models import CASES, FUSION, built
from forked import Fork
from stored import KEEP, Images, arrays, counting, grab

from vlmlab import capture
from vlmlab.capturing import store, store_parts
from vlmlab.capturing.store import Store
from vlmlab.models.families import Words

TEXTS = ["a cat", "a photo of a very big dog", "two birds"]


@pytest.fixture
def tensors(vlm, monkeypatch):
    monkeypatch.setattr(vlm, "preprocess", lambda x: x)


# --- files --------------------------------------------------------------------------------------


def test_the_files_of_a_record(vlm, images, tmp_path):
    folder = tmp_path / "a" / "b"
    record = grab(vlm, images, out=folder)
    told = (folder / "record.json").read_text(encoding="utf-8")
    assert told.startswith('{\n "format": 3,\n "key": {\n  "')
    info = json.loads(told)
    assert {
        name: info[name] for name in ("samples", "batch_size", "dtype", "coords", "roles", "branches")
    } == {
        "samples": 5,
        "batch_size": 2,
        "dtype": "float32",
        "coords": ["id"],
        "roles": {},
        "branches": ["cls"],
    }
    assert set(info["key"]) == {"weights", "method", "precision", "pixels", "sites", "keep", "data", "dtype"}
    assert info["key"]["sites"] == "image.resid.post[1,2,3,4] image.attn.probs[4] image.final"
    assert info["key"]["keep"] == "image.resid.post: norms; image.attn.probs: cls_row; image.final: all"
    tokens = [["cls", 0], *(["patch", i] for i in range(16))]
    assert info["columns"][0] == {
        "name": "image.resid.post",
        "layers": [1, 2, 3, 4],
        "dims": ["token"],
        "axes": {"token": {"tokens": tokens, "whole": True, "side": ""}},
        "shape": [4, 5, 17],
    }
    assert info["columns"][2]["layers"] is None and info["columns"][2]["axes"] == {}
    sizes = {f"{site}.npy": record[site].nbytes for site in record.data_vars}
    sizes |= {"done.npy": 5, "sample.id.npy": record["id"].nbytes}
    found = {p.name: p.stat().st_size for p in folder.iterdir() if p.suffix == ".npy"}
    assert found == {name: 128 + n for name, n in sizes.items()}  # a header each
    assert np.load(folder / "done.npy").all() and np.load(folder / "sample.id.npy").tolist() == list("01234")


def test_nothing_stays_open(vlm, images, tmp_path):
    opened = Path("/proc/self/fd")
    if not opened.exists():
        pytest.skip("open files are read from /proc")
    grab(vlm, images, out=tmp_path / "first")
    gc.collect()
    before = len(os.listdir(opened))
    for name in ("second", "third"):
        grab(vlm, images, out=tmp_path / name)
    grab(vlm, TEXTS, ["text.resid.post"], None, out=tmp_path / "text")
    gc.collect()  # the records, and with them what they map
    assert len(os.listdir(opened)) == before


def test_ids_are_read_at_once(vlm, images, tmp_path):
    grab(vlm, images, out=tmp_path)
    record = capture.open_run(tmp_path)
    with open(tmp_path / "sample.id.npy", "r+b") as file:
        file.seek(128)
        file.write(np.full(5, "9", np.load(tmp_path / "sample.id.npy").dtype).tobytes())
    assert record["id"].values.tolist() == list("01234")
    assert capture.open_run(tmp_path)["id"].values.tolist() == list("99999")


def test_files_are_whole_when_the_disk_is_waited_for(vlm, images, tmp_path, monkeypatch):
    """A power cut behind the wait must find everything: the size at each wait is the size at the end."""
    sync, waited = os.fsync, {}

    def look(file):
        waited[os.path.basename(os.readlink(f"/proc/self/fd/{file}"))] = os.fstat(file).st_size
        sync(file)

    if not Path("/proc/self/fd").exists():
        pytest.skip("names of open files are read from /proc")
    monkeypatch.setattr(os, "fsync", look)
    grab(vlm, images, out=tmp_path)
    waited["record.json"] = waited.pop(".record.json.tmp")
    assert waited == {p.name: p.stat().st_size for p in tmp_path.iterdir() if p.name != ".lock"}


def test_rows_are_counted_when_the_disk_has_them(vlm, tmp_path, monkeypatch):
    write, sync, events = os.pwrite, store_parts.sync_data, []

    def name_of(file):
        return os.path.basename(os.readlink(f"/proc/self/fd/{file}"))

    def writing(file, data, place):
        events.append(("write", name_of(file)))
        return write(file, data, place)

    def syncing(file):
        events.append(("sync", name_of(file)))
        sync(file)

    if not Path("/proc/self/fd").exists():
        pytest.skip("names of open files are read from /proc")
    monkeypatch.setattr(store, "SYNC_EVERY", 0)
    monkeypatch.setattr(os, "pwrite", writing)
    monkeypatch.setattr(store_parts, "sync_data", syncing)
    grab(vlm, TEXTS, ["text.resid.post", "text.final"], None, batch_size=1, out=tmp_path)
    unsafe, counted = set(), 0
    for what, name in events:
        if name == "done.npy":
            counted += what == "write"
            assert not unsafe
        elif what == "write":
            unsafe.add(name)
        else:
            unsafe.discard(name)
    written = {name for what, name in events if what == "write"}
    assert counted >= 3 and written == {"text.resid.post.npy", "text.final.npy", "roles.npy", "done.npy"}


def test_a_run_waits_for_the_disk_a_twentieth_of_its_time(vlm, images, tmp_path, monkeypatch):
    """Each wait takes a second here, so that the next one is due 20 seconds behind it."""
    clock, waits = [0.0], []
    monkeypatch.setattr(store, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    run = Store(tmp_path, {"sites": ""}, 8, 1)
    assert (run.first, run.stop, run.todo, run.finished) == (0, 8, 8, False)
    slow = types.SimpleNamespace(sync=lambda: clock.__setitem__(0, clock[0] + 1), write=lambda *a: None)
    run.files, run.columns = [slow], [types.SimpleNamespace(values=np.zeros((1, 2)), layers=None)]
    run.progress = types.SimpleNamespace(write=lambda first, done: waits.append((clock[0], int(done.sum()))))
    for row, moment in enumerate((0.0, 5.0, 20.5, 21.0, 30.0, 41.9, 42.0, 43.0)):
        clock[0] = max(clock[0], moment)
        run.put(row, 1, {})
    assert waits == [(1.0, 1), (22.0, 4), (43.0, 7)] and run.finished


@pytest.mark.parametrize("number", [5, 6])
def test_a_full_disk_leaves_no_sample_files(vlm, tensors, tmp_path, monkeypatch, number):
    sync, calls = os.fsync, []

    def full(file):
        calls.append(file)
        if len(calls) == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return sync(file)

    monkeypatch.setattr(os, "fsync", full)
    size = (4 * 30 * 17 + 30 * 2 * 17 + 30 * 32) * 4 / 2**20
    with pytest.raises(OSError, match=rf"make the files of this record, {size:.1f} MiB, in .*No space left"):
        grab(vlm, Images(30), ["image.attn.probs[-1]", "image.resid.post", "image.final"], KEEP, out=tmp_path)
    assert os.listdir(tmp_path) == [".lock"]


# --- what is refused ----------------------------------------------------------------------------


def gaps(record, n):
    """Rows that are missing: `n` single ones."""
    done = np.ones(len(np.load(record / "done.npy")), bool)
    done[1 : 2 * n : 2] = False
    np.save(record / "done.npy", done)


@pytest.mark.parametrize(("n", "more"), [(1, ""), (2, ""), (8, ""), (9, ", …")])
def test_the_first_rows_that_are_missing_are_named(vlm, tensors, tmp_path, n, more):
    whole = grab(vlm, Images(20), ["image.final"], None, batch_size=20, out=tmp_path)
    gaps(tmp_path, n)
    named = ", ".join(f"{2 * i + 1}:{2 * i + 2}" for i in range(min(n, 8)))
    with pytest.warns(UserWarning, match=f"{n} of 20 samples are missing, rows {named}{more}; capture again"):
        some = capture.open_run(tmp_path)
    left = [i for i in range(20) if i >= 2 * n or not i % 2]
    xr.testing.assert_identical(some, whole.isel(sample=left))


def test_the_first_rows_of_a_run_stay_on_the_disk(vlm, images, tmp_path):
    grab(vlm, images, out=tmp_path, part=(1, 2))
    with pytest.warns(UserWarning, match="3 of 5 samples are missing, rows 2:5"):
        some = capture.open_run(tmp_path)
    assert isinstance(some.variables["image.resid.post"]._data, np.memmap)


def test_damage_is_noticed_before_anything_runs(vlm, images, tmp_path, monkeypatch):
    grab(vlm, images, out=tmp_path, part=(1, 2))
    np.save(tmp_path / "image.final.npy", np.zeros((5, 1, 31), np.float32))
    ran = counting(monkeypatch, vlm)
    with pytest.raises(ValueError, match=r"image\.final\.npy holds float32 \(5, 1, 31\)"):
        grab(vlm, images, out=tmp_path)
    assert ran == []


def test_a_name_with_a_folder_in_it_is_refused(vlm, images, tmp_path):
    grab(vlm, images, ["image.final"], None, out=tmp_path)
    path, info = tmp_path / "record.json", json.loads((tmp_path / "record.json").read_text())
    info["columns"][0]["name"] = info["key"]["sites"] = "elsewhere/image.final"
    path.write_text(json.dumps(info))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "image.final.npy").rename(tmp_path / "elsewhere" / "image.final.npy")
    with pytest.raises(ValueError, match=r"record\.json is damaged: columns: .*\[0\]\.name"):
        capture.open_run(tmp_path)


def changed(path, change):
    np.save(path, change(np.load(path)))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "sample.rows.npy",
            lambda x: x.astype(float),
            r"holds float64 \(3,\); expected whole numbers \(3,\)",
        ),
        ("sample.cols.npy", lambda x: x - 5, r"holds int64 \(3,\); expected whole numbers"),
        ("sample.rows.npy", lambda x: x[:2], r"holds int64 \(2,\); expected whole numbers"),
        ("sample.rows.npy", lambda x: x * np.array([0, 1, 1]), None),
        ("roles.npy", lambda x: x + 1, r"roles\.npy holds uint8 \(3, 16\); expected uint8 \(3, 16\) below 2"),
        ("roles.npy", lambda x: x.astype(int), r"roles\.npy holds int64 \(3, 16\); expected uint8"),
        ("roles.npy", lambda x: x[:, 1:], r"roles\.npy holds uint8 \(3, 15\); expected uint8 \(3, 16\)"),
    ],
)
def test_grids_and_roles_on_the_disk(tmp_path, name, change, message):
    case = next(c for c in CASES if c.name == "HF SigLIP 2, NaFlex")
    memory = grab(built(case), case.data("image"), ["image.embed"], None)
    assert grab(built(case), case.data("image"), ["image.embed"], None, out=tmp_path).identical(memory)
    changed(tmp_path / name, change)
    if message is None:
        assert capture.open_run(tmp_path)["rows"].values.tolist() == [0, 2, 3]
        return
    with pytest.raises(ValueError, match=message):
        capture.open_run(tmp_path)


def test_an_archive_is_no_array(vlm, images, tmp_path):
    grab(vlm, images, ["image.final"], None, out=tmp_path)
    for name in ("image.final", "sample.id"):
        array = np.load(tmp_path / f"{name}.npy")
        with open(tmp_path / f"{name}.npy", "wb") as file:
            np.savez(file, array)
        with pytest.raises(ValueError, match=rf"{name}\.npy is damaged"):
            capture.open_run(tmp_path)
        np.save(tmp_path / f"{name}.npy", array)
    capture.open_run(tmp_path)


# --- keys ---------------------------------------------------------------------------------------


def test_pixels_and_fingerprints_are_part_of_the_key(vlm, tensors, tmp_path, monkeypatch):
    data = Images(3)
    grab(vlm, data, out=tmp_path / "image")
    grab(vlm, TEXTS, ["text.final"], None, out=tmp_path / "text")
    with monkeypatch.context() as patched, pytest.raises(ValueError, match=r"another run \(data: "):
        patched.setattr(data, "fingerprint", lambda: "other pictures of the same names")
        grab(vlm, data, out=tmp_path / "image")
    monkeypatch.setattr(vlm, "mean", (0.5, 0.5, 0.5))
    with pytest.raises(
        ValueError, match=r"another run \(pixels: 32 .* there, 32 \(0\.5, 0\.5, 0\.5\).* asked"
    ):
        grab(vlm, data, out=tmp_path / "image")
    grab(vlm, TEXTS, ["text.final"], None, out=tmp_path / "text")  # texts have no pixels


@pytest.mark.parametrize("more", [True, False])
def test_a_part_of_a_key_that_only_one_side_has_is_a_difference(vlm, images, tmp_path, more):
    grab(vlm, images, out=tmp_path)
    path, info = tmp_path / "record.json", json.loads((tmp_path / "record.json").read_text())
    if more:
        info["key"]["colour"] = "red"
    else:
        del info["key"]["dtype"]
    path.write_text(json.dumps(info))
    told = r"colour: red there, none asked" if more else r"dtype: none there, float32 asked"
    with pytest.raises(ValueError, match=rf"another run \({told}\)"):
        grab(vlm, images, out=tmp_path)


def test_modules_are_told_by_precision_and_labels(tmp_path):
    case = next(c for c in CASES if c.name == "own fusion module")
    model, data = built(case), case.data("text")
    other = type(FUSION)(**{**FUSION.__dict__, "tokens": Words("word*", "mask")})
    grab(model, data, ["text.attn.probs"], None, family=FUSION, out=tmp_path)
    with pytest.raises(
        ValueError, match=r"another run \(pixels: Fusion sos word\* there, Fusion word\* asked\)"
    ):
        grab(model, data, ["text.attn.probs"], None, family=other, out=tmp_path)
    with pytest.raises(ValueError, match=r"precision: torch\.float32 there, torch\.float64 asked"):
        data = {k: x.double() if x.is_floating_point() else x for k, x in data.items()}
        grab(model.double(), data, ["text.attn.probs"], None, family=FUSION, out=tmp_path)


# --- parts and locks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "samples", "batch_size", "expected"),
    [((1, 1), 11, 64, 64), ((2, 3), 11, 4, 4), ((3, 3), 12, 4, 4), ((1, 4), 11, 4, 2), ((1, 4), 60, 64, 15),
     ((60, 60), 60, 64, 1), ([1, 2], 60, 30, 30), ((1, 61), 60, 64, "61.*60 samples make 60 parts at most"),
     ((0, 2), 60, 64, "number i of n"), ((1, 2, 3), 60, 64, "number i of n"), ((1,), 60, 64, "number i of n"),
     ("12", 60, 64, "number i of n"), ((2, 1), 60, 64, "number i of n"), (None, 60, 64, "number i of n")],
)  # fmt: skip
def test_batches_of_a_new_record(part, samples, batch_size, expected):
    if isinstance(expected, int):
        assert store_parts.batch_for(part, samples, batch_size) == expected
        return
    with pytest.raises(ValueError, match=expected):
        store_parts.batch_for(part, samples, batch_size)


def test_rows_of_a_part():
    assert [store_parts.rows_of_part((i, 3), 11, 2) for i in (1, 2, 3)] == [(0, 4), (4, 8), (8, 11)]
    assert store_parts.rows_of_part((6, 6), 11, 2) == (10, 11)
    for part, message in (
        ((1, 7), "its 11 samples make 6; ask for 6 parts at most"),
        ((0, 2), "number i of n"),
    ):
        with pytest.raises(ValueError, match=message):
            store_parts.rows_of_part(part, 11, 2)


@pytest.mark.parametrize(
    ("marked", "expected"),
    [([], []), ([0, 0], []), ([1], [(0, 1)]), ([1, 1, 0, 1], [(0, 2), (3, 4)]), ([0, 1, 1, 0], [(1, 3)])],
)
def test_runs_of_rows(marked, expected):
    assert store_parts.ranges(np.array(marked, bool)) == expected


def test_locks_of_rows_and_of_the_creation_do_not_meet(tmp_path, monkeypatch):
    """Byte 0 stands for the creation of the run, byte 1 + r for row r."""
    if store_parts.fcntl is None:
        pytest.skip("this system has no file locks")
    real, calls = store_parts.fcntl, []
    names = ("LOCK_EX", "LOCK_NB", "LOCK_UN")
    fake = types.SimpleNamespace(lockf=lambda *a: calls.append(a[1:]), **{n: getattr(real, n) for n in names})
    monkeypatch.setattr(store_parts, "fcntl", fake)
    store_parts.lock_rows(7, 4, 8, tmp_path)
    with store_parts.creating(7):
        assert calls.pop() == (real.LOCK_EX, 1, 0)
    assert calls == [(real.LOCK_EX | real.LOCK_NB, 4, 5), (real.LOCK_UN, 1, 0)]


HOLDER = """
import sys
from pathlib import Path
from vlmlab.capturing.store_parts import lock_rows, open_lock
folder = Path(sys.argv[1])
lock_rows(open_lock(folder), 4, 8, folder)
print("locked", flush=True)
sys.stdin.readline()
"""


def test_rows_beside_those_of_another_process_are_free(tmp_path):
    holder = Fork(HOLDER, tmp_path)
    try:
        assert holder.stdout.readline() == "locked\n"
        lock = store_parts.open_lock(tmp_path)
        for first, stop, free in ((0, 4, True), (8, 11, True), (3, 5, False), (7, 9, False), (0, 11, False)):
            if free:
                store_parts.lock_rows(lock, first, stop, tmp_path)
                continue
            with pytest.raises(ValueError, match=f"another process is writing rows {first}:{stop} of"):
                store_parts.lock_rows(lock, first, stop, tmp_path)
        os.close(lock)
    finally:
        holder.kill()
        holder.finish()


def test_rows_that_another_process_has_just_done_are_not_run_again(vlm, images, tmp_path):
    whole = grab(vlm, images, out=tmp_path / "run")
    key = json.loads((tmp_path / "run" / "record.json").read_text())["key"]
    late = Store(tmp_path / "late", key, 5, 2)
    (tmp_path / "run").rename(tmp_path / "late")
    assert not late.finished
    with late:
        assert late.finished and late.todo == 0
    xr.testing.assert_identical(late.record(), whole)


def test_a_file_that_was_opened_by_rows_is_closed(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 2)))
    file = store_parts.RowFile(tmp_path / "x.npy", layered=False)
    file.write(1, torch.ones(2, 2).double().numpy())
    file.close()
    assert np.load(tmp_path / "x.npy").tolist() == [[0, 0], [1, 1], [1, 1]]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file.file)
    assert arrays(tmp_path).keys() == {"x.npy"}


def test_a_full_disk_leaves_no_half_of_what_a_record_says(tmp_path, monkeypatch):
    from vlmlab.capturing.record_folder import write_info

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_info(tmp_path, {"a": 1})
    assert not list(tmp_path.iterdir())
