"""Photographs as a shift of drawings: read from where they are installed, or said to be missing."""

import numpy as np
import pytest
from PIL import Image

import vlmlab
from vlmlab.tasks.emoji import stamps
from vlmlab.tasks.emoji import tasks as emoji_tasks


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A folder laid out as the package's: two birds (one with a wide empty border), a fruit, a drawing, an egg."""
    for name, colour in (
        ("animals/birds/crow", "black"),
        ("animals/birds/owl", "white"),
        ("animals/birds/albino_peahen_egg", "white"),
        ("animals/birds/cartoon/duck", "yellow"),
        ("animals/insects/bee", "yellow"),
        ("food/fruit/lemon", "yellow"),
    ):
        image = Image.new("RGBA", (200, 100))
        image.paste(colour, (150, 20, 190, 80))
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    monkeypatch.setenv("VLMLAB_STAMPS", str(tmp_path))
    caches = (stamps.table, stamps.paths, stamps.rgba, emoji_tasks.dataset)
    for cache in caches:
        cache.cache_clear()
    yield tmp_path
    for cache in caches:
        cache.cache_clear()


def test_photographs_are_a_shift_of_the_drawings(installed):
    task = vlmlab.task("photos/animals", protocol="domain_shift", shots=2)
    trained = vlmlab.task("drawings/animals", protocol="domain_shift", shots=2)
    assert task.training_fingerprint() == trained.training_fingerprint()  # one run serves both
    assert list(task.tests) == ["photos/animals", "photo"]
    photo = task.tests["photo"]
    assert {photo.concept(i) for i in photo.ids} == {
        "animals.birds.crow",
        "animals.birds.owl",
        "animals.insects.bee",
    }
    assert len(photo) == 6  # each on two grounds
    named = {photo.concept(i): photo.classnames[label] for i, label in zip(photo.ids, photo.labels)}
    assert named["animals.birds.crow"] == "bird" and named["animals.insects.bee"] == "bug"
    assert "photos/food" in vlmlab.tasks.names()


def test_what_a_photograph_shows_fills_the_picture(installed):
    picture = stamps.rgba("animals.birds.crow")
    assert picture.shape == (64, 64, 4)
    rows, columns = (np.flatnonzero(picture[..., 3].max(axis=a)) for a in (1, 0))
    assert (rows[0], rows[-1]) == (2, 61) and (columns[0], columns[-1]) == (12, 51)  # 40 x 60 of the file


def test_the_bytes_of_the_file_are_the_content(installed):
    before = vlmlab.task("photos/animals", protocol="domain_shift", shots=2).test_fingerprints()
    Image.new("RGBA", (20, 20), "red").save(installed / "animals/birds/crow.png")
    after = vlmlab.task("photos/animals", protocol="domain_shift", shots=2).test_fingerprints()
    assert {name for name in before if before[name] != after[name]} == {"photo"}


def test_a_damaged_photograph_is_named(installed):
    (installed / "animals/birds/crow.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"crow\.png is no picture that can be read"):
        stamps.rgba("animals.birds.crow")
    with pytest.raises(ValueError, match=r"no photograph .animals\.birds\.dodo"):
        stamps.content("animals.birds.dodo")


def test_without_the_package_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("VLMLAB_STAMPS", str(tmp_path / "none"))
    assert "photos/animals" not in vlmlab.tasks.names()
    with pytest.raises(ValueError, match=r"photos/animals needs .* `apt install tuxpaint-stamps-default`"):
        vlmlab.task("photos/animals")
