"""`explore`: one or two models on the images of a task, everything linked to the image, block, head and token chosen."""

import numpy as np
from PIL import Image

from . import given, reading, sheet
from .frame import EXPECTED, Frame, guarded, wrapping
from .gallery import Gallery
from .looking import Looking
from .own import OwnPictures
from .pane import CHOSEN
from .panes import PANES
from .slot import Slot
from .watch import Stopped, Watch

FIRST = ("norms by block", "answers by block")  # panes that are shown first
OWN_MOST = 60  # pictures of one's own, evenly spread over a folder of more


def explore(models, task, samples: int = 32) -> "Explorer | None":
    """An explorer of one model, or of two side by side, on the images of a task.

        vlm, task = vlmlab.load("tiny"), vlmlab.task("emoji/animals", protocol="base_to_new", shots=16)
        run = vlmlab.fit("mmrlpp", vlm, task)
        vlmlab.explore({"CLIP": vlm, "MMRL++": run}, task)

    models: a model of two towers, a method, a run, the path of a run's folder, or a dict of at most two of them.
    task: what `vlmlab.task` gives, or a Split, as `widgets.own_images` makes one of pictures and class names.
    samples: at most so many images of each test, evenly spread.

    What there is to read, and its size, is said before, with a button that stops it (then None is returned, and the
    same call goes on); it is kept in memory, so that the cell shows the same at once when it runs again, with what
    was chosen. Attention is read for each image that is chosen. Without a page that runs it, as under papermill,
    the cell keeps a picture of what it shows.

    Raises ValueError for models or tests that cannot be looked at, FileNotFoundError for a run folder that is gone.
    """
    if not isinstance(samples, int) or samples < 1:
        raise ValueError(f"samples must be a whole number of at least 1, got {samples!r}")
    tests = given.tests_of(task, samples)
    some = {name: reading.some(test.value, samples) for name, test in tests.items()}
    found = given.models_of(models, next(iter(some.values())))
    methods = {name: model.value for name, model in found.items()}
    try:
        readings = reading.read(methods, some)
    except Stopped:
        return None
    codes = {
        "models": "{" + ", ".join(f"{name!r}: {model.code}" for name, model in found.items()) + "}",
        "tests": next(iter(tests.values())).code,
    }
    return Explorer(
        methods, some, readings, codes, [place for model in found.values() for place in model.trained]
    )


class Explorer(Frame):
    """The widget that `explore` returns. methods, tests: by name; readings: (model, test) -> Reading; codes: what
    makes models and tests in a cell; trained: (key, seed) of the runs among the models."""

    def __init__(self, methods, tests, readings, codes, trained):
        shows = (*methods, *tests, *(t.fingerprint() for t in tests.values()))
        super().__init__(f"{' and '.join(methods)} on {', '.join(tests)}", shows, trained)
        self.methods, self.tests, self.readings, self.codes = (
            methods,
            dict(tests),
            dict(readings),
            dict(codes),
        )
        self.rows = sheet.table(self.tests, self.readings)
        self.number = min(self.kept.get("number", 0), len(self.rows) - 1)
        self.gallery = Gallery(self.rows, self.tests, list(methods), self.kept, self.choose, self.remember)
        self.looking = Looking(methods, self.kept, self.moved, self.tools_of(lambda: PANES["attention"]))
        self.slots = [Slot(name, self) for name in self.kept.get("panes", FIRST)]
        self.own = OwnPictures(self.add_own, self.guarded)
        self.fill(wrapping(self.gallery, self.looking), wrapping(*self.slots, grid_gap="12px"), self.own)
        with self.guarded():
            self.show_image()

    def state(self) -> dict:
        """What is chosen now."""
        row = self.rows.loc[self.number]
        return {
            **self.looking.chosen,
            "test": row["test"],
            "sample": int(row["sample"]),
            "depth": self.looking.depth,
        }

    def arguments(self) -> dict:
        """What panes may need, by the names of their arguments."""
        state = self.state()
        test = state["test"]
        return {
            **{name: state[name] for name in CHOSEN},
            "test": self.tests[test],
            "tests": self.tests,
            "models": self.methods,
            "acts": {m: self.readings[m, test].record for m in self.methods},
            "every": {t: {m: self.readings[m, t].record for m in self.methods} for t in self.tests},
            "texts": {m: self.readings[m, test].texts for m in self.methods},
            "probs": self.looking.probs,
            "pictures": self.looking.seen,
        }

    def probs(self) -> dict:
        """Attention of the chosen image, read once."""
        state = self.state()
        test, sample = self.tests[state["test"]], state["sample"]
        found = {}
        for name, method in self.methods.items():
            key = (id(self.readings[name, state["test"]]), sample)
            make = lambda m=method: reading.attention(m, test, sample)
            found[name] = reading.LOOKED.get(key, make, lambda p: p.nbytes)
        return found

    def seen(self) -> dict[str, np.ndarray]:
        state = self.state()
        test, sample = self.tests[state["test"]], state["sample"]
        return {name: reading.seen(m, test, sample) for name, m in self.methods.items()}

    @guarded
    def choose(self, number: int) -> None:
        """Make another image the one that all is about."""
        before, self.number = self.number, number
        try:
            self.show_image()
        except EXPECTED:
            self.number = before  # what is shown is still the image before
            self.gallery.mark(before)
            raise

    def choose_here(self, sample: int) -> None:
        """Another image of the same test, by its number there."""
        self.choose(self.number_of(sample))

    def show_image(self) -> None:
        self.looking.show(self.probs(), self.seen())
        self.gallery.mark(self.number)
        self.draw()

    @guarded
    def moved(self, *_) -> None:
        """A slider, the token that looks, or the choice of a pane."""
        self.draw()

    def draw(self) -> None:
        """Draw what depends on the choices of now; what was drawn before is only shown."""
        self.looking.draw()
        for slot in self.slots:
            slot.draw()
        panes = [slot.chooser.value for slot in self.slots]
        self.remember(number=self.number, panes=panes, **self.looking.chosen)

    def tools_of(self, pane):
        """The buttons for what pane() gives when they are pressed."""
        return self.tools(
            lambda: self.code_of(pane()), lambda: pane().still(self.arguments()), lambda: self.name_of(pane())
        )

    def code_of(self, pane) -> str:
        state = self.state()
        return pane.code({**self.codes, **state, "name": state["test"]}, len(self.methods))

    def name_of(self, pane) -> str:
        """'r(x) new 7', with what a user moves that it depends on."""
        state = self.state()
        moved = [*pane.follows, *(["layer"] if pane.marks else [])]
        return " ".join([pane.name, *(f"{'block' if n == 'layer' else n} {state[n]}" for n in moved)])

    def tell(self, sample: int) -> str:
        """What is said of an image of the test that is shown."""
        return sheet.told(self.rows.loc[self.number_of(sample)], list(self.methods))

    def number_of(self, sample: int) -> int:
        rows = self.rows
        return int(rows.index[(rows["test"] == self.state()["test"]) & (rows["sample"] == sample)][0])

    def add_own(self, pictures, names: list[str]) -> None:
        """Read pictures of one's own and choose the first of them. ValueError for what cannot be read."""
        names = names or list(next(iter(self.tests.values())).classnames)
        split = reading.some(given.own_images(pictures, names), OWN_MOST)
        tests = {given.OWN: split}
        asked = {(m, given.OWN): reading.key(method, split) for m, method in self.methods.items()}
        watch = reading.watch_of(self.methods, tests, asked) or Watch("reading", 0)
        self.long(
            watch, lambda: reading.fill({}, self.methods, tests, asked, watch), lambda f: self.join(split, f)
        )

    def join(self, split, found) -> None:
        """Take pictures of one's own that were read among the tests."""
        self.tests[given.OWN] = split
        self.readings |= found
        self.rows = sheet.table(self.tests, self.readings)
        self.gallery.small = {k: v for k, v in self.gallery.small.items() if k[0] != given.OWN}
        self.number = self.gallery.chosen = int(self.rows.index[self.rows["test"] == given.OWN][0])
        before = self.codes.setdefault("given tests", self.codes["tests"])
        self.codes["tests"] = (
            f"{before} | {{{given.OWN!r}: widgets.own_images({split.ids!r}, {list(split.classnames)!r})}}"
        )
        for slot in self.slots:
            slot.made.kept.clear()
        self.gallery.take(self.rows, self.tests, {})
        self.show_image()

    def pictures(self) -> list[np.ndarray]:
        state, thumbnails = self.state(), Image.fromarray(self.gallery.pixels())
        page = Image.new("RGB", thumbnails.size, "white")
        page.paste(thumbnails, mask=thumbnails)
        found = [np.asarray(page)]
        try:
            found.append(PANES["attention"].drawing(self.arguments(), state["depth"]).pixels)
        except ValueError:
            pass  # a token that this block does not have
        return found + [s.drawing.marked(state["layer"]) for s in self.slots if s.drawing is not None]
