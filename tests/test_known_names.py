"""What is read from the files without running them is what running them gives."""

import dataclasses
import subprocess
import sys

import pytest

from vlmlab import known_names, registry
from vlmlab.cli import options
from vlmlab.precision import PRECISIONS
from vlmlab.tasks.protocols import PROTOCOLS


def test_learners_are_those_of_the_registry():
    assert known_names.learners() == registry.names()


@pytest.mark.parametrize("name", known_names.learners())
def test_settings_and_rules_are_those_of_the_class(name):
    cls = registry.find(name)
    settings, rules = known_names.settings_and_rules(name)
    fields = {f.name for kind in (cls.Config, cls.Options) for f in dataclasses.fields(kind)}
    assert set(settings) == fields and tuple(rules) == cls.rules


def test_protocols_and_precisions_of_the_command_line_are_those_there_are():
    assert set(options.PROTOCOLS) == set(PROTOCOLS) and set(options.PRECISIONS) == set(PRECISIONS)


WRONG = {
    "alignednorm emoji/food": "unknown method 'alignednorm'; did you mean aligned_norm?",
    "aligned-norm emoji/food": "did you mean aligned_norm?",
    "Aligned_Norm emoji/food": "did you mean aligned_norm?",
    "method emoji/food": "unknown method 'method'",
    "../methods/mmrl emoji/food": "unknown method '../methods/mmrl'",
    "mmrlpp emoji/fod": "unknown task 'emoji/fod'; did you mean emoji/food?",
    "mmrlpp emoji/food --rule decouple": "mmrlpp has no rule 'decouple'; it has unified, decoupled; did you mean decoupled?",
    "maple emoji/food --rule decoupled": "maple has no rule 'decoupled'; it has unified",
    "mmrlpp emoji/food --set tokn_mix=1": "eps; did you mean token_mix?",
    "maple emoji/food --set w_proj=1": "maple has no setting 'w_proj'",
    "mmrlpp emoji/food --set max-steps=1": "did you mean max_steps?",
    "mmrlpp emoji/food --set lr=1 --set lr=2": "lr is given twice",
    "mmrlpp emoji/food --epochs 3 --set epochs=4": "epochs is given twice",
    "mmrlpp emoji/food --set lr": "'lr' is not of the form key=value",
    "mmrlpp emoji/food --device gpu": "there is no device 'gpu'; did you mean cuda?",
    "mmrlpp emoji/food --device cuda:x": "there is no device 'cuda:x'",
    "mmrlpp emoji/food --protocol base-to-new": "unknown protocol 'base-to-new'; did you mean base_to_new?",
    "mmrlpp emoji/food --precision bf16": "unknown precision 'bf16'; did you mean amp_bf16?",
    "mmrlpp emoji/food --shots 1000000": "1000000 shots were asked",
    "mmrlpp emoji/food --seed -1": "'-1' is not a whole number from 0 to 4294967295",
    "mmrlpp emoji/food --seed 1.5": "'1.5' is not a whole number",
    "mmrlpp emoji/food --seed 99999999999": "'99999999999' is not a whole number from 0 to 4294967295",
    "mmrlpp emoji/food --workers 100000": "'100000' is not a whole number from 0 to 512",
}


def test_wrong_names_are_refused_before_torch_is_loaded():
    program = (
        "import contextlib, io, sys\nfrom vlmlab import cli\n"
        "for line in sys.stdin:\n"
        "    err = io.StringIO()\n"
        "    with contextlib.redirect_stderr(err), contextlib.suppress(SystemExit):\n"
        "        assert cli.main(['fit', *line.split()]) == 2\n"
        "    print(err.getvalue().splitlines()[-1])\n"
        "assert not {'torch', 'open_clip'} & {*sys.modules}"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input="\n".join(WRONG), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for said, (line, words) in zip(done.stdout.splitlines(), WRONG.items(), strict=True):
        assert words in said, line
