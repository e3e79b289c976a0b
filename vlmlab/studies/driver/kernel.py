"""Kernels of notebooks: the interpreter that runs vlmlab, whatever kernel a machine calls python3."""

import sys

from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec


class OwnKernel(AsyncKernelManager):
    """ipykernel in this interpreter; it listens on this machine alone."""

    def __init__(self, **options):
        super().__init__(**options)
        self.transport, self.ip = "tcp", "127.0.0.1"

    @property
    def kernel_spec(self) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")
