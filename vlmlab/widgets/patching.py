"""`explore_patching`: the tokens of one image put into the run of another, block by block and role by role."""

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch
import xarray as xr
from matplotlib.patches import Rectangle

from .. import plots
from ..capturing.capture import capture
from ..methods.method import Method
from ..tasks.split import Split
from ..train.evaluate import restored
from .drawing import drawn, png
from .frame import Frame, guarded, wrapping
from .given import Given, method_of
from .pane import IMPORTS
from .picture import Picture
from .reading import READ, STREAM, key, roles, seen
from .watch import Stopped, Watch

ALL = "all tokens"
CLASSES = 5  # whose probabilities are drawn


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


def sweep(logits: xr.DataArray, pair: Split, layer: int, role: str):
    """A figure: how far the answer follows in every block and role, and the probabilities at the chosen one."""
    fig, (left, right) = plots.figure(2, 2.6, cols=2)
    plt.close(fig)
    share = restored_share(logits, pair).transpose("role", "layer")
    names = [plots.label(r) for r in share["role"].values]
    share = share.assign_coords(role=names)
    plots.matrix(share, left, "follows the first image", vmax=max(1.0, float(share.max())), ylabel="")
    left.set_aspect("auto")
    place = layer - 1.5, logits["role"].values.tolist().index(role) - 0.5
    left.add_patch(Rectangle(place, 1, 1, fill=False, edgecolor="white", linewidth=2)).set_clip_on(False)
    runs = {"first": logits.attrs["first"], "patched": logits.sel(layer=layer, role=role).values}
    runs["second"] = logits.attrs["second"]
    p = {k: np.exp(v - v.max()) / np.exp(v - v.max()).sum() for k, v in runs.items()}
    best = np.argsort(-np.nanmax(list(p.values()), axis=0))[:CLASSES][::-1]
    shades = {
        "second": plots.colour("patch"),
        "patched": plots.colour("prompt"),
        "first": plots.colour("cls"),
    }
    for i, (name, colour) in enumerate(shades.items()):
        right.barh(np.arange(len(best)) + (i - 1) * 0.27, p[name][best], 0.25, color=colour, label=name)
    right.set_yticks(range(len(best)), [pair.classnames[c].replace("_", " ") for c in best])
    right.set(xlim=(0, 1), xlabel="probability", title=f"{plots.label(role)} behind block {layer}")
    handles, labels = right.get_legend_handles_labels()
    right.legend(handles[::-1], labels[::-1], fontsize=7, loc="lower right")
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
        self.image = Picture()
        for name in ("layer", "role", "image"):
            getattr(self, name).add_class(f"vlmlab-patching-{name}")
        self.fill(wrapping(self.layer, self.role, tools), wrapping(*shown, self.image))
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
        drawing = drawn(self.figure())
        self.pixels = drawing.pixels
        self.image.show(drawing)
        self.remember(layer=self.layer.value, role=self.role.value)
        if bool(self.logits.sel(layer=self.layer.value, role=self.role.value).isnull().any()):
            self.say(f"block {self.layer.value} has no {self.role.label}")

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
        return [*self.pair_images, self.pixels]
