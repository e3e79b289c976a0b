"""Data with class names or captions, splits and protocols; knows no model."""

from .emoji.retrieval import Scene, retrieval_set, scenes
from .task import Split, Task, names, task

__all__ = ["Scene", "Split", "Task", "names", "retrieval_set", "scenes", "task"]
