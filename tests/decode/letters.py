"""A tokenizer of 99 letters, as transformers' are called: one token a letter, one more for a letter behind a space."""

from vlmlab.decode import CandidateTokens, candidate_tokens

SIGNS = "abcdefghijklmnopqrstuvwxyz"
CASES = SIGNS + "CDFOA"  # of the capitals, those that tests use
UNKNOWN = 98
WIDTH = 99
NAMES = ("cat", "dog", "cow", "catfish")


class Letters:
    """space_alone: a space is a token of its own, as some tokenizers write it."""

    unk_token_id = UNKNOWN

    def __init__(self, space_alone: bool = False):
        single = [*CASES, " "]
        self.words = single + ([] if space_alone else [f" {sign}" for sign in CASES])
        self.ids = {word: 3 + i for i, word in enumerate(self.words)}

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict:
        found, at = [], 0
        while at < len(text):
            word = text[at : at + 2] if text[at : at + 2] in self.ids else text[at]
            found.append(self.ids.get(word, UNKNOWN))
            at += len(word)
        return {"input_ids": found}

    def decode(self, ids) -> str:
        return "".join(self.words[i - 3] if 3 <= i < 3 + len(self.words) else "?" for i in map(int, ids))


def ids(text: str) -> list[int]:
    return Letters()(text)["input_ids"]


def tokens(names=NAMES) -> CandidateTokens:
    return candidate_tokens(Letters(), names)
