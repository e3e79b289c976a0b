"""A tower of a module that another library runs: what capture needs of it, read off its family."""

import contextlib
import inspect
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ..models.families import Family, Patches, Words, at, families_of, has
from ..models.model import Model
from ..models.tokens import Observer, Tokens
from ..token_labels import Layout, SampleRoles, Token, as_words, layouts_by_layer, size, tokens_of
from .patches import of_patches
from .text_roles import of_words

READS = ("argmax", "eos", "first", "last")  # `Words.end` by which a text is read at its eos
FEATURES = ("image_embeds", "text_embeds", "pooler_output", "logits", "last_hidden_state")


class ModuleTower:
    """One tower of a module, by a Family.

    Holds, after a run under `watch`: `layouts`, the tokens at every block that ran, as in
    `models.towers.Tower`; `entering`, how many of them entered it, the last ones, the others being in its
    cache; `steps`, how often it ran after the first time. generate: None, or what `module.generate` is given
    besides the batch: blocks then run once for the prompt, step 0, and once for every new token.
    """

    shortcuts = False  # the module runs as it is

    def __init__(self, module: nn.Module, family: Family):
        self.module, self.family, self.kind = module, family, family.kind
        self.blocks = list(at(module, family.blocks))
        self.given, labels = labels_of(module, family.tokens)
        self.words = labels if isinstance(labels, Words) else None
        self.patches = labels if isinstance(labels, Patches) else None
        self.takes = names_of(at(module, family.forward)) if has(module, family.forward) else None
        self.generate: Mapping | None = None
        self.observers: list[Observer] = []
        self.start()

    def start(self) -> None:
        """Forget the last run."""
        self.layouts: dict[int, Layout] = {}
        self.prompt: dict[int, Layout] = {}
        self.entering: dict[int, int] = {}
        self.steps: dict[int, int] = {}

    @property
    def depth(self) -> int:
        return len(self.blocks)

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Note the layout at every block while the module runs. ValueError where it does not fit."""
        self.start()
        with contextlib.ExitStack() as stack:
            for layer, block in enumerate(self.blocks, start=1):

                def look(module, args, kwargs, layer=layer):
                    x = tokens_first(unwrapped(args, kwargs), self.family)
                    self.entered(layer, x.shape[1])
                    for observer in self.observers:
                        observer.before_block(layer, Tokens(x, self.layouts[layer]))

                handle = block.register_forward_pre_hook(look, with_kwargs=True)
                stack.callback(handle.remove)
            yield

    def entered(self, layer: int, count: int) -> None:
        """`count` tokens enter a block: a prompt, or in later steps new tokens, alone or with all before."""
        step = self.steps[layer] = self.steps.get(layer, -1) + 1
        if self.generate is None or step == 0:
            layout = layouts_by_layer(self.given, {layer: count}, empty=bool(self.words))[layer]
            self.layouts[layer] = self.prompt[layer] = as_words(layout) if self.words else layout
        else:
            self.layouts[layer] = (*self.prompt[layer], ("new", step))
        self.entering[layer] = count

    def run(self, batch: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tower's features of a batch, {"output": (batch, joint)}; of a generation the new token ids,
        (batch, step), -1 behind those that ended early."""
        if self.generate is not None:
            return {"output": self.new_tokens(batch)}
        call, named = at(self.module, self.family.forward), isinstance(batch, Mapping)
        whole = named and self.patches is not None and self.patches.whole
        out = call(**batch) if named and not whole else call(batch)
        return {"output": self.features(out, batch)}

    def taken(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of what a processor or tokenizer returns, that which this tower takes; ValueError for nothing."""
        if self.takes is None or self.generate is not None or (self.patches and self.patches.whole):
            return dict(data)
        found = {name: x for name, x in data.items() if name in self.takes}
        if not found:
            raise ValueError(
                f"the {self.kind} tower of {type(self.module).__name__} takes {', '.join(self.takes)}; the data hold "
                f"{', '.join(map(str, data)) or 'nothing'}"
            )
        return found

    @property
    def reads_at_eos(self) -> bool:
        """Whether the features of a text are those of its token eos."""
        if self.words is None or self.generate is not None:
            return False
        return self.words.end in READS and all("cls" not in x for x in layouts_in(self.given))

    def new_tokens(self, batch) -> Tensor:
        inputs = batch if isinstance(batch, Mapping) else {"input_ids": batch}
        out = self.module.generate(**inputs, **self.generate)
        ids = getattr(out, "sequences", out)
        if len(ids) != len(first(batch)):
            raise ValueError(
                f"generate returned {len(ids)} texts for {len(first(batch))} samples; capture follows one text "
                "of each sample: leave out num_return_sequences and num_beams"
            )
        begun = inputs.get("decoder_input_ids", ids[:, :1]) if self.encodes else inputs["input_ids"]
        new = ids[:, begun.shape[1] :]
        return nn.functional.pad(new, (0, self.generate["max_new_tokens"] - new.shape[1]), value=-1).float()

    @property
    def encodes(self) -> bool:
        """Whether the module is an encoder-decoder, whose new tokens follow a start of their own."""
        return getattr(getattr(self.module, "config", None), "is_encoder_decoder", False)

    def features(self, out, batch) -> Tensor:
        """(batch, joint) of what a module returns: its pooled features where it names them; of tokens the
        end of the text, the class token, or the mean over patches."""
        named = [getattr(out, name, None) for name in FEATURES]
        x = next((x for x in named if x is not None), None)
        x = first(out) if x is None else x
        if isinstance(x, Tensor) and x.ndim == 4:  # a map (batch, feature, row, column)
            x = x.mean(dim=(2, 3))
        if not isinstance(x, Tensor) or x.ndim not in (2, 3):
            what = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"{type(self.module).__name__} returned {what}; expected features (batch, "
                "joint) or tokens (batch, token, feature)"
            )
        if x.ndim == 2:
            return x
        if self.words is not None:
            roles = of_words(self.words, self.module, batch, x.shape[1])
            ends = roles.codes == roles.names.index("eos")
            if ends.any():
                return x[torch.arange(len(x), device=x.device), ends.long().argmax(dim=1)]
        return x[:, 0] if self.layouts.get(1, (("", 0),))[0][0] == "cls" else x.mean(dim=1)

    def roles(self, batch) -> SampleRoles | None:
        """Which token of the prompt is which in every sample, after it entered block 1; None for images of one
        size."""
        if self.patches is not None and isinstance(batch, Mapping) and self.patches.mask in batch:
            return of_patches(self.patches, batch, self.prompt[1])
        if self.words is None:
            return None
        return of_words(self.words, self.module, batch, size(self.prompt[1]))

    def keys(self, name: str, batch, count: int) -> tuple[tuple[Token, ...], SampleRoles | None]:
        """The `count` tokens that a cross-attention looks at. ValueError when the family does not say."""
        if name not in self.family.keys:
            raise ValueError(
                f"the {name}-attention of the {self.kind} tower looks at {count} tokens of another side; say "
                f"which they are in its family: keys={{{name!r}: 'patch*'}}"
            )
        given, words = labels_of(self.module, self.family.keys[name])
        if not isinstance(words, Words):
            return tokens_of(layouts_by_layer(given, {1: count})[1]), None
        roles = of_words(words, self.module, batch, count)
        return roles.tokens, roles


def labels_of(module: nn.Module, labels) -> tuple[str | Mapping[int, str], Words | Patches | None]:
    """The layouts that a family gives, and the Words or Patches where they depend on the sample."""
    labels = labels(module) if callable(labels) else labels
    return (labels.layout, labels) if isinstance(labels, Words | Patches) else (labels, None)


def layouts_in(given: str | Mapping[int, str]) -> list[list[str]]:
    """The words of every layout."""
    return [text.split() for text in ([given] if isinstance(given, str) else given.values())]


def names_of(call) -> tuple[str, ...] | None:
    """The arguments that a function or module names; None where it names none and takes all."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    try:
        found = inspect.signature(getattr(call, "forward", call)).parameters
    except (TypeError, ValueError):
        return None
    return tuple(name for name, about in found.items() if about.kind in kinds) or None


def first(x):
    """The first value of a mapping, tuple or list, down to one that is none of these."""
    while isinstance(x, (Mapping, tuple, list)):
        x = (
            x["input_ids"]
            if isinstance(x, Mapping) and "input_ids" in x
            else (next(iter(x.values())) if isinstance(x, Mapping) else x[0])
        )
    return x


def unwrapped(args: tuple, kwargs: Mapping) -> Tensor:
    """The tensor that enters a module: its first argument, the first of it if that is a list."""
    return first(args[0] if args else next(iter(kwargs.values())))


def tokens_first(x: Tensor, family: Family) -> Tensor:
    """(batch, token, ...) whatever order the family's blocks use, rows and columns of a grid (batch, row, column,
    width), or of a map (batch, width, row, column), one behind the other."""
    if family.maps:  # its own inverse, but for the shape of the map
        return x.flatten(2).transpose(1, 2)
    x = x.flatten(1, 2) if x.ndim == 4 else x
    return x if family.batch_first else x.transpose(0, 1)


def tokens_at(family: Family, layout: Layout, count: int) -> tuple[Token, ...]:
    """The tokens of a site of a block that this layout enters; of a map the `count` places that it has there."""
    return tokens_of((("patch", count),) if family.maps else layout)


def swapped(given, x: Tensor):
    """What a module took or returned, a tensor or a list, tuple or mapping that begins with one, with x instead."""
    if isinstance(given, Tensor):
        return x.reshape(given.shape)
    if isinstance(given, Mapping):
        return type(given)({**given, next(iter(given)): x})
    return type(given)([x, *given[1:]])


def towers_of(model, family: Family | Mapping[str, Family] | None = None) -> dict:
    """The towers of a VLM, of a Method, of another Model, or of any module, {"image": tower, "text": tower}.

    family: of a module that vlmlab does not know, one Family or {kind: Family}. Raises ValueError for a
    module of no known family, and for a family given to a VLM or a Method.
    """
    vlm = getattr(model, "vlm", model)
    if hasattr(vlm, "image") and hasattr(vlm, "text") and hasattr(vlm, "encode_image"):
        if family is not None:
            raise ValueError("family= is for modules of other libraries; a VLM or a Method knows its towers")
        return {"image": vlm.image, "text": vlm.text}
    if not isinstance(model, nn.Module):
        raise ValueError(f"a VLM, a Method or a torch module is expected, got {type(model).__name__}")
    if isinstance(model, Model):
        model, family = model.wrapped, family or model.families
    if isinstance(family, Family):
        family = {family.kind: family}
    return {kind: ModuleTower(model, f) for kind, f in (family or families_of(model)).items()}
