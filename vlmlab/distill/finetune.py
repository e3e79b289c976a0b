"""The fair control: the same student, data and steps without a teacher."""

from .student import Student


class Finetune(Student):
    """CLIP's loss on the student's own embeddings and nothing else."""

    models_needed = ("student",)
    differs = (
        "a control without a teacher: the student goes on from its public weights with CLIP's loss alone"
    )
