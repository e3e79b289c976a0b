"""Sentences about classes: found by class name, every mismatch named."""

import json

import pytest

from vlmlab import descriptions
from vlmlab.tasks.faces import tasks as faces


@pytest.fixture
def written(tmp_path):
    def write(table, name="texts.json"):
        path = tmp_path / name
        path.write_text(table if isinstance(table, str) else json.dumps(table), encoding="utf-8")
        return path

    return write


def test_a_file_by_class_names(written):
    path = written({"tabby cat": ["a striped cat.", " it purrs. "], "pug": ["a small dog."]})
    found = descriptions.read(path, ["pug", "tabby_cat"])
    assert list(found.items()) == [
        ("pug", ["a small dog."]),
        ("tabby_cat", ["a striped cat.", "it purrs."]),  # by the name as asked for
    ]


def test_another_spelling_is_named_not_guessed(written):
    """LaFTer's file of SUN397 says "apse indoor" where CoOp says "indoor apse"."""
    path = written({"apse indoor": ["x"], "jail": ["x"], "Beach": ["x"]})
    with pytest.raises(ValueError) as error:
        descriptions.read(path, ["indoor apse", "jail", "beach"])
    assert "2 classes" in str(error.value) and "did you mean 'apse indoor'?" in str(error.value)
    assert "did you mean 'Beach'?" in str(error.value) and str(path) in str(error.value)


def test_sentences_of_other_classes(written):
    path = written({"pug": ["x"], "beagel": ["x"]})
    with pytest.raises(ValueError, match=r"describes 1 class more .* 'beagel'"):
        descriptions.read(path, ["pug"])
    with pytest.raises(ValueError, match=r"no sentences for 1 class: 'beagle' \(did you mean 'beagel'\?\)"):
        descriptions.read(path, ["pug", "beagle"])
    assert descriptions.read(path, ["pug"], others=True) == {"pug": ["x"]}


def test_a_name_of_several_classes(written):
    path = written({"missile": ["it flies."]})
    with pytest.warns(UserWarning, match="share a name .'missile'. and get the same sentences"):
        assert descriptions.read(path, ["missile", "missile"]) == {"missile": ["it flies."]}


@pytest.mark.parametrize(
    "text, why",
    [
        ("[1, 2]", "class name: "),
        ("[]", "class name: "),
        ("{}", "class name: "),
        ("3", "class name: "),
        ('{"pug": "a dog"}', "no list of sentences for 'pug'"),
        ('{"pug": []}', "no list of sentences for 'pug'"),
        ('{"pug": ["a dog", 3]}', "no list of sentences for 'pug'"),
        ('{"pug": ["a dog", " "]}', "no list of sentences for 'pug'"),
        ('{"pug": {"a": "dog"}}', "no list of sentences for 'pug'"),
        ('{"pug": ["a"], "pug": ["b"]}', "1 class twice: 'pug'"),
        ('{"a_b": ["a"], "a b": ["b"]}', "1 class twice: 'a b'"),
        ('{"pug": [', "no JSON"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_another_layout(written, text, why):
    path = written(text)
    with pytest.raises(ValueError, match=why) as error:
        descriptions.read(path, ["pug"])
    assert str(path) in str(error.value)


def test_embedded_ones_by_name_and_by_task():
    emotions = descriptions.read("emotions", ["sad", "happy"])
    assert [*emotions] == ["sad", "happy"] and len(emotions["sad"]) >= 3
    assert descriptions.read("emoji/emotions", ["sad", "happy"]) == emotions
    with pytest.raises(ValueError, match=r"no sentences for 1 class: 'hapy' .did you mean 'happy'"):
        descriptions.read("emotions", ["hapy"])


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="'emoji/emotion'; did you mean emotions"):
        descriptions.read("emoji/emotion", ["sad"])
    (tmp_path / "pets.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"did you mean .*pets.json"):
        descriptions.read(tmp_path / "pet.json", ["sad"])


def embedded():
    """(task, its class names) of every embedded task that has descriptions."""
    from vlmlab.tasks.emoji import tasks as emoji

    coarse = [id for id in emoji.names() if not id.endswith("-fine")]
    found = [(id, emoji.dataset(id).train.classnames) for id in coarse]
    return [*found, ("faces/emotions", faces.dataset().train.classnames)]


def test_every_class_of_the_embedded_tasks_is_described():
    told = {}
    for id, classnames in embedded():
        found = descriptions.read(id, classnames)
        assert min(map(len, found.values())) >= 4, id
        told.setdefault(id.partition("/")[2], set()).update(classnames)
    told["faces"] = {*faces.dataset().train.classnames}  # these in other words
    files = {name: {*descriptions.sentences(descriptions.find(name))} for name in descriptions.names()}
    assert files == told  # and nothing else is


def test_sentences_are_short_and_each_of_one_class():
    from vlmlab.tasks.emoji import data as emoji

    drawn = emoji.concepts()
    given_away = set(drawn["name"][drawn["subgroup"].isin(emoji.FACES)])
    for name in descriptions.names():
        texts = [t for found in descriptions.sentences(descriptions.find(name)).values() for t in found]
        assert len(texts) == len(set(texts)), name
        assert max(len(text.split()) for text in texts) <= 14, name
        if name == "emotions":
            assert not [(text, face) for text in texts for face in given_away if face in text]
