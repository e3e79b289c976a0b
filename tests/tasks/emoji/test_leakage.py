"""What a test may not share with pretraining or with training (data/emoji/README.md, "Leakage rules")."""

import re

import pandas as pd
import pytest

import vlmlab.tasks as tasks
from vlmlab.tasks.emoji import captions, near_duplicates
from vlmlab.tasks.emoji import data as emoji
from vlmlab.tasks.emoji import tasks as emoji_tasks
from vlmlab.tasks.emoji.pictures import concept, parse

DOWNSTREAM = {*emoji.SOURCE_STYLES, *emoji.SHIFT_STYLES, emoji.CLIPART}


def every_test(data):
    return {"test": data.test, **({"whole": data.whole} if data.whole is not None else {}), **data.shifts}


def test_pretraining_styles_are_nobody_elses():
    assert not DOWNSTREAM & set(emoji.PRETRAIN_STYLES)
    assert DOWNSTREAM | set(emoji.PRETRAIN_STYLES) == set(emoji.images()["style"])


def split_of():
    """What is drawn -> train, test or novel, of emoji and of clip art."""
    art = emoji.drawings()[["hexcode", "split"]]
    return pd.concat([emoji.concepts()[["hexcode", "split"]], art]).set_index("hexcode")["split"]


def test_pretraining_has_no_novel_concept():
    novel = set(emoji.concepts().query("novel")["hexcode"])
    assert len(novel) == 140 and not novel & set(captions.pretraining_concepts()["hexcode"])


def test_only_training_emoji_carry_class_and_emotion_words():
    _, words, kinds = captions.attributes()
    table = captions.pretraining_concepts()
    said = 0
    for split, kind in zip(table["split"], kinds, strict=True):
        assert split == "train" or not kind["class"] + kind["emotion"]
        said += bool(kind["class"]) + bool(kind["emotion"])
        assert {words[c] for c in kind["emotion"]} <= set(emoji.emotions().columns)
    assert said > 500


@pytest.mark.parametrize("id", emoji_tasks.names())
def test_train_and_test_share_no_emoji(id):
    data, split = emoji_tasks.dataset(id), split_of()
    train = {(parse(i)[0], concept(i)) for i in data.train.ids}
    for name, test in every_test(data).items():
        if name == "whole":  # zero-shot trains on nothing
            continue
        shown = {(parse(i)[0], concept(i)) for i in test.ids}
        if id.endswith("-fine"):
            # every class is one emoji: here the drawing differs, and no fluent twin is trained on
            assert not train & shown and {style for style, _ in train} == {"noto"}
            assert {style for style, _ in shown} <= DOWNSTREAM - {"noto"} or name == "novel"
        else:
            assert not {h for _, h in train} & {h for _, h in shown}
            assert {split[h] for _, h in train} == {"train"}
            assert {split[h] for _, h in shown} == ({"novel"} if name == "novel" else {"test"})


@pytest.mark.parametrize("id", emoji_tasks.names())
def test_no_test_shows_what_pretraining_has_seen(id):
    data = emoji_tasks.dataset(id)
    split = split_of()
    for name, test in every_test(data).items():
        pictures = {parse(i)[:2] for i in test.ids}
        assert {style for style, _ in pictures} <= DOWNSTREAM
        assert not pictures & emoji.near_duplicates(), name
        assert all((split[h] == "novel") == (name == "novel") for h in map(concept, test.ids))


def test_shifts_are_in_the_style_they_say():
    for id in emoji_tasks.names():
        shifts = emoji_tasks.dataset(id).shifts
        for style in emoji.SHIFT_STYLES:
            assert {parse(i)[0] for i in shifts[style].ids} == {style}
        assert {parse(i)[0] for i in shifts["novel"].ids} == set(emoji.SOURCE_STYLES)


def test_no_emotion_prompt_names_a_test_face():
    data, name = emoji_tasks.dataset("emoji/emotions"), emoji.concepts().set_index("hexcode")["name"]
    for test in every_test(data).values():
        faces = {name[parse(i)[1]] for i in test.ids}
        assert not [f for f in faces if any(f in p for p in test.prompts)]
    left_out = emoji.concepts().query("name in ['angry face', 'neutral face']")
    assert set(left_out["split"]) == {"test"}  # the rule has something to leave out


@pytest.mark.parametrize("style", sorted(DOWNSTREAM - {emoji.CLIPART}))
def test_retrieval_is_clean(style):
    table = emoji.concepts().set_index("hexcode")
    for novel in (False, True):
        for kind in ("names", "keywords"):
            pictures = {parse(i)[:2] for i in tasks.retrieval_set(style, kind, novel=novel).ids}
            assert pictures and not pictures & emoji.near_duplicates()
            assert all(table["novel"][h] == novel for _, h in pictures)
    strict = tasks.retrieval_set(style, "keywords")
    for id, text in zip(strict.ids, strict.texts, strict=True):
        row = table.loc[parse(id)[1]]
        read = set(re.findall("[a-z]+", " ".join([row["name"], *row["tags"]])))
        for keyword in text.split(", "):
            assert keyword not in row["tags"] and not set(re.findall("[a-z]+", keyword)) <= read


def art():
    return emoji.clipart()["hexcode"].to_list()


def test_no_clip_art_is_pretrained_on_and_its_names_are_no_files():
    names = emoji.drawings().set_index("hexcode")["name"]
    assert not {h for h in captions.pretraining_concepts()["hexcode"] if h.startswith("clipart")}
    things = names[names.index.str.startswith("thing")]
    assert len(things) > 3000 and not things.str.contains(r"[0-9_]|\.(?:svg|png)", regex=True).any()
    assert emoji.CLIPART not in emoji.PRETRAIN_STYLES


def test_no_thing_of_pretraining_is_a_novel_concept():
    novel = {n.lower() for n in emoji.concepts().query("novel")["name"]}
    things = emoji.drawings().query("subgroup == ''")["name"]
    assert not novel & set(things.str.lower())


@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.slow)])
def test_the_list_of_near_duplicates_is_current(every):
    listed = pd.read_csv(emoji.data_dir() / "emoji/near_duplicates.csv", dtype={"hexcode": str})
    looked_at = {*listed["hexcode"][::every], *emoji.concepts()["hexcode"][::every], *art()[:: 20 * every]}
    listed = listed[listed["hexcode"].isin(looked_at)].reset_index(drop=True)
    again = near_duplicates.pairs(looked_at)
    assert list(zip(again["style"], again["hexcode"], again["twin_style"], strict=True)) == list(
        zip(listed["style"], listed["hexcode"], listed["twin_style"], strict=True)
    )
    # another version of the WebP decoder may round differently
    assert (again["distance"] - listed["distance"]).abs().max() < 2e-4
    assert {*zip(listed["style"], listed["hexcode"], strict=True)} <= emoji.near_duplicates()
    assert len(emoji.near_duplicates()) > 50


def test_near_duplicates_by_hand():
    white = near_duplicates.on_white(emoji.rgba("noto", "26ab"))  # black circle, alike in several styles
    assert white.shape == (64, 64, 3) and white[0, 0].tolist() == [1, 1, 1]
    assert near_duplicates.pairs(["1f436"]).empty  # dog faces differ
    found = near_duplicates.pairs(["26ab"])
    assert set(found["hexcode"]) == {"26ab"} and (found["distance"] < near_duplicates.THRESHOLD).all()
