"""Tasks as their users see them: what is in them, that it never changes, and what they refuse."""

import json

import numpy as np
import pandas as pd
import pytest

import vlmlab.tasks as tasks
from vlmlab.tasks.emoji import data as emoji
from vlmlab.tasks.emoji import pictures as emoji_pictures
from vlmlab.tasks.emoji import stamps
from vlmlab.tasks.emoji import tasks as emoji_tasks
from vlmlab.tasks.split import Dataset, Split

SUBGROUPS = [
    n for n in emoji_tasks.names() if not n.endswith(("-fine", "emotions")) and not n.startswith("photos")
]
EMOJI = [n for n in SUBGROUPS if n.startswith("emoji")]


def test_names():
    assert len(tasks.names()) == len(set(tasks.names())) == 17 + 5 + 2 + 3 + 5 + 15 + 5 + len(stamps.names())
    assert {"emoji/animals", "emoji/animals-fine", "emoji/emotions", "caltech101"} <= set(tasks.names())


@pytest.mark.parametrize("id", emoji_tasks.names())
def test_every_task_is_sound(id):
    data = emoji_tasks.dataset(id)
    for split in (data.train, data.test, data.whole or data.test, *data.shifts.values()):
        assert len(split) == len(split.ids) == len(set(split.ids)) == len(split.labels)
        assert split.counts().sum() == len(split) and len(set(split.classnames)) == len(split.classnames)
        picture = split.image(len(split) - 1)
        assert picture.mode == "RGB" and picture.size == (64, 64)
    assert data.train.counts().min() > 0 and data.test.counts().min() > 0


@pytest.mark.parametrize("id", SUBGROUPS)
def test_subgroup_classes_follow_the_table(id):
    rows = emoji.classes().query("task == @id.partition('/')[2]")
    data = emoji_tasks.dataset(id)
    assert data.train.classnames == tuple(dict.fromkeys(rows["name"]))
    table = pd.concat([emoji.concepts(), emoji.drawings()]).set_index("hexcode")
    for split in (data.train, data.test, data.shifts["novel"]):
        subgroups = [table["subgroup"][emoji_pictures.concept(i)] for i in split.ids]
        wanted = rows.set_index("subgroup")["name"][subgroups]
        assert list(wanted) == [split.classnames[x] for x in split.labels]


def test_fine_classes_are_the_concepts():
    data = emoji_tasks.dataset("emoji/food-fine")
    names = emoji.concepts().set_index("hexcode")["name"]
    for split, n in ((data.train, 1), (data.test, 2), (data.whole, 4)):
        assert (split.counts() == n).all()
    for split in (data.train, data.test, data.shifts["fluent-hc"], data.shifts["novel"]):
        drawn = [names[emoji_pictures.parse(i)[1]] for i in split.ids]
        assert drawn == [split.classnames[x] for x in split.labels]


def test_emotions_are_distributions():
    task = tasks.task("emoji/emotions", protocol="label_distribution", shots=4)
    assert task.template == "a photo of a {} face." and "a photo of a sad face." in task.train.prompts
    for split in (task.train, task.tests["test"]):
        assert split.distributions.shape == (len(split), 7) and split.distributions.dtype == np.float32
        np.testing.assert_allclose(split.distributions.sum(1), 1, atol=1e-6)
        assert (split.distributions.argmax(1) == split.labels).all()
    assert (task.train.counts() == 4).all()
    face = task.tests["test"].ids.index("noto/1f602")  # face with tears of joy
    soft = dict(zip(split.classnames, task.tests["test"].distributions[face], strict=True))
    assert split.classnames[task.tests["test"].labels[face]] == "happy" and soft["happy"] > soft["sad"] > 0


@pytest.mark.parametrize("id", ["emoji/animals", "emoji/objects", "emoji/activities-fine"])
def test_base_and_new_divide_the_classes(id):
    whole = tasks.task(id, protocol="few_shot", shots=4)
    task = tasks.task(id, protocol="base_to_new", shots=4)
    n = len(whole.train.classnames)
    assert len(task.base.classnames) == len(task.train.classnames) == (n + 1) // 2
    assert task.base.classnames + task.new.classnames == whole.train.classnames
    assert len(task.base) + len(task.new) == len(whole.tests["test"])
    assert set(task.new.labels) == set(range(n // 2))
    # few-shot images are drawn before the classes are divided
    assert task.train.ids == whole.train.ids[: len(task.train)]
    assert task.tests["new"] is task.new and list(task.tests) == ["base", "new"]


def test_other_protocols():
    cross = tasks.task("emoji/animals", protocol="cross_dataset", shots=1)
    assert list(cross.tests) == ["emoji/animals", *(n for n in EMOJI if n != "emoji/animals")]
    others = tasks.task("drawings/animals", protocol="cross_dataset", shots=1).tests
    assert {*others} == {*SUBGROUPS} - {*EMOJI}
    food = tasks.task("emoji/food", protocol="few_shot").tests["test"]
    assert cross.tests["emoji/food"].classnames == food.classnames
    assert cross.tests["emoji/food"].ids == food.ids
    shift = tasks.task("emoji/animals", protocol="domain_shift", shots=1)
    assert list(shift.tests) == ["emoji/animals", "fluent-3d", "fluent-hc", "noise", "novel"]
    assert all(emoji_pictures.parse(i)[2].startswith("noise") for i in shift.tests["noise"].ids)
    zero = tasks.task("emoji/animals")
    assert len(zero.train) == 0 and zero.train.classnames == shift.train.classnames
    assert list(zero.tests) == ["test"]
    assert shift.train.ids == cross.train.ids and shift.val.ids == cross.val.ids
    assert not {*shift.val.ids} & {*shift.train.ids}


def test_shots():
    everything = tasks.task("emoji/animals", protocol="few_shot")
    assert everything.train.counts().max() > 16
    four, other = (tasks.task("emoji/animals", protocol="few_shot", shots=4, seed=s).train for s in (1, 2))
    assert (four.counts() == 4).all() and four.ids != other.ids
    assert set(four.ids) <= set(everything.train.ids)
    filled = tasks.task("emoji/animals", protocol="few_shot", shots=16).train
    reptile = filled.classnames.index("reptile")
    reptiles = [i for i, x in zip(filled.ids, filled.labels, strict=True) if x == reptile]
    assert len(reptiles) == 16 and len(set(reptiles)) == 10
    assert (tasks.task("emoji/food-fine", protocol="few_shot", shots=4).train.counts() == 4).all()


def test_backgrounds_widen_the_test():
    one, three = (tasks.task("emoji/food", backgrounds=n).tests["test"] for n in (1, 3))
    assert three.ids[::3] == one.ids and len(three) == 3 * len(one)
    first, *others = (np.asarray(three.image(i)) for i in range(3))
    ink = emoji.rgba(*three.ids[0].split("/"))[..., 3] == 255
    assert (first[emoji.rgba(*three.ids[0].split("/"))[..., 3] == 0] == 255).all()
    for other in others:
        assert (other[ink] == first[ink]).all() and (other[0, 0] != first[0, 0]).any()


def test_pictures_never_change_and_training_pictures_do():
    split = tasks.task("emoji/animals", protocol="domain_shift").tests["noise"]
    before = [split.image(i).tobytes() for i in range(5)]
    emoji_pictures.composed.cache_clear()
    assert [split.image(i).tobytes() for i in range(5)] == before
    once, again = (split.image(0, np.random.default_rng(3)) for _ in range(2))
    assert once.tobytes() == again.tobytes() != before[0]
    assert once.mode == "RGB" and once.size == (64, 64)
    rng = np.random.default_rng(3)
    assert len({split.image(0, rng).tobytes() for _ in range(5)}) == 5


def test_signs_are_not_mirrored():
    table = emoji.concepts().set_index("name")["hexcode"]
    for name in ("hundred points", "left arrow", "one o'clock", "thumbs up"):
        assert table[name] not in emoji.mirrorable()
    assert table["dog face"] in emoji.mirrorable()


def test_fingerprint():
    def of(**options):
        return tasks.task("emoji/food", **{"protocol": "few_shot", "shots": 4, **options}).fingerprint()

    changed = [
        of(),
        of(shots=8),
        of(seed=2),
        of(backgrounds=1),
        of(protocol="base_to_new"),
        tasks.task("emoji/animals", protocol="few_shot", shots=4).fingerprint(),
    ]
    assert len(set(changed)) == len(changed) and of() == changed[0]
    assert len(changed[0]) == 64


def replace_picture(folder, style, hexcode, data):
    """Write images.parquet anew with other bytes for one picture."""
    table = pd.read_parquet(folder / "images.parquet")
    row = table.index[(table["style"] == style) & (table["hexcode"] == hexcode)]
    assert len(row) == 1
    table.loc[row, "image"] = pd.Series([data], index=row)
    (folder / "images.parquet").unlink()
    table.to_parquet(folder / "images.parquet", index=False)


def test_fingerprint_sees_the_bytes_and_a_corrupt_picture_is_named(data_copy):
    task = tasks.task("emoji/animals", protocol="few_shot")
    before, at = task.fingerprint(), task.train.ids.index("noto/1f98a")  # fox
    replace_picture(data_copy, "noto", "1f98a", emoji.webp()["noto", "1f98a"][:200])
    for cached in (emoji.images, emoji.webp, emoji.rgba, emoji_pictures.composed):
        cached.cache_clear()
    assert task.fingerprint() != before
    with pytest.raises(ValueError, match=r"noto/1f98a in .*images\.parquet is corrupt"):
        task.train.image(at)


def test_missing_and_unreadable_data(data_copy):
    (data_copy / "near_duplicates.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"near_duplicates\.csv is missing.*VLMLAB_DATA"):
        tasks.task("emoji/food")
    (data_copy / "images.parquet").unlink()
    emoji.images.cache_clear()
    emoji.webp.cache_clear()
    with pytest.raises(FileNotFoundError, match=r"images\.parquet is missing.*VLMLAB_DATA"):
        tasks.task("emoji/food")
    (data_copy / "images.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(ValueError, match=r"images\.parquet is not a readable parquet"):
        tasks.task("emoji/food")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id": "emoji/beasts"}, "unknown task 'emoji/beasts'; there are emoji/smileys, "),
        ({"protocol": "many_shot"}, "unknown protocol 'many_shot'; there are zero_shot, few_shot"),
        ({"shots": 1000}, r"emoji/animals: class 'mammal' has 72 distinct training images, 1000 shots"),
        ({"shots": 30}, r"class 'bird' has 24 distinct training images, 30 shots .* at most 24"),
        ({"id": "emoji/food-fine", "shots": 5}, r"has 1 distinct training images, 5 shots .* at most 4"),
        ({"shots": 0}, "shots must be a whole number of at least 1, got 0"),
        ({"shots": "16"}, "shots must be a whole number of at least 1, got '16'"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"backgrounds": 0}, "backgrounds must be a whole number of at least 1"),
        ({"protocol": "zero_shot", "shots": 4}, "zero_shot trains on nothing, got shots=4"),
        ({"protocol": "label_distribution"}, "emoji/animals has no protocol label_distribution; it has zero"),
        ({"id": "emoji/emotions", "protocol": "base_to_new"}, "emoji/emotions has no protocol base_to_new"),
    ],
)
def test_what_is_refused(options, message):
    options = {"id": "emoji/animals", "protocol": "few_shot", **options}
    with pytest.raises(ValueError, match=message):
        tasks.task(options.pop("id"), **options)


def test_base_of_a_task_without_one():
    with pytest.raises(AttributeError, match="emoji/food under few_shot has no 'base' test; its tests are"):
        _ = tasks.task("emoji/food", protocol="few_shot").base


def test_unknown_picture():
    with pytest.raises(ValueError, match=r"no picture noto/dead .*images\.parquet"):
        emoji_pictures.image("noto/dead")


def test_empty_class_and_wrong_labels():
    def split(labels):
        return Split(
            [f"noto/{i}" for i in labels], np.array(labels), ("dog", "cat"), "{}", read=None, content=None
        )

    with pytest.raises(ValueError, match="class 'cat' of pets has no test image"):
        Dataset("pets", split([0, 1]), split([0, 0]))
    with pytest.raises(ValueError, match="the shift 'noise' of pets has no image"):
        Dataset("pets", split([0, 1]), split([0, 1]), shifts={"noise": split([])})
    with pytest.raises(ValueError, match="labels must be 0 to 1, got 0 to 2"):
        split([0, 2])
    with pytest.raises(ValueError, match="3 ids, 2 labels"):
        Split(["a", "b", "c"], np.array([0, 1]), ("dog", "cat"), "{}", read=None, content=None)


def test_a_task_says_how_to_make_it_again():
    task = tasks.task("emoji/food", protocol="base_to_new", shots=2, seed=3, backgrounds=1)
    again = tasks.task(**json.loads(json.dumps(task.arguments)))
    assert again.fingerprint() == task.fingerprint() and again.arguments == task.arguments
    assert task.arguments["id"] == "emoji/food" and task.arguments["seed"] == 3


def test_other_tests_leave_the_training_fingerprint():
    one, three = (tasks.task("emoji/food", protocol="base_to_new", shots=2, backgrounds=n) for n in (1, 3))
    assert one.training_fingerprint() == three.training_fingerprint()
    assert not set(one.test_fingerprints().values()) & set(three.test_fingerprints().values())
    other = tasks.task("emoji/food", protocol="base_to_new", shots=2, seed=2)
    assert other.training_fingerprint() != one.training_fingerprint()
    assert one.classes.names == one.train.classnames and one.classes.template == one.template


def test_the_protocol_declares_what_it_sums_up():
    def row(split, metric, value):
        return {"split": split, "metric": metric, "value": value, "n": 10}

    rows = [row("base", "accuracy", 60.0), row("new", "accuracy", 30.0), row("base", "KL", 1.0)]
    task = tasks.task("emoji/food", protocol="base_to_new", shots=2)
    assert task.summary(rows) == [{"split": "hm", "metric": "accuracy", "value": 40.0, "n": 20}]
    assert task.summary(rows[:1]) == []
    assert tasks.task("emoji/food", protocol="few_shot").summary(rows) == []
