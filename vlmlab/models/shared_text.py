"""Class prompts that begin alike: what they share is computed once, and nothing is padded.

"a photo of a cat." and "a photo of a red fox." differ from their sixth token on. In a causal tower a token
sees only what stands before it, so that SOS, prompts inserted behind it and the words of the template hold
the same numbers in every text, in every block. They run once, as one text; each text's own tokens, up to
its EOS, attend to the shared keys and values and to their own. This is exact: no number that the features
depend on is left out, and a gradient that reaches a shared token is the sum over the texts.

All tokens lie in one matrix (token, width), the shared ones first, then the texts sorted by length. Norms,
linear maps and MLPs run on it as it is; attention runs once per length: no text pays for a longer one.
"""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..token_labels import Layout
from .partial_blocks import finish
from .tokens import Edit, Tokens


@dataclasses.dataclass(frozen=True)
class SharedText:
    """Texts with a common beginning.

    x: (token, width), `shared` tokens, then the own tokens of each text. layout: of the shared tokens, its
    last run is words and may be empty. groups: (texts, own tokens) of the texts of one length, in the order
    of x. row: (text,) where each text stands in that order. own: (text,) its number of own tokens, 1 or more.
    """

    x: Tensor
    layout: Layout
    groups: tuple[tuple[int, int], ...]
    row: Tensor
    own: Tensor

    @property
    def shared(self) -> int:
        return sum(count for _, count in self.layout)

    @property
    def eos(self) -> Tensor:
        """(text,) positions of the EOS tokens."""
        return self.own + self.shared - 1

    @property
    def full_layout(self) -> Layout:
        """The layout of the texts side by side, as long as the longest."""
        role, count = self.layout[-1]
        return (*self.layout[:-1], (role, count + self.groups[-1][1]))

    def positions(self) -> Tensor:
        """(token,) positions of the tokens in their texts."""
        at = torch.arange(self.shared + self.groups[-1][1], device=self.row.device)
        own = at[self.shared :]
        return torch.cat([at[: self.shared], *(own[:n].repeat(count) for count, n in self.groups)])

    def edited(self, edit: Edit | None) -> "SharedText | None":
        """The edit applied once; None if it may do more than change the shared tokens, alike in all texts."""
        if edit is None:
            return self
        reach = getattr(edit, "reach", None)
        if reach is None or reach(self.full_layout) > self.shared:
            return None
        after = edit(Tokens(self.x[None, : self.shared], self.layout))
        return dataclasses.replace(
            self, x=torch.cat([after.x[0], self.x[self.shared :]]), layout=after.layout
        )

    def through(self, block: nn.Module, only_ends: bool = False) -> "SharedText":
        """The tokens behind a block; only_ends: the EOS tokens alone, all that anybody reads of the last."""
        if not only_ends:
            return dataclasses.replace(self, x=finish(block, self.x, self.attend(block)))
        at, groups = self.places(), tuple((count, 1) for count, _ in self.groups)
        x = finish(block, self.x[at], self.attend(block, at))
        return SharedText(x, (("word", 0),), groups, self.row, torch.ones_like(self.own))

    def places(self) -> Tensor:
        """(text,) where in x the EOS tokens are, texts in the order of x."""
        return self.shared - 1 + self.own.sort().values.cumsum(0)

    def ends(self) -> Tensor:
        """(text, width): the EOS tokens in the order of the texts."""
        return self.x[self.places()[self.row]]

    def attend(self, block: nn.Module, ends: Tensor | None = None) -> Tensor:
        """Attention output (token, width) of all tokens, or of those at `ends`, in the order of x."""
        attn, known, sizes = block.attn, block.ln_1(self.x), [count * n for count, n in self.groups]
        w, b, d = attn.in_proj_weight, attn.in_proj_bias, attn.embed_dim
        q = F.linear(known if ends is None else known[ends], w[:d], b[:d])
        k, v = F.linear(known, w[d:], b[d:]).chunk(2, dim=-1)

        def heads(x, count):
            """(text * token, width) -> (text, head, token, width of a head)."""
            return x.unflatten(0, (count, -1)).unflatten(2, (attn.num_heads, -1)).transpose(1, 2)

        (k0, *ks), (v0, *vs) = (t.split([self.shared, *sizes]) for t in (k, v))
        k0, v0, out = heads(k0, 1), heads(v0, 1), []
        if ends is None:
            q, qs = q[: self.shared], q[self.shared :].split(sizes)
            out.append(causal_attention(heads(q, 1), k0, v0))
        else:
            qs = q.split([count for count, _ in self.groups])
        for (count, _), q, *own in zip(self.groups, qs, ks, vs):
            kv = (
                torch.cat([first.expand(count, -1, -1, -1), heads(x, count)], dim=2)
                for first, x in zip((k0, v0), own)
            )
            out.append(causal_attention(heads(q, count), *kv))
        return F.linear(torch.cat(out), attn.out_proj.weight, attn.out_proj.bias)

    def side_by_side(self) -> Tokens:
        """The same tokens as (text, token, width), zeros behind each EOS."""
        longest = self.groups[-1][1]
        parts = self.x[self.shared :].split([count * n for count, n in self.groups])
        own = torch.cat(
            [
                F.pad(part.unflatten(0, (count, n)), (0, 0, 0, longest - n))
                for part, (count, n) in zip(parts, self.groups)
            ]
        )[self.row]
        x = torch.cat([self.x[: self.shared].expand(len(own), -1, -1), own], dim=1)
        return Tokens(x, self.full_layout, self.eos)


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(text * query, width) from q, k, v (text, head, token, width); the queries are the last tokens."""
    queries, keys = q.shape[2], k.shape[2]
    seen = torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril(keys - queries)
    return F.scaled_dot_product_attention(q, k, v, seen).transpose(1, 2).flatten(2).flatten(0, 1)


def arrange(ids: Tensor) -> SharedText | None:
    """ids (text, context) -> the texts with token ids (token,) as x; None if they do not begin alike."""
    eos = ids.argmax(dim=1)
    alike = (ids == ids[:1]).all(dim=0).int().cumprod(0).sum()
    shared = int(torch.minimum(alike, eos.min()))
    if shared < 1:
        return None
    own = eos - shared + 1
    order = own.argsort(stable=True)
    lengths, counts = (t.tolist() for t in own.unique(return_counts=True))
    parts = [ids[rows, shared : shared + n].flatten() for rows, n in zip(order.split(counts), lengths)]
    layout = ("sos", 1), ("word", shared - 1)
    return SharedText(
        torch.cat([ids[0, :shared], *parts]), layout, tuple(zip(counts, lengths)), order.argsort(), own
    )
