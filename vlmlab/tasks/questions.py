"""Images with questions and the answers that people gave (`Questions`)."""

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from .answers import accuracy, normalise
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

    def vocabulary(self, least: int = 9, most: int | None = None) -> tuple[str, ...]:
        """The answers, as `normalise` leaves them, that most people gave to `least` questions or more; the most frequent
        first, at most `most`."""
        counts = Counter(normalise(max(given, key=given.get)) for given in self.answers)
        kept = [(answer, n) for answer, n in counts.items() if n >= least]
        return tuple(answer for answer, _ in sorted(kept, key=lambda one: (-one[1], one[0]))[:most])

    def worth(self, vocabulary: Sequence[str]) -> list[dict[int, float]]:
        """Per question what the answers of a vocabulary are worth, position -> 0 to 1 (`answers.accuracy`), where that
        is above 0. The mean over questions of the best of them is the ceiling of whoever chooses among these."""
        position = {answer: i for i, answer in enumerate(vocabulary)}
        found = []
        for given in self.answers:
            said = dict.fromkeys(normalise(answer) for answer in given)
            of = {position[answer]: accuracy(answer, given) for answer in said if answer in position}
            found.append({i: value for i, value in of.items() if value > 0})
        return found

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
