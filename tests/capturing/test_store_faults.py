"""Records on disk: faults in the middle of a run, and memory at scale."""

import errno
import os
import re
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from forked import Fork
from stored import Images, arrays, counting, grab, small

from vlmlab import capture
from vlmlab.capturing import store, store_parts


@pytest.fixture
def many():
    return torch.randn(11, 3, 32, 32, generator=torch.Generator().manual_seed(4))


@pytest.fixture
def tensors(vlm, monkeypatch):
    monkeypatch.setattr(vlm, "preprocess", lambda x: x)


def test_nan_in_the_middle_loses_nothing(vlm, tensors, tmp_path, monkeypatch):
    good, bad = Images(11), Images(11)
    bad.image = lambda i: good.image(i) * (float("nan") if i == 5 else 1)
    with pytest.raises(ValueError, match="1 images hold NaN or infinity, the first is 'image5'"):
        grab(vlm, bad, out=tmp_path / "run")
    with pytest.warns(UserWarning, match="rows 4:11"):
        assert capture.open_run(tmp_path / "run").sizes["sample"] == 4
    ran = counting(monkeypatch, vlm)
    grab(vlm, good, out=tmp_path / "run")
    assert ran == [4, 2, 2, 2, 2, 1]
    grab(vlm, good, out=tmp_path / "whole")
    assert arrays(tmp_path / "run") == arrays(tmp_path / "whole")


@pytest.mark.parametrize("call", ["posix_fallocate", "fsync"])
def test_a_full_disk_at_the_start_leaves_no_half_made_files(vlm, many, tmp_path, monkeypatch, call):
    real, calls = getattr(os, call), []

    def full(*args):
        calls.append(args)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        with pytest.raises(OSError, match=r"make the files of this record, 0\.\d MiB, in .*No space left"):
            grab(vlm, many, out=tmp_path)
    assert os.listdir(tmp_path) == [".lock"]
    xr.testing.assert_identical(grab(vlm, many, out=tmp_path), grab(vlm, many))


@pytest.mark.parametrize(("call", "number"), [("pwrite", 20), ("sync_data", 12)])
def test_a_full_disk_in_the_middle_keeps_the_rows_before(vlm, many, tmp_path, monkeypatch, call, number):
    where = os if call == "pwrite" else store_parts
    real, calls = getattr(where, call), []

    def full(*args):
        calls.append(args)
        if len(calls) == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args)

    monkeypatch.setattr(store, "SYNC_EVERY", 0)
    with (
        monkeypatch.context() as patched,
        pytest.raises(OSError, match=r"cannot write .*npy \(No space left on device\); the rows before"),
    ):
        patched.setattr(where, call, full)
        grab(vlm, many, out=tmp_path / "run")
    with pytest.warns(UserWarning, match="are missing"):
        kept = capture.open_run(tmp_path / "run").sizes["sample"]
    assert 2 <= kept < 11
    ran = counting(monkeypatch, vlm)
    grab(vlm, many, out=tmp_path / "run")
    assert sum(ran[2:]) == 11 - kept
    grab(vlm, many, out=tmp_path / "whole")
    assert arrays(tmp_path / "run") == arrays(tmp_path / "whole")


def test_a_short_write_is_continued(vlm, many, tmp_path, monkeypatch):
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, place: write(file, data[:7], place))
    xr.testing.assert_identical(grab(vlm, many, out=tmp_path), grab(vlm, many))


def test_a_folder_that_cannot_be_written_is_one_error_and_can_be_read(vlm, many):
    with tempfile.TemporaryDirectory() as made:
        folder, done = Path(made) / "new", Path(made) / "done"
        whole = grab(vlm, many, out=done).load()
        grab(vlm, many, out=Path(made) / "begun", part=(1, 2))
        user = os.geteuid()
        for path in [Path(made), *Path(made).iterdir()]:
            path.chmod(0o555)
        try:
            if user == 0:  # root may write anywhere
                os.seteuid(65534)
            for out in (folder, Path(made) / "begun"):
                with pytest.raises(OSError, match=f"cannot write to {re.escape(str(out))} .Permission"):
                    grab(vlm, many, out=out)
            xr.testing.assert_identical(grab(vlm, many, out=done), whole)
        finally:
            os.seteuid(user)
            for path in [Path(made), *Path(made).iterdir()]:
                path.chmod(0o755)


# --- at scale -----------------------------------------------------------------------------------

SCALE = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import torch
from stored import Images, small
from test_store_faults import scale
torch.set_num_threads(1)
out, n, kill, model = sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), small()
def memory():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return sum(int(status[name].split()[0]) for name in ("RssAnon", "RssFile", "RssShmem")) / 1024
def look(i):
    if kill and i == kill:
        os.kill(os.getpid(), signal.SIGKILL)
    if i in (n // 2 + n // 10, n - 1):
        print(memory(), flush=True)
scale(model, Images(n, look), out)
print(memory(), flush=True)
"""


def scale(vlm, data, out):
    """A record of more than 100 MiB, of many samples or of few."""
    if len(data) < 1000:
        return grab(vlm, data, ["image.resid.*", "image.attn.*", "image.mlp.*"], None, batch_size=64, out=out)
    return grab(
        vlm,
        data,
        ["image.resid.*", "image.attn.probs", "image.final"],
        {"*.resid.*": capture.norms},
        batch_size=64,
        out=out,
    )


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("n", [600, pytest.param(20_000, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_samples_and_a_kill_changes_no_bit(n, tmp_path):
    def child(out, kill=0):
        return Fork(SCALE, Path(__file__).parent, tmp_path / out, n, kill).finish()

    cut = child("run", kill=n // 2)
    assert cut.returncode == -signal.SIGKILL, cut.stderr
    done = int(np.load(tmp_path / "run" / "done.npy").sum())
    assert 0 < done <= n // 2 and done % 64 == 0
    resumed = child("run")
    assert resumed.returncode == 0, resumed.stderr
    early, late, end = map(float, resumed.stdout.split())
    size = sum(p.stat().st_size for p in (tmp_path / "run").iterdir()) / 2**20
    print(
        f"{n} samples, {done} before the kill: record {size:.0f} MiB, memory {early:.0f} MiB after "
        f"{n // 2 + n // 10} samples, {late:.0f} at the last one, {end:.0f} at the end"
    )
    assert size > 100 and late - early < 40 and end - early < 45, (size, early, late, end)
    scale(small(), Images(n), tmp_path / "whole")
    assert arrays(tmp_path / "run") == arrays(tmp_path / "whole")
