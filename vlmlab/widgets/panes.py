"""The pictures that `explore` offers. A new one is a function with `@pane` here, or in a file of its own.

The body of each stands by itself in a cell (see `pane.py`): it uses its arguments, `np`, `plots`, `measures`,
`vlmlab` and `widgets`, and nothing else of this file.
"""

import numpy as np

import vlmlab
from vlmlab import measures, plots, widgets

from .pane import PANES, pane
from .reading import FINAL, has_ratio

EACH = lambda models: models


def ratio(given) -> str:
    there = any(has_ratio(r) for of in given["every"].values() for r in of.values())
    return "" if there else "r(x) is of methods with a prompt branch (MMRL, MMRL++, AlignedNorm)"


def several(given) -> str:
    n = next(iter(given["acts"].values())).sizes["sample"]
    return "" if n >= 4 else f"a picture of many samples needs 4 or more; there are {n}"


@pane("norms by block", EACH, marks=True)
def norms(axes, acts, sample):
    """Norm of the mean token of each role: all samples with their spread, and the sample as a thick line."""
    for ax, (name, record) in zip(axes, acts.items()):
        lengths = measures.norm_of_mean(record["image.resid.post"])
        plots.lines(
            lengths.mean("sample"), spread=lengths.std("sample"), ax=ax, ylabel="norm of the mean token"
        )
        for role in lengths["role"].values:
            one = lengths.isel(sample=sample).sel(role=role)
            ax.plot(
                one["layer"],
                one,
                color=plots.colour(role),
                linewidth=2.5,
                alpha=0.6,
                label=f"_image, {plots.label(role)}",
            )
        ax.set_title(f"{name}; thick: the image")
        ax.legend(fontsize=7)


@pane("answers by block", EACH, height=2.5, marks=True)
def lens(axes, models, acts, texts, test, sample):
    """Probabilities of the likeliest classes if each block were the last (lens)."""
    for ax, (name, record) in zip(axes, acts.items()):
        read = vlmlab.capture.reader(models[name], "image")
        stream = record["image.resid.post"].isel(sample=[sample])
        scale = float(models[name].vlm.logit_scale)
        logits = measures.lens_logits(stream, read, texts[name], "cls", scale).isel(sample=0)
        shares = np.exp(logits - logits.max("class"))
        shares = shares / shares.sum("class")
        best = shares.max("layer").values.argsort()[::-1][:4]
        names = [test.classnames[c].replace("_", " ") for c in best]
        plots.lines(shares.isel({"class": best}).assign_coords({"class": names}), by="class", ax=ax)
        ax.set(title=f"{name}, by lens", ylabel="probability", ylim=(0, 1.02))
        ax.legend(fontsize=7)


@pane("r(x)", fits=ratio)
def norm_ratios(axes, every, test, tests, sample):
    """Length of the prompt feature over that of the class feature: how many images, by test; line: the image."""
    values, here = {}, {}
    for name, records in every.items():
        for model, record in records.items():
            if "prompt" in record["branch"].values:
                column = f"{model}, {name}" if len(records) > 1 else name
                values[column] = measures.norm_ratio(record).values
                if tests[name] is test:
                    here[column] = values[column][sample]
    colours = [look["color"] for look in plots.looks(values).values()]
    axes[0].hist(list(values.values()), bins=12, color=colours, label=list(values))
    for column, value in here.items():
        axes[0].axvline(value, color=colours[list(values).index(column)], linewidth=2.5)
    axes[0].axvline(1, color="black", linewidth=0.6, linestyle=":")
    axes[0].set(xlabel="r(x)", ylabel="images", title="line: the image")
    axes[0].legend(fontsize=7)


@pane(
    "map of the images",
    fits=several,
    height=2.7,
    spots=lambda given: (
        measures.pca(next(iter(given["acts"].values()))[FINAL].sel(branch="cls"), components=2).values
    ),
)
def embedding(axes, acts, test, sample):
    """The first two principal components of the class features of the first model."""
    name, record = next(iter(acts.items()))
    xy = measures.pca(record["image.final"].sel(branch="cls"), components=2)
    classes = [c.replace("_", " ") for c in test.classnames] if len(test.classnames) <= 9 else None
    plots.scatter(xy, ax=axes[0], title=f"{name}; ring: the image", names=classes)
    axes[0].plot(*xy.values[sample], "o", markersize=11, fillstyle="none", color="black")


@pane("similarity of blocks", fits=several, height=2.7)
def similarity(axes, acts):
    """CKA of class tokens, of every pair of blocks of the two models, or of the one with itself."""
    first, *other = acts
    x = acts[first]["image.resid.post"]
    y = acts[other[0]]["image.resid.post"] if other else x
    found = measures.cka(x, y, role="cls")
    plots.matrix(
        found,
        ax=axes[0],
        unit="CKA",
        vmax=1,
        ylabel=f"block of {first}",
        xlabel=f"block of {[first, *other][-1]}",
    )


@pane("attention of all heads", EACH, height=3.0)
def heads(axes, probs, pictures, layer, query):
    """Whom the chosen token looks at in the chosen block, by each head."""
    for ax, (name, p) in zip(axes, probs.items()):
        p = widgets.of_query(p, query).sel(layer=min(layer, int(p["layer"].max())))
        plots.overlay_grid(pictures[name], p, ax=ax, title=f"{name}, block {int(p['layer'])}")


@pane("attention", lambda models: models + (models == 2), height=2.4)
def attention(axes, probs, pictures, layer, head, query):
    """Whom the chosen token looks at; of two models also the difference."""
    for ax, (name, p) in zip(axes, probs.items()):
        weights = widgets.weights_of(p, query, layer, head)
        plots.overlay(pictures[name], weights, ax=ax, title=name)
    if len(probs) == 2:
        grids = [widgets.as_grid(widgets.weights_of(p, query, layer, head)) for p in probs.values()]
        gap = grids[0] - grids[1]
        most = float(abs(gap).max())
        names = " − ".join(probs)
        plots.matrix(gap, axes[-1], names, vmin=-most, vmax=most, cmap="RdBu_r", xlabel="", ylabel="")


__all__ = ["PANES"]
