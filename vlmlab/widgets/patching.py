"""`explore_patching`: the tokens of one image put into the run of another, block by block and role by role."""

import itertools

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from .. import plots
from ..capturing.capture import capture
from ..methods.method import Method
from ..tasks.split import Split
from ..train.evaluate import restored
from .drawing import Drawing, drawn, part, png
from .frame import Frame, guarded, wrapping
from .given import Given, method_of
from .pane import IMPORTS
from .picture import Picture
from .reading import READ, STREAM, key, roles, seen
from .values import Box
from .watch import Stopped, Watch

ALL = "all tokens"
CLASSES = 5  # whose probabilities are drawn
HEIGHT = 2.6  # inches


def explore_patching(model, pair: Split) -> "Patching | None":
    """Choose a block and a role: in a run of the second image, these tokens are those of the first.

        vlm, task = vlmlab.load("tiny"), vlmlab.task("emoji/animals")
        vlmlab.explore_patching(vlm, task.tests["test"].select([0, 60]))

    model: as for `explore`, one. pair: a Split of two images of different classes. All blocks and roles are run
    once before and kept in memory, so that a choice only draws; a button stops that (then None is returned). Raises
    ValueError for another pair.
    """
    check_pair(pair)
    try:
        return Patching(method_of(model, pair), pair)
    except Stopped:
        return None


def check_pair(pair: Split) -> None:
    if not isinstance(pair, Split) or len(pair) != 2:
        what = f"{len(pair)} images" if isinstance(pair, Split) else f"a {type(pair).__name__}"
        raise ValueError(
            f"pair is {what}; expected is a Split of two images, such as task.new.select([0, 20])"
        )
    if pair.labels[0] == pair.labels[1]:
        raise ValueError(
            f"both images are of class {pair.classnames[pair.labels[0]]!r}; choose two of different classes"
        )


def patched(method: Method, pair: Split, watch: Watch | None = None) -> xr.DataArray:
    """Logits of the second image with the tokens of each role behind each block from the first, (layer, role, class).

    Attributes: first and second, the logits of both images as they are. NaN where a block has no token of a role.
    """
    watch = watch or Watch("", method.vlm.image.depth)
    acts = capture(method, pair.select([0]), STREAM, progress=False)[STREAM]
    there, depth = [*roles(method, pair), ALL], method.vlm.image.depth
    found = np.full((depth, len(there), len(pair.classnames)), np.nan)
    with restored(method):
        method.set_classes(list(pair.classnames), pair.template)
        images = torch.stack([method.vlm.preprocess(pair.image(i)) for i in range(2)]).to(method.vlm.device)
        with torch.inference_mode():
            plain = method.logits(images).float().cpu().numpy()
        for block in range(1, depth + 1):
            watch.step()
            tokens = acts.sel(layer=block).dropna("token")
            here = dict.fromkeys(tokens["role"].values.tolist())
            for column, role in enumerate(there):
                if role == ALL or role in here:
                    put = capture.patch(tokens, *([] if role == ALL else [role]))
                    with capture.edit(method, {f"{STREAM}[{block}]": put}), torch.inference_mode():
                        found[block - 1, column] = method.logits(images[1:])[0].float().cpu().numpy()
    coords = {"layer": np.arange(1, depth + 1), "role": there, "class": list(pair.classnames)}
    dims = ("layer", "role", "class")
    return xr.DataArray(found, coords, dims, "logit", {"first": plain[0], "second": plain[1]})


def restored_share(logits: xr.DataArray, pair: Split) -> xr.DataArray:
    """How far the answer follows, (layer, role): 0 is that of the second image, 1 that of the first.

    (lead - lead of the second) / (lead of the first - lead of the second), lead the logit of the first image's
    class above that of the second's.
    """
    one, other = (int(c) for c in pair.labels)

    def lead(values):
        return values[..., one] - values[..., other]

    low, high = lead(logits.attrs["second"]), lead(logits.attrs["first"])
    return ((lead(logits) - low) / (high - low)).drop_vars("class", errors="ignore").rename("restored")


def followed(logits: xr.DataArray, pair: Split, ax: Axes) -> None:
    """How far the answer follows the first image, in every block and role."""
    share = restored_share(logits, pair).transpose("role", "layer")
    share = share.assign_coords(role=[plots.label(r) for r in share["role"].values])
    plots.matrix(share, ax, "follows the first image", vmax=max(1.0, float(share.max())), ylabel="")
    ax.set_aspect("auto")


def cell_of(logits: xr.DataArray, layer: int, role: str) -> Box:
    """The place of a block and a role in `followed`: left, bottom, right and top."""
    left, low = layer - 1.5, logits["role"].values.tolist().index(role) - 0.5
    return left, low, left + 1, low + 1


def answers(logits: xr.DataArray, pair: Split, layer: int, role: str, ax: Axes) -> None:
    """Probabilities of the likeliest classes for both images as they are and after one swap."""
    runs = {"first": logits.attrs["first"], "patched": logits.sel(layer=layer, role=role).values}
    runs["second"] = logits.attrs["second"]
    p = {k: np.exp(v - v.max()) / np.exp(v - v.max()).sum() for k, v in runs.items()}
    best = np.argsort(-np.nanmax(list(p.values()), axis=0))[:CLASSES][::-1]
    shades = {"second": "patch", "patched": "prompt", "first": "cls"}
    for i, (name, colour) in enumerate(shades.items()):
        place = np.arange(len(best)) + (i - 1) * 0.27
        ax.barh(place, p[name][best], 0.25, color=plots.colour(colour), label=name)
    ax.set_yticks(range(len(best)), [pair.classnames[c].replace("_", " ") for c in best])
    ax.set(xlim=(0, 1), xlabel="probability", title=f"{plots.label(role)} behind block {layer}")
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], labels[::-1], fontsize=7, loc="lower right")


def sweep(logits: xr.DataArray, pair: Split, layer: int, role: str):
    """A figure: how far the answer follows in every block and role, and the probabilities at the chosen one."""
    fig, (left, right) = plots.figure(2, HEIGHT, cols=2)
    plt.close(fig)
    followed(logits, pair, left)
    x, y, end, top = cell_of(logits, layer, role)
    frame = Rectangle((x, y), end - x, top - y, fill=False, edgecolor="white", linewidth=2)
    left.add_patch(frame).set_clip_on(False)
    answers(logits, pair, layer, role, right)
    return fig


class Patching(Frame):
    """The widget that `explore_patching` returns."""

    def __init__(self, model: Given, pair: Split):
        first, second = (pair.caption(i) for i in range(2))
        super().__init__(f"patching, {first} into {second}", (pair.fingerprint(),), model.trained)
        method = model.value
        self.method, self.code_of_model, self.pair = method, model.code, pair
        sweep_key = (*key(method, pair), "patched")
        self.logits = READ.get(sweep_key, self.swept, lambda logits: logits.nbytes)
        names = self.logits["role"].values.tolist()
        depth = self.logits.sizes["layer"]
        at = min(self.kept.get("layer", depth // 2), depth)
        self.layer = ipywidgets.IntSlider(max(1, at), 1, depth, description="block")
        role = self.kept.get("role", names[0])
        options = [(plots.label(n), n) for n in names]
        value = role if role in names else names[0]
        self.role = ipywidgets.Dropdown(options=options, value=value, description="tokens")
        tools = self.tools(self.cell, self.figure, lambda: f"block {self.layer.value} {self.role.value}")
        self.pair_images = [seen(method, pair, i) for i in range(2)]
        shown = [
            ipywidgets.VBox(
                [
                    ipywidgets.Label(f"{text}: {pair.caption(i)}"),
                    ipywidgets.Image(value=png(self.pair_images[i]), format="png", width=128, height=128),
                ]
            )
            for i, text in enumerate(("from", "into"))
        ]
        self.parts = self.map, self.answers = Picture(), Picture()
        for name in ("layer", "role", "map", "answers"):
            getattr(self, name).add_class(f"vlmlab-patching-{name}")
        self.fill(wrapping(self.layer, self.role, tools), wrapping(*shown, *self.parts))
        for control in (self.layer, self.role):
            control.observe(lambda _: self.draw(), "value")
        self.draw()

    def swept(self) -> xr.DataArray:
        watch = Watch("swapping every role behind every block", self.method.vlm.image.depth).show()
        try:
            found = patched(self.method, self.pair, watch)
        except Stopped:
            watch.end("stopped")
            raise
        watch.end(f"{watch.text}, in {watch.seconds:.1f} s")
        return found

    def figure(self):
        return sweep(self.logits, self.pair, self.layer.value, self.role.value)

    @guarded
    def draw(self) -> None:
        at = self.layer.value, self.role.value
        self.map.follow("all", self.swaps, at)
        paint = lambda ax: answers(self.logits, self.pair, *at, ax)
        self.answers.follow(at, lambda: drawn(part(paint, HEIGHT)))
        self.remember(layer=at[0], role=at[1])
        if bool(self.logits.sel(layer=at[0], role=at[1]).isnull().any()):
            self.say(f"block {at[0]} has no {self.role.label}")

    def swaps(self) -> Drawing:
        """The map of all swaps, each of which can be framed."""
        places = itertools.product(self.logits["layer"].values.tolist(), self.logits["role"].values.tolist())
        boxes = {at: cell_of(self.logits, *at) for at in places}
        return drawn(part(lambda ax: followed(self.logits, self.pair, ax), HEIGHT), boxes=boxes)

    def cell(self) -> str:
        from .given import named

        pair, model = (
            named(self.pair, "pair"),
            self.code_of_model.replace("next(iter(tests.values()))", "pair"),
        )
        head = f"{IMPORTS['vlmlab.']}\n{IMPORTS['']}\nfrom vlmlab.widgets import patching\n\n"
        return head + (
            f"pair = {pair}  # a Split of two images\nmodel = {model}\nlogits = patching.patched(model, pair)\n"
            f"fig = patching.sweep(logits, pair, {self.layer.value}, {self.role.value!r})\nfig\n"
        )

    def pictures(self) -> list[np.ndarray]:
        return [*self.pair_images, *(p.pixels for p in self.parts)]
