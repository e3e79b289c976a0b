"""A Voilà page of one notebook on this machine's loopback, with the kernel of the Lab of `lab.py`."""

import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import lab
import pytest


def executable() -> str:
    """The `voila` to use: $VLMLAB_VOILA, one beside the JupyterLab, or any; skips where there is none."""
    if named := os.environ.get("VLMLAB_VOILA"):
        return named
    beside = Path(lab.executable()).with_name("voila")
    found = str(beside) if beside.is_file() else shutil.which("voila")
    return found or pytest.skip("no Voilà here; pip install voila, or name one in VLMLAB_VOILA")


class Voila:
    """The server, in the folder of a Lab, whose settings and kernel it takes."""

    def __init__(self, server: lab.Server, notebook: str, theme: str = "light"):
        program = executable()
        self.url = f"http://127.0.0.1:{(port := lab.free_port())}/"
        places = {
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_RUNTIME_DIR": "runtime",
        }
        places |= {"IPYTHONDIR": "ipython"}
        env = {**os.environ, **{name: str(server.folder / place) for name, place in places.items()}}
        env |= {"JUPYTER_PATH": str(Path(sys.prefix) / "share/jupyter"), "PYTHONPATH": str(lab.ROOT)}
        options = [f"--port={port}", "--no-browser", "--Voila.ip=127.0.0.1", f"--theme={theme}"]
        options += ["--VoilaConfiguration.strip_sources=True"]
        self.log = server.folder / "voila.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [program, notebook, *options], cwd=server.work, env=env, stdout=log, stderr=subprocess.STDOUT
            )
        for _ in range(2 * lab.STARTS):
            try:
                urllib.request.urlopen(f"{self.url}voila/static/main.js", timeout=5).close()
                return
            except urllib.error.HTTPError:
                return  # it answers
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.5)
        raise AssertionError(f"Voilà did not start:\n{self.log.read_text()[-2000:]}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
