"""Captioned images and scenes with ground truth."""

import numpy as np
import pytest

import vlmlab.tasks as tasks
from vlmlab.tasks.emoji import data as emoji
from vlmlab.tasks.emoji import retrieval


def test_every_image_has_its_own_caption():
    names = tasks.retrieval_set("noto")
    assert (names.labels == np.arange(len(names))).all() and len(names) > 1000
    assert len(set(names.prompts)) == len(names) == len(set(names.ids))
    assert names.prompts[names.ids.index("noto/1f34e")] == "a photo of a red apple."
    words = tasks.retrieval_set("fluent-flat", "keywords")
    assert len(set(words.prompts)) == len(words) > 900
    assert set(words.ids) < set(tasks.retrieval_set("fluent-flat").ids)
    assert names.image(0).size == (64, 64)


def test_limit_and_novel():
    few = tasks.retrieval_set("noto", limit=50)
    assert len(few) == 50 and few.ids == tasks.retrieval_set("noto", limit=50).ids
    assert set(few.ids) < set(tasks.retrieval_set("noto").ids)
    assert few.ids != tasks.retrieval_set("noto").ids[:50]
    novel = tasks.retrieval_set("noto", novel=True)
    assert 100 < len(novel) < 141 and not set(novel.ids) & set(tasks.retrieval_set("noto").ids)


@pytest.mark.parametrize(
    ("name", "tags", "keywords", "caption"),
    [
        ("dog face", ["pet"], ["dog", "woof", "dog2", "puppy\u00a0dog"], "woof, puppy dog"),
        ("flag: ireland", ["ie"], ["flag ireland", "irish"], "irish"),
        ("man", [], [":)", "(y)", "man's face", "adult", "adult"], "man's face, adult"),
        ("cat", [], ["cat", "caf\u00e9"], ""),
    ],
)
def test_strict_keywords(name, tags, keywords, caption):
    assert retrieval.strict_keywords(name, tags, keywords) == caption


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style": "twemoji"}, "style must be one of noto, .*got 'twemoji'"),
        ({"style": "noto", "captions": "tags"}, "captions must be .*got 'tags'"),
        ({"style": "noto", "limit": 0}, "limit must be 1 or more"),
    ],
)
def test_what_retrieval_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        tasks.retrieval_set(**options)


def test_scenes_know_where_their_objects_are():
    scenes = tasks.scenes(40, seed=1)
    left = 0
    for s in scenes:
        assert s.image.size == (64, 64) and s.caption == f"a {s.names[0]} and a {s.names[1]}."
        assert s.masks.shape == (2, 64, 64) and not (s.masks[0] & s.masks[1]).any()
        for mask, (x0, y0, x1, y1) in zip(s.masks, s.boxes, strict=True):
            assert mask[y0:y1, x0:x1].sum() == mask.sum() > 50
            assert mask[y0].any() and mask[y1 - 1].any() and mask[:, x0].any() and mask[:, x1 - 1].any()
            assert 10 < x1 - x0 <= 40 and 5 < y1 - y0 <= 40
        left += s.boxes[0][0] < s.boxes[1][0]
    assert 10 < left < 30  # either object may stand on the left
    used = [h for s in scenes for h in s.hexcodes]
    assert len(set(used)) == 80 and not {("noto", h) for h in used} & emoji.near_duplicates()


def test_masks_show_the_object():
    for s in tasks.scenes(40, seed=2):
        ground = np.asarray(s.image)[0, 32]  # nothing reaches the upper edge's middle
        for mask in s.masks:
            same = (np.asarray(s.image)[mask] == ground).all(1).mean()
            assert same < 0.6, s.caption
        outside = ~s.masks.any(0)
        assert (np.asarray(s.image)[outside] == ground).all(1).mean() > 0.8, s.caption


def test_scenes_are_fixed():
    some, more = tasks.scenes(3, seed=4, style="fluent-3d"), tasks.scenes(5, seed=4, style="fluent-3d")
    assert [s.image.tobytes() for s in some] == [s.image.tobytes() for s in more[:3]]
    assert [s.caption for s in some] != [s.caption for s in tasks.scenes(3, seed=5, style="fluent-3d")]
    many = retrieval.usable("noto", novel=False)
    assert len({s.hexcodes for s in tasks.scenes(800, seed=1)}) == 800 > len(many) // 2
