"""A vision-language model and a dual tower before scenes of which everything is known: what the one writes and the other sees."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ... import decode
from ...decode.generation import prompt
from ...decode.language import module_of
from ...models.huggingface import LanguageModel
from ...models.load import load
from ...models.vlm import VLM
from ...tasks.captions import Captions
from ...tasks.shapes import scenes
from ...tasks.shapes.composition import COLOURS, SHAPES

DOMAINS = {"pairs": "two shapes", "many": "one to four shapes"}  # kind of scene -> in print
SEEDS = {"val": 12, "test": 11}  # of scenes that nothing else looks at
OBJECTS = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)  # what the dual tower may see
TOKENS = 32  # at most, of a caption
BATCH = 64  # scenes


@dataclasses.dataclass(frozen=True)
class Pair:
    """model: writes. dual: scores candidates, put into `template`. question: what the model is asked about an image."""

    model: LanguageModel
    dual: VLM
    question: str
    template: str

    @property
    def depths(self) -> tuple[int, int]:
        """Blocks of the language model and of the image tower of the dual one."""
        return len(self.model.language), self.dual.image.depth

    def inputs(self, images: Sequence) -> dict[str, Tensor]:
        """What the model takes of images and its question, a row an image."""
        asked = prompt(self.model, self.question, images[0])
        both = {"text": [asked] * len(images), "images": list(images)}
        found = self.model.processor(**both, return_tensors="pt")
        return {k: v.to(self.model.device) for k, v in found.items() if isinstance(v, Tensor)}

    @functools.cached_property
    def ends(self) -> dict:
        """Keywords of `generate`: greedy, and what stands behind a caption that has ended."""
        tokenizer = self.model.tokenizer
        return {
            "do_sample": False,
            "max_new_tokens": TOKENS,
            "pad_token_id": tokenizer.pad_token_id or tokenizer.eos_token_id,
        }

    def write(self, images: Sequence, dola: decode.Dola, seen: Tensor | None = None, **options) -> list[str]:
        """A text for each image, decoded greedily; seen: (layer, image, object) logits of `look`, for the fusion."""
        texts = []
        for start in range(0, len(images), BATCH):
            some = slice(start, start + BATCH)
            inputs = self.inputs(images[some])
            found = None if seen is None else candidates(seen[:, some], dola)
            ids = decode.generate(self.model, inputs, dola, found, **self.ends | options)
            texts += self.model.tokenizer.batch_decode(new_tokens(ids, inputs), skip_special_tokens=True)
        return [text.strip() for text in texts]

    def timed(
        self, of: "Scenes", ways: Mapping[str, decode.Dola], tokens: int
    ) -> dict[str, Callable[[], object]]:
        """A call for each way of decoding that writes `tokens` words about all scenes, and "all_layers", the plain one that
        returns the hidden states of every layer as well."""
        inputs, module = self.inputs(of.images), module_of(self.model)
        options = self.ends | {"max_new_tokens": tokens, "min_new_tokens": tokens}

        def call(dola: decode.Dola) -> Callable[[], object]:
            found = candidates(of.seen, dola)
            return lambda: decode.generate(self.model, inputs, dola, found, **options)

        whole = {"output_hidden_states": True, "return_dict_in_generate": True}
        calls = {name: call(dola) for name, dola in ways.items()}
        return calls | {"all_layers": lambda: module.generate(**inputs, **options | whole)}

    def look(self, images: Sequence) -> Tensor:
        """(layer, image, object) what the dual tower says of `OBJECTS`, read behind every block from 0 on."""
        parts = [
            decode.candidate_logits(
                self.dual, images[i : i + BATCH], OBJECTS, range(self.depths[1] + 1), self.template
            )
            for i in range(0, len(images), BATCH)
        ]
        return torch.cat(parts, dim=1)


def open_pair(
    model: str, dual: str, dual_weights: str = "", question: str = "", template: str = "a {}"
) -> Pair:
    """Both models by name. ValueError for a model that does not write or does not see; `load` says what a model lacks."""
    writes = load(model, precision="fp32")
    sees = load(dual, dual_weights or None, precision="fp32")
    if not isinstance(writes, LanguageModel) or not hasattr(writes.processor, "tokenizer"):
        raise ValueError(f"model={model!r} is no vision-language model with a processor that takes images")
    if not isinstance(sees, VLM):
        raise ValueError(f"dual={dual!r} is no dual tower (CLIP or SigLIP)")
    return Pair(writes, sees, question, template)


def new_tokens(ids: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    """(row, token) what was written, of what `generate` returns, which begins with the prompt unless it is left out."""
    before = inputs["input_ids"]
    length = before.shape[1]
    return ids[:, length:] if ids.shape[1] >= length and torch.equal(ids[:, :length], before) else ids


def candidates(seen: Tensor, dola: decode.Dola) -> decode.Candidates:
    """What the dual tower says under some settings, of the logits (layer, image, object) of all layers."""
    layer = dola.image_layer(len(seen) - 1) if dola.image else None
    return decode.contrasted(OBJECTS, seen[-1], seen[layer or 0], layer, dola.image_apc_threshold)


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Scenes of one kind with their pictures; seen: of `Pair.look`."""

    found: Captions
    images: list
    seen: Tensor

    def __len__(self) -> int:
        return len(self.images)


def scenes_of(pair: Pair, side: str, count: int) -> dict[str, Scenes]:
    """Domain -> `count` scenes of a side, "val" or "test"."""
    found = {kind: scenes(count, SEEDS[side], kind, side) for kind in DOMAINS}
    pictures = {kind: [of.image(i) for i in range(len(of))] for kind, of in found.items()}
    return {kind: Scenes(of, pictures[kind], pair.look(pictures[kind])) for kind, of in found.items()}
