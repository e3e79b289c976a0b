"""Which tokens write a candidate: its spellings, the token that each begins with, and the ways to its end."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor


@dataclasses.dataclass
class Node:
    """Some words that begin candidates: `own` are the candidates that go on from there, `next` what comes behind."""

    own: list[int]
    next: dict[int, "Node"] = dataclasses.field(default_factory=dict)
    count: int = 0

    @functools.cached_property
    def ids(self) -> Tensor:
        """(word,) the token ids that may follow."""
        return torch.tensor([*self.next], dtype=torch.long)

    @functools.cached_property
    def members(self) -> Tensor:
        """(word, candidate) 1 where the candidate goes on with the word."""
        found = torch.zeros(len(self.next), self.count)
        for row, node in enumerate(self.next.values()):
            found[row, node.own] = 1
        return found

    def after(self, written: Sequence[int]) -> "Node | None":
        """The node behind these tokens; None where no candidate goes on."""
        node = self
        for token in written:
            if (node := node.next.get(token)) is None:
                return None
        return node if node.next else None


@dataclasses.dataclass(frozen=True)
class CandidateTokens:
    """The tokens of candidates. paths: of each candidate, the token ids of its spellings.

    trie: all paths. starts: the first tokens alone, without those that are no more than a space. collisions: token id
    -> the candidates that begin with it and cannot be told apart by it.
    """

    names: tuple[str, ...]
    paths: tuple[tuple[tuple[int, ...], ...], ...]
    trie: Node
    starts: Node

    @property
    def collisions(self) -> dict[int, tuple[str, ...]]:
        return {
            token: tuple(self.names[i] for i in node.own)
            for token, node in self.starts.next.items()
            if len(node.own) > 1
        }


def spellings(name: str) -> list[str]:
    """A name as it is, small, and with a capital, each with a space before it and without."""
    cases = (name, name.lower(), name[:1].upper() + name[1:])
    return list(dict.fromkeys(form for case in cases for form in (f" {case}", case)))


def candidate_tokens(tokenizer: Callable, names: Sequence[str]) -> CandidateTokens:
    """How a tokenizer of transformers writes each candidate, in all its spellings.

    >>> tokens = decode.candidate_tokens(model.tokenizer, ["cat", "dog", "catfish"])
    >>> tokens.collisions  # cat and catfish begin with one token
    >>> fusion = decode.Fusion(tokens, p)  # p (image, candidate)

    Raises ValueError for no candidate, one twice, an empty one, or one that the tokenizer cannot write.
    """
    names = check_names(names)
    unknown, paths = getattr(tokenizer, "unk_token_id", None), []
    for name in names:
        ids = [tuple(tokenizer(form, add_special_tokens=False)["input_ids"]) for form in spellings(name)]
        known = tuple(dict.fromkeys(path for path in ids if path and unknown not in path))
        if not known:
            raise ValueError(f"the tokenizer has no tokens that write the candidate {name!r}")
        paths.append(known)
    starts = [{path[:1] for path in known if tokenizer.decode(path[:1]).strip()} for known in paths]
    if bare := [name for name, found in zip(names, starts) if not found]:
        raise ValueError(f"the tokenizer begins {bare[0]!r} with a space alone, which begins every word")
    return CandidateTokens(names, tuple(paths), trie_of(paths), trie_of(starts))


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """ValueError for what is no list of different names."""
    if isinstance(names, str) or isinstance(names, Mapping) or not len(names):
        raise ValueError(f"candidates must be a list with one name or more, got {names!r}")
    if wrong := [name for name in names if not isinstance(name, str) or not name.strip()]:
        raise ValueError(f"a candidate is {wrong[0]!r}; expected is a text that is not empty")
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise ValueError(f"the candidate {twice[0]!r} is given twice")
    return tuple(names)


def trie_of(paths: Sequence) -> Node:
    """All paths of all candidates as one tree."""
    root = Node([*range(len(paths))], count=len(paths))
    for candidate, forms in enumerate(paths):
        for path in sorted(forms):
            node = root
            for token in path:
                node = node.next.setdefault(token, Node([], count=len(paths)))
                if candidate not in node.own:
                    node.own.append(candidate)
    return root
