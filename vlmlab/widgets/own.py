"""Pictures of one's own inside an explorer: dropped in or by path, with class names typed beside."""

from collections.abc import Callable

import ipywidgets

from .frame import labelled, wrapping
from .given import uploaded


class OwnPictures(ipywidgets.Accordion):
    """add(pictures, names) is called with PIL images and paths, and the class names ([]: those of the task)."""

    def __init__(self, add: Callable, guarded: Callable):
        self.add, self.guarded = add, guarded
        self.files = ipywidgets.FileUpload(multiple=True, accept="image/*", description="pictures")
        self.path = ipywidgets.Text(
            description="or path", placeholder="a picture or a folder, where the kernel runs"
        )
        self.names = ipywidgets.Text(
            description="classes", placeholder="cat, dog, a red car (empty: those of the task)"
        )
        self.go = ipywidgets.Button(description="look", layout={"width": "90px"})
        self.go.tooltip = "read these pictures"
        for name in ("files", "path", "names", "go"):
            getattr(self, name).add_class(f"vlmlab-own-{name}")
        for text in (self.path, self.names):
            text.layout.width = "420px"
        self.go.on_click(lambda _: self.look())
        note = labelled(
            "They join the images above as the test “own” (60 of a larger folder); nothing leaves this machine."
        )
        super().__init__(
            [ipywidgets.VBox([wrapping(self.files, self.path), wrapping(self.names, self.go), note])],
            titles=("your own pictures and class names",),
            selected_index=None,
            layout={"width": "100%"},
        )

    def look(self) -> None:
        with self.guarded():
            pictures = [
                *uploaded(self.files.value),
                *([self.path.value.strip()] if self.path.value.strip() else []),
            ]
            if not pictures:
                raise ValueError("choose pictures, or name a picture or a folder, first")
            self.go.description = "reading …"
            try:
                self.add(pictures, [n for n in self.names.value.split(",") if n.strip()])
            finally:
                self.go.description = "look"
