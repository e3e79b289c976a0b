"""Texts that follow each other: documents of sentences, and one text beside another that says the same."""

from collections.abc import Sequence

from ..tasks import Captions, shapes

Document = Sequence[str]
PAIRS = "pairs/"  # how the ids of scenes of two shapes begin


def documents(task) -> list[Document]:
    """Two sentences or more about each training image: its captions where it has several, of scenes of shapes what
    `shapes.sentences_of` says. ValueError where there are none."""
    found = [d for d in sentences(task) if len(d) > 1]
    if not found:
        raise ValueError(f"{task.id} has no images with two sentences or more; shapes/pairs has")
    return found


def sentences(task) -> list[Document]:
    """What is said of each training image. ValueError for a task without captions."""
    train = task.train
    if not isinstance(train, Captions) or not len(train):
        raise ValueError(
            f"{task.id} under {task.protocol} has no training captions; use the protocol retrieval"
        )
    if len(train.texts) > len(train):
        return [[train.texts[j] for j in mine] for mine in train.texts_of]
    try:
        return shapes.sentences_of(train.ids)
    except ValueError:  # no scenes
        return [(text,) for text in train.texts]


def translations(task) -> list[tuple[str, str]]:
    """(source, target), two texts that say the same of a training image: of images with several captions the first and
    the last; of two shapes the caption, which begins with either, and the last sentence of the document, which begins with
    the left or upper one. ValueError where there are none."""
    train, found = task.train, sentences(task)
    if len(train.texts) > len(train):
        pairs = [(d[0], d[-1]) for d in found if len(d) > 1]
    else:
        pairs = [(t, d[-1]) for id, t, d in zip(train.ids, train.texts, found) if id.startswith(PAIRS)]
    if not pairs:
        raise ValueError(f"{task.id} has no images with two texts that say the same; shapes/pairs has")
    return pairs
