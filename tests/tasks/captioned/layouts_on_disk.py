"""Miniatures of COCO, Flickr30K, CC3M and VQAv2 in the exact layouts in which people have them."""

import io
import json
import tarfile

from PIL import Image


def picture(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (10, 8), (shade, 0, 0)).save(path)


def put(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def karpathy_image(number, split, folder, captions=5):
    """An entry as in dataset_coco.json, with all the fields that it has there."""
    sentences = [
        {
            "tokens": ["a", str(k)],
            "raw": f"Caption {k} of\u00e9 {number}, here. ",
            "imgid": number,
            "sentid": 10 * number + k,
        }
        for k in range(captions)
    ]
    return {
        "filepath": folder,
        "sentids": [s["sentid"] for s in sentences],
        "filename": f"COCO_{folder}_{number:012}.jpg",
        "imgid": number,
        "split": split,
        "sentences": sentences,
        "cocoid": number,
    }


SPLITS = {1: "train", 2: "restval", 3: "val", **dict.fromkeys(range(4, 9), "test")}


def folder_of(number):
    return "train2014" if number == 1 else "val2014"


def karpathy():
    images = [karpathy_image(n, split, folder_of(n), 7 if n == 5 else 5) for n, split in SPLITS.items()]
    return {"images": images, "dataset": "coco"}


def coco(root, year=2014):
    """coco/{train,val}2014 (or all of 2017's names in train2017) and dataset_coco.json."""
    put(root / "coco/dataset_coco.json", karpathy())
    for n in SPLITS:
        name = f"{folder_of(n)}/COCO_{folder_of(n)}_{n:012}.jpg" if year == 2014 else f"train2017/{n:012}.jpg"
        picture(root / "coco" / name, 20 * n)


def blip(root):
    """BLIP's files instead: a row per caption in train, a row per image in val and test."""
    (root / "coco/dataset_coco.json").unlink()
    for part, numbers in (("train", (1, 2)), ("val", (3,)), ("test", (4, 5))):
        rows = []
        for n in numbers:
            image = f"{folder_of(n)}/COCO_{folder_of(n)}_{n:012}.jpg"
            texts = [f"text {k} of {n}" for k in range(5)]
            rows += (
                [{"image": image, "caption": t, "image_id": f"coco_{n}"} for t in texts]
                if part == "train"
                else [{"image": image, "caption": texts}]
            )
        put(root / f"coco/coco_karpathy_{part}.json", rows)


def benchmark(root):
    """CLIP_benchmark's coco_test_karpathy.json instead."""
    (root / "coco/dataset_coco.json").unlink()
    images = [{"id": n, "file_name": f"COCO_val2014_{n:012}.jpg", "height": 8, "license": 3} for n in (4, 5)]
    captions = [
        {"image_id": n, "id": 10 * n + k, "caption": f"text {k} of {n}"} for k in range(5) for n in (5, 4)
    ]
    put(root / "coco/coco_test_karpathy.json", {"info": {}, "images": images, "annotations": captions})


def flickr(root):
    images = [
        {
            "sentids": [5 * n + k for k in range(5)],
            "imgid": n,
            "sentences": [
                {"tokens": [], "raw": f"Text {k}, of {n} .", "imgid": n, "sentid": 5 * n + k}
                for k in range(5)
            ],
            "split": split,
            "filename": f"{n}00092795.jpg",
        }
        for n, split in ((1, "train"), (2, "train"), (3, "val"), (4, "test"))
    ]
    put(root / "flickr30k/dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})
    for n in range(1, 5):
        picture(root / f"flickr30k/flickr30k-images/{n}00092795.jpg", 20 * n)


def flickr_text(root):
    flickr(root)
    (root / "flickr30k/dataset_flickr30k.json").unlink()
    lines = [
        "image,caption",
        *(f"400092795.jpg,Text {k}, of 4 ." for k in range(5)),
        "300092795.jpg,One, two .",
    ]
    put(root / "flickr30k/flickr30k_test_karpathy.txt", "\n".join(lines) + "\n")


def cc3m_table(root, n=120):
    """A table as open_clip's --csv reads with --csv-separator tab, its default."""
    rows = [f"images/{i}.jpg\ta photo, of {i}" for i in range(n)]
    put(root / "cc3m/train.tsv", "\n".join(["filepath\ttitle", *rows]) + "\n")
    for i in range(n):
        picture(root / f"cc3m/images/{i}.jpg", i)


def shard(path, keys, text="txt"):
    """A shard of img2dataset: jpg, json and, by default, txt of each key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for key in keys:
            jpg = io.BytesIO()
            Image.new("RGB", (10, 8), (key % 256, 0, 0)).save(jpg, "JPEG")
            told = {"caption": f"caption {key}", "key": f"{key:09}", "status": "success", "width": 10}
            members = {"jpg": jpg.getvalue(), "json": json.dumps(told).encode()}
            members |= {"txt": f"caption {key}".encode()} if text == "txt" else {}
            for ending, data in members.items():
                info = tarfile.TarInfo(f"{key:09}.{ending}")
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))


def vqav2(root):
    """Questions and answers on images of coco/train2014 and coco/val2014."""
    for year, numbers in (("train2014", (1, 9)), ("val2014", (2, 3))):
        questions, annotations = [], []
        for n in numbers:
            picture(root / f"coco/{year}/COCO_{year}_{n:012}.jpg", 20 * n)
            for k, (kind, answers) in enumerate(
                (("yes/no", ["yes"] * 9 + ["no"]), ("number", ["2"] * 7 + ["3"] * 3), ("other", ["red"] * 10))
            ):
                id = 1000 * n + k
                questions.append({"image_id": n, "question": f"Question {k} on {n}?", "question_id": id})
                annotations.append(
                    {
                        "question_type": "what",
                        "multiple_choice_answer": answers[0],
                        "answers": [
                            {"answer": a, "answer_confidence": "yes", "answer_id": i + 1}
                            for i, a in enumerate(answers)
                        ],
                        "image_id": n,
                        "answer_type": kind,
                        "question_id": id,
                    }
                )
        head = {"info": {}, "data_type": "mscoco", "data_subtype": year, "license": {}}
        put(root / f"vqav2/v2_OpenEnded_mscoco_{year}_questions.json", {**head, "questions": questions})
        put(root / f"vqav2/v2_mscoco_{year}_annotations.json", {**head, "annotations": annotations[::-1]})
