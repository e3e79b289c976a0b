"""Several processes on one folder."""

import itertools
import signal

import numpy as np
import pytest
import torch
import xarray as xr
from forked import Fork
from stored import about, arrays, counting, grab

import vlmlab
from vlmlab import capture
from vlmlab.capturing import store_parts


@pytest.fixture
def many():
    return torch.randn(11, 3, 32, 32, generator=torch.Generator().manual_seed(4))


# --- rows of parts ------------------------------------------------------------------------------


@pytest.mark.parametrize(("samples", "batch_size", "n"), [(11, 2, 3), (10, 5, 2), (7, 1, 7), (100, 64, 2)])
def test_parts_cover_all_rows_once_and_cut_between_batches(samples, batch_size, n):
    cuts = [store_parts.rows_of_part((i, n), samples, batch_size) for i in range(1, n + 1)]
    assert cuts[0][0] == 0 and cuts[-1][1] == samples
    assert all(a < b for a, b in cuts) and all(x[1] == y[0] for x, y in itertools.pairwise(cuts))
    assert all(first % batch_size == 0 for first, _ in cuts)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ((0, 2), "number i of n"),
        ((3, 2), "number i of n"),
        (2, "number i of n"),
        ((1.0, 2), "number i of n"),
        ((1, 12), "11 samples make 11 parts at most"),
    ],
)
def test_wrong_parts(vlm, many, tmp_path, part, message):
    with pytest.raises(ValueError, match=message):
        grab(vlm, many, part=part, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="needs out="):
        grab(vlm, many, part=part)


def test_part_after_part_is_the_record_of_one_process(vlm, many, tmp_path):
    memory = grab(vlm, many)
    last = grab(vlm, many, out=tmp_path, part=(3, 3))
    xr.testing.assert_identical(last, memory.isel(sample=slice(8, 11)).assign_attrs(last.attrs))
    assert isinstance(last.variables["image.resid.post"]._data, np.memmap)
    grab(vlm, many, out=tmp_path, part=(1, 3))
    with pytest.warns(UserWarning, match="4 of 11 samples are missing, rows 4:8; capture again"):
        some = capture.open_run(tmp_path)
    assert some["id"].values.tolist() == ["0", "1", "2", "3", "8", "9", "10"]
    assert np.array_equal(some["image.final"], memory["image.final"].sel(sample=some["id"].astype(int)))
    whole = grab(vlm, many, out=tmp_path, part=(2, 3))
    xr.testing.assert_identical(whole.assign_attrs(memory.attrs), memory)
    xr.testing.assert_identical(capture.open_run(tmp_path), whole)


def test_text_in_parts(vlm, tmp_path):
    texts = ["a cat", "a photo of a very big dog", "two birds", "one", "five green apples on a table"]
    options = {"sites": ["text.resid.post", "text.attn.probs"], "keep": None}
    memory = grab(vlm, texts, **options)
    for i in (2, 3, 1):
        disk = grab(vlm, texts, **options, out=tmp_path, part=(i, 3))
    xr.testing.assert_identical(disk.assign_attrs(memory.attrs), memory)


def test_class_prompts_are_one_batch(mmrlpp, tmp_path):
    with pytest.raises(ValueError, match=r"rows 0:3 are one batch.*without part="):
        grab(mmrlpp, None, "text.final", keep=None, out=tmp_path, part=(1, 2))
    memory = grab(mmrlpp, None, "text.final", keep=None)
    xr.testing.assert_identical(grab(mmrlpp, None, "text.final", keep=None, out=tmp_path), memory)


def test_any_division_into_parts_finishes_what_another_began(vlm, many, tmp_path, monkeypatch):
    grab(vlm, many, out=tmp_path / "whole")
    ran = counting(monkeypatch, vlm)
    grab(vlm, many, out=tmp_path / "run", part=(2, 6))
    assert ran == [4, 2, 2]  # the layout check, the plain run, one batch
    grab(vlm, many, out=tmp_path / "run", part=(1, 2))
    assert ran[3:] == [4, 2, 2, 2]  # rows 0:2 and 4:6
    grab(vlm, many, out=tmp_path / "run", part=(4, 6))
    grab(vlm, many, out=tmp_path / "run", batch_size=5)
    assert ran[10:] == [4, 2, 2, 1]  # rows 8:11
    before = len(ran)
    grab(vlm, many, out=tmp_path / "run", part=(1, 4))
    assert len(ran) == before
    assert arrays(tmp_path / "run") == arrays(tmp_path / "whole")
    assert about(tmp_path / "run") == about(tmp_path / "whole")


# --- at the same time ---------------------------------------------------------------------------

WORKER = """
import os, signal, sys
import torch, vlmlab
from vlmlab.capturing import store
from vlmlab.capturing.reducers import norms, cls_row
out, i, kill = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
store.SYNC_EVERY = 0
vlm = vlmlab.load("tiny", device="cpu")
images = torch.randn(11, 3, 64, 64, generator=torch.Generator().manual_seed(0))
put, calls = store.Store.put, []
def killed(self, *args):
    put(self, *args)
    calls.append(args)
    if len(calls) == kill:
        os.kill(os.getpid(), signal.SIGKILL)
store.Store.put = killed
print("ready", flush=True)
sys.stdin.readline()
acts = vlmlab.capture(vlm, images, ["image.resid.post", "image.attn.probs[-1]", "image.final"],
                      keep={"*.resid.*": norms, "*.probs": cls_row}, batch_size=2, progress=False, out=out,
                      part=(i, 3))
print(acts.sizes["sample"])
"""


def test_processes_that_start_together_and_one_that_is_killed(tmp_path):
    run = [Fork(WORKER, tmp_path / "run", i, int(i == 2)) for i in (1, 2, 3)]
    assert [p.stdout.readline() for p in run] == ["ready\n"] * 3
    for p in run:
        p.stdin.write("go\n")
        p.stdin.flush()
    said = [p.finish().stdout for p in run]
    assert [p.returncode for p in run] == [0, -signal.SIGKILL, 0]
    assert said == ["4\n", "", "3\n"]  # what a part returns while another is missing: its own rows
    with pytest.warns(UserWarning, match="2 of 11 samples are missing, rows 6:8"):
        capture.open_run(tmp_path / "run")
    vlm = vlmlab.load("tiny", device="cpu")
    images = torch.randn(11, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    resumed = grab(vlm, images, out=tmp_path / "run", part=(2, 3))
    whole = grab(vlm, images, out=tmp_path / "whole")
    xr.testing.assert_identical(resumed.assign_attrs(whole.attrs), whole)
    assert arrays(tmp_path / "run") == arrays(tmp_path / "whole")
    assert about(tmp_path / "run") == about(tmp_path / "whole")


HOLDER = """
import sys, time
from pathlib import Path
from vlmlab.capturing.store_parts import lock_rows, open_lock
folder = Path(sys.argv[1])
lock_rows(open_lock(folder), 4, 8, folder)
print("locked", flush=True)
time.sleep(600)
"""


def test_a_part_runs_once_at_a_time_and_a_dead_process_does_not_block(vlm, many, tmp_path):
    holder = Fork(HOLDER, tmp_path)
    try:
        assert holder.stdout.readline() == "locked\n"
        for part, rows in (((2, 3), "4:8"), ((1, 1), "0:11"), ((3, 6), "4:6")):
            with pytest.raises(ValueError, match=f"another process is writing rows {rows} of .*its own part"):
                grab(vlm, many, out=tmp_path, part=part)
        assert grab(vlm, many, out=tmp_path, part=(1, 3)).sizes["sample"] == 4
    finally:
        holder.kill()
        holder.finish()
    grab(vlm, many, out=tmp_path)
    xr.testing.assert_identical(capture.open_run(tmp_path).drop_attrs(), grab(vlm, many).drop_attrs())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({}, None),
        ({"batch_size": 3}, "just begun this run with batches of 3, not 2"),
        ({"dtype": "float16"}, "another run .dtype: float16 there, float32 asked"),
    ],
)
def test_two_processes_that_both_find_an_empty_folder(vlm, many, tmp_path, monkeypatch, other, message):
    encode, calls = vlm.encode_image, []

    def meanwhile(x):
        calls.append(x)
        if len(calls) == 2:  # this call has looked at the folder and runs its first batch; now another begins
            grab(vlm, many, out=tmp_path, part=(2, 2), **other)
        return encode(x)

    monkeypatch.setattr(vlm, "encode_image", meanwhile)
    if message is None:
        disk = grab(vlm, many, out=tmp_path, part=(1, 2))
        xr.testing.assert_identical(disk.drop_attrs(), grab(vlm, many).drop_attrs())
        return
    with pytest.raises(ValueError, match=message):
        grab(vlm, many, out=tmp_path, part=(1, 2))
    before = arrays(tmp_path)
    with pytest.warns(UserWarning, match="samples are missing, rows 0:6"):
        assert capture.open_run(tmp_path).sizes["sample"] == 5
    assert arrays(tmp_path) == before
