"""Which token of a text is which, by sample: from where it ends, its attention mask, its image tokens."""

import torch
from torch import Tensor, nn

from ..models.ends import ends
from ..models.families import Words, at
from ..token_labels import SampleRoles, as_words, layouts_by_layer, tokens_of


def of_ends(ends: Tensor, count: int) -> SampleRoles:
    """Roles of `count` words in each text: word before the place in `ends` (sample,), eos there, pad behind."""
    place = torch.arange(count, device=ends.device)
    codes = (place == ends[:, None]).long() + 2 * (place > ends[:, None]).long()
    return SampleRoles(tokens_of((("word", count),)), ("word", "eos", "pad"), codes)


def of_words(words: Words, module: nn.Module, batch, count: int) -> SampleRoles:
    """Roles of the `count` tokens of texts in a batch, by what a family says of them.

    batch: token ids (sample, token), or a mapping with them, their mask, or neither. ValueError for a mask of
    another length.
    """
    layout = layouts_by_layer(words.layout, {1: count}, empty=True)[1]
    fixed = [role for role, _ in tokens_of(layout)]
    marked = [*(["eos", "pad"] if words.end else []), *(["patch"] if words.image else [])]
    names = tuple(dict.fromkeys([*fixed, "word", *marked]))
    ids, shown = inputs_of(words, batch, count)
    known = ids if shown is None else shown
    if known is None:  # decoders that begin by themselves
        known = next(iter(batch.values()))
    codes = torch.tensor([names.index(role) for role in fixed], device=known.device).repeat(len(known), 1)
    place = torch.arange(count, device=known.device)
    last = ends_of(words, ids, shown, count)
    if shown is not None:
        hidden = (shown.cumsum(dim=1) == 0).sum(dim=1)  # tokens in front of the text
        codes = codes.gather(1, (place - hidden[:, None]).clamp_min(0))
        codes[~shown] = names.index("pad")
    elif last is not None:
        codes[(place > last[:, None]) & (codes == names.index("word"))] = names.index("pad")
    if words.image and ids is not None:
        codes[ids == at(module, words.image)] = names.index("patch")
    if last is not None:
        codes[torch.arange(len(codes), device=codes.device), last] = names.index("eos")
    return SampleRoles(tokens_of(as_words(layout)), names, codes)


def inputs_of(words: Words, batch, count: int) -> tuple[Tensor | None, Tensor | None]:
    """Ids and, where it says where texts end, the mask of a text, (sample, token) and (sample, token) bool."""
    if isinstance(batch, Tensor):
        return batch, None
    ids, mask = batch.get(words.ids), batch.get(words.mask) if words.end == "mask" else None
    if mask is not None and mask.shape[1:] != (count,):
        raise ValueError(
            f"{words.mask} has shape {tuple(mask.shape)}; expected (sample, {count}), one for each token"
        )
    return ids, None if mask is None else mask.bool()


def ends_of(words: Words, ids: Tensor | None, shown: Tensor | None, count: int) -> Tensor | None:
    """(sample,) places at which texts end; None where a family marks none or there is no text."""
    if not words.end or (ids is None and shown is None):
        return None
    if words.end != "mask":
        lacks = (ids != words.eos_id).all(dim=1) if words.end == "eos" else torch.zeros(1)
        if lacks.any():
            raise ValueError(
                f"{int(lacks.sum())} texts hold no end token (id {words.eos_id}), the first is number "
                f"{int(lacks.nonzero()[0])} of its batch; the model reads texts there: use its own tokenizer"
            )
        return ends(ids, words.end, words.eos_id)
    if shown is None:
        return torch.full((len(ids),), ids.shape[1] - 1, device=ids.device)
    return (shown * torch.arange(1, count + 1, device=shown.device)).argmax(dim=1)
