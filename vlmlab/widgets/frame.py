"""What every explorer shares: a message line, a place for code and saved figures, long work that can be stopped, what
is kept between two runs of a cell, and the picture that stands for the widget where no page runs it."""

import base64
import contextlib
import functools
import html
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import ipywidgets
import numpy as np

from .drawing import png
from .watch import Stopped, Watch

KEPT: dict[tuple, dict] = {}  # what was chosen in an explorer, by cell and by what it shows
EXPECTED = (ValueError, OSError, RuntimeError, KeyError)  # what a user's choice or a lost file may bring
LONGEST = 120  # letters of a file's name
# one explorer at a time: widgets speak on threads of their own, models have one set of hooks
LOCK = threading.RLock()
# shown by the page itself: where the front end has lost the kernel, and in JupyterLab where none is left
GONE = """<style>.vlmlab-gone{display:none;font-weight:bold}.jupyter-widgets-disconnected .vlmlab-gone,
.jp-NotebookPanel:has(.jp-Notebook-ExecutionIndicator:is([data-status=unknown],[data-status=dead])) .vlmlab-gone
{display:block}
.vlmlab-frame .jupyter-widgets-disconnected::before,.vlmlab-frame.jupyter-widgets-disconnected::before{display:none}
</style><div class="vlmlab-gone" role="alert">The kernel has stopped: what is shown stays, and nothing moves any more.
Run the cells again.</div>"""


def shell():
    """The IPython that runs, or None."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if hasattr(ipython, "get_ipython") else None


def cell() -> str:
    """The id of the notebook's cell that runs, where the front end tells it."""
    try:
        return str(shell().get_parent()["metadata"].get("cellId", ""))
    except (AttributeError, KeyError, TypeError):
        return ""


class Frame(ipywidgets.VBox):
    """An explorer: `rows` of widgets above a message line.

    shows: what tells this explorer from others, hashable; what is chosen in it is kept under that and the cell, so
    that the cell can run again. trained: (key, seed) of the runs in it. Subclasses give `pictures`, the still pictures
    of what is shown.
    """

    def __init__(self, kind: str, shows: tuple = (), trained: Iterable[tuple[str, int]] = ()):
        self.kind, self.key = kind, (cell(), kind, *shows)
        self.kept = KEPT.setdefault(self.key, {})
        self.trained, self.watch = list(trained), None
        self.message, self.gone, self.busy = ipywidgets.HTML(), ipywidgets.HTML(GONE), ipywidgets.HBox()
        self.folder = ipywidgets.Text(
            self.kept.get("folder", "."), description="save in", layout={"width": "260px"}
        )
        self.folder.tooltip = "the folder for saved figures, from where the notebook is"
        self.folder.add_class("vlmlab-folder")
        self.code = ipywidgets.Textarea(
            description="code",
            rows=12,
            layout={"width": "100%", "max_width": "900px", "display": "none"},
        )
        self.code.add_class("vlmlab-code")
        self.message.add_class("vlmlab-message")
        super().__init__(layout={"width": "100%", "overflow": "hidden"})
        self.add_class("vlmlab-frame")

    def fill(self, *rows: ipywidgets.Widget) -> None:
        self.children = (self.gone, *rows, self.busy, self.message, self.folder, self.code)

    def tools(self, code: Callable[[], str], figure: Callable, name: Callable[[], str]) -> ipywidgets.HBox:
        """Buttons of a picture: the cell that draws it, and its files; name() is what these are called."""
        copy, save = (
            ipywidgets.Button(description=text, tooltip=tooltip, layout={"width": "110px"})
            for text, tooltip in (
                ("copy as code", "show the cell that draws this as a static figure"),
                ("save figure", "write it as PDF, PNG and SVG that say where they came from"),
            )
        )
        copy.on_click(lambda _: self.show_code(code()))
        save.on_click(lambda _: self.save(figure, name))
        copy.add_class("vlmlab-copy")
        save.add_class("vlmlab-save")
        return ipywidgets.HBox([copy, save])

    def save(self, figure: Callable, name: Callable[[], str]) -> None:
        """Write a figure as PDF, PNG and SVG into the folder that is named."""
        from ..studies.pages.provenance import save_figure

        with self.guarded():
            self.say()
            out = Path(self.folder.value.strip() or ".").expanduser()
            about = {"study": "explorer", "profile": "interactive"}
            about |= {"run_keys": [k for k, _ in self.trained], "seeds": [s for _, s in self.trained]}
            written = save_figure(figure(), out, slug(f"{self.kind} {name()}"), **about)
            self.remember(folder=self.folder.value)
            self.say(f"saved {', '.join(path.name for path in written)} in {out.resolve()}")

    def long(self, watch: Watch, work: Callable[[], object], then: Callable[[object], None]) -> None:
        """Do what takes long, then show it; its bar and a button that stops it stand in the explorer meanwhile.

        On a thread of its own in a kernel, where the button could not be heard otherwise.
        """

        def run() -> None:
            with self.guarded():
                try:
                    found = work()
                finally:
                    self.watch, self.busy.children = None, ()
                then(found)

        self.say()
        self.watch, self.busy.children = watch, (watch,)
        if hasattr(shell(), "kernel"):
            threading.Thread(target=run, daemon=True).start()
        else:
            run()

    def pictures(self) -> list[np.ndarray]:
        """uint8 (height, width, 3) pictures of what is shown now."""
        return []

    def say(self, text: str = "", wrong: bool = False) -> None:
        role = ' role="alert" style="font-weight:bold"' if wrong else ""
        self.message.value = f"<div{role}>{html.escape(text)}</div>" if text else ""

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Say what goes wrong instead of losing it in the log of the page."""
        with LOCK:
            try:
                yield
            except Stopped:
                self.say("stopped; what is shown is as it was")
            except EXPECTED as e:
                self.say(f"{type(e).__name__}: {e}", wrong=True)

    def remember(self, **chosen) -> None:
        self.kept.update(chosen)

    def show_code(self, text: str) -> None:
        """The code of a picture, to be copied; the same again hides it."""
        hidden = self.code.layout.display == "none" or self.code.value != text
        self.code.value, self.code.layout.display = text, "flex" if hidden else "none"

    def _repr_mimebundle_(self, **kwargs) -> dict:
        bundle = super()._repr_mimebundle_(**kwargs)
        if isinstance(bundle, tuple):
            bundle = bundle[0]
        bundle["text/plain"] = repr(self)
        if still := self.pictures():
            from .drawing import beside

            bundle["image/png"] = base64.b64encode(png(beside(still))).decode()
        return bundle

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.kind})"


def guarded(method: Callable) -> Callable:
    """A method of a Frame that answers a widget: one at a time, and what goes wrong is said in its message line.

    While something long is done it is not called: what was moved is shown in the end.
    """

    @functools.wraps(method)
    def wrapped(self, *args, **kwargs):
        if self.watch is not None:
            return None
        with self.guarded():
            self.say()
            return method(self, *args, **kwargs)

    return wrapped


def slug(text: str) -> str:
    """A name for a file: 'CLIP and MMRL++, r(x)' -> 'clip-and-mmrlpp-r-x'."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("++", "pp")).strip("-")[:LONGEST]


def labelled(text: str, **layout) -> ipywidgets.HTML:
    return ipywidgets.HTML(f"<span>{html.escape(text)}</span>", layout=layout)


def wrapping(*children: ipywidgets.Widget, **layout) -> ipywidgets.HBox:
    """Side by side where there is room, below each other where not."""
    return ipywidgets.HBox(children, layout={"flex_flow": "row wrap", "align_items": "flex-start", **layout})
