"""Tests run in forks of this process: which lines each executes, and whether chosen ones pass."""

import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest


def in_fork(work: Callable[[], int], limit: float) -> int | None:
    """The exit status of work done in a fork, None when it took longer than `limit` seconds."""
    if not (child := os.fork()):
        status = 70
        try:
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
            status = work()
        finally:
            os._exit(status)
    end, status = time.monotonic() + limit, None
    while time.monotonic() < end and status is None:
        done, code = os.waitpid(child, os.WNOHANG)
        status = os.waitstatus_to_exitcode(code) if done else time.sleep(0.05)
    try:
        os.killpg(child, signal.SIGKILL)  # what hangs, and what tests have left
    except ProcessLookupError:
        pass
    if status is None:
        os.waitpid(child, 0)
    return status


def run_tests(folder: Path, files: list[str], plugin: object, *options: str) -> int:
    """pytest on files of the copy, in a fork."""
    os.chdir(folder)
    os.environ |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True  # two mutants of one second and one size would share it
    sys.path.insert(0, str(folder))
    base = tempfile.mkdtemp(dir=folder.parent)
    try:
        return int(
            pytest.main(
                ["-q", "-p", "no:cacheprovider", f"--basetemp={base}/t", *options, *files], plugins=[plugin]
            )
        )
    finally:
        shutil.rmtree(base, ignore_errors=True)


class Noting:
    """pytest's plugin that notes which lines of vlmlab each test executes, how long it takes and whether it passes.

    Lines of imports and of fixtures that tests share belong to all tests of the file, under the name "".
    """

    def __init__(self, folder: Path, out: Path):
        self.prefix, self.out = str(folder / "vlmlab") + os.sep, out
        self.lines, self.seconds, self.failed = {"": set()}, {}, set()
        self.now = self.lines[""]
        threading.settrace(self.called)
        sys.settrace(self.called)

    def called(self, frame, event, arg):
        return self.passed if frame.f_code.co_filename.startswith(self.prefix) else None

    def passed(self, frame, event, arg):
        self.now.add((frame.f_code.co_filename, frame.f_lineno))
        return self.passed

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self.now = self.lines[item.nodeid] = set()
        sys.settrace(self.called)  # a test may have taken it away
        try:
            return (yield)
        finally:
            self.now = self.lines[""]

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        before = self.now
        if fixturedef.scope != "function":
            self.now = self.lines[""]
        try:
            return (yield)
        finally:
            self.now = before

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration
        if not report.passed:
            self.failed.add(report.nodeid)

    def pytest_sessionfinish(self):
        sys.settrace(None)
        start = len(self.prefix) - len("vlmlab/")
        tests = {}
        for test, lines in self.lines.items():
            if test not in self.failed:
                tests[test] = {"seconds": self.seconds.get(test, 0), "lines": {}}
                for path, line in lines:
                    tests[test]["lines"].setdefault(path[start:], []).append(line)
        self.out.write_text(json.dumps(tests), encoding="utf-8")


class Chosen:
    """pytest's plugin that runs these tests, the quickest first."""

    def __init__(self, seconds: dict[str, float], killer: Path):
        self.seconds, self.killer = seconds, killer

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        items[:] = sorted(
            (i for i in items if i.nodeid in self.seconds), key=lambda i: self.seconds[i.nodeid]
        )

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.killer.write_text(report.nodeid, encoding="utf-8")
