"""`explore_text`: the tokens of a text, whom its end looks at, and how much each word matters."""

import html
import re

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes

from .. import plots
from ..capturing.capture import capture
from ..models.vlm import VLM
from .drawing import drawn, part
from .frame import Frame, guarded, wrapping
from .pane import IMPORTS
from .picture import Picture

ATTENTION = "text.attn.probs"


def explore_text(model: VLM, text: str = "a photo of a cat.") -> "Texts":
    """Type a text: its tokens under the attention of the end token, by block and head, and the importance of words.

        vlmlab.explore_text(vlmlab.load("tiny"), "a red square above a blue circle")

    model: a model of two towers. The feature of a text is read at its end token. Raises ValueError for another model.
    """
    if not isinstance(model, VLM):
        raise ValueError(
            f"explore_text looks into a model of two towers (vlmlab.load), got {type(model).__name__}"
        )
    return Texts(model, text)


def tokens(vlm: VLM, text: str) -> list[str]:
    """The pieces of a text that the tower reads between its start and its end token."""
    ids = vlm.tokenize([text])[0]
    end = int(vlm.text.ends(ids[None])[0])
    inner = getattr(vlm.tokenizer, "tokenizer", vlm.tokenizer)
    decode = getattr(inner, "decode", lambda ids: f"#{ids[0]}")
    return [str(decode([int(i)])).strip() for i in ids[1:end]]


def end_attention(vlm: VLM, text: str) -> xr.DataArray:
    """Whom the end token looks at, (layer, head, token), over start, words and itself."""
    return capture(vlm, [text], ATTENTION, keep=capture.row("eos"), progress=False)[ATTENTION].isel(sample=0)


def importance(vlm: VLM, text: str) -> xr.DataArray:
    """1 - cos(f(text), f(text without the word)), (word,), 0 to 2: how much the feature turns without it."""
    words = text.split()
    if len(words) < 2:
        raise ValueError("the importance of words needs two words or more")
    without = [" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))]
    with torch.inference_mode(), vlm.autocast():
        f = torch.nn.functional.normalize(vlm.encode_text([text, *without]).float(), dim=-1)
    turned = (1 - f[1:] @ f[0]).cpu().numpy()
    return xr.DataArray(turned, {"word": words}, ("word",), "importance")


def attended(vlm: VLM, text: str, row: np.ndarray, layer: int, head: int, ax: Axes) -> None:
    """Attention of the end token to each piece of a text, of `looks`."""
    pieces, which = ["start", *tokens(vlm, text), "end"], f"head {head}" if head else "mean of heads"
    bars(pieces, row[: len(pieces)], f"the end looks at, block {layer}, {which}", ax)


def important(vlm: VLM, text: str, ax: Axes) -> None:
    """The importance of the words of a text."""
    words = importance(vlm, text)
    bars(words["word"].values, words.values, "importance, 1 − cos without the word", ax)


def looks(vlm: VLM, text: str, layer: int, head: int) -> np.ndarray:
    """(token,) of `end_attention`, of one head; 0: the mean of all."""
    row = end_attention(vlm, text).sel(layer=layer)
    return (row.mean("head") if head == 0 else row.isel(head=head - 1)).values


def bars(names, values: np.ndarray, title: str, ax: Axes) -> None:
    ax.barh(range(len(names)), values, color=plots.colour("eos"))
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.locator_params(axis="x", nbins=5)
    ax.set_title(title)


def height_for(vlm: VLM, text: str) -> float:
    """Inches."""
    return max(2.0, 0.22 * (len(tokens(vlm, text)) + 2) + 0.7)


def explained(vlm: VLM, text: str, layer: int, head: int):
    """A figure: attention of the end token to each piece of a text, and the importance of its words."""
    fig, (left, right) = plots.figure(2, height_for(vlm, text), cols=2)
    plt.close(fig)
    attended(vlm, text, looks(vlm, text, layer, head), layer, head, left)
    important(vlm, text, right)
    plots.style.plain_text(fig)
    return fig


class Texts(Frame):
    """The widget that `explore_text` returns."""

    def __init__(self, vlm: VLM, text: str):
        super().__init__(f"texts of {vlm.name}", (vlm.name,))
        self.vlm = vlm
        depth, heads = vlm.text.depth, int(vlm.text.blocks[0].attn.num_heads)
        wide = {"layout": {"width": "min(640px, 98%)"}}
        self.text = ipywidgets.Text(
            self.kept.get("words", text), description="text", continuous_update=False, **wide
        )
        self.layer = ipywidgets.IntSlider(
            min(self.kept.get("layer", depth), depth), 1, depth, description="block"
        )
        options = [("mean", 0), *((str(h), h) for h in range(1, heads + 1))]
        head = min(self.kept.get("head", 0), heads)
        self.head = ipywidgets.SelectionSlider(options=options, value=head, description="head")
        tools = self.tools(
            self.cell, self.figure, lambda: f"{self.words} block {self.layer.value} head {self.head.value}"
        )
        self.pieces = ipywidgets.HTML()
        self.parts = self.looks, self.importance = Picture(), Picture()
        for name in ("text", "layer", "head", "looks", "importance"):
            getattr(self, name).add_class(f"vlmlab-text-{name}")
        for control in (self.text, self.layer, self.head):
            control.observe(lambda _: self.draw(), "value")
        self.fill(self.text, wrapping(self.layer, self.head, tools), self.pieces, wrapping(*self.parts))
        self.draw()

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", self.text.value).strip()

    def figure(self):
        return explained(self.vlm, self.words, self.layer.value, self.head.value)

    @guarded
    def draw(self) -> None:
        vlm, text, at = self.vlm, self.words, (self.layer.value, self.head.value)
        row, make = looks(vlm, text, *at), lambda paint: drawn(part(paint, height_for(vlm, text)))
        self.importance.follow(text, lambda: make(lambda ax: important(vlm, text, ax)))
        self.looks.follow((text, *at), lambda: make(lambda ax: attended(vlm, text, row, *at, ax)))
        self.pieces.value = tinted(tokens(vlm, text), row[1:])
        self.remember(words=self.text.value, layer=self.layer.value, head=self.head.value)

    def cell(self) -> str:
        from .given import named

        source = {k: v for k, v in (self.vlm.source or {}).items() if v is not None}
        load = f"vlmlab.load(**{source!r})" if source else named(self.vlm, "vlm")
        at = f"{self.text.value.strip()!r}, {self.layer.value}, {self.head.value}"
        head = f"{IMPORTS['vlmlab.']}\nfrom vlmlab.widgets import captions\n\n"
        return f"{head}vlm = {load}\nfig = captions.explained(vlm, {at})\nfig\n"

    def pictures(self) -> list[np.ndarray]:
        return [p.pixels for p in self.parts if p.drawing is not None]


def tinted(pieces: list[str], weights: np.ndarray) -> str:
    """The pieces of a text, each the bluer the more it is looked at; its share stands below."""
    most = max(float(np.nanmax(weights[: len(pieces)])), 1e-9) if pieces else 1.0
    spans = [
        f'<span style="display:inline-block;text-align:center;margin:2px;padding:1px 4px;border-radius:3px;'
        f'background:rgba(0,114,178,{0.7 * float(w) / most:.2f})">{html.escape(piece)}<br>'
        f"<small>{float(w):.0%}</small></span>"
        for piece, w in zip(pieces, weights)
    ]
    return f'<div style="line-height:1.3">{"".join(spans)}</div>'
