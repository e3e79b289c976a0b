"""A tower of a module that another library runs: what capture needs of it, read off its family."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ..models.families import Family, at, families_of
from ..token_labels import Layout, layouts_by_layer

FEATURES = ("image_embeds", "text_embeds", "pooler_output", "logits", "last_hidden_state")


class ModuleTower:
    """One tower of a module, by a Family. `layouts` holds, after a run under `watch`, the layout at the
    input of every block that ran, as in `models.towers.Tower`."""

    shortcuts = False  # the module runs as it is

    def __init__(self, module: nn.Module, family: Family):
        self.module, self.family, self.kind = module, family, family.kind
        self.blocks = list(at(module, family.blocks))
        self.given = family.tokens(module) if callable(family.tokens) else family.tokens
        self.layouts: dict[int, Layout] = {}

    @property
    def depth(self) -> int:
        return len(self.blocks)

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Note the layout at every block while the module runs. ValueError where it does not fit."""
        with contextlib.ExitStack() as stack:
            for layer, block in enumerate(self.blocks, start=1):

                def look(module, args, kwargs, layer=layer):
                    count = tokens_first(unwrapped(args, kwargs), self.family).shape[1]
                    self.layouts |= layouts_by_layer(self.given, {layer: count})

                handle = block.register_forward_pre_hook(look, with_kwargs=True)
                stack.callback(handle.remove)
            yield

    def run(self, batch: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tower's features of a batch, {"output": (batch, joint)}."""
        call = at(self.module, self.family.forward)
        out = call(**batch) if isinstance(batch, Mapping) else call(batch)
        return {"output": self.features(out, batch)}

    def features(self, out, batch) -> Tensor:
        """(batch, joint) of what a module returns: its pooled features where it names them; of tokens the
        end of the text, the class token, or the mean over patches."""
        named = [getattr(out, name, None) for name in FEATURES]
        x = next((x for x in named if x is not None), None)
        x = first(out) if x is None else x
        if not isinstance(x, Tensor) or x.ndim not in (2, 3):
            what = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"{type(self.module).__name__} returned {what}; expected features (batch, "
                "joint) or tokens (batch, token, feature)"
            )
        if x.ndim == 2:
            return x
        ends = self.ends(batch)
        if ends is not None:
            return x[torch.arange(len(x), device=x.device), ends]
        return x[:, 0] if self.layouts.get(1, (("", 0),))[0][0] == "cls" else x.mean(dim=1)

    def ends(self, batch) -> Tensor | None:
        """(batch,) positions at which texts end; None for images and texts whose family marks none.

        Raises ValueError for a batch padded on the left, whose first tokens would be taken for words.
        """
        if not self.family.end:
            return None
        ids = first(batch)
        mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
        if self.family.end == "eos":
            return ids.argmax(dim=1)
        if mask is None or self.family.end == "last":
            return torch.full((len(ids),), ids.shape[1] - 1, device=ids.device)
        if not mask[:, 0].all():
            raise ValueError(
                "the attention mask hides first tokens: pad the texts on the right "
                "(tokenizer.padding_side = 'right')"
            )
        return mask.sum(dim=1) - 1


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
    """(batch, token, ...) whatever order the family's blocks use; a view."""
    return x if family.batch_first else x.transpose(0, 1)


def towers_of(model, family: Family | Mapping[str, Family] | None = None) -> dict:
    """The towers of a VLM, of a Method, or of any module, {"image": tower, "text": tower}.

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
    if isinstance(family, Family):
        family = {family.kind: family}
    return {kind: ModuleTower(model, f) for kind, f in (family or families_of(model)).items()}
