"""A real JupyterLab on this machine's loopback, with one kernel: the Python that runs the tests."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
STARTS = 120  # seconds for the server
SETTINGS = {  # cells out of sight stay in the page; nobody asks the network for news
    "completer-extension/manager": {"providerTimeout": 60_000},  # a busy machine answers late
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


def executable() -> str:
    """The `jupyter-lab` to use: $VLMLAB_LAB, that of this environment, or any; skips where there is none."""
    if named := os.environ.get("VLMLAB_LAB"):
        return named
    beside = Path(sys.executable).with_name("jupyter-lab")
    found = str(beside) if beside.is_file() else shutil.which("jupyter-lab")
    return found or pytest.skip("no JupyterLab here; pip install jupyterlab, or name one in VLMLAB_LAB")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """JupyterLab in a folder of its own: nothing of the user's settings, kernels or notebooks."""

    def __init__(self, folder: Path):
        self.folder, self.work = folder, folder / "work"
        self.work.mkdir()
        kernel = folder / "data/kernels/vlmlab"
        kernel.mkdir(parents=True)
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {"argv": argv, "display_name": "vlmlab", "language": "python"}
        (kernel / "kernel.json").write_text(json.dumps(spec))
        for name, values in SETTINGS.items():
            path = folder / f"settings/@jupyterlab/{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(values))
        self.url, self.token = f"http://127.0.0.1:{(port := free_port())}", secrets.token_hex(16)
        places = {"JUPYTER_DATA_DIR": folder / "data", "JUPYTER_CONFIG_DIR": folder / "config"}
        places |= {
            "JUPYTER_RUNTIME_DIR": folder / "runtime",
            "JUPYTER_PATH": Path(sys.prefix) / "share/jupyter",
        }
        places |= {"JUPYTERLAB_SETTINGS_DIR": folder / "settings"}
        places |= {"IPYTHONDIR": folder / "ipython", "PYTHONPATH": ROOT, "OMP_NUM_THREADS": 1}
        options = (f"IdentityProvider.token={self.token}", f"ServerApp.root_dir={self.work}")
        options += ("LabApp.expose_app_in_browser=True", "LabApp.extension_manager=readonly")
        options += (f"ServerApp.port={port}", "ServerApp.ip=127.0.0.1")
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                [executable(), "--no-browser", "--allow-root", *(f"--{o}" for o in options)],
                cwd=self.work,
                env={**os.environ, **{k: str(v) for k, v in places.items()}},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.wait()

    def wait(self) -> None:
        for _ in range(STARTS * 2):
            try:
                urllib.request.urlopen(f"{self.url}/api/status?token={self.token}", timeout=5).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.5)
        raise AssertionError(f"JupyterLab did not start:\n{(self.folder / 'log').read_text()[-2000:]}")

    def notebook(self, name: str, cells: list[str]) -> str:
        """Put a notebook there; returns its name."""
        about = {"kernelspec": {"name": "vlmlab", "display_name": "vlmlab", "language": "python"}}
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells], metadata=about)
        nbformat.write(made, self.work / name)
        return name

    def copied(self, path: Path, name: str) -> str:
        """Put a notebook of the repository there, for this kernel."""
        found = nbformat.read(path, as_version=4)
        found.metadata.kernelspec = {"name": "vlmlab", "display_name": "vlmlab", "language": "python"}
        nbformat.write(found, self.work / name)
        return name

    def stop(self) -> None:
        self.process.terminate()  # it ends its kernels
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Notebook:
    """One notebook open in Lab; requests to anywhere but the server are stopped and written down."""

    def __init__(self, browser, server: Server, name: str, width: int = 1280, height: int = 1400):
        self.outside: list[str] = []
        self.errors: list[str] = []
        self.server = server
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, reduced_motion="reduce"
        )
        self.context.route("**/*", self.answer)
        self.page = self.context.new_page()
        self.page.set_default_timeout(90_000)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(f"{server.url}/lab/tree/{name}?reset&token={server.token}")
        self.page.wait_for_function(
            "() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
        )

    def answer(self, route) -> None:
        if route.request.url.startswith((self.server.url, "data:", "blob:")):
            route.continue_()
        else:
            self.outside.append(route.request.url)
            route.abort()

    def command(self, name: str, **options) -> None:
        """One of Lab's commands, waited for."""
        self.page.evaluate(
            "([name, options]) => window.jupyterapp.commands.execute(name, options).then(() => null)",
            [name, options],
        )

    def run_all(self, seconds: int = 120) -> None:
        """Run all cells; AssertionError with the first error that a cell shows."""
        self.page.set_default_timeout(seconds * 1000)
        self.command("notebook:run-all-cells")
        wrong = [o for c in self.cells() for o in c["outputs"] if o["output_type"] == "error"]
        assert not wrong, f"{wrong[0]['ename']}: {wrong[0]['evalue']}"

    def cells(self) -> list[dict]:
        """The code cells with their outputs as they are in the open notebook."""
        found = self.page.evaluate("() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells")
        return [cell for cell in found if cell["cell_type"] == "code"]

    def output(self, cell: int):
        """What a code cell shows."""
        return self.page.locator(".jp-CodeCell").nth(cell).locator(".jp-Cell-outputArea")

    def complete(self, cell: int, text: str) -> list[str]:
        """What Tab offers behind a text typed into a cell, or the text that it becomes where one name alone fits."""
        editor = self.page.locator(".jp-CodeCell").nth(cell).locator(".cm-content")
        editor.click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.press("Delete")
        self.page.keyboard.type(text)
        before = editor.inner_text()
        self.page.keyboard.press("Tab")
        offered = self.page.locator(".jp-Completer:visible .jp-Completer-match")
        for _ in range(600):
            if offered.count():
                found = offered.all_inner_texts()
                self.page.keyboard.press("Escape")
                return found
            if editor.inner_text() != before:
                return [editor.inner_text()]
            self.page.wait_for_timeout(100)
        raise AssertionError(f"Tab offers nothing behind {text!r}")
