"""What is wrong with images of one's own is said before anything is trained."""

import json
import os
import shutil
import warnings

import own_data as own
import pandas as pd
import pytest

import vlmlab

pytestmark = pytest.mark.filterwarnings("ignore:.*nobody divided the images")


def few(path, kind="folder", protocol="few_shot", **options):
    return vlmlab.task(f"{kind}:{path}", protocol=protocol, **options)


def refused(message, path, kind="folder", error=ValueError, **options):
    with pytest.raises(error, match=message):
        few(path, kind, **options)


def test_one_class(tmp_path):
    own.folders(tmp_path, names=("oak",))
    refused("has one class, 'oak', and base_to_new needs at least two", tmp_path, protocol="base_to_new")
    with pytest.warns(
        UserWarning, match="all images are of one class, 'oak': there is nothing to tell apart"
    ):
        few(tmp_path)


@pytest.mark.parametrize("twin", ["Oak", "red oak", "Red_Oak", "red  oak"])
def test_class_names_that_read_the_same(tmp_path, twin):
    own.folders(tmp_path, names=("oak" if twin == "Oak" else "red_oak", twin, "elm"))
    refused("two (classes|folders) .*called", tmp_path)


def test_folders_that_hold_no_image(tmp_path):
    own.folders(tmp_path)
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).mkdir()
    for name in ("a/readme.md", "a/1.heic", "b/2.HEIC"):
        (tmp_path / name).write_text("to do")
    refused(
        r"4 class folders hold no image: a, b, c and 1 more \(but files that are none: 2 .heic\); fill or",
        tmp_path,
    )


def test_folders_that_are_none(tmp_path):
    refused(r"holds no folder per class; sort the images .*table:FILE", tmp_path)
    own.picture(tmp_path / "x.png")
    refused("holds 1 images, but no folder per class", tmp_path)
    for part in ("train", "test"):
        own.picture(tmp_path / "parts" / part / "0.png")
    refused("has the folders test, train, which hold no folder per class; sort the", tmp_path / "parts")
    refused(r"x\.png is a file; a table of images is table:", tmp_path / "x.png")
    refused(r"x\.png' is no table by its ending; there are \.csv", tmp_path / "x.png", "table")
    refused(" is a folder; images in folders are folder:", tmp_path, "csv")
    refused("names nothing; write folder:PATH", "")


def test_near_names(tmp_path, monkeypatch):
    own.folders(tmp_path / "trees", 2)
    refused(
        r"trees2, which is not there; did you mean .*/trees\?", tmp_path / "trees2", error=FileNotFoundError
    )
    refused(r"not there \(/ has no 'nowhere-at-all'\)", "/nowhere-at-all/x", error=FileNotFoundError)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match="unknown task 'trees'; to use your own images in it, write folder:trees"
    ):
        vlmlab.task("trees")
    with pytest.raises(
        ValueError,
        match=r"unknown task 'emoji/fod'; did you mean emoji/food\?; there are .*; your own images are",
    ):
        vlmlab.task("emoji/fod")
    with pytest.raises(
        FileNotFoundError, match=r"tree, the folder of the real data sets, .* did you mean .*/trees\?"
    ):
        vlmlab.task("dtd", root=tmp_path / "tree")
    with pytest.raises(NotADirectoryError, match=r"is a file; pass the folder .*--root"):
        vlmlab.task("dtd", root=__file__)


def test_parts_that_differ(tmp_path):
    own.divided(tmp_path)
    own.picture(tmp_path / "test/Elm/0.png")
    refused("test has the class 'Elm', which train lacks .it has 'elm'.", tmp_path)
    shutil.rmtree(tmp_path / "test/Elm")
    shutil.rmtree(tmp_path / "test/oak")
    refused("class 'oak' of folder:.* has no test image", tmp_path)
    own.folders(tmp_path / "validation", 1)
    own.folders(tmp_path / "test", 1)
    with pytest.warns(UserWarning, match="folders beside train, val, test are left out: validation"):
        few(tmp_path)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            ("trian", "test"),
            r"trian is none of train, val and test, but lies beside test, which is; did you mean train\?",
        ),
        (("train", "tset"), r"tset is none of .* beside train, which is; did you mean test\?"),
        (("test", "fold"), "fold is none of train, val and test, .* rename or move it"),
    ],
)
def test_parts_with_wrong_names(tmp_path, parts, message):
    own.divided(tmp_path, [(part, 2) for part in parts])
    refused(message, tmp_path)


def test_the_same_picture_in_train_and_test(tmp_path):
    own.divided(tmp_path / "a")
    shutil.copy(tmp_path / "a/train/oak/0.png", tmp_path / "a/test/elm/copy.png")
    with pytest.warns(UserWarning, match="1 test images are also .* .test/elm/copy.png is train/oak/0.png."):
        few(tmp_path / "a")
    own.folders(tmp_path / "b", 4)
    for i in range(3):
        shutil.copy(tmp_path / "b/oak/3.png", tmp_path / f"b/oak/{i}.png")
    with pytest.warns(UserWarning, match="1 test images are also training or validation images"):
        few(tmp_path / "b")
    own.divided(tmp_path / "c")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        few(tmp_path / "c")


def test_too_few_to_divide(tmp_path):
    own.folders(tmp_path)
    own.picture(tmp_path / "yew/0.png")
    refused("the class 'yew' has one image; two are needed, one to train and one to test on", tmp_path)
    assert len(vlmlab.task(f"folder:{tmp_path}").tests["test"]) == 41  # nothing is trained


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: [r | {"label": own.NAMES.index(r["label"]) * 2} for r in rows],
            "count from 0 without gaps; 1 is",
        ),
        (
            lambda rows: [r | {"label": own.NAMES.index(r["label"]) + 1} for r in rows],
            "0 is missing among 1 to 4",
        ),
        (
            lambda rows: [r | {"label": i / 4} for i, r in enumerate(rows)],
            "label 0.25 of Norway_spruce1.png is no whole",
        ),
        (lambda rows: [r | {"label": -1} for r in rows], "0 is missing among -1 to -1"),
        (
            lambda rows: [*rows[:5], rows[5] | {"label": float("nan")}, *rows[6:]],
            "1 images have no label, .* in row 6",
        ),
        (
            lambda rows: [*rows[:5], rows[5] | {"label": " "}, *rows[6:]],
            "1 images have no label, .* in row 6",
        ),
        (
            lambda rows: [r | {"label": i // 8, "name": f"n{i}"} for i, r in enumerate(rows)],
            "class 0 has two names",
        ),
        (
            lambda rows: [r | {"label": i % 2, "name": "tree"} for i, r in enumerate(rows)],
            "two classes called 'tree'",
        ),
        (lambda rows: [r | {"label": "x" * 300} for r in rows], "class name of 300 letters .* shorten it"),
        (
            lambda rows: [r | {"label": f"{i % 2}\na\7"} for i, r in enumerate(rows)],
            "a class called .* readable text",
        ),
        (lambda rows: [*rows, rows[0]], "1 images are listed twice: Norway_spruce0.png"),
        (lambda rows: [*rows, rows[0] | {"label": "elm"}], "Norway_spruce0.png has the labels"),
        (
            lambda rows: [r | {"split": "train"} for r in rows] + [rows[0] | {"split": "test"}],
            "has the splits train and",
        ),
        (
            lambda rows: [r | {"split": "tset"} for r in rows],
            "the column split says 'tset'; it may say train, val or",
        ),
        (lambda rows: [r | {"splitt": "test"} for r in rows], "unknown column 'splitt'; did you mean split"),
        (
            lambda rows: [{"path": r["path"], "lable": r["label"]} for r in rows],
            "'lable' is none .* did you mean label",
        ),
        (
            lambda rows: [{"path": r["path"], "lable": i % 3} for i, r in enumerate(rows)],
            "'lable'; did you mean label",
        ),
        (lambda rows: [{"path": r["path"]} for r in rows], "has neither labels nor texts"),
        (
            lambda rows: [{"path": r["path"], "a": 1, "b": -1} for r in rows],
            "'b' is none of .* numbers of at least 0",
        ),
        (
            lambda rows: [{"path": r["path"], "a": 0, "b": 0} for r in rows],
            "soft labels of Norway_spruce0.png are all 0",
        ),
        (
            lambda rows: [{"picture": r["path"], "label": r["label"]} for r in rows],
            "has no column path .* 'picture'",
        ),
        (
            lambda rows: [r | {"path": "../../etc/hostname"} for r in rows],
            "lead out of .*'../../etc/hostname'",
        ),
        (lambda rows: [r | {"path": "/etc/hostname"} for r in rows], "lead out of .*'/etc/hostname'"),
        (lambda rows: [*rows, {"path": "", "label": "elm"}], "1 paths are empty or lead out of"),
        (lambda rows: [*rows, {"path": "a\0.png", "label": "elm"}], "binary|lead out"),
        (
            lambda rows: [{"path": r["path"], "text": " "} for r in rows],
            "16 images have no text: Norway_spruce0.png",
        ),
        (
            lambda rows: [r | {"label": 10**25} for r in rows],
            "label 1e.25 of Norway_spruce0.png is no whole number",
        ),
        (lambda rows: [rows[0] | {"path": "a" * 5000}], "1 of 1 images are not in"),
        (lambda rows: [], "has no column path|has no rows"),
        (
            lambda rows: [r | {"path": f"no{i}.png"} for i, r in enumerate(rows)],
            "16 of 16 images are not in .*: no0.png",
        ),
    ],
)
def test_tables_that_are_wrong(tmp_path, change, message):
    rows = change(own.rows(tmp_path))
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        few(own.table(tmp_path, rows), "table")
    assert "list.csv" in str(caught.value)


def test_columns_that_mean_nothing_are_left_out_and_said(tmp_path):
    path = own.table(tmp_path, [r | {"photographer": "me", "iso": 100} for r in own.rows(tmp_path)])
    with pytest.warns(UserWarning, match="columns that mean nothing here are left out: photographer, iso"):
        few(path, "table")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0", "no text in UTF-8 .UTF-16 or binary"),
        ("path,label\na.png,\u00e9\n".encode("utf-16"), "no text in UTF-8 .UTF-16 or binary"),
        ("path,label\na.png,\u00e9\n".encode("latin-1"), "no text in UTF-8 .*save it as CSV in UTF-8"),
        (b"", "has no column path in its first line, but nothing"),
        (b"path,label\n", "has no rows"),
        (b"path|label\na.png|x\n", r"has no column path in its first line, but 'path\|label'"),
        (b"path,label\na.png,x,y,z\nb.png,x\n", "list.csv is no table: "),
        (b'path,label\n"a.png,x\n', "list.csv is no table: "),
    ],
)
def test_tables_that_cannot_be_read(tmp_path, data, message):
    path = tmp_path / "list.csv"
    path.write_bytes(data)
    refused(message, path, "table", (ValueError, FileNotFoundError))


def test_parquet_that_cannot_be_read(tmp_path):
    path = tmp_path / "list.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    refused(r"list\.parquet is not a readable parquet file", path, "table")
    pd.DataFrame({"image": [{"bytes": b"x", "path": "a.png"}], "label": [0]}).to_parquet(path)
    refused("a cell holds dict; .* images are files", path, "table")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "[" * 100_000, "is not a split of CoOp"),
        (lambda text: text[:200], "is not a split of CoOp"),
        (
            lambda text: text.replace(', 1, "beech"', ', 0.5, "beech"', 1),
            "the label 0.5 of .* is no whole number",
        ),
        (
            lambda text: text.replace(', 1, "beech"', ', true, "beech"', 1),
            "the label True of .* is no whole number",
        ),
        (
            lambda text: text.replace(', 1, "beech"', ', 9, "beech"'),
            "must have the labels 0 to 3, got 0 to 9",
        ),
        (
            lambda text: text.replace('test0.png", 1, "beech"', 'test0.png", 1, "yew"'),
            "calls class 1 'yew' in test",
        ),
        (
            lambda text: text.replace("beech/test0.png", "beech/train0.png"),
            "beech/train0.png in train and in test",
        ),
        (
            lambda text: text.replace("beech/test0.png", "../../x.png"),
            "names '../../x.png', which is no path below",
        ),
        (lambda text: text.replace("beech/test0.png", "gone.png"), "1 of 24 images are not in .*: gone.png"),
    ],
)
def test_split_files_that_are_wrong(tmp_path, change, message):
    path = own.split_file(tmp_path)
    path.write_text(change(path.read_text()))
    refused(message, path, "table", (ValueError, FileNotFoundError))


def test_images_that_are_missing_empty_or_broken(tmp_path):
    own.divided(tmp_path)
    (tmp_path / "test/oak/0.png").write_bytes(b"")
    refused("1 images are empty files: test/oak/0.png; copy them again", tmp_path)
    (tmp_path / "test/oak/0.png").unlink()
    os.symlink("/nowhere", tmp_path / "test/oak/0.png")
    refused("1 of 36 images are not in .*: test/oak/0.png", tmp_path, error=FileNotFoundError)
    (tmp_path / "test/oak/0.png").unlink()
    (tmp_path / "test/oak/0.png").write_bytes((tmp_path / "test/oak/1.png").read_bytes()[:-200])
    test = few(tmp_path).tests["test"]
    with pytest.raises(
        ValueError, match=r"test/oak/0\.png is not a readable image .*repair it or leave it out$"
    ):
        test.image(test.ids.index("test/oak/0.png"))


def test_several_faults_are_counted(tmp_path):
    own.folders(tmp_path)
    (tmp_path / "empty").mkdir()
    own.picture(tmp_path / "Oak/0.png")
    (tmp_path / "red oak").mkdir()
    own.picture(tmp_path / "red_x/0.png")
    own.picture(tmp_path / "red x/0.png")
    refused(r"and 1 more problems: vlmlab data describe", tmp_path)


def test_json_of_another_kind(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"images": [], "annotations": []}))
    refused("x.json is not a split of CoOp .* A table of your own may be CSV or parquet", path, "table")
