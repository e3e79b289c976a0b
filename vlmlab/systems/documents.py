"""Texts that follow each other: documents of sentences, and one text beside another that says the same."""

from collections.abc import Sequence

from ..tasks import Captions, shapes

Document = Sequence[str]


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
    """(source, target) for each training image, two texts that say the same: of scenes of shapes the caption, which
    begins with either shape, and the last sentence of its document, which begins with the left or upper one."""
    several = len(task.train.texts) > len(task.train)
    return [(d[0] if several else text, d[-1]) for d, text in zip(documents(task), task.train.texts)]
