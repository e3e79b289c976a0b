"""Images of a user: small noise pictures in folders, tables and split files."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

NAMES = ("Norway_spruce", "beech", "elm", "oak")


def picture(path: Path, seed: int = 0, mode: str = "RGB", **options) -> Path:
    """A picture of 12 x 10 pixels that differs with its path and seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, *str(path).encode()])
    pixels = Image.fromarray(rng.integers(0, 256, (10, 12, 3), dtype=np.uint8))
    pixels.convert(mode).save(path, **options)
    return path


def folders(root: Path, each: int = 10, names=NAMES, ending: str = ".png") -> Path:
    """A folder per class."""
    for name in names:
        for i in range(each):
            picture(root / name / f"{i}{ending}")
    return root


def divided(root: Path, parts=(("train", 4), ("val", 2), ("test", 3)), names=NAMES) -> Path:
    """Folders of parts, with a folder per class each."""
    for part, each in parts:
        folders(root / part, each, names)
    return root


def rows(root: Path, each: int = 4, names=NAMES) -> list[dict]:
    """Rows (path, label) of pictures that lie in `root`."""
    found = []
    for name in names:
        for i in range(each):
            picture(root / f"{name}{i}.png")
            found.append({"path": f"{name}{i}.png", "label": name})
    return found


def table(root: Path, rows: list[dict], name: str = "list.csv", **options) -> Path:
    """A table of rows, CSV or parquet by its ending."""
    root.mkdir(parents=True, exist_ok=True)
    frame, path = pd.DataFrame(rows), root / name
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, **{"index": False, **options})
    return path


def split_file(root: Path, name: str = "split_zhou_Trees.json") -> Path:
    """A split file as CoOp's; images lie in images/."""
    parts = {"train": [], "val": [], "test": []}
    for label, classname in enumerate(NAMES):
        for part, each in (("train", 3), ("val", 1), ("test", 2)):
            for i in range(each):
                picture(root / f"images/{classname}/{part}{i}.png")
                parts[part].append([f"{classname}/{part}{i}.png", label, classname])
    (root / name).write_text(json.dumps(parts))
    return root / name
