"""What every explorer shares: a message line, a place for code, what is kept between two runs of a cell, and the
picture that stands for the widget where no page runs it."""

import base64
import contextlib
import functools
import html
import sys
import threading
from collections.abc import Callable, Iterator

import ipywidgets
import numpy as np

from .drawing import png

KEPT: dict[tuple, dict] = {}  # what was chosen in an explorer, by cell and by what it shows
EXPECTED = (ValueError, OSError, RuntimeError, KeyError)  # what a user's choice or a lost file may bring


def cell() -> str:
    """The id of the notebook's cell that runs, where the front end tells it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if hasattr(ipython, "get_ipython") else None
    try:
        return str(shell.get_parent()["metadata"].get("cellId", ""))
    except (AttributeError, KeyError, TypeError):
        return ""


class Frame(ipywidgets.VBox):
    """An explorer: `rows` of widgets above a message line.

    shows: what tells this explorer from others, hashable; what is chosen in it is kept under that and the cell, so
    that the cell can run again. Subclasses give `pictures`, the still pictures of what is shown.
    """

    def __init__(self, kind: str, shows: tuple = ()):
        self.kind, self.key = kind, (cell(), kind, *shows)
        self.kept = KEPT.setdefault(self.key, {})
        self.lock = threading.RLock()  # where widgets speak on a thread of their own, beside a cell that runs
        self.message = ipywidgets.HTML()
        self.code = ipywidgets.Textarea(
            description="code",
            rows=12,
            layout={"width": "100%", "max_width": "900px", "display": "none"},
        )
        self.code.add_class("vlmlab-code")
        self.message.add_class("vlmlab-message")
        super().__init__(layout={"width": "100%", "overflow": "hidden"})

    def fill(self, *rows: ipywidgets.Widget) -> None:
        self.children = (*rows, self.message, self.code)

    def pictures(self) -> list[np.ndarray]:
        """uint8 (height, width, 3) pictures of what is shown now."""
        return []

    def say(self, text: str = "", wrong: bool = False) -> None:
        role = ' role="alert" style="font-weight:bold"' if wrong else ""
        self.message.value = f"<div{role}>{html.escape(text)}</div>" if text else ""

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Say what goes wrong instead of losing it in the log of the page."""
        with self.lock:
            try:
                yield
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
    """A method of a Frame that answers a widget: one at a time, and what goes wrong is said in its message line."""

    @functools.wraps(method)
    def wrapped(self, *args, **kwargs):
        with self.guarded():
            self.say()
            return method(self, *args, **kwargs)

    return wrapped


def labelled(text: str, **layout) -> ipywidgets.HTML:
    return ipywidgets.HTML(f"<span>{html.escape(text)}</span>", layout=layout)


def wrapping(*children: ipywidgets.Widget, **layout) -> ipywidgets.HBox:
    """Side by side where there is room, below each other where not."""
    return ipywidgets.HBox(children, layout={"flex_flow": "row wrap", "align_items": "flex-start", **layout})
