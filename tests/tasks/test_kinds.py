"""Kinds of data: what goes with an image, what `select` keeps together, what a fingerprint sees, what is refused."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from vlmlab.tasks import Captions, Classes, Images, Questions, Split, Task

READING = {"read": lambda id, rng: Image.new("RGB", (4, 4), id), "content": str.encode}
COLOURS = ["red", "green", "blue"]


def images():
    return Images(COLOURS, **READING)


def split(**options):
    return Split(COLOURS, [0, 1, 1], ("dog_face", "cat"), "a {}.", **{**READING, **options})


def captions(**options):
    texts = ("a rose", "grass", "blood", "the sea")
    return Captions(COLOURS, texts, [0, 1, 0, 2], **{**READING, **options})


def questions(**options):
    told = {
        "questions": ("what colour?", "is it red?", "is it green?", "what is it?"),
        "image_of": [0, 0, 1, 2],
        "answers": ({"red": 7, "crimson": 3}, {"yes": 10}, {"yes": 9, "no": 1}, {"sea": 1}),
        "kinds": ("other", "yes/no", "yes/no", "other"),
    }
    return Questions(COLOURS, **{**told, **READING, **options})


KINDS = [images, split, captions, questions]


@pytest.mark.parametrize("make", KINDS)
def test_every_kind_is_images(make):
    data = make()
    assert isinstance(data, Images) and len(data) == 3
    assert data.image(2).getpixel((0, 0)) == (0, 0, 255)
    picked = data.select([2, 0, 2])
    assert type(picked) is type(data) and picked.ids == ["blue", "red", "blue"]
    assert [picked.about(i) for i in range(3)] == [data.about(i) for i in (2, 0, 2)]
    assert len(data.select([])) == 0
    assert data.select([0, 1, 2]).fingerprint() == data.select([0, 1, 2]).fingerprint()


def test_what_goes_with_an_image():
    assert images().about(0) == {}
    assert split().about(1) == {"label": 1}
    soft = np.array([[1, 0], [0.25, 0.75], [0, 1]], np.float32)
    about = split(distributions=soft).about(1)
    assert about["label"] == 1 and about["distribution"].tolist() == [0.25, 0.75]
    assert captions().about(0) == {"text": "a rose"}
    assert questions().about(0) == {"question": "what colour?", "answer": "red"}


def test_training_draws_among_texts_and_answers():
    rng = np.random.default_rng(0)
    said = [captions().about(0, rng)["text"] for _ in range(200)]
    assert set(said) == {"a rose", "blood"} and 60 < said.count("blood") < 140
    drawn = [questions().about(0, rng) for _ in range(400)]
    asked = [d for d in drawn if d["question"] == "what colour?"]
    assert 140 < len(asked) < 260 and {d["answer"] for d in drawn if d not in asked} == {"yes"}
    assert 0.6 < np.mean([d["answer"] == "red" for d in asked]) < 0.8  # 7 of 10 people
    same = [captions().about(0, np.random.default_rng(5))["text"] for _ in range(3)]
    assert len(set(same)) == 1


def test_select_keeps_all_texts_of_an_image_together():
    shows = (("rose",), ("grass",), ("sea", "sky"))
    data = captions(shows=shows, mask_of=lambda id: np.full((1, 4, 4), id == "red")).select([2, 0])
    assert data.texts == ("the sea", "a rose", "blood") and data.image_of.tolist() == [0, 1, 1]
    assert data.shows == (("sea", "sky"), ("rose",)) and data.masks(1).all() and not data.masks(0).any()
    asked = questions().select([1, 0])
    assert asked.questions == ("is it green?", "what colour?", "is it red?")
    assert asked.kinds == ("yes/no", "other", "yes/no") and asked.image_of.tolist() == [0, 1, 1]
    assert asked.answers[1] == {"red": 7, "crimson": 3}


def test_fingerprints_see_all_that_goes_with_the_images():
    changed = [
        images(),
        dataclasses.replace(images(), provenance="changed"),
        dataclasses.replace(images(), content=lambda id: b"other"),
        images().select([1, 0, 2]),
        split(),
        dataclasses.replace(split(), labels=np.array([1, 0, 1])),
        captions(),
        dataclasses.replace(captions(), image_of=np.array([0, 1, 2, 2])),
        dataclasses.replace(captions(), texts=("a rose", "grass", "wine", "the sea")),
        captions(shows=((), (), ())),
        questions(),
        dataclasses.replace(questions(), answers=({"red": 6}, {"yes": 1}, {"yes": 1}, {"sea": 1})),
        dataclasses.replace(questions(), kinds=("other",) * 4),
    ]
    assert len({data.fingerprint() for data in changed}) == len(changed)


def test_the_fingerprint_of_a_split_is_the_one_that_runs_recorded():
    soft = np.array([[1, 0], [0.25, 0.75], [0, 1]], np.float32)
    assert split().fingerprint() == "dcf957928be621c78d7e5c6f088bea1e553daf98544df317afd95d89a5c540d0"
    assert (
        split(distributions=soft, provenance="published").fingerprint()
        == "70f90834e2911555cd1cf1a758893cd8113b091ba6b71ccfecfd8e28c13f15e9"
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Captions(COLOURS, ("a", "b"), [0, 1], **READING), "image 'blue' has no caption"),
        (lambda: Captions(COLOURS, ("a", "b", "c"), [0, 1], **READING), "an image per caption, got 2 for 3"),
        (lambda: Captions(COLOURS, ("a", "b", "c"), [0, 1, 3], **READING), "must be 0 to 2, .* got 0 to 3"),
        (lambda: captions(shows=(("rose",),)), "shows has an entry per image, got 1 for 3 images"),
        (lambda: captions(mask_of=lambda id: None), "masks need `shows`"),
        (lambda: captions().masks(0), r"Captions\(3 images, 4 texts\) has no masks"),
        (lambda: questions(kinds=("other",)), "kinds has an entry per question, got 1 for 4"),
        (lambda: questions(answers=({},) * 4), "'what colour.' needs answers with counts"),
        (lambda: questions(image_of=[0, 0, 1, 1]), "image 'blue' has no question"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_classes_read_underscores_as_spaces():
    classes = split().classes
    assert classes == Classes(("dog_face", "cat"), "a {}.") and len(classes) == 2
    assert classes.prompts == split().prompts == ["a dog face.", "a cat."]


def task(train, **tests):
    return Task("mine", "few_shot", None, 1, "a {}.", train, None, tests)


def test_images_without_labels_can_be_trained_on():
    mine = task(images(), test=split())
    assert mine.classes == split().classes and mine.arguments is None
    assert task(images()).classes is None and task(captions(), test=captions()).classes is None
    other = dataclasses.replace(split(), classnames=("cow", "hen"))
    assert task(split().select([]), test=other).classes.names == ("cow", "hen")
    assert task(split(), test=other).classes.names == ("dog_face", "cat")


def test_the_training_fingerprint_is_of_what_shapes_weights():
    mine = task(split(), test=captions(), more=images())
    same = [
        dataclasses.replace(mine, tests={"test": questions()}),
        dataclasses.replace(mine, id="other", protocol="base_to_new", seed=2),
    ]
    assert {t.training_fingerprint() for t in same} == {mine.training_fingerprint()}
    changed = [
        mine,
        dataclasses.replace(mine, template="the {}."),
        dataclasses.replace(mine, val=split()),
        dataclasses.replace(mine, train=split(flip=False)),
        dataclasses.replace(mine, train=images()),
    ]
    assert len({t.training_fingerprint() for t in changed}) == len(changed)
    assert mine.test_fingerprints() == {"test": captions().fingerprint(), "more": images().fingerprint()}
