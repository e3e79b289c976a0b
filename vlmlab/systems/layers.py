"""What the systems are made of: attention, blocks, embeddings of words, a head that names them, images as tokens.

Masks are bool, true where a query may look: (query, key), or (batch, 1, 1 or query, key).
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-12  # of BERT's norms
INITIAL = 0.02, 768  # BERT's standard deviation of initial weights, at its width


def padding(real: Tensor) -> Tensor:
    """(batch, key), true or 1 for words -> (batch, 1, 1, key): nobody looks at padding."""
    return real[:, None, None].bool()


def causal(n: int, device: torch.device | None = None) -> Tensor:
    """(n, n): nobody looks at what comes later."""
    return torch.ones(n, n, dtype=torch.bool, device=device).tril()


class Attention(nn.Module):
    """Multi-head attention of x (batch, query, width) on keys (batch, key, of), by default on x itself.

    head: width of a head, by default that they have together the width of x. kept: None, or a list that gets the probabilities (batch, head, query, key) of every call, see `watched`.
    """

    def __init__(
        self, width: int, heads: int, of: int | None = None, head: int | None = None, bias: bool = True
    ):
        super().__init__()
        if head is None and width % heads:
            raise ValueError(f"width {width} cannot be divided among {heads} heads")
        self.heads, self.kept, inner = heads, None, heads * (head or width // heads)
        self.query = nn.Linear(width, inner, bias)
        self.key, self.value = (nn.Linear(of or width, inner, bias) for _ in range(2))
        self.out = nn.Linear(inner, width, bias)

    def forward(self, x: Tensor, keys: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        keys = x if keys is None else keys
        parts = (self.query(x), self.key(keys), self.value(keys))
        q, k, v = (y.unflatten(2, (self.heads, -1)).transpose(1, 2) for y in parts)
        if self.kept is None:
            z = F.scaled_dot_product_attention(q, k, v, mask)
        else:
            scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
            scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
            self.kept.append(scores.softmax(3))
            z = self.kept[-1] @ v
        return self.out(z.transpose(1, 2).flatten(2))


@contextlib.contextmanager
def watched(attention: Attention) -> Iterator[list[Tensor]]:
    """Inside the block attention keeps its probabilities, through which gradients flow.

    >>> with watched(model.fusion[0].cross) as kept:
    ...     ...
    """
    attention.kept = []
    try:
        yield attention.kept
    finally:
        attention.kept = None


def relevance(
    attention: Attention, score: Callable[[], Tensor], words: Tensor, grid: tuple[int, int]
) -> Tensor:
    """(batch, rows, columns): where words looked that made a score high, the mean over words and heads of the positive
    part of cross-attention times its gradient (as in ALBEF's visualisation, after Selvaraju et al. 2017, Grad-CAM).

    attention: on [CLS] and the patches of a grid; score: computes (batch,) anew; words: bool (batch, token), those asked.
    """
    with torch.inference_mode(False), torch.enable_grad(), watched(attention) as kept:
        (gradient,) = torch.autograd.grad(score().sum(), kept)
    heat = (kept[0].detach() * gradient).clamp(min=0).mean(1)[..., 1:]
    asked = words[..., None].to(heat.dtype)
    return ((heat * asked).sum(1) / asked.sum(1).clamp(min=1)).unflatten(1, grid)


class Block(nn.Module):
    """Attention, cross-attention where it has any, MLP, each added to the stream and normed after that, as in the
    Transformer and in BERT.

    cross: width of the tokens that are looked at, None for no cross-attention.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int | None = None,
        cross: int | None = None,
        dropout: float = 0.0,
        activation: Callable[[], nn.Module] = nn.GELU,
        eps: float = EPS,
    ):
        super().__init__()
        hidden = hidden or 4 * width
        self.attn, self.attn_norm = Attention(width, heads), nn.LayerNorm(width, eps)
        self.cross = None if cross is None else Attention(width, heads, cross)
        self.cross_norm = None if cross is None else nn.LayerNorm(width, eps)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), activation(), nn.Linear(hidden, width))
        self.mlp_norm, self.dropout = nn.LayerNorm(width, eps), nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        seen: Tensor | None = None,
        seen_mask: Tensor | None = None,
    ) -> Tensor:
        """x (batch, token, width); seen (batch, key, cross): None skips the cross-attention."""
        x = self.attn_norm(x + self.dropout(self.attn(x, mask=mask)))
        if seen is not None and self.cross is not None:
            x = self.cross_norm(x + self.dropout(self.cross(x, seen, seen_mask)))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))


class Embedding(nn.Module):
    """Words and their places -> (batch, token, width), normed, as in BERT."""

    def __init__(self, vocabulary: int, context: int, width: int, dropout: float = 0.0):
        super().__init__()
        self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.norm, self.dropout = nn.LayerNorm(width, EPS), nn.Dropout(dropout)

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        return self.dropout(self.norm(self.words(ids) + self.places(places)))


class WordHead(nn.Module):
    """Logits of words (batch, token, vocabulary) by a layer and the embedding of words itself, as in BERT."""

    def __init__(self, embedding: nn.Embedding):
        super().__init__()
        vocabulary, width = embedding.weight.shape
        self.dense, self.norm = nn.Linear(width, width), nn.LayerNorm(width, EPS)
        self.weight, self.bias = embedding.weight, nn.Parameter(torch.zeros(vocabulary))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.norm(F.gelu(self.dense(x))), self.weight, self.bias)


def deviation(width: int) -> float:
    """The standard deviation of initial weights: BERT's at its width, larger where fewer are summed."""
    return INITIAL[0] * (INITIAL[1] / width) ** 0.5


def initialise(module: nn.Module, width: int) -> None:
    """Weights of layers and embeddings as in BERT, in proportion to the width; biases 0."""
    std = deviation(width)
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            nn.init.normal_(part.weight, std=std)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)


def vision(image: int, patch: int, width: int, layers: int, heads: int) -> nn.Module:
    """timm's ViT: `forward_features(images)` -> (batch, 1 + patch, width), [CLS] first, normed."""
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=image, patch_size=patch, embed_dim=width, depth=layers, num_heads=heads, num_classes=0
    )
