"""Two processes of one training: the same losses and weights as one process on the joined batch."""

import socket
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

import vlmlab
from vlmlab.train.run import Run

sys.path.insert(0, str(Path(__file__).parents[1]))

from forked import Fork

SETTINGS = {
    "cmapkd": dict(channels=8, sizes=(4, 4, 2, 1), objective="relative", balance="init", watch=3),
    "c2kd": {},
    "promptkd": {"depth": 2},
    "llava_kd": {},
    "fitnet": {},
    "clip_kd": {},
}
# in theory a constant on all keys, or before a batch norm (whose mean follows it), changes nothing; Adam makes steps of
# what is rounding
NO_GRADIENT = ("attn.in_proj_bias", ".0.bias", "running_mean")
QUICK = dict(batch_size=8, max_steps=6, lr=1e-3)
TWO = f"""
import sys
import torch
sys.path.insert(0, sys.argv[1])
torch.set_num_threads(1)
import small_pairs, vlmlab
from vlmlab.tasks.task import Task
data = small_pairs.captions()
task = Task("drawn", "retrieval", None, 1, "{{}}", data, None, {{"test": data}})
models = {{"student": small_pairs.small(small_pairs.STUDENT, 0), "teacher": small_pairs.small(small_pairs.TEACHER, 1)}}
from vlmlab import processes
with processes.together():
    for name, config in {SETTINGS!r}.items():
        vlmlab.fit(name, models, task, out=sys.argv[2], **config, **{QUICK!r})
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The runs of two processes, by name."""
    out = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [torchrun | {"RANK": str(i), "LOCAL_RANK": str(i)} for i in range(2)]
    for done in [p.finish() for p in [Fork(TWO, Path(__file__).parent, out, env=rank) for rank in ranks]]:
        assert done.returncode == 0, done.stderr[-3000:]
    return {path.parts[-4]: Run(path.parent) for path in out.glob("**/run.json")}


@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_equal_one(name, both, models, task, tmp_path):
    one = vlmlab.fit(name, models, task, out=tmp_path, **SETTINGS[name], **QUICK)
    two = both[name]
    assert two.key == one.key and two.status == "finished"
    for term in one.metrics.select_dtypes("number"):
        assert two.metrics[term].to_numpy() == pytest.approx(
            one.metrics[term].to_numpy(), rel=2e-3, abs=1e-5, nan_ok=True
        ), term
    a, b = (load_file(r.path / "trainables.safetensors") for r in (two, one))
    assert a.keys() == b.keys()
    for key in (k for k in b if not k.endswith(NO_GRADIENT)):
        apart = (a[key].float() - b[key].float()).abs() > 2e-4 + 1e-5 * b[key].float().abs()
        assert apart.float().mean() < 0.01, (
            key
        )  # of a gradient that is nearly zero Adam makes a step of its rounding
