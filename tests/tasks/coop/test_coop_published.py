"""CoOp's data against what others published of it.

The official split files are not part of this repository. Tests that read them look for them in
shared/data/coop_splits beside the checkout, and are skipped where that folder is absent; numbers and digests
taken from them are here.
"""

import collections
import hashlib
import json
from pathlib import Path

import pytest

import vlmlab
from vlmlab.tasks import sampling, split_files
from vlmlab.tasks.coop import lists as coop_lists
from vlmlab.tasks.coop import regenerate as coop_regenerate
from vlmlab.tasks.coop.layouts import LAYOUTS, PARTS

OFFICIAL = Path(__file__).parents[4] / "shared/data/coop_splits"
official = pytest.mark.skipif(
    not (OFFICIAL / "splits").is_dir(), reason=f"the official split files are not in {OFFICIAL}"
)
AT_HAND = ["caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "dtd", "eurosat", "ucf101"]

EUROSAT = [1500, 1500, 1500, 1250, 1250, 1000, 1250, 1500, 1250, 1500]  # train images per class
# of [train, val] positions of the published index lists (linzhiqiu/cross_modal_adaptation), by shots and seed
INDICES = {
    ("eurosat", 1, 1): "df090cf3eff06d6a",
    ("eurosat", 1, 2): "0f2e8f94b9f5de95",
    ("eurosat", 1, 3): "3a0dc27fe67893b6",
    ("eurosat", 4, 1): "12041b8761048dc8",
    ("eurosat", 4, 2): "715c7eba2c237465",
    ("eurosat", 4, 3): "493c094391fd7bb3",
    ("eurosat", 16, 1): "6aa89c2ef00a59c8",
    ("eurosat", 16, 2): "d715c9940adab895",
    ("eurosat", 16, 3): "d1516df3b86cbef2",
    ("dtd", 1, 1): "a572e29c5dbd3698",
    ("dtd", 1, 2): "6379c813a41aa67b",
    ("dtd", 1, 3): "4e779fb2d786ed93",
    ("dtd", 4, 1): "825381eb5612e8b2",
    ("dtd", 4, 2): "4b5469c508d7bcd6",
    ("dtd", 4, 3): "4d63453f1b7ff642",
    ("dtd", 16, 1): "2d435edfa40cad05",
    ("dtd", 16, 2): "204e59ca534cb6c5",
    ("dtd", 16, 3): "4a7515126b857159",
}
COUNTS = {"eurosat": EUROSAT, "dtd": [60] * 47, "food101": [500] * 101, "sun397": [40] * 397}
# published positions at 1 shot, seed 1: of the first and of the last classes
ENDS = {
    "food101": ([68, 791, 1433, 1910], [48843, 49097, 49655, 50145]),
    "sun397": ([8, 76, 84, 136], [15731, 15780, 15837, 15859]),
}


def drawn(name, shots, seed):
    """Few-shot positions from class counts alone; of val there are 2/5 as many as of train, in SUN397 1/4."""
    train = [label for label, n in enumerate(COUNTS[name]) for _ in range(n)]
    share = 4 if name == "sun397" else 2.5
    val = [label for label, n in enumerate(COUNTS[name]) for _ in range(int(n / share))]
    return sampling.few_shot(train, val, shots, seed)


@pytest.mark.parametrize(("name", "shots", "seed"), INDICES)
def test_few_shot_positions(name, shots, seed):
    found = json.dumps([*drawn(name, shots, seed)]).encode()
    assert hashlib.sha256(found).hexdigest()[:16] == INDICES[name, shots, seed]


@pytest.mark.parametrize("name", ENDS)
def test_few_shot_positions_of_food_and_sun(name):
    train, _ = drawn(name, 1, 1)
    assert (train[:4], train[-4:]) == ENDS[name]
    assert {i for i, _ in LAYOUTS[name].witness} <= set(train)


@pytest.mark.parametrize(
    ("name", "first"), [("eurosat", [275, 1165, 129]), ("dtd", [8, 36, 54]), ("food101", [68, 291, 433])]
)
def test_16_shots(name, first):
    train, val = drawn(name, 16, 1)
    assert train[:3] == first and (len(train), len(val)) == (16 * len(COUNTS[name]), 4 * len(COUNTS[name]))


@pytest.fixture(scope="module")
def linked(tmp_path_factory):
    """A root with the official split files and empty files for all of their images; made per data set."""
    root = tmp_path_factory.mktemp("official")

    def make(id):
        layout = LAYOUTS[id]
        folder = root / layout.folder
        if not folder.exists():
            (folder / layout.images).mkdir(parents=True)
            (folder / layout.split).symlink_to(OFFICIAL / "splits" / layout.split)
            images = [folder / layout.images / path for rows in split(id).values() for path, _, _ in rows]
            for parent in {image.parent for image in images}:
                parent.mkdir(parents=True, exist_ok=True)
            for image in images:
                image.touch()
        return root

    return make


def split(id):
    return json.loads((OFFICIAL / "splits" / LAYOUTS[id].split).read_text())


@official
@pytest.mark.parametrize("id", AT_HAND)
@pytest.mark.filterwarnings("error")  # nothing is reported to differ from what is published
def test_official_splits_load(id, linked):
    task = vlmlab.task(id, root=linked(id), protocol="few_shot")
    rows, layout = split(id), LAYOUTS[id]
    prefix = f"{layout.folder}/{layout.images}/".replace("//", "/")
    for part, found in (("train", task.train), ("val", task.val), ("test", task.tests["test"])):
        assert found.ids == [prefix + path for path, _, _ in rows[part]]
        assert found.labels.tolist() == [label for _, label, _ in rows[part]]
        assert all(found.classnames[label] == name for _, label, name in rows[part])
    assert len(task.train.classnames) == layout.classes
    assert tuple(len(rows[part]) for part in PARTS) == layout.counts
    assert task.provenance == {"train": "published", "test": "published"}


@official
@pytest.mark.parametrize("id", AT_HAND)
def test_a_split_with_two_images_changed_places_is_not_the_published_one(id):
    rows = split_files.read(OFFICIAL / "splits" / LAYOUTS[id].split, "")
    assert coop_lists.is_published(LAYOUTS[id], rows)
    rows["train"][0], rows["train"][1] = rows["train"][1], rows["train"][0]
    assert not coop_lists.is_published(LAYOUTS[id], rows)


@official
@pytest.mark.parametrize("id", ["dtd", "eurosat"])
@pytest.mark.parametrize("shots", [1, 4, 16])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_few_shot_images_are_the_published_ones(id, shots, seed, linked):
    task = vlmlab.task(id, root=linked(id), protocol="few_shot", shots=shots, seed=seed)
    published = json.loads((OFFICIAL / f"indices/{id}/shot_{shots}-seed_{seed}.json").read_text())
    for part, found in (("train", task.train), ("val", task.val)):
        rows = published[part]["data"]
        assert found.ids == [row["impath"].removeprefix("./data/") for row in rows]
        assert [found.classnames[i] for i in found.labels] == [row["classname"] for row in rows]


@official
@pytest.mark.parametrize("id", AT_HAND)
def test_regenerated_splits_have_the_same_size_in_every_class(id):
    rows = {part: [tuple(row) for row in found] for part, found in split(id).items()}
    if id in coop_regenerate.OFFICIAL:
        made = coop_regenerate.two_ways(rows["train"] + rows["val"])
    else:
        made = coop_regenerate.three_ways(rows["train"] + rows["val"] + rows["test"])
    for part, found in made.items():
        counts = collections.Counter(label for _, label, _ in rows[part])
        assert collections.Counter(label for _, label, _ in found) == counts and found != rows[part]


@official
@pytest.mark.parametrize("id", ["caltech101", "dtd", "eurosat"])
def test_names_made_from_folders_are_the_official_ones(id, linked):
    layout = LAYOUTS[id]
    items = coop_regenerate.class_folders(linked(id) / layout.folder / layout.images)
    official_rows = {tuple(row) for found in split(id).values() for row in found}
    assert set(items) == official_rows and len(items) == len(official_rows)


@official
def test_names_made_from_lists_are_the_official_ones(tmp_path):
    rows = {id: [row for part in PARTS for row in split(id)[part]] for id in ("oxford_pets", "ucf101")}
    pets, ucf = tmp_path / "annotations", tmp_path / "ucfTrainTestlist"
    pets.mkdir()
    ucf.mkdir()
    text = "".join(f"{path.removesuffix('.jpg')} {label + 1} 1 1\n" for path, label, _ in rows["oxford_pets"])
    (pets / "trainval.txt").write_text(text)
    (pets / "test.txt").write_text("")
    assert next(coop_regenerate.pets(tmp_path)) == [tuple(row) for row in rows["oxford_pets"]]
    actions = {label: name.replace("_", "") for _, label, name in rows["ucf101"]}
    (ucf / "classInd.txt").write_text("".join(f"{i + 1} {name}\n" for i, name in sorted(actions.items())))
    videos = [f"{actions[label]}/{Path(path).stem}.avi {label + 1}\n" for path, label, _ in rows["ucf101"]]
    (ucf / "trainlist01.txt").write_text("".join(videos))
    assert next(coop_regenerate.ucf(tmp_path)) == [tuple(row) for row in rows["ucf101"]]


@official
def test_flower_names_are_the_official_ones():
    names = json.loads((OFFICIAL / "splits/cat_to_name.json").read_text())
    assert all(names[str(label + 1)] == name for _, label, name in split("oxford_flowers")["train"])
