"""`vlmlab data check`, and training and looking at a real data set from the command line."""

import json
import shutil

import coop_miniature as mini
import pytest

import vlmlab
from vlmlab import cli
from vlmlab.tasks.coop import check as coop_check
from vlmlab.tasks.coop import layouts as coop_layouts

pytestmark = pytest.mark.filterwarnings("ignore:.*cannot be compared with published ones")
PAGES = {
    "caltech101": "1hyarUivQE36mY6jSomru6Fjd-JzwcCzN",
    "oxford_pets": "1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs",
    "stanford_cars": "1ObCFbaAgVu0I-k_Au-gIUcefirdAuizT",
    "oxford_flowers": "1Pp0sRXzZFZq15zVOzKjKBu4A9i01nozT",
    "food101": "1QK0tGi096I0Ba6kggatX1ee6dJFIcEJl",
    "sun397": "1y2RD81BYuiyvebdN-JymPfyWYcd8_MUq",
    "dtd": "1u3_QfB467jqHgNXC00UIzbLZRQCg2S7x",
    "eurosat": "1Ip7yaCWFi0eaOFUGga0lUdVi_DDQth1o",
    "ucf101": "1I0S0q91hJfsV9Gf4xDIjgDq4AqBNJb1y",
    "imagenet": "1-61f_ol79pViBFDG_IDlUQSwoLcn2XXF",
}


def as_published(monkeypatch, root):
    """Miniatures of `root` become what the table says is published."""
    for report in coop_check.check(root, [*coop_layouts.LAYOUTS]):
        layout = coop_layouts.LAYOUTS[report.dataset]
        counts = tuple(report.images.get(part, (0, 0))[0] for part in coop_layouts.PARTS)
        smaller = type(layout)(**{**vars(layout), "counts": counts, "digest": "", "witness": ()})
        monkeypatch.setitem(coop_layouts.LAYOUTS, report.dataset, smaller)


@pytest.fixture
def root(tmp_path, monkeypatch):
    mini.make_all(tmp_path)
    as_published(monkeypatch, tmp_path)
    return tmp_path


def check(root, capsys, *options):
    status = cli.main(["data", "check", "--root", str(root), *options])
    return status, capsys.readouterr().out


def test_all_is_there(root, capsys):
    status, out = check(root, capsys)
    assert status == 0 and out.count(" ready ") == 15 and "15 of 15 ready" in out
    assert "caltech101       ready    3 classes; 15 train, 6 val, 9 test images\n" in out
    assert "imagenet         ready    12 classes; 60 train, 36 test images\n" in out


def test_nothing_is_there(tmp_path, capsys):
    status, out = check(tmp_path, capsys, "--json")
    reports = {r["dataset"]: r for r in json.loads(out)}
    assert status == 1 and [*reports] == [*coop_layouts.LAYOUTS]
    for id, r in reports.items():
        assert not r["ready"] and r["problems"] == ["the folder is missing"] and r["images"] == {}
        assert r["get"][0] == coop_layouts.LAYOUTS[id].pages[0]
    for id, page in PAGES.items():
        assert f"https://drive.google.com/file/d/{page}/view" in reports[id]["get"]


@pytest.mark.parametrize(
    ("id", "gone", "problem", "get"),
    [
        (
            "dtd",
            "split_zhou_DescribableTextures.json",
            "the file split_zhou_DescribableTextures.json is missing",
            PAGES["dtd"],
        ),
        (
            "dtd",
            "images/banded/train0.jpg",
            "1 of 15 train images are missing, the first is dtd/images/banded/train0.jpg",
            "vgg/data/dtd",
        ),
        ("dtd", "images", "the folder images is missing", "vgg/data/dtd"),
        (
            "stanford_cars",
            "cars_test",
            "9 of 9 test images are missing, the first is stanford_cars/cars_test/00008.jpg",
            "car_dataset",
        ),
        ("fgvc_aircraft", "variants.txt", "the file variants.txt is missing", "fgvc-aircraft"),
        ("imagenet", "classnames.txt", "the file classnames.txt is missing", PAGES["imagenet"]),
        ("imagenet", "images/train", "the folder images/train is missing", "image-net.org"),
        (
            "imagenet",
            "images/val/n01440764/n01440764_1.JPEG",
            "35 test images, published are 36",
            "image-net",
        ),
        ("imagenet_a", "imagenet-a/n01498041", "3 test images, published are 6", "natural-adv-examples"),
    ],
)
def test_what_is_missing(root, capsys, id, gone, problem, get):
    mini.without(root / mini.FOLDERS[id][0], gone)
    status, out = check(root, capsys, "--dataset", id, "--json")
    (report,) = json.loads(out)
    assert status == 1 and problem in report["problems"] and any(get in page for page in report["get"])
    status, out = check(root, capsys, "--dataset", id)
    assert status == 1 and problem in out and get in out and "0 of 1 ready" in out
    assert check(root, capsys, "--dataset", "eurosat")[0] == 0  # asked for another, which is complete


def test_a_split_that_somebody_made(root, monkeypatch, capsys):
    layout = coop_layouts.LAYOUTS["food101"]
    other = type(layout)(**{**vars(layout), "digest": "0" * 16})
    monkeypatch.setitem(coop_layouts.LAYOUTS, "food101", other)
    status, out = check(root, capsys, "--dataset", "food101", "--dataset", "dtd")
    assert status == 1 and "split_zhou_Food101.json is not the published one" in out and "1 of 2 ready" in out


def test_a_damaged_file_stops_nothing(root, capsys):
    (root / "eurosat/split_zhou_EuroSAT.json").write_text("{")
    status, out = check(root, capsys)
    assert status == 1 and "split_zhou_EuroSAT.json is not a split of CoOp" in out and "14 of 15 ready" in out


def test_help(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["data", "--help"])
    out = capsys.readouterr().out
    assert caught.value.code == 0 and "VLMLAB_DATASETS" in out
    assert "example:\n  vlmlab data check --root" in out


def test_wrong_questions(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("VLMLAB_DATASETS", raising=False)
    assert cli.main(["data", "check"]) == 2 and "set VLMLAB_DATASETS" in capsys.readouterr().err
    assert cli.main(["data", "check", "--root", str(tmp_path / "no")]) == 2
    assert "no, the folder of the real data sets, does not exist" in capsys.readouterr().err
    assert cli.main(["data", "check", "--root", str(tmp_path), "--dataset", "caltech"]) == 2
    assert "unknown data set 'caltech'; there are imagenet, caltech101" in capsys.readouterr().err


def test_fit_and_capture(tmp_path, capsys):
    """From folders to numbers: zero-shot on a miniature, a capture of its new classes."""
    root = tmp_path / "data"
    mini.make_miniature(root, "caltech101")
    options = ["--root", str(root), "--out", str(tmp_path / "runs")]
    assert cli.main(["fit", "zero_shot", "caltech101", *options]) == 0
    assert "task caltech101, protocol base_to_new" in capsys.readouterr().out
    rows = vlmlab.results(tmp_path / "runs").query("metric == 'accuracy'").set_index("split")["n"]
    assert rows.to_dict() == {"base": 6, "new": 3, "hm": 9}
    mini.make_miniature(root, "imagenet_a")
    assert cli.main(["fit", "zero_shot", "imagenet_a", "--protocol", "zero_shot", *options]) == 0
    assert cli.main(["fit", "zero_shot", "dtd", *options]) == 2
    assert "dtd is missing; get it from" in capsys.readouterr().err
    shutil.move(root / "caltech-101/split_zhou_Caltech101.json", root / "elsewhere.json")
    assert cli.main(["fit", "zero_shot", "caltech101", *options]) == 2
    assert "split_zhou_Caltech101.json is missing" in capsys.readouterr().err
    assert cli.main(["fit", "zero_shot", "caltech101", "--make-split", *options]) == 0
    task = vlmlab.task("caltech101", root=root, protocol="base_to_new", shots=16, make_split=True)
    found = vlmlab.capture(vlmlab.load("tiny", device="cpu"), task.new, ["image.resid.post"])
    assert found["image.resid.post"].sizes["sample"] == len(task.new) == 3
    assert list(found["id"].values) == task.new.ids
