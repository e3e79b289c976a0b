"""Generated faces: the label is what was drawn, a mask covers what it names, an id is one picture."""

import dataclasses

import numpy as np
import pytest

from vlmlab import tasks
from vlmlab.tasks import sampling
from vlmlab.tasks.emoji import tasks as emoji_tasks
from vlmlab.tasks.faces import captions, drawing, expression, parts, pictures
from vlmlab.tasks.faces import tasks as faces

EMOTIONS = ("happy", "sad", "angry", "afraid", "surprised", "disgusted", "contemptuous", "neutral")


@pytest.fixture(scope="module")
def task():
    return tasks.task("faces/emotions", protocol="label_distribution")


def test_the_task(task):
    assert task.classes.names == EMOTIONS
    assert [len(part) for part in (task.train, task.val, task.tests["test"])] == [4000, 500, 1500]
    for part in (task.train, task.val, task.tests["test"]):
        assert np.ptp(part.counts()) <= 1
        assert np.allclose(part.distributions.sum(1), 1, atol=1e-6)
        assert (part.distributions.argmax(1) == part.labels).all()
    assert not {*task.train.ids} & {*task.tests["test"].ids}


def test_words_shared_with_emoji_are_in_the_same_order():
    shared = [name for name in emoji_tasks.dataset("emoji/emotions").test.classnames if name in EMOTIONS]
    assert shared == [name for name in EMOTIONS if name in shared] and len(shared) == 5


def test_units_are_those_of_the_published_table():
    table = expression.emotions()["units"]
    published = {
        "happy": "6 12",
        "sad": "1 4 15",
        "surprised": "1 2 5 26",
        "afraid": "1 2 4 5 7 20 26",
        "angry": "4 5 7 23",
        "disgusted": "9 15 16",
        "contemptuous": "R12 R14",
        "neutral": "",
    }
    assert dict(table) == published
    assert not expression.prototypes()[EMOTIONS.index("neutral")].any()


def test_a_linear_probe_reads_the_label_distribution_off_the_parameters(task):
    """Fitted on training faces, scored on test faces; shuffled parameters must not tell anything."""

    def design(split, n):
        rows = [list(expression.parameters(pictures.face(id).weights).values()) for id in split.ids[:n]]
        return np.column_stack([rows, np.ones(len(rows))])

    x, y = design(task.train, 300), task.train.distributions[:300]
    z, wanted = design(task.tests["test"], 300), task.tests["test"].distributions[:300]

    def r2(x):
        error = wanted - z @ np.linalg.lstsq(x, y, rcond=None)[0]
        return 1 - (error**2).sum(0) / ((wanted - wanted.mean(0)) ** 2).sum(0)

    assert r2(x).min() > 0.95
    assert r2(np.random.default_rng(0).permutation(x)).max() < 0.3


def test_weights_are_a_dirichlet_sample():
    """The first two moments of a symmetric Dirichlet distribution, whatever the order of labels."""
    k, a = len(EMOTIONS), expression.CONCENTRATION
    drawn = np.stack([expression.weights(np.random.default_rng(i), i % k) for i in range(4000)])
    assert np.allclose(drawn.mean(0), 1 / k, atol=0.01)
    assert np.allclose(drawn.var(0), (1 / k) * (1 - 1 / k) / (k * a + 1), rtol=0.1)


def test_an_id_is_one_picture_and_variety_keeps_the_face():
    split = faces.part("test")
    first = np.asarray(split.image(5))
    assert first.shape == (64, 64, 3) and first.dtype == np.uint8
    pictures.fixed.cache_clear()
    assert (np.asarray(split.image(5)) == first).all()
    varied = [np.asarray(split.image(5, np.random.default_rng(seed))) for seed in (0, 0, 1)]
    assert (varied[0] == varied[1]).all() and (varied[0] != varied[2]).any()
    others = {np.asarray(split.image(i)).tobytes() for i in range(40)}
    assert len(others) == 40
    assert split.content("test/5") != split.content("test/6")
    assert split.concept("test/5+grey") == split.concept("test/5")


def test_the_fingerprint_changes_with_a_table(task, tmp_path, monkeypatch):
    before = pictures.recipe()
    for table in expression.tables():
        (tmp_path / table.name).write_bytes(table.read_bytes())
    changed = tmp_path / "units.csv"
    changed.write_text(changed.read_text().replace("mouth_curve=7", "mouth_curve=6"))
    monkeypatch.setattr(expression, "tables", lambda: (tmp_path / "emotions.csv", changed))
    pictures.recipe.cache_clear()
    try:
        assert pictures.recipe() != before
    finally:
        pictures.recipe.cache_clear()


def test_a_table_with_an_unknown_parameter(tmp_path, monkeypatch):
    path = tmp_path / "units.csv"
    path.write_text("unit,name,moves\n1,x,brow_iner=2\n")
    monkeypatch.setattr(expression, "tables", lambda: (path, path))
    with pytest.raises(ValueError, match=r"units.csv: unit 1 moves 'brow_iner'; there are brow_inner"):
        expression.units.__wrapped__()


@pytest.mark.parametrize("look", ["", *pictures.LOOKS])
def test_masks_part_the_picture(look):
    split = faces.part("test", look)
    for i in range(12):
        masks = split.masks(i)
        assert masks.shape == (4, 64, 64) and masks.dtype == bool
        assert (masks.sum(0) == 1).all()
        if look != "covered":
            assert masks.any((1, 2)).all()
    assert split.regions == ("brows", "eyes", "mouth", "rest")


@pytest.mark.parametrize(
    "region, moves",
    [
        ("brows", {"brow_inner": 2.0, "brow_outer": -2.0}),
        ("eyes", {"lid_upper": -2.0, "lid_lower": 2.0}),
        ("mouth", {"mouth_curve": 3.0, "mouth_open": 3.0}),
    ],
)
def test_masks_cover_what_they_name(region, moves):
    """What a part moves changes pixels in its mask alone, before or after; and hiding its mask hides nearly all."""
    k, changed_all, outside_all = drawing.REGIONS.index(region), 0.0, 0.0
    for i in range(0, 80, 5):
        found = pictures.face(f"test/{i}")
        who = dataclasses.replace(found.who, glasses="", hair="")
        feels = expression.parameters(found.weights)
        images, masks = [], []
        for values in (feels, {name: value + moves.get(name, 0) for name, value in feels.items()}):
            shapes = parts.face(who, values)
            white = np.full((64, 64, 3), 255, np.uint8)
            images.append(drawing.painted(shapes, white, found.move) / 255)
            masks.append(drawing.masks(shapes, 64, found.move)[k])
        difference = np.abs(images[0] - images[1]).sum(-1)
        changed_all += difference.sum()
        outside_all += difference[~(masks[0] | masks[1])].sum()
    assert changed_all > 100 and outside_all < 0.03 * changed_all


def test_what_covers_a_face_is_rest():
    plain, covered = (pictures.masks(f"test/{i}{look}") for i in (0,) for look in ("", "+covered"))
    assert covered[3].sum() > plain[3].sum() and not (covered[:3] & ~plain[:3]).any()


def test_looks():
    lines, grey = (np.asarray(pictures.image(f"test/1+{look}"), int) for look in ("lines", "grey"))
    assert (np.ptp(grey, axis=2) <= 1).all() and (np.ptp(lines, axis=2) <= 1).all()
    assert (lines > 200).mean() > 0.7  # black on white
    with pytest.raises(ValueError, match=r"no face 'test/1\+blue'; .* looks lines, grey, rotated, covered"):
        pictures.image("test/1+blue")
    with pytest.raises(ValueError, match=r"no face '\.\./1'"):
        pictures.face("../1")


def test_shifts_and_other_data():
    shifted = tasks.task("faces/emotions", protocol="domain_shift")
    assert [*shifted.tests] == ["faces/emotions", "lines", "grey", "rotated", "covered", "emoji"]
    drawn = shifted.tests["emoji"]
    assert drawn.classnames == EMOTIONS and len(drawn) > 100
    told = dict(zip((id.partition("+")[0] for id in drawn.ids), drawn.labels))
    assert EMOTIONS[told["noto/1f62e"]] == "surprised"  # face with open mouth
    assert EMOTIONS[told["noto/1f922"]] == "disgusted"  # nauseated face
    train = {pictures.concept(id) for id in emoji_tasks.dataset("emoji/emotions").train.ids}
    assert not train & {*told}
    other = tasks.task("faces/emotions", protocol="cross_dataset").tests["emoji/emotions"]
    assert other.classnames[0] == "happy" and "loving" in other.classnames


def test_the_short_task_has_the_first_test_faces_alone(task):
    short = tasks.task("faces/emotions-500", protocol="label_distribution")
    assert short.id == "faces/emotions-500" and short.train.ids == task.train.ids
    few, all_ = short.tests["test"], task.tests["test"]
    assert few.ids == all_.ids[:500] and few.regions == all_.regions
    assert (few.distributions == all_.distributions[:500]).all() and few.counts().min() > 20
    looks = tasks.task("faces/emotions-500", protocol="domain_shift").tests
    assert next(iter(looks)) == short.id and len(looks["lines"]) == 500 and len(looks["emoji"]) > 100


def test_few_shot_takes_the_class_in_the_published_order(task):
    few = tasks.task("faces/emotions", protocol="few_shot", shots=3, seed=2)
    wanted, _ = sampling.few_shot(task.train.labels, task.val.labels, 3, 2)
    assert few.train.ids == [task.train.ids[i] for i in wanted]


@pytest.mark.parametrize(
    "weights, text",
    [
        ({"sad": 0.77, "angry": 0.23}, "a very sad and slightly angry face."),
        ({"angry": 0.5, "happy": 0.45, "sad": 0.05}, "an angry and happy face."),
        ({"afraid": 0.9, "happy": 0.1}, "a very afraid face."),
        (dict.fromkeys(EMOTIONS, 0.125), "a happy face."),
    ],
)
def test_captions(weights, text):
    values = np.array([weights.get(name, 0.0) for name in EMOTIONS])
    assert captions.caption(values) == text
    said = {captions.caption(values, np.random.default_rng(seed)) for seed in range(20)}
    known = {word.strip(".") for line in captions.corpus() for word in line.split()}
    assert len(said) > 1 and {word.strip(".") for line in said for word in line.split()} <= known


def test_faces_with_captions_and_masks():
    found = tasks.faces(20, "test", look="grey")
    assert len(found) == 20 and found.texts[0].endswith(" face.") and found.ids[3] == "test/3+grey"
    assert found.shows[7] == drawing.REGIONS and found.masks(7).shape == (4, 64, 64)
    with pytest.raises(ValueError, match="val has 500 faces, got n=501"):
        tasks.faces(501, "val")
    with pytest.raises(ValueError, match="there is no face 'all/0'"):
        tasks.faces(5, "all")
