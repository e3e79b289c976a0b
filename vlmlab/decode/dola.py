"""DoLa in a language model as a logits processor: layers are contrasted while any decoding strategy runs."""

import contextlib
import dataclasses
import math

import torch
from torch import Tensor

from ..models.families import Family
from .distributions import choose_layer, contrast, log_probabilities
from .fusion import Fusion
from .language import Rows, check_end, language_of, last_position, module_of
from .settings import PLAN, Dola

SEVERAL = (
    "DoLa needs one forward pass for one token of every text, and this generation ran {} for the last one; assisted "
    "and speculative decoding, prompt lookup, guidance (guidance_scale) and compiled models cannot be contrasted"
)


@dataclasses.dataclass(frozen=True)
class Step:
    """One token. Each (row,): how many words the head of the distribution holds, the early layer, and how many words
    that the fusion would change the head has left out."""

    kept: Tensor
    layer: Tensor
    lost: Tensor


class LayerContrast(contextlib.AbstractContextManager):
    """A logits processor and the hooks it needs, on the model only inside the `with` block.

    For any `generate` of transformers, greedy, sampling or beams (rows = texts times beams), with a cache or not, in
    any precision. Texts are padded on the left. Word scores that other processors ruled out (-inf) stay so.
    `steps` says what was done at every token. Raises ValueError where the model never asked the processor, or ran it
    otherwise than once for every token, and for layers that the model does not have.

    >>> with decode.LayerContrast(model, decode.Dola(contrast_layer=24)) as dola:
    ...     out = model.generate(**inputs, logits_processor=[dola], max_new_tokens=20)
    """

    def __init__(self, model, dola: Dola = PLAN, fusion: Fusion | None = None, family: Family | None = None):
        self.dola, self.fusion = dola, fusion
        self.language, self.module = language_of(model, family), module_of(model)
        self.layers = self.dola.language_layers(self.language.depth) if self.dola.language else ()
        self.steps: list[Step] = []

    def __enter__(self) -> "LayerContrast":
        end = self.language.depth
        self.steps, self.prompt = [], 0
        self.rows = Rows(self.language, self.layers or (end,), last_position)
        self.end = Rows(self.language, (end,), last_position)
        self.opened = contextlib.ExitStack()
        self.opened.enter_context(self.rows)
        self.opened.enter_context(self.end)  # until the first token is checked
        return self

    def __exit__(self, kind, error, trace) -> None:
        ran, self.opened = self.rows.forwards, self.opened.close()
        if kind is None and ran and not self.steps:
            raise ValueError(never_asked(self.module))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(row, word) log-probabilities of the next word; scores: (row, word) logits or log-probabilities."""
        early = self.fresh(input_ids, scores)
        log_p, layer = log_probabilities(scores), torch.full((len(scores),), -1)
        if self.dola.language:
            early, layer = self.chosen(log_p, early)
            log_p = contrast(log_p, early, self.dola.apc_threshold)
        kept, lost = log_p > -math.inf, torch.zeros_like(layer)
        if self.fusion is not None:
            bias = self.fusion.bias(input_ids[:, self.prompt :], scores.shape[-1], scores.device)
            lost = ((bias != 0) & ~kept).sum(dim=-1)
            log_p = self.fusion.fuse(log_p, bias)
        self.steps.append(Step(kept.sum(dim=-1), layer, lost))
        self.check(log_p)
        return log_p.to(scores.dtype)

    def chosen(self, final: Tensor, early: Tensor) -> tuple[Tensor, Tensor]:
        """(row, word) logits of the early layer of each row, of (layer, row, word), and (row,) which that is."""
        if self.dola.layer_choice == "static":
            return early[0], torch.full((len(final),), self.layers[0])
        place = choose_layer(final, early, self.dola.layer_choice)
        return early[place, torch.arange(len(final), device=final.device)], torch.tensor(self.layers)[
            place.cpu()
        ]

    def fresh(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(layer, row, word) logits of the early layers at this token; ValueError where they are of another."""
        first, ran = not self.steps, self.rows.forwards
        if ran == 0 or (ran > 1 and not first):  # a long prompt may run in pieces
            raise ValueError(SEVERAL.format(ran or "none"))
        self.rows.forwards = 0
        x = [self.rows.rows[layer] for layer in self.rows.layers]
        if len(x[0]) != len(scores):
            raise ValueError(
                f"{len(scores)} texts are decoded, and the blocks ran on {len(x[0])}; {SEVERAL.format(ran)}"
            )
        if first:
            self.prompt = input_ids.shape[1]
            check_end(self.language, self.end.rows[self.language.depth], scores)
            self.end.__exit__()
        if not self.dola.language:
            return scores[:0]
        return torch.stack([self.language.read(row, self.dola.readout).to(scores.device) for row in x])

    def check(self, log_p: Tensor) -> None:
        """ValueError where no word of a row has a finite score: nothing could be chosen."""
        if bool(log_p.amax(dim=-1).isfinite().all()):  # NaN is its own largest
            return
        row = int((~log_p.amax(dim=-1).isfinite()).nonzero()[0])
        step, why = len(self.steps), "the logits are not finite; run the model in float32 or bfloat16"
        if self.fusion is not None and self.fusion.is_literal:
            why = (
                f"that is the fault of fusion={self.fusion.rule!r}: log 0 for a candidate that the visual threshold cut, "
                'or for every other word; use fusion="lift" or "trie"'
            )
        raise ValueError(f"no word of row {row} has a finite score at token {step}: {why}")


def never_asked(module) -> str:
    """What to say of a model that generates without its logits processors, and the call that works."""
    name = type(module).__name__
    return (
        f"{name}.generate never called the logits processor, so nothing was contrasted (it drops the argument "
        f"logits_processor, as JanusForConditionalGeneration does for text); what works is "
        f"transformers.GenerationMixin.generate(model, ..., logits_processor=[dola]), or vlmlab.decode.generate"
    )
