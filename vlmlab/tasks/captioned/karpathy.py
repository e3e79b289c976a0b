"""COCO and Flickr30K in Karpathy's division (Karpathy and Fei-Fei 2015): the lists that people have, and the leak guard."""

import dataclasses
import re
from pathlib import Path

from ..split_files import PARTS, leads_out
from .files import BlipImage, CocoCaptions, Karpathy, coco_places, decoded

PART_OF = {"train": "train", "restval": "train", "val": "val", "test": "test"}
LISTS = "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip"
IMAGES = {
    "coco": "https://cocodataset.org/#download (2014 or 2017 images, below coco/)",
    "flickr30k": "https://shannon.cs.illinois.edu/DenotationGraph (below flickr30k/flickr30k-images/)",
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """An image of a list. key: what it is, whatever it is called: COCO's number, or a file name. places: paths below the
    root where it may lie. source: the file that lists it."""

    key: str
    part: str
    places: tuple[str, ...]
    texts: tuple[str, ...]
    source: Path


def entries(name: str, root: Path) -> list[Entry]:
    """All images of coco or flickr30k, of the first list that is there. Raises FileNotFoundError, ValueError."""
    folder = root / name
    if (path := folder / f"dataset_{name}.json").exists():
        read = from_karpathy(path, name)
    elif name == "coco" and (paths := [*filter(Path.exists, blip_files(folder))]):
        read = [entry for path in paths for entry in from_blip(path)]
    elif name == "coco" and (path := folder / "coco_test_karpathy.json").exists():
        read = from_benchmark(path)
    elif name == "flickr30k" and (path := folder / "flickr30k_test_karpathy.txt").exists():
        read = from_text(path)
    else:
        others = {
            "coco": "coco_karpathy_test.json, coco_test_karpathy.json",
            "flickr30k": "flickr30k_test_karpathy.txt",
        }
        raise FileNotFoundError(
            f"{folder} has no list of captions; get dataset_{name}.json from {LISTS} (or one of {others[name]})"
        )
    guard(read)
    return read


def from_karpathy(path: Path, name: str) -> list[Entry]:
    """Karpathy's own file. Its restval, the rest of COCO's val2014, is trained on."""
    read = []
    for i, image in enumerate(decoded(path, Karpathy, LISTS).images):
        if image.split not in PART_OF:
            raise ValueError(
                f"{path}: images[{i}].split is {image.split!r}; it may be {', '.join(PART_OF)}. Get it again from {LISTS}"
            )
        if name == "coco" and image.cocoid is None:
            raise ValueError(f"{path}: images[{i}] has no field cocoid; get it again from {LISTS}")
        below = (
            f"{image.filepath}/{image.filename}" if name == "coco" else f"flickr30k-images/{image.filename}"
        )
        places = [f"{name}/{below}", *(coco_places(image.cocoid) if name == "coco" else ())]
        texts = tuple(s.raw for s in image.sentences)
        key = str(image.cocoid if name == "coco" else image.filename)
        read.append(checked(Entry(key, PART_OF[image.split], tuple(places), texts, path), f"images[{i}]"))
    return read


def blip_files(folder: Path) -> list[Path]:
    return [folder / f"coco_karpathy_{part}.json" for part in PARTS]


def from_blip(path: Path) -> list[Entry]:
    """One of BLIP's three files; rows of the same image are its captions."""
    part, texts = path.stem.rpartition("_")[2], {}
    for i, row in enumerate(decoded(path, list[BlipImage], "https://github.com/salesforce/BLIP")):
        if not re.search(r"\d{12}\.jpg$", row.image):
            raise ValueError(
                f"{path}: [{i}].image is {row.image!r}; expected 'val2014/COCO_val2014_000000391895.jpg'"
            )
        said = [row.caption] if isinstance(row.caption, str) else row.caption
        texts.setdefault(row.image, []).extend(said)
    read = []
    for image, said in texts.items():
        number = int(image[-16:-4])
        entry = Entry(str(number), part, (f"coco/{image}", *coco_places(number)), tuple(said), path)
        read.append(checked(entry, f"the image {image}"))
    return read


def from_benchmark(path: Path) -> list[Entry]:
    """CLIP_benchmark's file of the test images, in the form of COCO's captions."""
    lists = decoded(path, CocoCaptions, "https://github.com/mehdidc/retrieval_annotations")
    texts: dict[int, list[str]] = {image.id: [] for image in lists.images}
    for i, one in enumerate(lists.annotations):
        if one.image_id not in texts:
            raise ValueError(f"{path}: annotations[{i}].image_id is {one.image_id}, which is no id in images")
        texts[one.image_id].append(one.caption)
    read = []
    for i, image in enumerate(lists.images):
        places = (f"coco/val2014/{image.file_name}", f"coco/{image.file_name}", *coco_places(image.id))
        read.append(
            checked(Entry(str(image.id), "test", places, tuple(texts[image.id]), path), f"images[{i}]")
        )
    return read


def from_text(path: Path) -> list[Entry]:
    """CLIP_benchmark's file of the test images: a header, then 'x.jpg,caption', where captions have commas."""
    try:
        rows = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as e:
        raise ValueError(f"{path} is no text in UTF-8 ({e}); get it again") from None
    texts: dict[str, list[str]] = {}
    for i, line in enumerate(rows[1:], start=2):
        image, comma, caption = line.partition(",")
        if line.strip() and not (comma and image.strip().endswith(".jpg")):
            raise ValueError(f"{path}: line {i} is {line[:60]!r}; expected 'x.jpg,caption' below a header")
        if line.strip():
            texts.setdefault(image.strip(), []).append(caption.strip().strip('"'))
    read = (
        Entry(image, "test", (f"flickr30k/flickr30k-images/{image}",), tuple(said), path)
        for image, said in texts.items()
    )
    return [checked(entry, f"the image {entry.key}") for entry in read]


def checked(entry: Entry, field: str) -> Entry:
    """ValueError for an image without captions or a name that is a path elsewhere."""
    if not any(text.strip() for text in entry.texts):
        raise ValueError(f"{entry.source}: {field} has no caption")
    if leads_out(entry.places[0]):
        raise ValueError(
            f"{entry.source}: {field} names {entry.places[0]!r}, which is no path below its folder"
        )
    return entry


def guard(read: list[Entry]) -> None:
    """ValueError where an image is listed twice, above all to train and to test on.

    Images of COCO are compared by their number: train2017 holds most images of Karpathy's test under other names.
    """
    first: dict[str, Entry] = {}
    for entry in read:
        other = first.setdefault(entry.key, entry)
        if other is entry:
            continue
        files = " and ".join(dict.fromkeys(str(e.source) for e in (other, entry)))
        if other.part == entry.part:
            raise ValueError(f"{files}: the image {entry.key} is listed twice in {entry.part}; remove one")
        raise ValueError(
            f"{files}: the image {entry.key} is in {other.part} and in {entry.part}. Train on Karpathy's train and restval, "
            "which share no image with val and test; train2014 and val2014 do, and train2017 does"
        )
