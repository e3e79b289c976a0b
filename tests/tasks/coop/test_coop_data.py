"""CoOp's data sets as tasks, on miniatures in the official layout."""

import pickle
import random
import shutil

import coop_miniature as mini
import numpy as np
import pytest
from PIL import Image

from vlmlab import tasks
from vlmlab.tasks.coop import layouts as coop_layouts
from vlmlab.tasks.coop import lists as coop_lists
from vlmlab.tasks.coop import tasks as coop

pytestmark = pytest.mark.filterwarnings("ignore:.*cannot be compared with published ones")
TRAINED = [n for n in mini.FOLDERS if n not in coop_layouts.SHIFTS]
WITH_SPLIT = [n for n, (_, _, split) in mini.FOLDERS.items() if split]

# data set -> classes base + new, images train / val / test, template
PUBLISHED = {
    "imagenet": (500, 500, 1_281_167, 0, 50_000, "a photo of a {}."),
    "caltech101": (50, 50, 4128, 1649, 2465, "a photo of a {}."),
    "oxford_pets": (19, 18, 2944, 736, 3669, "a photo of a {}, a type of pet."),
    "stanford_cars": (98, 98, 6509, 1635, 8041, "a photo of a {}."),
    "oxford_flowers": (51, 51, 4093, 1633, 2463, "a photo of a {}, a type of flower."),
    "food101": (51, 50, 50_500, 20_200, 30_300, "a photo of {}, a type of food."),
    "fgvc_aircraft": (50, 50, 3334, 3333, 3333, "a photo of a {}, a type of aircraft."),
    "sun397": (199, 198, 15_880, 3970, 19_850, "a photo of a {}."),
    "dtd": (24, 23, 2820, 1128, 1692, "{} texture."),
    "eurosat": (5, 5, 13_500, 5400, 8100, "a centered satellite photo of {}."),
    "ucf101": (51, 50, 7639, 1898, 3783, "a photo of a person doing {}."),
    "imagenetv2": (500, 500, 0, 0, 10_000, "a photo of a {}."),
    "imagenet_sketch": (500, 500, 0, 0, 50_889, "a photo of a {}."),
    "imagenet_a": (100, 100, 0, 0, 7500, "a photo of a {}."),
    "imagenet_r": (100, 100, 0, 0, 30_000, "a photo of a {}."),
}


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """All 15, to read only."""
    return mini.make_all(tmp_path_factory.mktemp("coop"))


def few(id, root, **options):
    return tasks.task(id, root=root, **{"protocol": "few_shot", "shots": 16, **options})


def test_the_table_is_coops():
    assert [*coop_layouts.LAYOUTS] == coop.names() == [*PUBLISHED]
    for id, (base, new, *counts, template) in PUBLISHED.items():
        layout = coop_layouts.LAYOUTS[id]
        found = (layout.classes, layout.counts, layout.template)
        assert found == (base + new, tuple(counts), template) and -(-layout.classes // 2) == base
    assert len(coop_layouts.OTHERS) == 10


@pytest.mark.parametrize("id", mini.FOLDERS)
def test_names_labels_and_images(id, root):
    task = tasks.task(id, root=root) if id in coop_layouts.SHIFTS else few(id, root, shots=None)
    test, (folder, images, _) = task.tests["test"], mini.FOLDERS[id]
    assert test.classnames == tuple(mini.NAMES[id].values())
    assert (test.counts() == mini.COUNTS["test"]).all()
    assert test.prompts[0] == PUBLISHED[id][-1].format(test.classnames[0].replace("_", " "))
    label_of = {name: i for i, name in enumerate(mini.NAMES["imagenet"].values())}
    for part in (task.train, task.val or test, test):
        for i in range(len(part)):
            assert part.ids[i].startswith(f"{folder}/{images}/".replace("/./", "/"))
            picture, label = part.image(i), part.labels[i]
            assert picture.mode == "RGB" and picture.size == (48, 40)
            if id.startswith("imagenet"):
                label = label_of[part.classnames[label]]
            mean = np.asarray(picture).mean((0, 1))
            expected = [40 + 50 * (label % 4), 40 + 60 * (label // 4), 200 - 40 * (label % 4)]
            assert np.abs(mean - expected).max() < 10, part.ids[i]  # the picture is one of its class
    if id in TRAINED:
        assert (task.train.counts() == mini.COUNTS["train"]).all()
        assert not {*task.train.ids, *(task.val.ids if task.val else ())} & {*test.ids}


def coop_sample(stream, items, shots):
    """Dassl's sampling, written down again: (path, label) of `shots` per class in order of appearance."""
    classes = {}
    for item in items:
        classes.setdefault(item[1], []).append(item)
    return [
        item
        for found in classes.values()
        for item in (stream.sample(found, shots) if len(found) >= shots else found)
    ]


@pytest.mark.parametrize("id", TRAINED)
@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16])
def test_shots_are_coops(id, shots, root):
    whole, task = few(id, root, shots=None), few(id, root, shots=shots, seed=3)

    def items(split):
        return [] if split is None else list(zip(split.ids, split.labels.tolist(), strict=True))

    stream = random.Random(3)
    assert items(task.train) == coop_sample(stream, items(whole.train), shots)
    assert task.tests["test"].ids == whole.tests["test"].ids
    if id != "imagenet":
        assert items(task.val) == coop_sample(stream, items(whole.val), min(shots, 4))
        return
    assert whole.val is None  # lent by the training images that were not drawn, never by the test
    assert not {*items(task.val)} & {*items(task.train)} and {*items(task.val)} < {*items(whole.train)}


def test_classes_are_walked_as_they_appear(root):
    task = few("oxford_flowers", root, shots=2)
    assert task.train.labels.tolist() == [2, 2, 1, 1, 0, 0]


@pytest.mark.parametrize("id", TRAINED)
def test_base_and_new(id, root):
    whole, task = few(id, root), few(id, root, protocol="base_to_new")
    names = tuple(mini.NAMES[id].values())
    half = -(-len(names) // 2)
    assert task.train.classnames == task.base.classnames == names[:half]
    assert task.new.classnames == names[half:] and set(task.new.labels) == set(range(len(names) - half))
    assert task.train.ids == [i for i, y in zip(whole.train.ids, whole.train.labels) if y < half]
    assert set(task.base.ids) | set(task.new.ids) == set(whole.tests["test"].ids)


def test_cross_dataset(root):
    task = few("imagenet", root, protocol="cross_dataset", shots=2)
    assert [*task.tests] == ["imagenet", *(n for n in TRAINED if n != "imagenet")]
    for id, split in task.tests.items():
        assert split.ids == few(id, root).tests["test"].ids and split.template == PUBLISHED[id][-1]
        assert split.classnames == tuple(mini.NAMES[id].values())
    assert len(task.train) == 24 and task.train.classnames == task.tests["imagenet"].classnames


def test_domain_shift(root):
    task = few("imagenet", root, protocol="domain_shift", shots=2)
    assert [*task.tests] == ["imagenet", "imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"]
    assert task.tests["imagenet_a"].classnames == ("stingray", "goldfinch")  # its own classes only
    v2 = task.tests["imagenetv2"]
    folders = [int(i.split("/")[2]) for i in v2.ids]
    assert folders == v2.labels.tolist() and max(folders) == 11  # folder 10 is not label 2
    with pytest.raises(ValueError, match="dtd has no protocol domain_shift; it has zero_shot, few_shot"):
        few("dtd", root, protocol="domain_shift")
    with pytest.raises(ValueError, match="imagenet_r has no protocol few_shot; it has zero_shot"):
        few("imagenet_r", root)


def test_zero_shot_needs_test_images_only(tmp_path):
    folder, dtd = (mini.make_miniature(tmp_path, n) for n in ("imagenet", "dtd"))
    mini.without(folder, "images/train")
    for path in dtd.glob("images/*/train*.jpg"):
        path.unlink()
    for id in ("imagenet", "dtd"):
        assert len(tasks.task(id, root=tmp_path).train) == 0
    with pytest.raises(FileNotFoundError, match=r"images/train is missing; get it from https://image-net"):
        few("imagenet", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"15 of 30 images of dtd .* the first is .*train0\.jpg"):
        few("dtd", tmp_path)


def test_where_the_data_sets_are(root, monkeypatch, tmp_path):
    monkeypatch.delenv("VLMLAB_DATASETS", raising=False)
    with pytest.raises(ValueError, match=r"pass root=.* or set VLMLAB_DATASETS"):
        tasks.task("dtd")
    monkeypatch.setenv("VLMLAB_DATASETS", str(root))
    assert len(tasks.task("dtd").tests["test"]) == 9
    with pytest.raises(FileNotFoundError, match="elsewhere, the folder of the real data sets, does not"):
        tasks.task("dtd", root=tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"dtd is missing; get it from .*vgg/data/dtd.* dtd/images"):
        tasks.task("dtd", root=tmp_path)


@pytest.mark.parametrize("id", WITH_SPLIT)
def test_a_missing_split(id, tmp_path):
    folder, split = mini.make_miniature(tmp_path, id), mini.FOLDERS[id][2]
    published = few(id, tmp_path, shots=None)
    mini.without(folder, split)
    before = sorted(folder.rglob("*"))
    with pytest.raises(
        FileNotFoundError, match=rf"{split} is missing; get CoOp's split from https://drive\.goo"
    ):
        few(id, tmp_path)
    made = few(id, tmp_path, shots=None, make_split=True)
    assert sorted(folder.rglob("*")) == before  # nothing that could pass for the published split
    assert made.provenance == {"train": "regenerated", "test": "regenerated"}
    assert published.provenance == {"train": "changed", "test": "changed"}
    assert made.train.classnames == published.train.classnames
    old, new = (
        [(i, y) for s in (t.train, t.val, t.tests["test"]) for i, y in zip(s.ids, s.labels)]
        for t in (published, made)
    )
    assert sorted(new) == sorted(old) != new
    assert made.fingerprint() == few(id, tmp_path, shots=None, make_split=True).fingerprint()
    if id in ("oxford_pets", "stanford_cars", "sun397", "ucf101"):  # they have official test lists
        assert sorted(made.tests["test"].ids) == sorted(published.tests["test"].ids)


def test_class_names_of_eurosat(tmp_path):
    names = {
        "AnnualCrop": "Annual Crop Land",
        "Forest": "Forest",
        "HerbaceousVegetation": "Herbaceous Vegetation Land",
        "Highway": "Highway or Road",
        "Industrial": "Industrial Buildings",
        "Pasture": "Pasture Land",
        "PermanentCrop": "Permanent Crop Land",
        "Residential": "Residential Buildings",
        "River": "River",
        "SeaLake": "Sea or Lake",
    }
    for folder in reversed(names):
        for i in range(5):
            mini.picture(tmp_path / f"eurosat/2750/{folder}/{folder}_{i}.jpg", 0)
    (tmp_path / "eurosat/2750/Forest/Thumbs.db").write_bytes(b"no image")
    task = few("eurosat", tmp_path, make_split=True)
    assert task.train.classnames == tuple(names.values())
    assert (task.train.counts() == 2).all() and (task.tests["test"].counts() == 2).all()


def test_what_a_split_is_made_from_may_be_missing_too(tmp_path):
    folder = mini.make_miniature(tmp_path, "oxford_flowers")
    mini.without(folder, "split_zhou_OxfordFlowers.json")
    mini.without(folder, "cat_to_name.json")
    with pytest.raises(FileNotFoundError, match=r"cat_to_name\.json is missing; get it from https://drive"):
        few("oxford_flowers", tmp_path, make_split=True)
    folder = mini.make_miniature(tmp_path, "sun397")
    mini.without(folder, "split_zhou_SUN397.json")
    mini.without(folder, "Training_01.txt")
    with pytest.raises(FileNotFoundError, match=r"Training_01\.txt is missing"):
        few("sun397", tmp_path, make_split=True)


def test_provenance_is_in_the_fingerprint(root):
    split = few("dtd", root).train
    marked = type(split)(**{**vars(split), "provenance": "regenerated"})
    assert marked.fingerprint() != split.fingerprint()
    assert split.select([0]).provenance == split.restrict([0]).provenance == "changed"


def test_a_split_that_is_not_the_published_one_warns(root):
    with pytest.warns(
        UserWarning,
        match=r"dtd: dtd/split_zhou_Describable.*json is not the published "
        r"split \(test has 9 images, published are 1,692\)",
    ):
        tasks.task("dtd", root=root)


def test_fingerprint_knows_the_files_but_not_where_they_are(root, tmp_path):
    shutil.copytree(root / "dtd", tmp_path / "dtd")
    before, task = few("dtd", root).fingerprint(), few("dtd", tmp_path)
    assert task.fingerprint() == before
    path = tmp_path / task.train.ids[3]
    Image.new("RGB", (9, 9)).save(path)
    assert task.fingerprint() != before
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=rf"{path} is empty; extract it again"):
        task.fingerprint()


def test_missing_and_damaged_images_are_named(tmp_path):
    folder = mini.make_miniature(tmp_path, "sun397")
    task = few("sun397", tmp_path)
    path = tmp_path / task.train.ids[0]
    data = path.read_bytes()
    for damaged in (data[:200], data[:-100], b"<html>not found</html>"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{path} is not a readable image .*extract it again"):
            task.train.image(0)
    mini.without(folder, "SUN397/b")
    with pytest.raises(
        FileNotFoundError,
        match=r"10 of 30 images of sun397 are missing, the first is .*bakery/shop/sun_train0",
    ):
        few("sun397", tmp_path)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "jpg"), ("CMYK", "jpg"), ("RGBA", "png"), ("LA", "png"), ("P", "png"), ("1", "png")],
)
def test_every_mode_becomes_rgb(tmp_path, mode, suffix):
    Image.new("RGB", (8, 6), (255, 255, 255)).convert(mode).save(tmp_path / f"x.{suffix}")
    image = coop.read_image(tmp_path, f"x.{suffix}")
    assert image.mode == "RGB" and image.size == (8, 6) and np.asarray(image).min() > 240


def test_links_and_windows_splits(tmp_path):
    folder = mini.make_miniature(tmp_path / "disk", "ucf101")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/ucf101").symlink_to(folder)
    before = few("ucf101", tmp_path / "root")
    assert before.train.image(0).size == (48, 40)
    path = folder / "split_zhou_UCF101.json"
    assert "/" in path.read_text()
    path.write_text(path.read_text().replace("/", "\\\\"))
    assert few("ucf101", tmp_path / "root").train.ids == before.train.ids
    target = tmp_path / "root" / before.train.ids[0]
    target.unlink()
    target.symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(FileNotFoundError, match=target.name):
        few("ucf101", tmp_path / "root").fingerprint()


class Trap:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_pickles_are_not_opened(tmp_path):
    folder = mini.make_miniature(tmp_path, "dtd")
    before = few("dtd", tmp_path).train.ids
    (folder / "split_fewshot").mkdir()
    sample = folder / "split_fewshot/shot_16-seed_1.pkl"
    sample.write_bytes(pickle.dumps({"train": Trap(tmp_path / "sprung")}))
    assert few("dtd", tmp_path).train.ids == before and not (tmp_path / "sprung").exists()
    pickle.loads(sample.read_bytes())["train"].close()
    assert (tmp_path / "sprung").exists()  # the trap works


def test_splits_go_to_other_processes(root):
    split = pickle.loads(pickle.dumps(few("eurosat", root).train))
    assert split.image(0).size == (48, 40) and split.fingerprint() == few("eurosat", root).train.fingerprint()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:100], r"is not a split of CoOp \(JSONDecodeError"),
        (lambda text: text.replace('"val"', '"valid"'), r"not a split of CoOp \(KeyError: 'val'\); expected"),
        (lambda text: text.replace("0,", '"zero",'), "expected train, val and test, each a list of"),
        (
            lambda text: text.replace("1,", "7,"),
            "the 3 classes of the train list .* labels 0 to 2, got 0 to 7",
        ),
        (
            lambda text: text.replace('"blotchy"', '"spotted"', 1),
            "gives class 1 two names, 'spotted' and 'blotchy'",
        ),
    ],
)
def test_damaged_splits(tmp_path, change, message):
    path = mini.make_miniature(tmp_path, "dtd") / "split_zhou_DescribableTextures.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=message) as caught:
        few("dtd", tmp_path)
    assert str(path) in str(caught.value)


def test_class_names_of_imagenet(tmp_path):
    folder = mini.make_miniature(tmp_path, "imagenet")
    variant = mini.make_miniature(tmp_path, "imagenet_r")
    own = tasks.task("imagenet_r", root=tmp_path)
    mini.without(variant, "classnames.txt")
    assert tasks.task("imagenet_r", root=tmp_path).fingerprint() == own.fingerprint()  # ImageNet's will do
    text = (folder / "classnames.txt").read_text()
    (folder / "classnames.txt").write_text(text.replace("n01443537 goldfish\n", ""))
    with pytest.raises(ValueError, match="names no class for the folder n01443537 of imagenet_r; get it"):
        tasks.task("imagenet_r", root=tmp_path)
    (folder / "classnames.txt").write_text(text.replace("n01443537 goldfish\n", "n01443537\n"))
    with pytest.raises(ValueError, match="has the line 'n01443537'; expected 'n01440764 tench'"):
        tasks.task("imagenet_r", root=tmp_path)
    mini.without(folder, "classnames.txt")
    with pytest.raises(
        FileNotFoundError,
        match=r"imagenet-rendition/classnames\.txt or .*/classnames\.txt "
        "is missing; get it from https://drive",
    ):
        tasks.task("imagenet_r", root=tmp_path)


def test_damaged_imagenet_folders(tmp_path):
    folder = mini.make_miniature(tmp_path, "imagenet")
    mini.without(folder, "images/val/n01518878")
    with pytest.raises(ValueError, match=r"train and val .* different class folders, for example n01518878"):
        few("imagenet", tmp_path)
    shutil.rmtree(folder / "images/val")
    mini.picture(folder / "images/val/ILSVRC2012_val_00000001.JPEG", 0)
    with pytest.raises(ValueError, match=r"images/val has no class folders; .* valprep"):
        tasks.task("imagenet", root=tmp_path)
    v2 = mini.make_miniature(tmp_path, "imagenetv2")
    mini.without(v2, "imagenetv2-matched-frequency-format-val/10")
    with pytest.raises(ValueError, match="class 'brambling' of imagenetv2 has no"):
        tasks.task("imagenetv2", root=tmp_path)
    mini.picture(v2 / "imagenetv2-matched-frequency-format-val/n01440764/x.jpeg", 0)
    with pytest.raises(ValueError, match="has the folder n01440764; expected 0 to 11"):
        tasks.task("imagenetv2", root=tmp_path)


def test_aircraft_lists(tmp_path):
    folder = mini.make_miniature(tmp_path, "fgvc_aircraft")
    path = folder / "images_variant_val.txt"
    path.write_text(path.read_text() + "0000099 Concorde\n")
    with pytest.raises(ValueError, match=r"images_variant_val\.txt has the line '0000099 Concorde'"):
        few("fgvc_aircraft", tmp_path)
    mini.without(folder, "variants.txt")
    with pytest.raises(FileNotFoundError, match=r"variants\.txt is missing"):
        few("fgvc_aircraft", tmp_path)


def test_each_folder_is_listed_once(root, monkeypatch):
    listed = []
    listdir = coop_lists.os.listdir
    monkeypatch.setattr(coop_lists.os, "listdir", lambda path: listed.append(str(path)) or listdir(path))
    few("imagenet", root)
    few("caltech101", root)
    assert len(listed) == len(set(listed)) == 2 * 12 + 3
