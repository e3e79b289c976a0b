"""Towers: a library's own transformer blocks over labelled tokens.

A tower wraps the modules of the model it is given; nothing is copied, folded or rewritten, so
hooks, autocast and new library versions keep working. Blocks are numbered 1 to depth.
"""

import contextlib
import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..display import Panel, Shown
from ..token_labels import Layout
from .check_towers import check_images, check_text, check_visual, pool_type
from .ends import ends, own_tokens
from .families import FAMILIES
from .partial_blocks import all_tokens, can_run_in_parts, first_tokens
from .remembered import Remembered
from .shared_text import SharedText, arrange
from .tokens import Edit, Observer, Tokens, leading


class Tower(Shown, nn.Module):
    """What the image and the text tower share: running edited blocks.

    `layouts` holds, after a run, the layout at the input of every block that ran. `observers` are told
    before every block of `run`.
    """

    kind: str
    causal = False
    entering: Mapping[int, int] = {}  # every token enters every block: nothing is cached
    family = FAMILIES["open_clip ViT"]

    def __init__(self, blocks: nn.ModuleList, width: int, heads: int):
        super().__init__()
        self.blocks, self.width, self.heads = blocks, width, heads
        self.layouts: dict[int, Layout] = {}
        self.observers: list[Observer] = []
        self.shortcuts = True

    def panel(self) -> Panel:
        sizes = f"{self.depth} blocks × {self.width}, {self.heads} heads"
        return Panel(type(self).__name__, f"{sizes}, {self.inputs()}")

    def inputs(self) -> str:
        """What it takes and the tokens that become of it, in words."""
        raise NotImplementedError

    @property
    def depth(self) -> int:
        return len(self.blocks)

    @property
    def first_trained(self) -> int:
        """The first block whose parameters train: 0 is the embedding, depth + 1 what stands behind the blocks
        or nothing. Only what comes before it may be cached or run without a graph."""
        parts = enumerate([self.embedding(), *(block.parameters() for block in self.blocks)])
        return next((i for i, part in parts if any(p.requires_grad for p in part)), self.depth + 1)

    def embedding(self) -> list[nn.Parameter]:
        """The parameters that `embed` uses."""
        raise NotImplementedError

    def watch(self) -> contextlib.AbstractContextManager:
        """Nothing to do: `run` notes the layouts itself."""
        return contextlib.nullcontext()

    def run(
        self,
        tokens: Tokens,
        edits: Mapping[int, Edit] | None = None,
        start: int = 1,
        stop: int | None = None,
        first: int | None = None,
    ) -> Tokens:
        """Blocks start..stop (both included); `edits[l]` is applied to the tokens before block l.

        first: give back the first tokens only; block `stop` then computes no more than it must for them.
        Raises ValueError for blocks or an edit outside 1..depth.
        """
        edits, stop = edits or {}, self.depth if stop is None else stop
        self.check_range(edits, start, stop)
        for layer in range(start, stop + 1):
            if layer in edits:
                tokens = edits[layer](tokens)
            self.layouts[layer] = tokens.layout
            for observer in self.observers:
                observer.before_block(layer, tokens)
            tokens = self.through(layer, tokens, first if layer == stop else None)
        return tokens

    def through(self, layer: int, tokens: Tokens, first: int | None) -> Tokens:
        """The tokens behind one block; the first ones or all."""
        block, x = self.blocks[layer - 1], tokens.x
        mask = causal_mask(x) if self.causal else None
        in_parts = self.shortcuts and can_run_in_parts(block)
        if first is None:
            trains = torch.is_grad_enabled() and x.requires_grad  # else there is a native op
            x = all_tokens(block, x, mask) if trains and in_parts else block(x, attn_mask=mask)
            return dataclasses.replace(tokens, x=x)
        in_parts = in_parts and mask is None
        x = first_tokens(block, x, first) if in_parts else block(x, attn_mask=mask)[:, :first]
        return dataclasses.replace(tokens, x=x, layout=leading(tokens.layout, first))

    def check_range(self, edits: Mapping[int, Edit], start: int, stop: int) -> None:
        """ValueError for blocks or an edit outside 1..depth."""
        if start < 1 or stop > self.depth:
            raise ValueError(
                f"blocks {start} to {stop}, but the {self.kind} tower has blocks 1 to {self.depth}"
            )
        beyond = [layer for layer in edits if not 1 <= layer <= self.depth]
        if beyond:
            raise ValueError(
                f"edits before blocks {beyond}, but the {self.kind} tower has blocks 1 to {self.depth}"
            )

    def prefix(self, inputs: Tensor, before: int) -> Tokens:
        """Embedding and blocks 1..before-1, the part that no edit touches: without a graph where none of it
        trains and no observer wants one."""
        wanted = self.first_trained < before or any(o.keeps_graph for o in self.observers)
        with torch.set_grad_enabled(torch.is_grad_enabled() and wanted):
            return self.run(self.embed(inputs), stop=before - 1)

    def forward(self, inputs: Tensor, edits: Mapping[int, Edit] | None = None) -> Tensor:
        """(batch, joint) features, not normalised; `edits[0]`, if there, is the edit of the embedding."""
        edits = dict(edits or {})
        return self.read(self.embed(inputs, edits.pop(0, None)), edits)

    def read(self, tokens: Tokens, edits: Mapping[int, Edit] | None = None, start: int = 1) -> Tensor:
        """(batch, joint) features of tokens that stand before block `start`, not normalised."""
        return self.project(self.pool(self.run(tokens, edits, start)))


class ImageTower(Tower):
    """open_clip's VisionTransformer, read at its class token, or pooled by attention or a mean."""

    kind = "image"

    def __init__(self, visual: nn.Module):
        check_visual(visual)
        super().__init__(
            visual.transformer.resblocks,
            visual.transformer.width,
            visual.transformer.resblocks[0].attn.num_heads,
        )
        self.visual = visual
        self.reads_class_token = visual.attn_pool is None and visual.pool_type == "tok"

    def inputs(self) -> str:
        v = self.visual
        return described(v.image_size, {"cls": 1}, v.grid_size)

    def embedding(self) -> list[nn.Parameter]:
        v = self.visual
        return [v.class_embedding, v.positional_embedding, *v.conv1.parameters(), *v.ln_pre.parameters()]

    def embed(self, images: Tensor, edit: Edit | None = None) -> Tokens:
        """images (batch, 3, height, width) -> Tokens (batch, 1 + patch, width).

        `edit` is applied after the positional embedding and before ln_pre (MaPLe, PromptSRC).
        Raises ValueError when the image size is not the model's.
        """
        v = self.visual
        check_images(images, v.image_size)
        x = v.conv1(images).flatten(2).transpose(1, 2)
        cls = v.class_embedding.view(1, 1, -1).expand(len(x), -1, -1).to(x.dtype)
        x = torch.cat([cls, x], dim=1) + v.positional_embedding.to(x.dtype)
        tokens = Tokens(x, (("cls", 1), ("patch", x.shape[1] - 1)))
        if edit is not None:
            tokens = edit(tokens)
        return dataclasses.replace(tokens, x=v.ln_pre(tokens.x))

    def read(self, tokens: Tokens, edits: Mapping[int, Edit] | None = None, start: int = 1) -> Tensor:
        first = 1 if self.reads_class_token else None
        return self.project(self.pool(self.run(tokens, edits, start, first=first)))

    def norm(self, x: Tensor) -> Tensor:
        return self.visual.ln_post(x)

    def pool(self, tokens: Tokens) -> Tensor:
        """(batch, width): the normed class token, or what attention or a mean makes of it and the patches.

        Tokens that an edit inserted are not pooled; ValueError where the patches were left out.
        """
        if self.reads_class_token:
            return self.norm(tokens.x[:, 0])
        v, x = self.visual, own_tokens(tokens)
        if v.attn_pool is None and v.final_ln_after_pool:
            return self.norm(v._global_pool(x)[0])
        return v._global_pool(self.norm(x if v.attn_pool is None else v.attn_pool(x)))[0]

    def project(self, x: Tensor) -> Tensor:
        return x if self.visual.proj is None else x @ self.visual.proj


class TextTower(Tower):
    """open_clip's text transformer, read out at one token: the EOS token in CLIP, the last in SigLIP.

    A causal token never sees what follows it: where only features are wanted, what texts have in common
    before they differ runs once for all of them (shared_text.py), and `embed` cuts the sequence behind the
    longest prompt of the batch. Both are exact; `shortcuts = False` keeps the full context of every text.
    """

    kind = "text"
    family = FAMILIES["open_clip text"]

    def __init__(self, text: nn.Module):
        check_text(text)
        super().__init__(
            text.transformer.resblocks, text.transformer.width, text.transformer.resblocks[0].attn.num_heads
        )
        self.text = text
        self.causal = text.attn_mask is not None
        self.read_at = pool_type(text)
        self.arranged = Remembered(arrange)

    def inputs(self) -> str:
        context, vocabulary = len(self.text.positional_embedding), self.text.token_embedding.num_embeddings
        return f"texts of at most {context} tokens out of {vocabulary:,}"

    def embedding(self) -> list[nn.Parameter]:
        return [self.text.token_embedding.weight, self.text.positional_embedding]

    def embed(self, ids: Tensor, edit: Edit | None = None) -> Tokens:
        """ids (batch, context) -> Tokens (batch, token, width); `edit` works on the word embeddings
        before the positional embedding is added and must keep the length (CoOp)."""
        self.check_ids(ids)
        eos = self.ends(ids)
        if self.shortcuts and self.causal:
            ids = ids[:, : int(eos.max()) + 1]
        n = ids.shape[1]
        layout = (("sos", 1), ("word", n - 1)) if self.read_at in ("argmax", "eos") else (("word", n),)
        tokens = Tokens(self.text.token_embedding(ids), layout, eos)
        if edit is not None:
            tokens = edit(tokens)
        return dataclasses.replace(tokens, x=tokens.x + self.text.positional_embedding[: tokens.x.shape[1]])

    def ends(self, ids: Tensor) -> Tensor:
        """(batch,) where texts with token ids (batch, token) are read: the positions called eos."""
        eos_id = getattr(self.text, "text_eos_id", getattr(self.text, "eos_id", None))
        return ends(ids, self.read_at, eos_id)

    def check_ids(self, ids: Tensor) -> None:
        """ValueError for token ids that are not (batch, token) or longer than the context."""
        if ids.ndim != 2 or ids.shape[1] > len(self.text.positional_embedding):
            raise ValueError(
                f"token ids have shape {tuple(ids.shape)}, expected (batch, at most "
                f"{len(self.text.positional_embedding)}); use vlm.tokenizer"
            )

    def forward(self, ids: Tensor, edits: Mapping[int, Edit] | None = None) -> Tensor:
        edits = dict(edits or {})
        return self.read(self.shared(ids, edit=edits.pop(0, None)), edits)

    def shared(self, ids: Tensor, before: int = 1, edit: Edit | None = None) -> Tokens | SharedText:
        """The tokens before block `before` for `read`, what they have in common once where that is exact.

        `edit` is that of the embedding.
        """
        texts = self.share(ids, edit) if self.shares() else None
        if texts is None:
            return self.run(self.embed(ids, edit), stop=before - 1)
        for layer in range(1, before):
            self.layouts[layer] = texts.full_layout
            texts = texts.through(self.blocks[layer - 1])
        return texts

    def shares(self) -> bool:
        """Whether the text tower may run shared texts now."""
        clip = self.causal and self.read_at == "argmax"
        return self.shortcuts and clip and all(map(can_run_in_parts, self.blocks))

    def share(self, ids: Tensor, edit: Edit | None) -> SharedText | None:
        """`embed` of what the texts have in common and of the rest; None where that is not exact."""
        self.check_ids(ids)
        texts = self.arranged(ids)
        if texts is not None:
            texts = dataclasses.replace(texts, x=self.text.token_embedding(texts.x)).edited(edit)
        if texts is None:
            return None
        return dataclasses.replace(texts, x=texts.x + self.text.positional_embedding[texts.positions()])

    def read(
        self, tokens: Tokens | SharedText, edits: Mapping[int, Edit] | None = None, start: int = 1
    ) -> Tensor:
        """(batch, joint) features of tokens that stand before block `start`, not normalised.

        From an edit on that is not the same for all texts, they run side by side.
        """
        edits = edits or {}
        if isinstance(tokens, SharedText) and not self.shares():
            tokens = tokens.side_by_side()
        if isinstance(tokens, Tokens):
            return super().read(tokens, edits, start)
        self.check_range(edits, start, self.depth)
        for layer in range(start, self.depth + 1):
            texts = tokens.edited(edits.get(layer))
            if texts is None:
                return super().read(tokens.side_by_side(), edits, layer)
            self.layouts[layer] = texts.full_layout
            tokens = texts.through(self.blocks[layer - 1], only_ends=layer == self.depth)
        return self.project(self.norm(tokens.ends()))

    def norm(self, x: Tensor) -> Tensor:
        return self.text.ln_final(x)

    def pool(self, tokens: Tokens) -> Tensor:
        """(batch, width): the normed token at which the text is read."""
        return self.norm(tokens.x[torch.arange(len(tokens.x), device=tokens.x.device), tokens.eos])

    def project(self, x: Tensor) -> Tensor:
        p = self.text.text_projection
        return x if p is None else p(x) if isinstance(p, nn.Linear) else x @ p


def described(pixels: tuple[int, int], prefix: Mapping[str, int], grid: tuple[int, int]) -> str:
    """'64 × 64 pixels as 1 cls + 8 × 8 patch tokens'."""
    first = "".join(f"{n} {role} + " for role, n in prefix.items() if n)
    return f"{pixels[0]} × {pixels[1]} pixels as {first}{grid[0]} × {grid[1]} patch tokens"


def causal_mask(x: Tensor) -> Tensor:
    """(token, token) additive mask for tokens x (batch, token, width)."""
    n = x.shape[1]
    return torch.full((n, n), -torch.inf, device=x.device, dtype=x.dtype).triu_(1)
