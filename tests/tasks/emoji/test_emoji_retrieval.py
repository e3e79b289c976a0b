"""Pictures with one caption each."""

import numpy as np
import pytest

import vlmlab.tasks as tasks
from vlmlab.tasks.emoji import retrieval


def test_every_image_has_its_own_caption():
    names = tasks.retrieval_set("noto")
    assert (names.image_of == np.arange(len(names))).all() and len(names) > 1000
    assert len(set(names.texts)) == len(names) == len(set(names.ids))
    apple = names.ids.index("noto/1f34e")
    assert names.about(apple) == {"text": "a photo of a red apple."} and names.shows[apple] == ("red apple",)
    words = tasks.retrieval_set("fluent-flat", "keywords")
    assert len(set(words.texts)) == len(words) > 900
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
