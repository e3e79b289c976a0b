"""What is in the lists of the data sets of images and texts, and how a picture of them is found."""

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")


class Sentence(msgspec.Struct):
    raw: str


class KarpathyImage(msgspec.Struct):
    """Of dataset_coco.json and dataset_flickr30k.json."""

    filename: str
    split: str
    sentences: list[Sentence]
    filepath: str = ""
    cocoid: int | None = None


class Karpathy(msgspec.Struct):
    images: list[KarpathyImage]


class BlipImage(msgspec.Struct):
    """Of coco_karpathy_{train,val,test}.json: a row per image, or per caption."""

    image: str
    caption: str | list[str]


class CocoImage(msgspec.Struct):
    id: int
    file_name: str


class CocoCaption(msgspec.Struct):
    image_id: int
    caption: str


class CocoCaptions(msgspec.Struct):
    """Of captions_val2014.json and of CLIP_benchmark's coco_test_karpathy.json."""

    images: list[CocoImage]
    annotations: list[CocoCaption]


class VqaQuestion(msgspec.Struct):
    image_id: int
    question_id: int
    question: str


class VqaQuestions(msgspec.Struct):
    questions: list[VqaQuestion]


class VqaAnswer(msgspec.Struct):
    answer: str


class VqaAnnotation(msgspec.Struct):
    question_id: int
    image_id: int
    answer_type: str
    answers: list[VqaAnswer]


class VqaAnnotations(msgspec.Struct):
    annotations: list[VqaAnnotation]


def decoded(path: Path, kind: type[T], where: str) -> T:
    """A JSON file as its type. FileNotFoundError says where to get it; ValueError names the file and the field."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; get it from {where}") from None
    except msgspec.ValidationError as e:
        raise ValueError(f"{path}: {lowered(e)}; get it again from {where}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise ValueError(f"{path} is no JSON ({e}); get it again from {where}") from None


def lowered(error: Exception) -> str:
    text = str(error)
    return text[:1].lower() + text[1:]


@functools.lru_cache(maxsize=64)
def _listed(folder: Path, changed: int) -> frozenset[str]:
    return frozenset(os.listdir(folder))


def listed(folder: Path) -> frozenset[str]:
    """Names in a folder, none where there is no folder; listed again once it changes."""
    try:
        return _listed(folder, folder.stat().st_mtime_ns)
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()


def found(root: Path, places: Iterable[Sequence[str]], what: str, where: str) -> list[str]:
    """Of each image the first of its possible paths below the root that is there.

    FileNotFoundError says how many are missing, where the first was looked for, and where to get them.
    """
    chosen, gone = [], []
    there: Callable = functools.cache(lambda folder: listed(root / folder))
    for paths in places:
        at = next((p for p in paths if p.rpartition("/")[2] in there(p.rpartition("/")[0])), None)
        chosen.append(at)
        if at is None:
            gone.append(paths)
    if gone:
        raise FileNotFoundError(
            f"{len(gone):,} of {len(chosen):,} images of {what} are missing, the first is {root / gone[0][0]}"
            f"{''.join(f' (or {p})' for p in gone[0][1:])}; get them from {where}"
        )
    return chosen


def coco_places(id: int, *folders: str) -> list[str]:
    """Where an image of COCO may lie: under the folders named, by the names of 2014, or in those of 2017."""
    return [
        *(f"coco/{folder}/COCO_{folder}_{id:012}.jpg" for folder in folders),
        *(f"coco/{folder}/{id:012}.jpg" for folder in ("train2017", "val2017")),
    ]
