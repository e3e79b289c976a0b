"""The embedded tasks of images and texts: what they hold, and what a test may not share with training."""

import re

import pytest

import vlmlab
import vlmlab.tasks as tasks
from vlmlab.tasks.emoji import data as emoji
from vlmlab.tasks.emoji import scenes
from vlmlab.tasks.emoji.pictures import parse


def hexcodes(id):
    return scenes.parse(id)[1] if "@" in id else (parse(id)[1],)


@pytest.fixture(scope="module", params=["emoji/captions", "emoji/scenes"])
def task(request):
    return tasks.task(request.param, protocol="retrieval")


def test_training_and_tests_share_no_concept_and_no_test_shows_what_pretraining_has_seen(task):
    split = emoji.concepts().set_index("hexcode")["split"]
    assert {split[h] for id in task.train.ids for h in hexcodes(id)} == {"train"}
    assert {id.split("/")[0] for id in task.train.ids} == set(emoji.SOURCE_STYLES)
    for name, test in task.tests.items():
        drawn = {(id.split("/")[0], h) for id in test.ids for h in hexcodes(id)}
        assert {split[h] for _, h in drawn} == {"novel" if name == "novel" else "test"}
        assert not drawn & emoji.near_duplicates()
        assert {style for style, _ in drawn} == {name if name in emoji.SHIFT_STYLES else "noto"}


def test_a_test_has_one_caption_per_image_and_training_may_have_more(task):
    for test in task.tests.values():
        assert len(set(test.texts)) == len(test.texts) == len(test) == len(set(test.ids)) > 100
    train = task.train
    assert len(train) == len(set(train.ids)) and set(train.image_of) == set(range(len(train)))
    assert task.classes is None and task.template == "{}"


def test_captions_name_their_concept_and_no_training_text_holds_a_keyword():
    task = tasks.task("emoji/captions", protocol="retrieval")
    table = emoji.concepts().set_index("hexcode")
    for text, i in zip(task.train.texts, task.train.image_of, strict=True):
        row = table.loc[parse(task.train.ids[i])[1]]
        assert row["name"] in text and task.train.shows[i] == (row["name"],)
        if text != f"a photo of a {row['name']}.":
            assert text.startswith(f"{row['name']}, ")
            assert set(text[len(row["name"]) + 2 :].split(", ")) <= set(row["tags"])
    for id, text in zip(task.tests["keywords"].ids, task.tests["keywords"].texts, strict=True):
        row = table.loc[parse(id)[1]]
        read = set(re.findall("[a-z]+", " ".join([row["name"], *row["tags"]])))
        assert all(not set(re.findall("[a-z]+", keyword)) <= read for keyword in text.split(", "))


def test_the_tiny_model_reads_every_text_to_its_end(task):
    vlm = vlmlab.load("tiny", device="cpu")
    for data in (task.train, *task.tests.values()):
        assert (vlm.tokenize(list(data.texts))[:, -1] == 0).all()


def test_questions_are_about_the_same_scenes():
    pairs = tasks.task("emoji/scenes", protocol="retrieval")
    asked = tasks.task("emoji/scenes", protocol="vqa")
    assert asked.train.ids == pairs.train.ids and list(asked.tests) == list(pairs.tests)
    assert set(asked.train.kinds) == {"yes/no", "other"}
    assert asked.fingerprint() != pairs.fingerprint()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "retrieval", "shots": 4}, "pairs have no classes to draw shots of, got shots=4"),
        ({"protocol": "few_shot"}, "emoji/captions has no protocol few_shot; it has retrieval"),
        ({"protocol": "vqa"}, "emoji/captions has no protocol vqa; it has retrieval"),
        (
            {"id": "emoji/food", "protocol": "retrieval"},
            "emoji/food has no protocol retrieval; it has zero_shot",
        ),
    ],
)
def test_what_is_refused(options, message):
    options = {"id": "emoji/captions", **options}
    with pytest.raises(ValueError, match=message):
        tasks.task(options.pop("id"), **options)
