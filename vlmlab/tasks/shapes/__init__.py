"""Generated scenes of coloured shapes, of which all that can be said is known.

>>> from vlmlab.tasks import shapes
>>> found = shapes.scenes(1000, seed=1, kind="pairs", side="train")  # Captions, with masks
>>> asked = shapes.questions(found)
"""

from .asked import questions
from .tasks import labelled, scenes
from .texts import facts, sentences_of

__all__ = ["facts", "labelled", "questions", "scenes", "sentences_of"]
