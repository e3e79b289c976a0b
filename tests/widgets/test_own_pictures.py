"""Pictures and class names of one's own."""

import io
from datetime import datetime

import numpy as np
import pytest
from PIL import Image

import vlmlab
from vlmlab import widgets
from vlmlab.widgets import reading


def upload(name: str, content: bytes) -> tuple:
    """What a front end puts into a FileUpload."""
    about = {"type": "image/png", "size": len(content), "last_modified": datetime(2026, 1, 1)}
    return ({"name": name, "content": memoryview(content), **about},)


def drawn(size, colour="red") -> Image.Image:
    return Image.new("RGB", size, colour)


@pytest.fixture
def folder(tmp_path):
    for i, colour in enumerate(("red", "green", "blue")):
        drawn((80, 60), colour).save(tmp_path / f"{i}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_a_folder_and_a_list(folder):
    own = widgets.own_images(folder, ["a cat", " a dog ", ""])
    assert len(own) == 3 and own.classnames == ("a cat", "a dog")
    assert own.prompts == ["a photo of a a cat.", "a photo of a a dog."]
    both = widgets.own_images([folder / "1.png", drawn((9, 9))], ["x"], "{}")
    assert [i.split("/")[-1] for i in both.ids] == ["1.png", "picture 2"]
    assert both.image(1).size == (9, 9) and both.fingerprint() != own.fingerprint()


@pytest.mark.parametrize(
    ("what", "names", "said"),
    [("nowhere.png", ["a"], "no file or folder"), (".", [], "no class names"), ([], ["a"], "no picture")],
)
def test_what_is_missing(what, names, said):
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        widgets.own_images(what, names)


def test_they_join_an_explorer(both, folder):
    both.own.path.value, both.own.names.value = str(folder), "a red square, a green square, a blue square"
    both.own.go.click()
    assert both.message.value == ""
    own = both.rows[both.rows["test"] == "own"]
    assert len(own) == 3 and both.state()["test"] == "own"
    assert set(own["predicted CLIP"]) <= {"a red square", "a green square", "a blue square"}
    assert own["probability CLIP"].between(1 / 3, 1).all()
    assert own["right CLIP"].isna().all() and "class unknown" in both.gallery.told.value
    assert "own" in both.gallery.filters["test"].options


def test_reading_them_can_be_stopped(both, folder, pressed, monkeypatch):
    monkeypatch.setattr(reading, "Watch", pressed)
    before = both.number, len(both.rows)
    both.own.path.value, both.own.names.value = str(folder), "a circle, a cross"
    both.own.go.click()
    assert "stopped" in both.message.value and (both.number, len(both.rows)) == before
    monkeypatch.undo()
    both.own.go.click()
    assert both.message.value == "" and len(both.rows) == before[1] + 3 and both.busy.children == ()


def test_uploaded_ones_too(both):
    file = io.BytesIO()
    drawn((50, 40)).save(file, "PNG")
    both.own.files.value = upload("mine.png", file.getvalue())
    both.own.go.click()
    assert both.message.value == "" and both.rows.iloc[-1]["id"] == "mine.png"
    assert both.rows.iloc[-1]["predicted CLIP"] in both.tests["base"].classnames


def test_a_damaged_one_is_named_and_nothing_is_lost(both):
    before = both.number, len(both.rows)
    both.own.files.value = upload("bad.png", b"abc")
    both.own.go.click()
    assert "bad.png is not a readable picture" in both.message.value
    assert (both.number, len(both.rows)) == before and both.own.go.description == "look"
    both.own.files.value = ()
    both.own.go.click()
    assert "choose pictures" in both.message.value


def test_a_large_picture_and_a_thousand_classes(vlm, fresh, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)
    Image.fromarray(noise).resize((4000, 3000)).save(tmp_path / "large.jpg")
    own = widgets.own_images([tmp_path / "large.jpg", drawn((10, 4000))], [f"thing {i}" for i in range(1000)])
    ui = vlmlab.explore(vlm, own)
    assert ui.message.value == "" and len(ui.rows) == 2
    ui.choose(1)
    assert ui.message.value == ""
    assert ui.slots[1].drawing is not None  # the likeliest of a thousand, by block
    ui.slots[0].chooser.value = "map of the images"
    assert "needs 4 or more" in ui.slots[0].why.value


def test_what_is_drawn_is_what_the_model_sees(vlm, fresh):
    wide = Image.new("RGB", (400, 100), "blue")
    wide.paste("yellow", (150, 0, 250, 100))
    ui = vlmlab.explore(vlm, widgets.own_images(wide, ["a", "b"]))
    seen = next(iter(ui.seen().values()))
    assert seen.shape == (64, 64, 3) and (seen[32, 32] > 200)[:2].all() and seen[32, 32, 2] < 60
