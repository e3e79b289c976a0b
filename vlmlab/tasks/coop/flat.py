"""ImageNet as others than CoOp lay it out: without `images/`, without classnames.txt, with a val that has no folders."""

import csv
import dataclasses
from pathlib import Path

from .layouts import Layout
from .regenerate import is_image, lines

MAPPINGS = ("LOC_val_solution.csv", "val.txt")  # Kaggle's, and 'ILSVRC2012_val_00000001.JPEG 65' as Caffe's


def laid_out(layout: Layout, root: Path) -> Layout:
    """The layout whose train and val lie directly in its folder, where they do."""
    folder = root / layout.folder
    direct = [sub for _, sub in layout.parts if sub and (folder / sub).is_dir()]
    if layout.kind == "folders" and direct and not (folder / layout.images).is_dir():
        return dataclasses.replace(layout, images="")
    return layout


def usual_names(layout: Layout, root: Path) -> dict[str, str]:
    """WordNet id -> class name in CLIP's list, where classnames.txt is missing and all 1,000 class folders are there;
    else nothing."""
    layout = laid_out(layout, root)
    for _, sub in layout.parts if layout.id == "imagenet" else ():
        folder = root / layout.folder / layout.images / sub
        wnids = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
        if not wnids and (path := folder_of_mapping(folder) / MAPPINGS[0]).is_file():
            wnids = sorted({wnid for wnid in solution(path).values()})
        if len(wnids) == 1000:
            from open_clip import IMAGENET_CLASSNAMES

            return dict(zip(wnids, IMAGENET_CLASSNAMES, strict=True))
    return {}


def folder_of_mapping(folder: Path) -> Path:
    """Where a mapping of a val folder lies: in it or beside it, or above `images/`."""
    places = (folder, folder.parent, folder.parent.parent)
    return next((p for p in places for name in MAPPINGS if (p / name).is_file()), folder)


def is_flat(folder: Path) -> bool:
    """Whether a folder holds images, no folder of a class, and there is a mapping."""
    if not folder.is_dir() or not any((folder_of_mapping(folder) / name).is_file() for name in MAPPINGS):
        return False
    return not any(p.is_dir() for p in folder.iterdir())


def solution(path: Path) -> dict[str, str]:
    """Image (without ending) -> WordNet id, of Kaggle's ImageId,PredictionString. ValueError names a line that is none."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    for number, row in enumerate(rows, start=2):
        if len(row) != 2 or not row[1].startswith("n"):
            raise ValueError(
                f"{path}: line {number} is {','.join(row)[:60]!r}; expected 'ILSVRC2012_val_00000001,n01751748 1 2 3 4'"
            )
    return {image: boxes.split()[0] for image, boxes in rows}


def flat_images(root: Path, prefix: str, wnids: list[str]) -> tuple[list[str], list[int]]:
    """Paths below the root and labels of the images of a val without folders, class by class.

    wnids: of the classes, sorted: the order in which val.txt counts them. (The ground truth of the devkit counts them in
    another order, and is not read.) ValueError for an image that the mapping lacks, or a class that is none.
    """
    folder = root / prefix
    place = folder_of_mapping(folder)
    path = next(place / name for name in MAPPINGS if (place / name).is_file())
    if path.name == MAPPINGS[0]:
        of = solution(path)
        label = {wnid: i for i, wnid in enumerate(wnids)}
        if unknown := [wnid for wnid in of.values() if wnid not in label]:
            raise ValueError(f"{path} names {unknown[0]}, which is none of the {len(wnids)} classes")
        labels = {image: label[wnid] for image, wnid in of.items()}
    else:
        pairs = [line.rsplit(" ", 1) for line in lines(path)]
        if odd := [p for p in pairs if len(p) != 2 or not p[1].isdecimal() or int(p[1]) >= len(wnids)]:
            raise ValueError(
                f"{path} has the line {' '.join(odd[0])!r}; expected an image and a number below {len(wnids)}"
            )
        labels = {Path(image).stem: int(number) for image, number in pairs}
    found = sorted(filter(is_image, (p.name for p in folder.iterdir())))
    if missing := [name for name in found if Path(name).stem not in labels]:
        raise ValueError(
            f"{path} has no class for {missing[0]}, one of {len(missing):,} such images in {folder}"
        )
    rows = sorted((labels[Path(name).stem], name) for name in found)
    return [f"{prefix}/{name}" for _, name in rows], [label for label, _ in rows]
