"""VQAv2 (Goyal et al. 2017): questions on COCO's images with the answers of ten people each."""

import functools
from collections import Counter
from pathlib import Path

from ..coop.tasks import content, read_image
from ..questions import Questions
from .files import VqaAnnotation, VqaAnnotations, VqaQuestion, VqaQuestions, coco_places, decoded, found

WHERE = "https://visualqa.org/download.html"
KINDS = ("yes/no", "number", "other")
FOLDERS = {"train": "train2014", "test": "val2014"}  # part -> the images it asks about


def parts(root: Path) -> dict[str, Questions]:
    """Part -> questions; whoever has the lists of val alone gets no train."""
    there = {part: year for part, year in FOLDERS.items() if part == "test" or files(root, year)[0].exists()}
    return {part: asked(root, year) for part, year in there.items()}


def files(root: Path, year: str) -> tuple[Path, Path]:
    """The questions and the answers of train2014 or val2014."""
    folder = root / "vqav2"
    return (
        folder / f"v2_OpenEnded_mscoco_{year}_questions.json",
        folder / f"v2_mscoco_{year}_annotations.json",
    )


def answers_to(questions: list[VqaQuestion], said: Path, answered: Path) -> list[VqaAnnotation]:
    """What people answered to each question of the file `said`, from the file `answered`.

    ValueError, naming file and field, for a question without answers, another image than in its answers, or an answer type
    that is none.
    """
    found = {a.question_id: a for a in decoded(answered, VqaAnnotations, WHERE).annotations}
    for i, question in enumerate(questions):
        id = question.question_id
        if (answer := found.get(id)) is None:
            raise ValueError(f"{answered} has no answers to question {id}, questions[{i}] of {said}")
        if answer.image_id != question.image_id:
            raise ValueError(
                f"{answered}: image_id of question {id} is {answer.image_id}, in {said.name} it is {question.image_id}"
            )
        if answer.answer_type not in KINDS or not answer.answers:
            raise ValueError(
                f"{answered}: question {id} has answer_type {answer.answer_type!r} and {len(answer.answers)} answers; "
                f"expected one of {', '.join(KINDS)} and ten answers"
            )
    return [found[question.question_id] for question in questions]


def asked(root: Path, year: str) -> Questions:
    """The questions of one year's files, about images in the order of their first question."""
    said, answered = files(root, year)
    questions = decoded(said, VqaQuestions, WHERE).questions
    own = answers_to(questions, said, answered)
    position = {id: i for i, id in enumerate(dict.fromkeys(q.image_id for q in questions))}
    places = [coco_places(id, year) for id in position]
    return Questions(
        found(root, places, f"vqav2 ({year})", "https://cocodataset.org/#download"),
        tuple(q.question for q in questions),
        [position[q.image_id] for q in questions],
        tuple(dict(Counter(a.answer for a in one.answers)) for one in own),
        tuple(one.answer_type for one in own),
        read=functools.partial(read_image, root),
        content=functools.partial(content, root),
        flip=False,
    )
