"""Images with labels, texts or questions, splits and protocols; knows no model."""

from . import shapes
from .captions import Captions
from .emoji.retrieval import retrieval_set
from .emoji.scenes import scenes
from .faces.tasks import faces
from .images import Images
from .questions import Questions
from .split import Classes, Split
from .task import Task, names, task

__all__ = [
    "Captions",
    "Classes",
    "Images",
    "Questions",
    "Split",
    "Task",
    "faces",
    "names",
    "retrieval_set",
    "scenes",
    "shapes",
    "task",
]


def __dir__() -> list[str]:
    return sorted(__all__)
