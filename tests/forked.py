"""Programs in processes of their own, forked from the tests: what a test has imported is there at once."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path


class Fork:
    """`python -c code *arguments` with pipes, without the seconds that importing torch takes."""

    def __init__(self, code: str, *arguments: object, env: dict[str, str] | None = None):
        self.returncode = None
        (asked, self_in), (self_out, told) = os.pipe(), os.pipe()
        self.errors = tempfile.TemporaryFile("w+")
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            os.environ.update(env or {})
            for fd, target in ((asked, 0), (told, 1), (self.errors.fileno(), 2)):
                os.dup2(fd, target)
            for fd in (asked, self_in, self_out, told):
                os.close(fd)
            play(code, [str(a) for a in arguments])
        os.close(asked)
        os.close(told)
        self.stdin, self.stdout = open(self_in, "w"), open(self_out)

    def poll(self) -> int | None:
        if self.returncode is None and (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.returncode = os.waitstatus_to_exitcode(ended[1])
        return self.returncode

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def finish(self) -> subprocess.CompletedProcess:
        """What it said from now on, and how it ended."""
        self.stdin.close()
        said = self.stdout.read()
        self.wait()
        self.errors.seek(0)
        return subprocess.CompletedProcess([], self.returncode, said, self.errors.read())


def play(code: str, arguments: list[str]) -> None:
    """In the child: it never returns into the tests."""
    status = 1
    try:
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")
        sys.argv = ["-c", *arguments]
        exec(compile(code, "<forked>", "exec"), {"__name__": "__main__"})
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def killed(train, kill: int) -> None:
    """Call train() in a process of its own that ends itself by SIGKILL before step `kill` of all its steps."""
    from vlmlab.train import loop

    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, "the training ended before it could be killed"
        return
    steps, step = [], loop.Loop.step

    def stop(self, *args):
        if len(steps) == kill:
            self.saver.wait()  # the last state is on disk, and nothing after it
            os.kill(os.getpid(), signal.SIGKILL)
        steps.append(1)
        return step(self, *args)

    loop.Loop.step = stop
    try:
        train()
    finally:
        os._exit(1)


def wait_for(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
