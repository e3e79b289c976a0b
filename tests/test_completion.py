"""Tab and Shift-Tab as Jupyter asks for them: requests to a kernel of its own."""

import re
import sys
from queue import Empty

import pytest

from vlmlab import completion

LIMIT = 120


@pytest.fixture(scope="module")
def kernel():
    """ask(code) -> the texts that a kernel offers at the end of the code; run(code) executes it."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import KernelManager

    manager = KernelManager()
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    manager._kernel_spec = KernelSpec(argv=command, display_name="this Python", language="python")
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=LIMIT)
        yield Kernel(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


class Kernel:
    def __init__(self, client):
        self.client = client

    def ask(self, code: str) -> list[str]:
        found = self.client.complete(code, reply=True, timeout=LIMIT)["content"]
        assert found["status"] == "ok"
        typed = code[found["cursor_start"] :]
        return [text for text in found["matches"] if text.startswith(typed)]

    def look(self, code: str) -> str:
        """What Shift-Tab shows, without colours."""
        found = self.client.inspect(code, detail_level=0, reply=True, timeout=LIMIT)["content"]
        return re.sub(r"\x1b\[[0-9;]*m", "", found["data"].get("text/plain", ""))

    def run(self, code: str) -> list[dict]:
        """The messages of a cell, of which none may be an error."""
        messages, answer = [], self.client.execute(code)
        while True:
            try:
                message = self.client.get_iopub_msg(timeout=LIMIT)
            except Empty:
                raise AssertionError(f"no answer to {code!r}") from None
            if message["parent_header"].get("msg_id") != answer:
                continue
            assert message["msg_type"] != "error", message["content"]
            messages.append(message)
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return messages


@pytest.fixture(scope="module")
def imported(kernel):
    kernel.run("import vlmlab, numpy as np\nfrom vlmlab import task as make_task\nimport vlmlab as v")
    return kernel


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ('vlmlab.task("emo', "emoji/food"),
        ("t = v.task('emoji/an", "emoji/animals"),
        ('make_task("emoji/an', "emoji/animals"),
        ('vlmlab.task(\n    "emoji/food",\n    protocol="base', "base_to_new"),
        ('vlmlab.load("ti', "tiny"),
        ('vlmlab.load("ViT-B-16-q', "ViT-B-16-quickgelu"),
        ('vlmlab.fit("aligned', "aligned_norm"),
        ('vlmlab.capture(vlm, data, ["image.final", "image.resid.po', "image.resid.post"),
        ('vlmlab.fit("aligned_norm", vlm, task, w_p', "w_proj="),
        ('vlmlab.fit("aligned_norm", vlm, task, w_proj=0.1, ep', "epochs="),
    ],
)
def test_names_are_completed(imported, code, expected):
    assert expected in imported.ask(code)


def test_others_are_left_alone(imported):
    imported.run("def task(name): pass")
    for code in (
        'np.load("ti',
        'task("emo',
        '"emo',
        'print("emo',
        'vlmlab.fit("nothing", w_p',
    ):
        assert not {"tiny", "emoji/food", "w_proj="} & set(imported.ask(code)), code


@pytest.mark.parametrize(
    ("room", "there", "gone"),
    [
        ("vlmlab.", {"load", "task", "fit", "capture", "studies"}, {"importlib", "feeds", "registry"}),
        ("vlmlab.studies.", {"artefact", "reproduce"}, {"importlib", "manifest", "jobs"}),
        ("vlmlab.tasks.", {"names", "task", "Split"}, {"captions", "sampling"}),
        ("vlmlab.methods.", {"names", "build", "presets"}, {"registry", "schedule"}),
        ("vlmlab.scores.", {"names", "find"}, {"importlib", "ModuleType"}),
        ("vlmlab.capture.", {"norms", "roles", "edit", "patch"}, {"importlib", "sys"}),
        ("vlmlab.plots.", {"lines", "scatter"}, {"importlib", "style"}),
    ],
)
def test_rooms_show_their_public_names(imported, room, there, gone):
    found = {
        text.removeprefix(room).removeprefix(room.rpartition(".")[0]).lstrip(".")
        for text in imported.ask(room)
    }
    assert there <= found and not gone & found


@pytest.mark.parametrize("verb", ["load", "task", "fit", "evaluate", "capture", "results", "open_run"])
def test_public_verbs_show_signature_and_example(imported, verb):
    text = imported.look(f"vlmlab.{verb}")
    assert f"{verb}(" in text and "**kwargs" not in text
    assert verb == "capture" or ">>> " in text


def test_where_the_cursor_is():
    call = completion.call_at('a = 1\nvlmlab.fit("mmrl", f(1, 2), [x, y], lr=3, tok')
    assert call == completion.Call("vlmlab.fit", "mmrl", 4, "tok", False)
    call = completion.call_at("x.task(\n  'emoji/food', # (, \"\n protocol='few")
    assert call == completion.Call("x.task", "emoji/food", "protocol", "few", True)
    assert completion.call_at('load("tiny").task("emo').function == ".task"
    for text in ("", "1 + ", "'''", ")", "f(x))", "\\", "x = [", "lambda: ("):
        assert completion.call_at(text) is None, text


def test_outside_ipython_nothing_happens(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    completion.register()
    assert "IPython" not in sys.modules
