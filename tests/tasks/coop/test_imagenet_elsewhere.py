"""ImageNet in the folders of others than CoOp: the same images, labels and names."""

import shutil

import coop_miniature as mini
import pytest
from PIL import Image

import vlmlab
from vlmlab.tasks.coop import check, flat
from vlmlab.tasks.coop.layouts import LAYOUTS

pytestmark = pytest.mark.filterwarnings("ignore:.*published are")
WNIDS = [*mini.NAMES["imagenet"]]


@pytest.fixture
def root(tmp_path):
    """imagenet/{train,val}/n########/*.JPEG below tmp_path, without images/."""
    mini.make_miniature(tmp_path, "imagenet")
    for part in ("train", "val"):
        shutil.move(tmp_path / "imagenet/images" / part, tmp_path / "imagenet" / part)
    (tmp_path / "imagenet/images").rmdir()
    return tmp_path


def labelled(root, protocol="zero_shot"):
    test = vlmlab.task("imagenet", protocol=protocol, root=root).tests["test"]
    return {
        id.rpartition("/")[2]: test.classnames[label] for id, label in zip(test.ids, test.labels, strict=True)
    }


def flattened(root):
    """Take the images of val out of their class folders; image -> class folder."""
    val, of = root / "imagenet/val", {}
    for number, path in enumerate(sorted(val.glob("*/*")), start=1):
        name = f"ILSVRC2012_val_{(7 * number) % 37:08}.JPEG"
        of[name] = path.parent.name
        shutil.move(path, val / name)
    for folder in val.glob("n*"):
        folder.rmdir()
    return of


def test_train_and_val_without_images_above_them(root):
    task = vlmlab.task("imagenet", protocol="few_shot", root=root)
    assert task.train.ids[0].startswith("imagenet/train/n01440764/") and len(task.train) == 60
    assert task.tests["test"].ids[0].startswith("imagenet/val/n01440764/")
    (report,) = check.check(root, ["imagenet"])
    assert report.images["test"][0] == 36 and not any("folder" in p for p in report.problems)


@pytest.mark.parametrize("mapping", ["LOC_val_solution.csv", "val.txt"])
@pytest.mark.parametrize("protocol", ["zero_shot", "few_shot"])
def test_a_val_without_folders(root, mapping, protocol):
    of = flattened(root)
    if mapping == "val.txt":
        text = "".join(f"{name} {WNIDS.index(wnid)}\n" for name, wnid in of.items())
    else:
        boxes = (f"{name[:-5]},{wnid} 1 2 3 4 {wnid} 5 6 7 8\n" for name, wnid in of.items())
        text = "ImageId,PredictionString\n" + "".join(boxes)
    (root / "imagenet" / mapping).write_text(text)
    assert labelled(root, protocol) == {name: mini.NAMES["imagenet"][wnid] for name, wnid in of.items()}
    (root / "imagenet" / mapping).write_text(text.rsplit("\n", 2)[0] + "\n")
    with pytest.raises(ValueError, match=rf"{mapping} has no class for ILSVRC2012_val_\d+.JPEG"):
        labelled(root)


@pytest.mark.parametrize(
    ("mapping", "text", "message"),
    [
        ("val.txt", "a.JPEG 12\n", "has the line 'a.JPEG 12'; expected an image and a number below 12"),
        (
            "LOC_val_solution.csv",
            "ImageId,PredictionString\na,n09999999 1\n",
            "names n09999999, which is none of the 12",
        ),
        ("LOC_val_solution.csv", "ImageId,PredictionString\na\n", "line 2 is 'a'; expected"),
    ],
)
def test_a_mapping_that_is_wrong(root, mapping, text, message):
    flattened(root)
    (root / "imagenet" / mapping).write_text(text)
    with pytest.raises(ValueError, match=message):
        labelled(root)


def test_without_classnames_a_whole_imagenet_has_clips_names(tmp_path):
    folder = tmp_path / "imagenet/val"
    folder.mkdir(parents=True)
    Image.new("RGB", (2, 2)).save(folder / "ILSVRC2012_val_00000000.JPEG")
    data = (folder / "ILSVRC2012_val_00000000.JPEG").read_bytes()
    lines = ["ImageId,PredictionString"]
    for i in range(1000):
        (folder / f"ILSVRC2012_val_{i:08}.JPEG").write_bytes(data)
        lines.append(f"ILSVRC2012_val_{i:08},n{999 - i:08} 1 2 3 4")
    mapping = tmp_path / "imagenet/LOC_val_solution.csv"
    mapping.write_text("\n".join(lines))
    found = labelled(tmp_path)
    names = [found[f"ILSVRC2012_val_{i:08}.JPEG"] for i in (999, 998, 0)]
    assert names == ["tench", "goldfish", "toilet paper"]
    mapping.write_text("\n".join(lines[:-1]))
    with pytest.raises(FileNotFoundError, match=r"classnames.txt is missing; get it from"):
        labelled(tmp_path)


def test_names_of_a_thousand_class_folders(tmp_path):
    for i in range(1000):
        (tmp_path / f"imagenet/train/n{i:08}").mkdir(parents=True)
    names = flat.usual_names(LAYOUTS["imagenet"], tmp_path)
    assert [*names.items()][1] == ("n00000001", "goldfish") and len(names) == 1000
    (tmp_path / "imagenet/train/n00000999").rmdir()
    assert flat.usual_names(LAYOUTS["imagenet"], tmp_path) == {}
