"""A copy of the embedded data that a test may damage."""

from pathlib import Path

import pytest

from vlmlab.tasks.emoji import captions, paired, scenes
from vlmlab.tasks.emoji import data as emoji
from vlmlab.tasks.emoji import pictures as emoji_pictures
from vlmlab.tasks.emoji import tasks as emoji_tasks

DATA = Path(__file__).parents[2] / "data/emoji"


def forget():
    """Empty every cache, so that the data is read again."""
    for module in (captions, emoji, emoji_pictures, emoji_tasks, paired, scenes):
        for thing in vars(module).values():
            if hasattr(thing, "cache_clear"):
                thing.cache_clear()


@pytest.fixture
def data_copy(tmp_path, monkeypatch):
    """tmp_path/emoji, where VLMLAB_DATA now points: links to the real files, to be replaced at will."""
    folder = tmp_path / "emoji"
    folder.mkdir()
    for path in [*DATA.glob("*.parquet"), *DATA.glob("*.csv")]:
        (folder / path.name).symlink_to(path)
    (tmp_path / "drawings").symlink_to(DATA.parent / "drawings")
    monkeypatch.setenv("VLMLAB_DATA", str(tmp_path))
    forget()
    yield folder
    forget()
