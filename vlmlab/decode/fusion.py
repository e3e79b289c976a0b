"""What an image says about candidates, as a bias on the words that begin or continue them.

The plan adds lambda log(sum of p_V over the candidates that a word begins). Its two readings, words that begin none
get -infinity or 0, ban all other words or punish the candidates, and give NaN for p_V = 0; both are here under their
names (`literal`), to be shown. What is used is the lift over a uniform prior: 0 where the image says nothing.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .words_of_candidates import CandidateTokens, Node

EPS = 1e-3  # of probability: a candidate that the image rules out loses log((eps + prior) / eps) nats and no more
LITERAL = {"literal_minus_inf": -math.inf, "literal_zero": 0.0}
RULES = ("lift", "trie", *LITERAL)
Active = Callable[[int, str], bool]


def masses(p: Tensor, node: Node) -> tuple[Tensor, Tensor]:
    """Mass (row, word) and prior (word,) of the candidates behind each word of a node; p: (row, candidate)."""
    return p @ node.members.T, node.members.sum(dim=1) / p.shape[1]


def log_lift(mass: Tensor, prior: Tensor, eps: float) -> Tensor:
    """log((eps + mass) / (eps + prior)): above 0 where the image gives more than the prior."""
    return ((eps + mass) / (eps + prior)).log()


def lift(p: Tensor, node: Node, eps: float = EPS) -> Tensor:
    """(row, word) r_V of the words that may follow a node of the candidates' words, natural logarithm.

    r_V(x) = log((eps + m(s+x)) / (eps + pi(s+x))) - log((eps + m(s)) / (eps + pi(s))), where m(s) is the mass p_V of
    the candidates that go on from the words s, pi(s) their share of all; at the start m = pi = 1 and r_V is the lift of
    the words that begin a candidate. Along a candidate the terms add up to log p_V(c) - log prior(c).
    p: (row, candidate) p_V. A uniform p_V gives 0.
    """
    mass, prior = masses(p, node)
    before = log_lift(
        p[:, node.own].sum(dim=1, keepdim=True), len(node.own) / p.shape[1] + mass.new_zeros(1), eps
    )
    return log_lift(mass, prior, eps) - before


def literal(p: Tensor, node: Node) -> Tensor:
    """(row, word) the plan's r_V(x) = log sum p_V(c): -inf for candidates with p_V = 0."""
    return masses(p, node)[0].log()


def joint(log_p: Tensor, bias: Tensor, strength: float) -> Tensor:
    """(row, word) log p of log softmax(F_L + lambda r_V) on V_L. lambda = 0 gives log_p itself, whatever r_V is."""
    return (log_p + strength * bias).log_softmax(dim=-1) if strength else log_p


class Fusion:
    """The visual side while a model writes: a bias (row, word) for every step.

    tokens: which words write the candidates. p: (image, candidate) probabilities p_V, of length 1 in sum. strength:
    lambda. rule: "lift" (every step), "trie" (the words written since the answer began), "literal_minus_inf",
    "literal_zero". top: how many of an image's best candidates have a bias, of those with p_V > 0 (of all in the
    literal rules); the masses are over all. active(step, text): whether step 0, 1, ... of a row, behind the new text so far, is biased (default:
    always); the answer that the trie follows begins where that last became true; needs decode, ids -> text.

    Raises ValueError for shapes, a rule or probabilities that do not fit.
    """

    def __init__(
        self,
        tokens: CandidateTokens,
        p: Tensor,
        strength: float = 0.7,
        rule: str = "lift",
        top: int | None = None,
        active: Active | None = None,
        decode: Callable[[list[int]], str] | None = None,
    ):
        if rule not in RULES:
            raise ValueError(f"unknown rule of fusion {rule!r}; there are {', '.join(RULES)}")
        if p.ndim != 2 or p.shape[1] != len(tokens.names):
            raise ValueError(
                f"p has shape {tuple(p.shape)}, expected (image, {len(tokens.names)} candidates)"
            )
        if not bool((p >= 0).all()) or not torch.allclose(p.sum(dim=1), p.new_ones(len(p)), atol=1e-3):
            raise ValueError("p holds no probabilities: every row must be 0 or more and have the sum 1")
        if active is not None and decode is None:
            raise ValueError("active(step, text) needs decode=, which makes a text of token ids")
        self.tokens, self.p, self.strength, self.rule = tokens, p.float().cpu(), strength, rule
        self.active, self.decode = active, decode
        self.known: dict[tuple[int, ...], bool] = {}
        self.made: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self.whole: dict[tuple[int, int, str], Tensor] = {}
        best = self.p.topk(min(top or p.shape[1], p.shape[1]), dim=1)
        self.best = torch.zeros_like(self.p).scatter(
            1, best.indices, ((best.values > 0) | self.is_literal).float()
        )

    @property
    def is_literal(self) -> bool:
        return self.rule in LITERAL

    def bias(self, written: Tensor, width: int, device: torch.device | None = None) -> Tensor:
        """(row, word) r_V for the next word; written: (row, step) token ids since the prompt; width: of the vocabulary.

        Rows are images, or images times beams.
        """
        rows, images = written.shape[0], len(self.p)
        if rows % images:
            raise ValueError(f"{rows} rows are decoded, which is no multiple of the {images} images of p")
        if self.rule == "trie" or self.active:
            return self.made_anew(written.tolist(), width, device)
        if (key := (rows, width, str(device))) not in self.whole:  # the same at every step
            self.whole[key] = self.made_anew([[]] * rows, width, device)
        return self.whole[key]

    def made_anew(self, written: list[list[int]], width: int, device: torch.device | None) -> Tensor:
        """(row, word) r_V behind what every row has written."""
        rows, images = len(written), len(self.p)
        found = torch.full((rows, width), LITERAL.get(self.rule, 0.0), device=device)
        for row, ids in enumerate(written):
            start = self.start(ids)
            if start is None:
                found[row] = 0
            elif (node := self.node(ids[start:])) is not None:
                self.fill(found[row], row * images // rows, node)
        return found

    def fill(self, found: Tensor, image: int, node: Node) -> None:
        """Write the bias of one row, (word,)."""
        if (image, id(node)) not in self.made:
            self.made[image, id(node)] = self.values(image, node)
        ids, values = self.made[image, id(node)]
        if len(ids) and int(ids.max()) >= len(found):
            raise ValueError(
                f"a candidate is written with token {int(ids.max())}, and the model has {len(found)} words; the "
                "tokenizer is another model's"
            )
        found[ids.to(found.device)] = values.to(found)

    def values(self, image: int, node: Node) -> tuple[Tensor, Tensor]:
        """Token ids (word,) that one of the best candidates goes on with, and their r_V."""
        p = self.p[image : image + 1]
        values = literal(p, node) if self.is_literal else lift(p, node)
        hit = (self.best[image] @ node.members.T) > 0
        return node.ids[hit], values[0, hit]

    def node(self, written: list[int]) -> Node | None:
        """Where a text stands among the candidates' words; None where it has left them or written one to its end."""
        return self.tokens.trie.after(written) if self.rule == "trie" else self.tokens.starts

    def start(self, written: list[int]) -> int | None:
        """How many new words stood before the present stretch of active steps; None where this step is not active."""
        if self.active is None:
            return 0
        at = len(written)
        if not self.is_active(written):
            return None
        while at and self.is_active(written[: at - 1]):
            at -= 1
        return at

    def is_active(self, written: list[int]) -> bool:
        key = tuple(written)
        if key not in self.known:
            self.known[key] = bool(self.active(len(written), self.decode(written)))
        return self.known[key]

    def fuse(self, log_p: Tensor, bias: Tensor) -> Tensor:
        """(row, word) log p with the bias; of a literal rule by the plan's formula, which may be NaN."""
        if self.is_literal:
            return (log_p + self.strength * bias).log_softmax(dim=-1)
        return joint(log_p, bias, self.strength)
