"""On a system without fcntl, resource and sysconf (Windows) all works but what several processes do together."""

from pathlib import Path

import torch  # noqa: F401  (so that the programs need not import it)
from forked import Fork

SETUP = """
import os, sys, warnings
warnings.simplefilter("ignore")
os.chdir(sys.argv[1])
for name in [name for name in sys.modules if name.partition(".")[0] == "vlmlab"]:
    del sys.modules[name]
for name in ("fcntl", "resource", "grp", "pwd", "termios"):
    sys.modules[name] = None
del os.sysconf
"""
TRAIN = """
import vlmlab

vlm = vlmlab.load("tiny")
task = vlmlab.task("emoji/animals", protocol="base_to_new", shots=1, seed=1)
run = vlmlab.fit("zero_shot", vlm, task, out=sys.argv[1])
vlmlab.evaluate(run, task)
print(len(vlmlab.results(sys.argv[1])) > 0, vlmlab.fit("zero_shot", vlm, task, out=sys.argv[1]).path == run.path)
"""
STUDY = """
from pathlib import Path
from vlmlab import studies
from vlmlab.files import hold
from vlmlab.studies.jobs.pool import Room
from vlmlab.studies.sections import Resources

with hold(Path(sys.argv[1])):
    print(repr(Room(2).refusal(Resources(memory_gb=4))))
print(*sorted({row.state for row in studies.states("alignednorm", runs=sys.argv[1], figures=sys.argv[1])}))
"""


def run(code: str, folder: Path) -> str:
    done = Fork(SETUP + code, folder).finish()
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_is_trained_evaluated_and_found_again(tmp_path):
    assert run(TRAIN, tmp_path).split() == ["True", "True"]


def test_a_study_is_looked_at(tmp_path):
    assert run(STUDY, tmp_path).splitlines() == ["''", "left out missing missing runs"]
