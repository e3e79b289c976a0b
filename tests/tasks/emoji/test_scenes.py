"""Scenes of two objects: their masks are true, they never change, and questions about them have the right answer."""

import hashlib

import numpy as np

import vlmlab.tasks as tasks
from vlmlab.tasks.emoji import data as emoji
from vlmlab.tasks.emoji import retrieval
from vlmlab.tasks.emoji.scenes import box, draw, drawn, first_on_left, parse, questions


def test_scenes_know_where_their_objects_are():
    scenes, left = tasks.scenes(40, seed=1), 0
    for i, (first, second) in enumerate(scenes.shows):
        masks = scenes.masks(i)
        assert scenes.image(i).size == (64, 64) and scenes.texts[i] == f"a {first} and a {second}."
        assert masks.shape == (2, 64, 64) and not (masks[0] & masks[1]).any()
        boxes = [box(mask) for mask in masks]
        for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
            assert mask[y0:y1, x0:x1].sum() == mask.sum() > 50
            assert mask[y0].any() and mask[y1 - 1].any() and mask[:, x0].any() and mask[:, x1 - 1].any()
            assert 10 < x1 - x0 <= 40 and 5 < y1 - y0 <= 40
        left += boxes[0][0] < boxes[1][0]
    assert 10 < left < 30  # either object may stand on the left
    used = [h for id in scenes.ids for h in parse(id)[1]]
    assert len(set(used)) == 80 and not {("noto", h) for h in used} & emoji.near_duplicates()


def test_masks_show_the_object():
    scenes = tasks.scenes(40, seed=2)
    for i, text in enumerate(scenes.texts):
        image, masks = np.asarray(scenes.image(i)), scenes.masks(i)
        ground = image[0, 32]  # nothing reaches the upper edge's middle
        for mask in masks:
            assert (image[mask] == ground).all(1).mean() < 0.6, text
        assert (image[~masks.any(0)] == ground).all(1).mean() > 0.8, text


def test_scenes_are_fixed():
    some, more = tasks.scenes(3, seed=4, style="fluent-3d"), tasks.scenes(5, seed=4, style="fluent-3d")
    assert more.select(range(3)).fingerprint() == some.fingerprint()
    before = [some.image(i).tobytes() for i in range(3)]
    drawn.cache_clear()
    assert [more.image(i).tobytes() for i in range(3)] == before
    assert some.texts != tasks.scenes(3, seed=5, style="fluent-3d").texts
    many = retrieval.usable("noto", novel=False)
    assert len(set(tasks.scenes(800, seed=1).ids)) == 800 > len(many) // 2


def test_scenes_are_those_that_the_committed_card_was_measured_on():
    scenes = tasks.scenes(400)
    said = [(text, first_on_left(id)[0]) for id, text in zip(scenes.ids, scenes.texts, strict=True)]
    assert (
        hashlib.sha256(str(said).encode()).hexdigest()
        == "65ff7a9f7cf5be1b26954757aa5f8bc298e7445e5ca6c9a2f1149826c7147701"
    )


def test_training_scenes_vary_but_keep_their_sides():
    scenes, rng = tasks.scenes(6, seed=1), np.random.default_rng(0)
    for i, id in enumerate(scenes.ids):
        once, again = scenes.image(i, rng), scenes.image(i, rng)
        assert len({once.tobytes(), again.tobytes(), scenes.image(i).tobytes()}) == 3
        fixed = [box(mask)[0] for mask in scenes.masks(i)]
        moved = [box(mask)[0] for mask in draw(id, rng)[1]]
        assert (fixed[0] < fixed[1]) == (moved[0] < moved[1])


def test_questions_are_answered_by_the_masks():
    scenes = tasks.scenes(20, seed=5)
    asked = questions(scenes)
    assert asked.ids == scenes.ids and len(asked.questions) == 60
    for question, i, answers, kind in zip(asked.questions, asked.image_of, asked.answers, asked.kinds):
        (answer,), shown = answers, scenes.shows[i]
        on_left = shown[int(np.argmin([box(mask)[0] for mask in scenes.masks(i)]))]
        if question == "what is on the left?":
            assert answer == on_left and kind == "other"
        elif question.startswith("is the "):
            assert (answer == "yes") == (question == f"is the {on_left} on the left?") and kind == "yes/no"
        else:
            name = question.removeprefix("is there a ").removesuffix("?")
            assert (answer == "yes") == (name in shown) and kind == "yes/no"
    yes = [a == {"yes": 1} for a, kind in zip(asked.answers, asked.kinds) if kind == "yes/no"]
    assert 0.25 < np.mean(yes) < 0.75
