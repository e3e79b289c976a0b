"""Images with questions and the answers that people gave (`Questions`)."""

import dataclasses
import functools
import json
from collections.abc import Mapping

import numpy as np

from .images import Images, grouped, owners


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Questions(Images):
    """Images that each have one or several questions.

    questions: texts; image_of: int64 (question,), the position of the image that each is about. answers: per
    question answer -> how many people gave it (VQA asks ten; a single true answer counts 1). kinds: per
    question what its answer is, such as "yes/no", "number" or "other".

    Raises ValueError when the lengths differ, or a question has no answer or an image no question.
    """

    questions: tuple[str, ...]
    image_of: np.ndarray
    answers: tuple[Mapping[str, int], ...]
    kinds: tuple[str, ...]

    def __post_init__(self):
        n = len(self.questions)
        object.__setattr__(self, "image_of", owners("question", self.image_of, n, len(self.ids)))
        for name, values in (("answers", self.answers), ("kinds", self.kinds)):
            if len(values) != n:
                raise ValueError(f"{name} has an entry per question, got {len(values)} for {n} questions")
        for question, answers in zip(self.questions, self.answers, strict=True):
            if not answers or min(answers.values()) < 1:
                raise ValueError(f"the question {question!r} needs answers with counts of at least 1")
        without = np.setdiff1d(np.arange(len(self.ids)), self.image_of)
        if len(without):
            raise ValueError(f"image {self.ids[without[0]]!r} has no question; leave it out or add one")

    def __repr__(self) -> str:
        return f"Questions({len(self)} images, {len(self.questions)} questions)"

    @functools.cached_property
    def questions_of(self) -> list[np.ndarray]:
        """Per image the positions of its questions in `questions`."""
        return grouped(self.image_of, len(self))

    def about(self, i: int, rng: np.random.Generator | None = None) -> dict[str, object]:
        """{"question": str, "answer": str}: the first question of the image and its most frequent answer; with
        `rng` one of the questions, and an answer with the probability of its count."""
        mine = self.questions_of[i]
        j = int(mine[0] if rng is None else rng.choice(mine))
        answers, counts = zip(*self.answers[j].items(), strict=True)
        at = np.argmax(counts) if rng is None else rng.choice(len(counts), p=np.array(counts) / sum(counts))
        return {"question": self.questions[j], "answer": answers[at]}

    def _fields_of(self, positions: np.ndarray) -> dict[str, object]:
        kept = [self.questions_of[i] for i in positions]
        order = [j for mine in kept for j in mine]
        return {
            **{k: tuple(getattr(self, k)[j] for j in order) for k in ("questions", "answers", "kinds")},
            "image_of": np.repeat(np.arange(len(kept)), [len(mine) for mine in kept]),
        }

    def _described(self) -> bytes:
        record = [self.questions, self.image_of.tolist(), [dict(a) for a in self.answers], self.kinds]
        return super()._described() + json.dumps(record).encode()
