"""What describes one tower of another library's module, as data; `families.py` lists those known."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

# (submodule path inside a block, "in" for its first input or "out" for its output); "a|b" where versions or
# sizes of a model call it otherwise: the first that is there
Path = tuple[str, str]
Layouts = str | Mapping[int, str]


@dataclasses.dataclass(frozen=True)
class Words:
    """Tokens of a text: which is which depends on the sample.

    layout: of a text without padding, "sos word*". end: where a text ends, at the token called eos: "argmax" at
    the largest id, as in OpenAI's CLIP, "eos" at the first `eos_id`, "first" or "last" at that token, where the
    model reads the text (which is checked); "mask" the last token that the attention mask shows; "" texts have
    no marked end. Tokens that the mask hides, on either side, and those behind eos are called pad.
    ids, mask: names of the inputs. image: path of the id that stands for a piece of an image among the words;
    such tokens are called patch.
    """

    layout: Layouts
    end: str = ""
    ids: str = "input_ids"
    mask: str = "attention_mask"
    image: str = ""
    eos_id: int | None = None


@dataclasses.dataclass(frozen=True)
class Patches:
    """Tokens of images that may differ in size (NaFlex), given as patches in a mapping.

    layout: of all tokens, "cls patch*". mask: name of the input (sample, patch) that says which patches are of
    the image; the others are called pad. Where patches stand: sizes names the input (sample, 2) with rows and
    columns, or places the input (sample, patch, 2) with row and column of each. whole: the module takes the
    mapping as its one argument. One tensor of images of one size needs none of this but the layout.
    """

    layout: Layouts
    mask: str
    sizes: str = ""
    places: str = ""
    whole: bool = False


Labels = Layouts | Words | Patches | Callable[[Any], "Layouts | Words | Patches"]


@dataclasses.dataclass(frozen=True)
class Family:
    """How to find one tower's blocks, its sites, and which token is which.

    blocks: path of the list of blocks, as in "vision_model.encoder.layers".
    sites: site -> (submodule path inside a block, "in" or "out"); the empty path is the block itself.
    tokens: layout of what enters a block, "cls patch*", or {first block: layout} where tokens appear on the
    way; `Words` for a text; `Patches` for images of different sizes; or a function of the module that says so.
    kind: "image", "text", or another name that sites of this tower begin with. forward: path of what runs
    this tower on a batch and returns its features; "" calls the module.
    batch_first: False where blocks take (token, batch, width). maps: blocks take maps (batch, width, row, column)
    and may make them smaller and wider; every place of a map is a token.
    marks: further paths that a module must have, where blocks alone do not tell families apart. block_types:
    names of classes, one of which the first block must be of.
    attention: "attn" (self) and "cross" -> path of the submodule of a block in which that attention calls
    torch's kernel; q, k, v, z and probs are read there. A block without the path has no such sites.
    keys: of "cross", the layout of the tokens that are looked at, as in `tokens`.
    norm, head: paths of the final norm and of what makes logits of its output, for the lens; head may be a
    function of the module that returns it.
    """

    blocks: str
    sites: Mapping[str, Path]
    tokens: Labels = "cls patch*"
    kind: str = "image"
    forward: str = ""
    batch_first: bool = True
    maps: bool = False
    marks: tuple[str, ...] = ()
    block_types: tuple[str, ...] = ()
    attention: Mapping[str, str] = dataclasses.field(default_factory=lambda: {"attn": ""})
    keys: Mapping[str, Labels] = dataclasses.field(default_factory=dict)
    norm: str = ""
    head: str | Callable[[Any], Callable] = ""


def has(module: Any, path: str) -> bool:
    """Whether a module has an attribute at this path; the empty path is the module, "a.b|c" one of two."""
    return _found(module, path) is not None


def at(module: Any, path: str) -> Any:
    """The attribute at this path, see `has`. ValueError lists what there is instead."""
    found = _found(module, path)
    if found is not None:
        return found
    for name in path.split("|")[-1].split("."):
        if getattr(module, name, None) is None:
            break
        module = getattr(module, name)
    there = ", ".join(child for child, _ in module.named_children()) or "nothing"
    raise ValueError(f"{type(module).__name__} has no {name!r} (path {path!r} of its family); it has {there}")


def _found(module: Any, path: str) -> Any:
    for choice in path.split("|"):
        there = module
        for name in filter(None, choice.split(".")):
            there = getattr(there, name, None)
            if there is None:
                break
        if there is not None:
            return there
    return None
