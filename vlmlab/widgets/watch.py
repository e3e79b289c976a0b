"""Long work that is watched: how far it is, and a button that stops it."""

import threading
import time
from collections.abc import Callable

import ipywidgets
from IPython.display import display


class Stopped(Exception):
    """The button was pressed."""


class Watch(ipywidgets.HBox):
    """What is done, a bar of so many steps, and the button."""

    def __init__(self, text: str, steps: int):
        self.text, self.stop, self.start = text, threading.Event(), time.monotonic()
        self.bar = ipywidgets.IntProgress(max=steps, layout={"width": "300px"})
        self.button = ipywidgets.Button(description="stop", tooltip="stop; what was done is kept")
        self.button.on_click(lambda _: self.stop.set())
        self.button.add_class("vlmlab-stop")
        self.handle = None
        super().__init__([ipywidgets.Label(text), self.bar, self.button])

    def step(self) -> None:
        """One step is done. `Stopped` once the button was pressed."""
        if self.stop.is_set():
            raise Stopped
        self.bar.value += 1

    def counting(self, read: Callable) -> Callable:
        """A function that takes a step whenever it is called."""

        def counted(*args, **kwargs):
            self.step()
            return read(*args, **kwargs)

        return counted

    def show(self) -> "Watch":
        """Show it in the cell that runs."""
        self.handle = display(self, display_id=True)
        return self

    def end(self, line: str) -> None:
        """Leave a line in the cell where it was shown."""
        if self.handle is not None:
            self.handle.update({"text/plain": line}, raw=True)

    def __repr__(self) -> str:
        return f"{self.text}, a button stops it"

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start
