"""The control that starts from nothing: the student's architecture with random weights."""

from ..models.export import anew
from ..models.vlm import VLM
from .student import Student


class RandomInit(Student):
    """The student's architecture from random weights, with CLIP's loss alone."""

    models_needed = ("student",)
    differs = (
        "a control without a teacher and without public weights: as many steps as every student gets, which is \
little for a model from nothing"
    )

    def copy_of(self, model: VLM) -> VLM:
        return anew(model).thaw("*")
