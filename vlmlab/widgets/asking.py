"""What `explore_generation` may be given: a model that writes, what it is asked, and the words it has for that."""

import dataclasses
from collections.abc import Mapping, Sequence

from PIL import Image

from .. import decode
from ..decode.generation import prompt
from ..decode.language import module_of
from ..models.load import load
from ..systems.llava import Llava
from ..systems.words import PAD, SEP, UNK, Words
from ..tasks.shapes import scenes
from ..tasks.shapes.composition import COLOURS, SHAPES
from ..train.run import Run, open_run
from .given import named, trained_of

QUESTION = "describe the picture."  # what the model at hand was taught to be asked
SEED = 11  # of the scene that it is shown


@dataclasses.dataclass(frozen=True)
class Asked:
    """A model and what it goes on from. options: of its `generate`. code: the expression that makes this in a cell."""

    model: object
    inputs: Mapping
    tokenizer: object
    candidates: decode.Candidates | None = None
    picture: Image.Image | None = None
    options: Mapping = dataclasses.field(default_factory=dict)
    code: str = ""
    trained: tuple[tuple[str, int], ...] = ()


def asked(model, inputs, candidates=None, picture=None, tokenizer=None) -> Asked:
    """A decoder of transformers or of vlmlab, and the inputs of one text. ValueError for several, or an encoder-decoder."""
    module, tokenizer = module_of(model), tokenizer or getattr(model, "tokenizer", None)
    ids = inputs.get("input_ids") if isinstance(inputs, Mapping) else None
    if ids is None or len(ids) != 1:
        raise ValueError(
            "explore_generation takes the inputs of one text, with input_ids, as a processor returns them"
        )
    if getattr(module.config, "is_encoder_decoder", False):
        raise ValueError(
            f"{type(module).__name__} has an encoder and a decoder; a model that goes on writing is expected"
        )
    if tokenizer is None:
        raise ValueError("the words need a tokenizer; pass tokenizer=")
    given = {"candidates": candidates, "picture": picture}
    if tokenizer is not getattr(model, "tokenizer", None):
        given["tokenizer"] = tokenizer
    more = "".join(f", {name}={named(thing, name)}" for name, thing in given.items() if thing is not None)
    code = f"widgets.asked({named(model, 'model')}, {named(inputs, 'inputs')}{more})"
    return Asked(model, inputs, tokenizer, candidates, picture, code=code)


def asked_of(
    run: Run, text: str = "", picture: Image.Image | None = None, names: Sequence[str] = COLOURS
) -> Asked:
    """A run of `llava` that goes on from a text about a picture, by default the first of its test.

    names: candidates for the fusion, of which its own image tower says what it sees. ValueError for another run.
    """
    run = run if run._model is not None and run.task is not None else open_run(run.path)
    model = run.model
    if not isinstance(model, Llava):
        raise ValueError(f"{run.path} is of {type(model).__name__}; expected is a run of llava")
    own = "" if picture is None else f", picture={named(picture, 'picture')}"
    picture = next(iter(run.task.tests.values())).image(0) if picture is None else picture.convert("RGB")
    ids, real = model.placed(*model.ids([text], end=False), model.tokens)
    pixels = model.preprocess(picture)[None].to(model.device)
    inputs = {"pixel_values": pixels, "input_ids": ids, "attention_mask": real.long()}
    of = f"{text!r}{own}, names={list(names)!r}"
    return Asked(
        model.llava,
        inputs,
        Spoken(model.words),
        decode.candidates(model.vision, pixels, list(names)),
        picture,
        {"eos_token_id": SEP, "pad_token_id": PAD},
        f"widgets.asked_of(vlmlab.open_run({str(run.path)!r}), {of})",
        trained_of(run),
    )


def at_hand(question: str = QUESTION, picture: Image.Image | None = None) -> Asked:
    """The embedded model that writes about drawn scenes, before a picture, by default a scene that it has not seen;
    beside it the embedded SigLIP, which scores every coloured shape for the fusion. Needs transformers 5."""
    model, own = load("tiny-janus"), "" if picture is None else f", {named(picture, 'picture')}"
    picture = scenes(1, SEED, "pairs", "test").image(0) if picture is None else picture.convert("RGB")
    inputs = model.prompt(prompt(model, question, picture), picture)
    names = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    seen = decode.candidates(load("tiny-siglip"), [picture], names, template="a {}")
    code = f"widgets.at_hand({question!r}{own})"
    return Asked(model, inputs, model.tokenizer, seen, picture, code=code)


class Spoken:
    """The words of a run in the place of a tokenizer of transformers."""

    unk_token_id = UNK

    def __init__(self, words: Words):
        self.words = words

    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        return {"input_ids": self.words.ids(text)}

    def decode(self, ids) -> str:
        return " ".join(self.word(int(i)) for i in ids)

    def word(self, i: int) -> str:
        """One word; the vocabulary may have room for more than there are."""
        return (self.words.text([i]) or self.words.all[i]) if i < len(self.words) else f"[{i}]"
