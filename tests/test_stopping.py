"""Signals at the command line: the first stops, another at once changes nothing, nothing is said twice."""

import signal
import subprocess
import sys
import time

import pytest

PROGRAM = """
import sys, time
from vlmlab import cli

def work(args):
    try:
        print("begun", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("stopped; 2 of 3 are kept", file=sys.stderr)
        time.sleep(float(sys.argv[1]))
        HOW

class Parser:
    def parse_args(self, argv):
        import argparse
        return argparse.Namespace(run=work, debug=False)

cli.parser = Parser
sys.exit(cli.main())
"""


def stopped(number: int, times: int, how: str = "raise", hangs: float = 0.3):
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("HOW", how), str(hangs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "begun\n"
    for _ in range(times):
        child.send_signal(number)
        time.sleep(0.05)
    return child.communicate(timeout=30)[1], child.returncode


@pytest.mark.parametrize(
    ("number", "status", "times", "how"),
    [
        (signal.SIGINT, 130, 1, "raise"),
        (signal.SIGINT, 130, 3, "raise"),
        (signal.SIGTERM, 143, 2, "raise"),
        (signal.SIGINT, 130, 1, "raise ImportError('half of a module')"),  # what a library may make of it
    ],
)
def test_what_is_kept_is_said_once_and_quietly(number, status, times, how):
    assert stopped(number, times, how) == ("stopped; 2 of 3 are kept\n", status)


def test_a_signal_inside_a_destructor_is_not_lost():
    program = PROGRAM.replace(
        "time.sleep(60)",
        "x = type('X', (), {'__del__': lambda self: time.sleep(60)})()\n        del x\n        time.sleep(60)",
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program.replace("HOW", "raise"), "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "begun\n"
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=30)[1] == "stopped; 2 of 3 are kept\n" and child.returncode == 130


def test_signals_are_handled_as_before_afterwards():
    from vlmlab.cli.stopping import signals

    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)], sys.unraisablehook
    with signals() as got:
        assert got == []
    assert before == ([signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)], sys.unraisablehook)


def test_on_the_way_out_it_ends_quietly():
    program = PROGRAM.replace("time.sleep(60)", "import atexit; atexit.register(time.sleep, 60)")
    child = subprocess.Popen(
        [sys.executable, "-c", program.replace("HOW", "raise"), "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "begun\n"
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=30)[1] == "" and child.returncode == 130
