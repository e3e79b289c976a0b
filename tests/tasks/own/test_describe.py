"""`vlmlab data describe`: what is in images of one's own, and what is wrong with them."""

import json
import shutil

import numpy as np
import own_data as own
from PIL import Image

from vlmlab.cli import main
from vlmlab.tasks.own.describe import describe


def spoiled(root):
    """Train and test folders with one image of every kind that a user may not expect."""
    own.divided(root)
    shutil.copy(root / "train/elm/0.png", root / "test/oak/copy.png")
    shutil.copy(root / "test/oak/0.png", root / "test/oak/double.png")
    path = root / "test/elm/0.png"
    path.write_bytes(path.read_bytes()[:-40])
    (root / "test/elm/1.png").write_bytes(b"<html>")
    exif = Image.Exif()
    exif[0x0112] = 8
    own.picture(root / "test/elm/turned.jpg", exif=exif)
    Image.fromarray(np.arange(4000, dtype=np.uint16).reshape(40, 100)).save(root / "test/elm/deep.tif")
    own.picture(root / "test/elm/grey.jpg", mode="L")
    Image.new("RGBA", (12, 10), (200, 2, 3, 4)).save(root / "test/elm/clear.webp", lossless=True)
    frames = [Image.new("RGB", (3, 2), colour) for colour in ("red", "blue")]
    frames[0].save(root / "test/elm/moving.gif", save_all=True, append_images=frames[1:])
    return root


def test_everything_is_found(tmp_path):
    found = describe(str(spoiled(tmp_path)))
    assert found["layout"] == "train, val, test folders with a folder per class"
    assert found["images"] == 43 and found["parts"] == {"train": 16, "val": 8, "test": 19}
    assert found["classes"]["elm"] == {"train": 4, "val": 2, "test": 8}
    assert found["protocols"] == ["zero_shot", "few_shot", "base_to_new"] and not found["problems"]
    assert found["sizes"] == {"smallest": (3, 2), "median": (12, 10), "largest": (100, 40)}
    assert found["marks"].pop("grey") == ["test/elm/deep.tif", "test/elm/grey.jpg"]
    assert {mark: images for mark, images in found["marks"].items()} == {
        "rotated": ["test/elm/turned.jpg"],
        "16-bit": ["test/elm/deep.tif"],
        "transparent": ["test/elm/clear.webp"],
        "frames": ["test/elm/moving.gif"],
    }
    assert [*found["broken"]] == ["test/elm/0.png", "test/elm/1.png"]
    assert found["doubles"] == [
        ["train/elm/0.png", "test/oak/copy.png"],
        ["test/oak/0.png", "test/oak/double.png"],
    ]
    assert found["leaked"] == found["contradictions"] == [["train/elm/0.png", "test/oak/copy.png"]]


def test_as_text_and_as_json(tmp_path, capsys):
    spoiled(tmp_path)
    assert main(["data", "describe", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    for said in (
        "43 images (16 train, 8 val, 19 test), 4 classes",
        "elm            4 train, 2 val, 8 test",
        "pixels: smallest 3 x 2, median 12 x 10, largest 100 x 40; 36 PNG, ",
        "test/elm/1.png (no picture of a known format)",
        "2 cannot be read: test/elm/0.png (",
        "1 are turned by their EXIF orientation: test/elm/turned.jpg",
        "1 images are in test and elsewhere, which makes the test too easy: train/elm/0.png = test/oak/copy.png",
        f"as a task: folder:{tmp_path}",
    ):
        assert said in text, text
    assert main(["data", "describe", f"folder:{tmp_path}", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["leaked"] == [["train/elm/0.png", "test/oak/copy.png"]]


def test_what_is_sound_and_what_makes_no_task(tmp_path, capsys):
    own.folders(tmp_path / "trees")
    assert main(["data", "describe", "trees", "--root", str(tmp_path)]) == 0
    assert "40 images (20 train, 8 val, 12 test)" in capsys.readouterr().out
    own.picture(tmp_path / "trees/yew/0.png")
    (tmp_path / "trees/empty").mkdir()
    assert main(["data", "describe", str(tmp_path / "trees")]) == 1
    text = capsys.readouterr().out
    assert "problem: " in text and "1 class folders hold no image: empty" in text
    assert "the class 'yew' has one image" in text and "serves" not in text


def test_tables_are_described_too(tmp_path, capsys):
    path = own.table(tmp_path, [r | {"text": "a tree"} for r in own.rows(tmp_path)])
    found = describe(str(path))
    assert found["texts"] == 16 and found["protocols"] == [
        "zero_shot",
        "few_shot",
        "base_to_new",
        "retrieval",
    ]
    rows = [{"path": r["path"], "label": r["label"]} for r in own.rows(tmp_path)]
    path = own.table(tmp_path, [*rows, {"path": "gone.png", "label": "elm"}])
    assert main(["data", "describe", str(path)]) == 1
    text = capsys.readouterr().out
    assert "1 of 17 images are not in" in text and "1 cannot be read: gone.png (it is not there)" in text


def test_what_cannot_be_asked(tmp_path, capsys):
    own.folders(tmp_path / "trees", 2)
    for arguments, said in (
        (["describe"], "needs the folder or the table"),
        (["describe", str(tmp_path / "tree")], "did you mean"),
        (["check", "trees"], "data check takes no path"),
    ):
        assert main(["data", *arguments]) == 2
        assert said in capsys.readouterr().err
