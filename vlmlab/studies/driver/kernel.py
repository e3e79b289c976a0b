"""Kernels of notebooks: the interpreter that runs vlmlab, whatever kernel a machine calls python3.

Where a system can fork, the kernels of notebooks that use vlmlab are forked from a process that has imported the
large libraries already: that saves most of the time of a short notebook. Nothing of vlmlab is in it, so that the
record of what a notebook loaded (code.py) stays true.
"""

import asyncio
import multiprocessing
import os
import sys
import threading
from importlib.metadata import EntryPoint
from multiprocessing import reduction

from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

NAME = "vlmlab-forked"
LOADED = [
    "torch",
    "open_clip",
    "pandas",
    "xarray",
    "scipy.stats",
    "matplotlib.pyplot",
    "seaborn",
    "IPython",
    "ipykernel.kernelapp",
]
CAN_FORK = "forkserver" in multiprocessing.get_all_start_methods()


class OwnKernel(AsyncKernelManager):
    """ipykernel in this interpreter; it listens on this machine alone."""

    started_by = {}

    def __init__(self, **options):
        super().__init__(**options)
        self.transport, self.ip = "tcp", "127.0.0.1"

    @property
    def kernel_spec(self) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        about = {"kernel_provisioner": self.started_by} if self.started_by else {}
        return KernelSpec(argv=argv, display_name="Python 3", language="python", metadata=about)


class ForkedKernel(OwnKernel):
    """The same as a fork of the process with the libraries, which starts with the first one."""

    started_by = {"provisioner_name": NAME}

    def __init__(self, **options):
        super().__init__(**options)
        entry = EntryPoint(NAME, f"{__name__}:Forked", KernelProvisionerFactory.GROUP_NAME)
        KernelProvisionerFactory.instance().provisioners[NAME] = entry


class Forked(LocalProvisioner):
    """Starts a kernel as a fork, in a session of its own."""

    async def launch_kernel(self, cmd: list[str], **kwargs) -> dict:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LOADED)
        arguments = cmd[cmd.index("ipykernel_launcher") + 1 :]
        output = [Output(1), Output(2)]
        process = context.Process(
            target=run, args=(arguments, kwargs["env"], kwargs.get("cwd") or os.getcwd(), output)
        )
        process.start()
        self.process, self.pid = Child(process), process.pid
        while process.is_alive() and os.getpgid(process.pid) != process.pid:
            await asyncio.sleep(0.01)  # until signals to its group reach it and nobody else
        self.pgid = process.pid
        return self.connection_info


class Child:
    """A process of multiprocessing, as `subprocess.Popen` would show it."""

    stdin = stdout = stderr = None

    def __init__(self, process):
        self.process, self.pid = process, process.pid

    def poll(self) -> int | None:
        self.process.join(0)
        return self.process.exitcode

    def wait(self) -> int:
        self.process.join()
        return self.process.exitcode

    def send_signal(self, signum: int) -> None:
        if self.process.is_alive():
            os.kill(self.pid, signum)

    def kill(self) -> None:
        self.process.kill()

    def terminate(self) -> None:
        self.process.terminate()


class Output:
    """A file descriptor of this process that the child gets too."""

    def __init__(self, fd: int):
        self.fd = fd

    def __reduce__(self):
        return received, (reduction.DupFd(self.fd),)


def end_with_the_worker() -> None:
    """End this process, in the middle of a cell too, when the one that asked for it has ended."""
    multiprocessing.parent_process().join()
    os._exit(1)


def received(handle) -> int:
    return handle.detach()


def run(arguments: list[str], env: dict[str, str], folder: str, output: list[int]) -> None:
    """The kernel itself, in the forked process: as if it had been started with these arguments."""
    os.setsid()
    for fd, inherited in enumerate(output, 1):
        os.dup2(inherited, fd)
        os.close(inherited)
    os.environ.clear()
    os.environ.update(env)
    threading.Thread(target=end_with_the_worker, daemon=True).start()
    os.chdir(folder)
    paths = [p for p in env.get("PYTHONPATH", "").split(os.pathsep) if p]
    sys.path[:] = [*paths, *(p for p in sys.path if p not in paths)]
    for name in [name for name in sys.modules if name.partition(".")[0] == "vlmlab"]:
        del sys.modules[name]  # what brought it here; the notebook imports its own
    sys.argv = ["ipykernel_launcher", *arguments]
    import matplotlib
    from ipykernel import kernelapp

    # what matplotlib reads when it is first imported: figures appear below their cells
    matplotlib.rcParams["backend"] = env.get("MPLBACKEND") or "module://matplotlib_inline.backend_inline"
    kernelapp.launch_new_instance(argv=arguments)
