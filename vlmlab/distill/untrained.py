"""The control that does not train: a model as it is given, student or teacher, tested as every student is."""

from ..models.vlm import VLM
from .student import Student


class Untrained(Student):
    """A model as it is given."""

    models_needed = ("student",)
    differs = "a control that does not train: the public weights as they are"

    def copy_of(self, model: VLM) -> VLM:
        return model  # frozen

    def stages(self, task, options, seed: int) -> list:
        return []
