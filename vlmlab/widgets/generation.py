"""`explore_generation`: a model writes, and at every word one sees what its layers would have said."""

import dataclasses
from collections.abc import Mapping

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes
from torch import Tensor

from .. import decode, plots
from ..capturing.capture import capture
from ..capturing.reducers import Kept
from ..decode.language import Rows, language_of, module_of
from ..train.run import Run
from .asking import QUESTION, Asked, asked, asked_of, at_hand
from .captions import tinted
from .drawing import drawn, part
from .frame import Frame, guarded, wrapping
from .pane import IMPORTS
from .picture import Picture
from .watch import Watch

WORDS = 6  # drawn of each distribution
HEIGHT = 2.7  # inches
IMAGE = "text.attn.probs"


@dataclasses.dataclass(frozen=True)
class Written:
    """What a model wrote and why. ids: (step,) of the new words; pieces: their texts. logits: (layer, step, word) that
    each layer reads as before the word, layer 0 to depth. early: the layer that is contrasted, None without DoLa."""

    ids: np.ndarray
    pieces: list[str]
    logits: Tensor
    early: int | None
    alpha: float

    def log_p(self, step: int) -> tuple[Tensor, Tensor]:
        """(word,) log-probabilities of the last layer, and those that were decoded from before any fusion."""
        final = self.logits[-1, step].log_softmax(-1)
        if self.early is None:
            return final, final
        return final, decode.contrast(self.logits[-1, step], self.logits[self.early, step], self.alpha)

    def kept(self, step: int) -> int:
        """How many words the plausibility constraint (APC) leaves."""
        return int(decode.plausible(self.logits[-1, step], self.alpha).sum())


def explore_generation(
    model=None, inputs=None, tokens: int = 12, candidates=None, picture=None, tokenizer=None
) -> "Generation":
    """Word by word: what each layer would say, which words are plausible (APC), the contrast, and where a model that
    reads an image looks; with switches for DoLa and the fusion.

        vlmlab.explore_generation()  # the embedded tiny-janus before a drawn scene
        model = vlmlab.load("smollm2-135m")
        vlmlab.explore_generation(model, model.prompt("The capital of France is"))

    model: a decoder that writes: a LanguageModel of vlmlab, a module of transformers with its tokenizer=, or a run of
    llava; none is the embedded one. inputs: one text, as its processor returns it; of a run the text that it goes on
    from, of the embedded model its question. tokens: how many are written. candidates: of `decode.candidates`, for the
    fusion; of a run their names. picture: a PIL image to draw the attention on; runs and the embedded model look at it.
    Raises ValueError for several texts or an encoder-decoder.
    """
    if model is None:
        return Generation(at_hand(inputs or QUESTION, picture), tokens)
    if isinstance(model, Run):
        of = {"text": inputs or "", "picture": picture} | ({"names": candidates} if candidates else {})
        return Generation(asked_of(model, **of), tokens)
    return Generation(asked(model, inputs, candidates, picture, tokenizer), tokens)


def extended(inputs: Mapping[str, Tensor], ids: Tensor) -> dict[str, Tensor]:
    """The inputs with the words that were written behind them; ids: (1, token) of both."""
    more, shape = ids.shape[1] - inputs["input_ids"].shape[1], inputs["input_ids"].shape
    found = {}
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.shape == shape and name != "input_ids":
            value = torch.cat([value, value.new_full((1, more), int(name == "attention_mask"))], dim=1)
        found[name] = value
    return found | {"input_ids": ids}


def write(given: Asked, tokens: int, dola: decode.Dola, watch: Watch | None = None) -> Written:
    """Let a model write, then read every layer at every word that it wrote."""
    language, module = language_of(given.model), module_of(given.model)
    how = {"max_new_tokens": tokens, "do_sample": False, **given.options}
    if watch is not None:
        how["stopping_criteria"] = [lambda ids, scores, **_: watch.step() or False]
    out = decode.generate(given.model, given.inputs, dola, given.candidates, tokenizer=given.tokenizer, **how)
    new = out.shape[1] - given.inputs["input_ids"].shape[1]
    if new < 1:
        raise ValueError("the model wrote nothing; it ends at once")
    layers = range(language.depth + 1)
    with torch.no_grad(), Rows(language, layers, lambda x: x[:, -new - 1 : -1].clone()) as rows:
        module(**extended(given.inputs, out))
        logits = torch.stack([language.read(rows.rows[n][0], "normed") for n in layers])
    ids = out[0, -new:].cpu().numpy()
    pieces = [given.tokenizer.decode([int(i)]) for i in ids]
    early = dola.language_layers(language.depth)[0] if dola.language else None
    return Written(ids, pieces, logits, early, dola.apc_threshold)


def looked_at(given: Asked, written: Written) -> xr.DataArray | None:
    """Attention to the patches of the image before each word, the mean of heads, (layer, word, token); None without a
    picture, and for a model without patches among its tokens."""
    if given.picture is None:
        return None
    new, before = len(written.ids), given.inputs["input_ids"]
    ids = torch.cat([before, torch.as_tensor(written.ids)[None].to(before.device)], 1)

    def rows(x, table):
        return Kept(
            x.float().mean(1)[:, -new - 1 : -1], ("sample", "word", "token"), {"token": table.axes["token"]}
        )

    record = capture(given.model, extended(given.inputs, ids), IMAGE, keep=rows, progress=False)
    found = record[IMAGE].isel(sample=0)
    patches = found["role"].values == "patch"
    return found.isel(token=patches) if patches.any() else None


def named(given: Asked, word: int) -> str:
    """A word with its number: pieces of different words may look alike."""
    return f"‘{given.tokenizer.decode([word]).strip() or '␣'}’ {word}"


def read_early(given: Asked, written: Written, step: int, ax: Axes) -> None:
    """What each layer would say: the probabilities of the words that any of them takes for likely."""
    shares = written.logits[:, step].softmax(-1)
    best = shares.amax(0).topk(min(WORDS, shares.shape[1])).indices.tolist()
    coords = {"layer": np.arange(len(shares)), "word": [named(given, i) for i in best]}
    plots.lines(xr.DataArray(shares[:, best].cpu().numpy(), coords, ("layer", "word")), by="word", ax=ax)
    ax.set(ylabel="probability", title="each layer would say", ylim=(0, None))
    ax.legend(fontsize=7)


def plausible(given: Asked, written: Written, step: int, ax: Axes) -> None:
    """What the last layer says of the words that are decoded from, and what is decoded from."""
    final, contrasted = written.log_p(step)
    top = contrasted.topk(min(WORDS, int(contrasted.isfinite().sum()))).indices.tolist()[::-1]
    rows = (final, "last layer", "patch"), (contrasted, "decoded from", "cls")
    for i, (values, source, role) in enumerate(rows):
        place = np.arange(len(top)) + (i - 0.5) * 0.4
        ax.barh(place, values[top].exp().cpu(), 0.38, color=plots.colour(role), label=source)
    ax.set_yticks(range(len(top)), [named(given, i) for i in top])
    ax.set(xlim=(0, None), xlabel="probability", title=f"plausible: {written.kept(step):,} words")
    ax.legend(fontsize=7)


def looking(given: Asked, looks: xr.DataArray, step: int, layer: int, ax: Axes) -> None:
    """Where a block looks before one word."""
    block = max(1, layer)
    weights = looks.sel(layer=block).isel(word=step)
    plots.overlay(np.asarray(given.picture), weights, ax=ax, title=f"looks, block {block}")


def steps(given: Asked, written: Written, step: int, layer: int, looks: xr.DataArray | None = None):
    """A figure of one word: what the layers would say, what the last one and the contrast say, and where it looks."""
    fig, axes = plots.figure(2, HEIGHT, cols=2 + (looks is not None))
    plt.close(fig)
    read_early(given, written, step, axes[0])
    axes[0].axvline(layer, color="0.35", linewidth=1.2)
    plausible(given, written, step, axes[1])
    if looks is not None:
        looking(given, looks, step, layer, axes[2])
    plots.style.plain_text(fig)
    return fig


class Generation(Frame):
    """The widget that `explore_generation` returns."""

    def __init__(self, given: Asked, tokens: int):
        kind = f"{type(module_of(given.model)).__name__} writing"
        super().__init__(kind, (str(given.inputs["input_ids"].tolist()), given.code), given.trained)
        self.given, self.tokens, self.written, self.looks = given, tokens, None, None
        depth = language_of(given.model).depth
        self.controls(depth)
        self.text = ipywidgets.HTML()
        self.parts = self.layers, self.words, self.sight = Picture(), Picture(), Picture()
        for name in ("dola", "fusion", "early", "alpha", "word", "layer", "text", "layers", "words", "sight"):
            getattr(self, name).add_class(f"vlmlab-generation-{name}")
        tools = self.tools(self.cell, self.figure, lambda: f"word {self.word.value} layer {self.layer.value}")
        switches = wrapping(self.dola, self.early, self.alpha, self.fusion)
        self.fill(switches, self.text, wrapping(self.word, self.layer, tools), wrapping(*self.parts))
        self.take(write(given, tokens, self.settings()))
        for control in (self.dola, self.fusion, self.early, self.alpha):
            control.observe(lambda _: self.rewrite(), "value")
        for control in (self.word, self.layer):
            control.observe(lambda _: self.draw(), "value")

    def controls(self, depth: int) -> None:
        kept, plan = self.kept, decode.Dola()
        settled = {"continuous_update": False}  # the model writes again
        self.dola = ipywidgets.Checkbox(kept.get("dola", True), description="DoLa", indent=False)
        self.fusion = ipywidgets.Checkbox(
            kept.get("fusion", True),
            description="fusion",
            indent=False,
            disabled=self.given.candidates is None,
        )
        early = kept.get("early", plan.language_layers(depth)[0])
        self.early = ipywidgets.IntSlider(early, 0, depth - 1, description="contrast", **settled)
        alpha = kept.get("alpha", plan.apc_threshold)
        self.alpha = ipywidgets.FloatSlider(alpha, min=0, max=1, step=0.05, description="APC", **settled)
        self.word = ipywidgets.IntSlider(1, 1, 1, description="word")
        self.layer = ipywidgets.IntSlider(min(kept.get("layer", depth), depth), 0, depth, description="layer")

    def settings(self) -> decode.Dola:
        strength = (
            decode.Dola().fusion_strength if self.fusion.value and self.given.candidates is not None else 0.0
        )
        if not self.dola.value:
            return decode.Dola(language=False, apc_threshold=self.alpha.value, fusion_strength=strength)
        return decode.Dola(
            contrast_layer=self.early.value, apc_threshold=self.alpha.value, fusion_strength=strength
        )

    @guarded
    def rewrite(self) -> None:
        """Write again with other settings, and once more where they were moved meanwhile."""
        watch, settings = Watch("writing", self.tokens), self.settings()

        def then(written: Written) -> None:
            self.take(written)
            if self.settings() != settings:
                self.rewrite()

        self.long(watch, lambda: write(self.given, self.tokens, settings, watch), then)

    def take(self, written: Written) -> None:
        """Show another text."""
        self.written, self.looks = written, looked_at(self.given, written)
        for picture in self.parts:
            picture.made.kept.clear()
        self.word.max = len(self.written.ids)
        self.word.value = min(self.kept.get("word", 1), self.word.max)
        self.remember(
            dola=self.dola.value, fusion=self.fusion.value, early=self.early.value, alpha=self.alpha.value
        )
        self.draw()

    def figure(self):
        return steps(self.given, self.written, self.word.value - 1, self.layer.value, self.looks)

    def cell(self) -> str:
        head = "\n".join([IMPORTS["vlmlab."], "from vlmlab import decode, widgets"])
        return (
            f"{head}\nfrom vlmlab.widgets import generation\n\nasked = {self.given.code}\n"
            f"written = generation.write(asked, {self.tokens}, decode.Dola({differing(self.settings())}))\n"
            "looks = generation.looked_at(asked, written)\n"
            f"fig = generation.steps(asked, written, {self.word.value - 1}, {self.layer.value}, looks)\nfig\n"
        )

    @guarded
    def draw(self) -> None:
        given, written, step, layer = self.given, self.written, self.word.value - 1, self.layer.value
        blocks = range(len(written.logits))
        make = lambda draw, *at: part(lambda ax: draw(given, *at, ax), HEIGHT)
        self.layers.follow(step, lambda: drawn(make(read_early, written, step), blocks), layer)
        self.words.follow(step, lambda: drawn(make(plausible, written, step)))
        if self.looks is not None:
            self.sight.follow((step, max(1, layer)), lambda: drawn(make(looking, self.looks, step, layer)))
        chosen = np.array(
            [self.written.log_p(i)[0][int(w)].exp().item() for i, w in enumerate(self.written.ids)]
        )
        self.text.value = tinted(self.written.pieces, chosen)
        self.remember(word=self.word.value, layer=layer)

    def pictures(self) -> list[np.ndarray]:
        return [p.pixels for p in self.parts if p.drawing is not None]


def differing(dola: decode.Dola) -> str:
    """The settings that are not the plan's, as arguments."""
    plan = decode.Dola()
    values = {name: getattr(dola, name) for name in dola.__struct_fields__}
    return ", ".join(f"{name}={value!r}" for name, value in values.items() if value != getattr(plan, name))
