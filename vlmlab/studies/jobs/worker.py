"""Worker processes: a job is a function called in a process of its own, with limits; a crash costs one job.

A process reads requests as JSON lines from its standard input and answers them one by one on its standard
output; whatever the job itself prints goes to the job's log. When the input ends, because the driver ended or
was killed, the process ends at once: nobody writes into a run folder unseen. Runs and notebooks, the local
pool (pool.py) and dask (cluster.py) all go through `Worker.ask`.
"""

import contextlib
import dataclasses
import errno
import importlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from ...own_files import NOTEBOOKS
from ...paths import PACKAGE
from ..code import Sources
from ..sections import Resources

RETRIES = 2  # of a job that a signal ended; an error of its own would only come again
POLL = 0.5  # seconds between looks at whether the job is still wanted
LINUX = sys.platform == "linux"
START = f"""import sys
sys.path.insert(0, {str(PACKAGE.parent)!r})  # not a vlmlab/ in the folder where the job runs
from vlmlab.studies.jobs.worker import main
main()"""


@dataclasses.dataclass(frozen=True)
class Request:
    """One job: 'module:function', its arguments as plain values, where it prints, what it needs.

    Those of one kind load the same modules and may keep them for each other. It runs in the folder, and with the VLMLAB_ variables, of the process that made the request.
    """

    label: str
    call: str
    arguments: dict
    log: str
    resources: Resources = dataclasses.field(default=Resources())
    cwd: str = dataclasses.field(default_factory=os.getcwd)
    settings: dict = dataclasses.field(default_factory=lambda: settings())
    kind: str = ""


def settings(notebooks: Path | None = None) -> dict[str, str]:
    """The VLMLAB_ variables of a job; `notebooks` tells it and its kernel where the studies are."""
    found = {name: value for name, value in os.environ.items() if name.startswith("VLMLAB_")}
    return found | ({NOTEBOOKS: str(notebooks.absolute())} if notebooks else {})


class Failed(Exception):
    """Raised by a job: its text is the whole message."""


class Killed(Failed):
    """Raised by a job whose own subprocess, such as a kernel, was killed: worth another attempt."""


def environment(cores: int = 1, gpus: tuple[str, ...] = ()) -> dict[str, str]:
    """Of workers and the kernels they start: this vlmlab first, and a number of threads that comes from
    study.toml and not from --jobs, so that numbers do not depend on how many jobs run beside each other."""
    paths = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = str(cores) if cores > 1 else os.environ.get("OMP_NUM_THREADS", "1")
    devices = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}
    return {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUTF8": "1",  # what jobs and kernels print and write, whatever the locale
        "TQDM_DISABLE": "1",
        **devices,
    }


class Worker:
    """One process, started at the first request, and again after it died, for other work or resources."""

    def __init__(self):
        self.process, self.made_for = None, None
        self.lock, self.stopped = threading.Lock(), False

    def ask(
        self, request: Request, gpus: tuple[str, ...] = (), unwanted: Callable[[], bool] = lambda: False
    ) -> dict:
        """{'result': value} or {'error': text}, with 'seconds', and with 'killed' (a list of texts) where
        a signal ended attempts.

        gpus: device numbers that it alone may use. unwanted: asked now and then whether to give up.
        """
        killed, start = [], time.monotonic()
        for _ in range(1 + RETRIES):
            answer = self.attempt(request, gpus, unwanted)
            if "killed" not in answer:
                break
            killed.append(answer["killed"])
        else:
            answer = {"error": f"{killed[-1]}, {len(killed)} times; see {request.log}"}
        answer |= {"killed": killed} if killed else {}
        return answer | {"seconds": time.monotonic() - start}

    def attempt(self, request: Request, gpus: tuple[str, ...], unwanted: Callable[[], bool]) -> dict:
        """One attempt; {'killed': text} when a signal ended it."""
        process = self.ready(request, gpus)
        if process is None:
            return {"error": "stopped"}
        text = json.dumps({k: getattr(request, k) for k in ("call", "arguments", "log", "kind")})
        end = time.monotonic() + request.resources.hours * 3600
        try:
            process.stdin.write(text + "\n")
            process.stdin.flush()
            while not select.select([process.stdout], [], [], POLL)[0]:
                if time.monotonic() > end:
                    self.kill()
                    hours = f"{request.resources.hours:g} hours"
                    return {"error": f"over the limit of {hours}; see {request.log}"}
                if unwanted():
                    self.kill()
                    return {"error": "stopped"}
            answer = process.stdout.readline()
        except OSError:
            answer = ""
        return json.loads(answer) if answer else self.obituary(request)

    def obituary(self, request: Request) -> dict:
        """How the process ended that gave no answer."""
        code = self.process.wait()
        self.process = None
        if code >= 0:
            return {"error": f"the process ended with exit status {code}; see {request.log}"}
        hint = ", perhaps out of memory" if code == -signal.SIGKILL else ""
        return {"killed": f"killed by {signal.Signals(-code).name}{hint}"}

    def ready(self, request: Request, gpus: tuple[str, ...]) -> subprocess.Popen | None:
        """The process for a request; None when the work was stopped meanwhile."""
        needs = request.resources
        wanted = (request.call, needs.cores, needs.memory_gb, gpus, request.cwd, request.settings)
        if self.process and self.made_for != wanted:
            self.kill()
        with self.lock:
            if self.stopped:
                return None
            if self.process is None:
                arguments = [str(os.getpid()), str(request.resources.memory_gb or 0)]
                # a session of its own: Ctrl-C reaches the driver only, which then ends its workers
                self.process = subprocess.Popen(
                    [sys.executable, "-c", START, *arguments],
                    encoding="utf-8",
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,
                    cwd=request.cwd,
                    env=environment(request.resources.cores, gpus) | request.settings,
                )
                self.made_for = wanted
            return self.process

    def kill(self) -> None:
        """End the process and what it started in its group; kernels see by themselves that it is gone."""
        if process := self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self.process = None

    def stop(self) -> None:
        """End it for good, also in the middle of a job: runs survive that."""
        with self.lock:
            self.stopped = True
            if process := self.process:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@dataclasses.dataclass
class Memory:
    """What a process knows of the job before: its kind, and the files of the modules it loaded, with their age.

    kept: the modules of the process itself. What jobs of another kind have loaded, or code that was edited
    since, is forgotten, so that a job's own record of code (code.py) does not depend on what ran before it.
    """

    kept: set[str]
    kind: str = ""
    ages: dict[str, int] = dataclasses.field(default_factory=dict)

    def make_ready(self, kind: str, project: Path) -> None:
        sources = Sources(project)
        if not kind or kind != self.kind or self.ages != sources.ages():
            sources.forget(self.kept)
        self.kind = kind

    def remember(self, project: Path) -> None:
        self.ages = Sources(project).ages()


def handle(call: str, arguments: dict, log: str, kind: str, memory: Memory) -> dict:
    """Call the function that a request names; what it prints goes to its log."""
    try:
        Path(log).parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a", encoding="utf-8") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
        project = Path(arguments.get("project", PACKAGE.parent))
        memory.make_ready(kind, project)
        module, _, function = call.partition(":")
        result = getattr(importlib.import_module(module), function)(**arguments)
        memory.remember(project)
        return {"result": result}
    except Failed as error:
        return {"killed" if isinstance(error, Killed) else "error": str(error)}
    except Exception as error:
        with contextlib.suppress(OSError):  # a full disk has no room for the log either
            traceback.print_exc()
        first = next(iter(str(error).splitlines()), "")
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC and "make room" not in first
        hint = (
            f"; make room where {Path(log).parent} lies, or name another folder with --runs" if full else ""
        )
        return {"error": f"{type(error).__name__}: {first}{hint}"}
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()


def main() -> None:
    """Answer requests until the input ends. Arguments: the process that waits, the limit of memory in GB."""
    parent, limit = int(sys.argv[1]), float(sys.argv[2])
    if limit and LINUX:
        limit_memory(int(limit * 1e9))
    if LINUX:
        die_with(parent)
    lines, out = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    with open(os.devnull, "rb") as nothing:  # what a job reads or prints is neither a request nor an answer
        os.dup2(nothing.fileno(), 0)
    requests = queue.SimpleQueue()
    memory = Memory({name for name in sys.modules if name.startswith("vlmlab.studies")})

    def read() -> None:
        for line in lines:
            requests.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        out.write(json.dumps(handle(**requests.get(), memory=memory)) + "\n")
        out.flush()


def limit_memory(size: int) -> None:
    """Data of this process and of each that it starts, in bytes: beyond it, an allocation fails."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    size = size if hard == resource.RLIM_INFINITY else min(size, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def die_with(parent: int) -> None:
    """Have the system end this process together with the thread that waits for it (PR_SET_PDEATHSIG)."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
