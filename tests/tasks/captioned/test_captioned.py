"""COCO, Flickr30K, CC3M and VQAv2 as people have them: what is read, and what is said where something is wrong."""

import json

import layouts_on_disk as disk
import pytest

import vlmlab

pytestmark = pytest.mark.filterwarnings("ignore:.*published are")


def load(id, root, **options):
    return vlmlab.task(id, protocol="vqa" if id == "vqav2" else "retrieval", root=root, **options)


@pytest.mark.parametrize("year", [2014, 2017])
def test_coco(tmp_path, year):
    disk.coco(tmp_path, year)
    task = load("coco", tmp_path)
    train, val, test = task.train, task.val, task.tests["test"]
    assert (len(train), len(val), len(test)) == (2, 1, 5)
    folder = "val2014/COCO_val2014_" if year == 2014 else "train2017/"
    assert train.ids[1] == f"coco/{folder}000000000002.jpg"
    assert len(test.texts) == 25 and test.image_of.tolist() == [i for i in range(5) for _ in range(5)]
    assert test.texts[5] == "Caption 0 of\u00e9 5, here." and test.image(1).size == (10, 8)
    assert test.image(1).getpixel((0, 0))[0] == pytest.approx(100, abs=8)
    assert train.provenance == "changed" and task.fingerprint() == load("coco", tmp_path).fingerprint()


def test_coco_in_five_folds(tmp_path):
    disk.coco(tmp_path)
    task = load("coco-1k", tmp_path)
    assert [*task.tests] == ["test", *(f"fold {k}" for k in range(1, 6))]
    assert [task.tests[f"fold {k}"].ids for k in (1, 5)] == [[task.tests["test"].ids[i]] for i in (0, 4)]
    rows = [{"split": f"fold {k}", "metric": "i2t R@1", "value": 10.0 * k, "n": 1} for k in range(1, 6)]
    (found,) = task.summary(rows)
    assert (found["split"], found["metric"], found["value"], found["n"]) == ("1K", "i2t R@1", 30.0, 5)
    assert not task.summary(rows[:4])


@pytest.mark.parametrize(("make", "parts"), [(disk.blip, (2, 1, 2)), (disk.benchmark, (0, None, 2))])
def test_other_lists_of_coco(tmp_path, make, parts):
    disk.coco(tmp_path)
    make(tmp_path)
    task = load("coco", tmp_path)
    assert (len(task.train), task.val and len(task.val), len(task.tests["test"])) == parts
    test = task.tests["test"]
    assert test.ids[1] == "coco/val2014/COCO_val2014_000000000005.jpg" and test.texts[5:7] == (
        "text 0 of 5",
        "text 1 of 5",
    )


def test_flickr30k(tmp_path):
    disk.flickr(tmp_path)
    task = load("flickr30k", tmp_path)
    assert (len(task.train), len(task.val), len(task.tests["test"])) == (2, 1, 1)
    assert task.tests["test"].ids == ["flickr30k/flickr30k-images/400092795.jpg"]
    assert task.tests["test"].texts[1] == "Text 1, of 4 ."


def test_flickr30k_as_text_with_commas(tmp_path):
    disk.flickr_text(tmp_path)
    test = load("flickr30k", tmp_path).tests["test"]
    assert test.texts == (*(f"Text {k}, of 4 ." for k in range(5)), "One, two .") and test.image_of[-1] == 1


def test_cc3m_as_a_table(tmp_path):
    disk.cc3m_table(tmp_path)
    task = load("cc3m", tmp_path)
    test = task.tests["test"]
    assert (len(task.train), len(test), test.provenance) == (119, 1, "drawn") and not set(
        task.train.ids
    ) & set(test.ids)
    assert task.train.ids[0] == "cc3m/images/0.jpg" and task.train.texts[0] == "a photo, of 0"
    disk.put(
        tmp_path / "cc3m/val.csv", f"title,filepath\n'a, b',{tmp_path}/cc3m/images/3.jpg\n".replace("'", '"')
    )
    task = load("cc3m", tmp_path)
    assert len(task.train) == 120 and task.tests["test"].ids == ["cc3m/images/3.jpg"]
    assert task.tests["test"].texts == ("a, b",) and task.tests["test"].image(0).size == (10, 8)


@pytest.mark.parametrize("text", ["txt", "json"])
def test_cc3m_as_shards(tmp_path, text):
    disk.shard(tmp_path / "cc3m/00000.tar", range(3), text)
    disk.shard(tmp_path / "cc3m/00001.tar", range(200, 202), text)
    disk.shard(tmp_path / "cc3m/cc3m-validation-0000.tar", [90], text)
    task = load("cc3m", tmp_path)
    assert task.train.ids[3] == "cc3m/00001.tar/000000200.jpg" and len(task.train) == 5
    assert task.train.texts[3] == "caption 200" and task.tests["test"].texts == ("caption 90",)
    assert task.train.image(3).getpixel((0, 0))[0] == pytest.approx(200, abs=8)
    before = task.fingerprint()
    disk.shard(tmp_path / "cc3m/00001.tar", range(200, 203), text)
    assert load("cc3m", tmp_path).fingerprint() != before


def test_vqav2(tmp_path):
    disk.vqav2(tmp_path)
    task = load("vqav2", tmp_path)
    train, test = task.train, task.tests["test"]
    assert train.ids == [f"coco/train2014/COCO_train2014_{n:012}.jpg" for n in (1, 9)]
    assert test.questions[4] == "Question 1 on 3?" and test.answers[4] == {"2": 7, "3": 3}
    assert test.kinds == ("yes/no", "number", "other") * 2 and test.image_of.tolist() == [0, 0, 0, 1, 1, 1]
    (tmp_path / "vqav2/v2_OpenEnded_mscoco_train2014_questions.json").unlink()
    assert len(load("vqav2", tmp_path).train) == 0


def changed(path, change):
    """A function that changes one JSON file of a data set."""

    def apply(root):
        value = json.loads((root / path).read_text())
        change(value)
        disk.put(root / path, value)

    return apply


LEAKED = disk.karpathy_image(4, "train", "train2014")
BLIP_LEAK = {"image": "train2017/000000000004.jpg", "caption": "text"}
COCO, VQA = "coco/dataset_coco.json", "vqav2/v2_mscoco_val2014_annotations.json"
FAULTS = [
    (
        "coco",
        disk.coco,
        changed(COCO, lambda v: v["images"].append(LEAKED)),
        r"image 4 is in test and in train.*train2017",
    ),
    (
        "coco",
        disk.coco,
        changed(COCO, lambda v: v["images"].append(v["images"][0])),
        "image 1 is listed twice in train",
    ),
    (
        "coco",
        disk.coco,
        lambda root: (
            disk.blip(root),
            changed("coco/coco_karpathy_train.json", lambda v: v.append(BLIP_LEAK))(root),
        ),
        "coco_karpathy_train.json and .*coco_karpathy_test.json: the image 4 is in train and in test",
    ),
    (
        "coco",
        disk.coco,
        changed(COCO, lambda v: v["images"][3].pop("cocoid")),
        r"dataset_coco.json: images\[3\] has no field cocoid",
    ),
    (
        "coco",
        disk.coco,
        changed(COCO, lambda v: v["images"][3].pop("split")),
        r"dataset_coco.json: .*`split`.*\$\.images\[3\]",
    ),
    (
        "coco",
        disk.coco,
        changed(COCO, lambda v: v["images"][0].update(split="dev")),
        r"images\[0\].split is 'dev'; it may be train, restval",
    ),
    (
        "coco",
        disk.coco,
        changed(COCO, lambda v: v["images"][0].update(sentences=[])),
        r"images\[0\] has no caption",
    ),
    (
        "coco",
        disk.coco,
        changed(COCO, lambda v: v["images"][0].update(filepath="../..")),
        "is no path below its folder",
    ),
    ("coco", disk.coco, lambda root: disk.put(root / COCO, "{"), "dataset_coco.json is no JSON"),
    (
        "coco",
        disk.coco,
        lambda root: (root / COCO).unlink(),
        "has no list of captions; get dataset_coco.json from https",
    ),
    (
        "coco",
        disk.coco,
        lambda root: (root / "coco/val2014/COCO_val2014_000000000003.jpg").unlink(),
        r"1 of 8 images of coco are missing, the first is .*COCO_val2014_000000000003.jpg \(or coco/train2017/000000000003.jpg\)",
    ),
    (
        "flickr30k",
        disk.flickr_text,
        lambda root: disk.put(root / "flickr30k/flickr30k_test_karpathy.txt", "image,caption\nno comma"),
        "line 2 is 'no comma'; expected 'x.jpg,caption'",
    ),
    (
        "cc3m",
        disk.cc3m_table,
        lambda root: disk.put(root / "cc3m/train.tsv", "filepath\ttext\na.jpg\tb\n"),
        "has no column title",
    ),
    (
        "cc3m",
        disk.cc3m_table,
        lambda root: disk.put(root / "cc3m/train.tsv", "filepath\ttitle\n/etc/a.jpg\tb\n"),
        "row 1 is '/etc/a.jpg'",
    ),
    (
        "cc3m",
        disk.cc3m_table,
        lambda root: disk.put(root / "cc3m/train.tsv", "filepath\ttitle\na.jpg\tb\n"),
        "1 of 1 images of cc3m are missing",
    ),
    (
        "cc3m",
        disk.cc3m_table,
        lambda root: (root / "cc3m/train.tsv").unlink(),
        "has neither tables .* nor shards",
    ),
    (
        "cc3m",
        lambda root: disk.shard(root / "cc3m/00000.tar", range(40)),
        lambda root: (root / "cc3m/00000.tar").write_bytes((root / "cc3m/00000.tar").read_bytes()[:5300]),
        "00000.tar is no whole tar file",
    ),
    (
        "vqav2",
        disk.vqav2,
        changed(VQA, lambda v: v["annotations"].pop()),
        r"no answers to question 2000, questions\[0\]",
    ),
    (
        "vqav2",
        disk.vqav2,
        changed(VQA, lambda v: v["annotations"][0].update(image_id=8)),
        "image_id of question 3002 is 8, in .* it is 3",
    ),
    (
        "vqav2",
        disk.vqav2,
        changed(VQA, lambda v: v["annotations"][0].update(answer_type="open")),
        "answer_type 'open'",
    ),
    (
        "vqav2",
        disk.vqav2,
        changed(VQA, lambda v: v["annotations"][0].pop("answers")),
        r"annotations.json: .*`answers`",
    ),
    (
        "vqav2",
        disk.vqav2,
        lambda root: (root / VQA).unlink(),
        "annotations.json is missing; get it from https://visualqa.org",
    ),
]


@pytest.mark.parametrize(("id", "make", "spoil", "message"), FAULTS)
def test_what_is_wrong_is_said_with_file_and_field(tmp_path, id, make, spoil, message):
    make(tmp_path)
    load(id, tmp_path)
    spoil(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load(id, tmp_path)


def test_a_damaged_image_of_a_shard_is_named(tmp_path):
    disk.shard(tmp_path / "cc3m/00000.tar", range(3))
    path = tmp_path / "cc3m/00000.tar"
    data = bytearray(path.read_bytes())
    data[512:530] = bytes(18)  # the first picture begins behind its header
    path.write_bytes(data)
    task = load("cc3m", tmp_path)
    images = [*task.train.ids, *task.tests["test"].ids]
    with pytest.raises(ValueError, match=r"00000\.tar: 000000000\.jpg is not a readable image"):
        task.train.read(next(id for id in images if id.endswith("/000000000.jpg")), None)


def test_a_root_is_needed(monkeypatch):
    monkeypatch.delenv("VLMLAB_DATASETS", raising=False)
    with pytest.raises(ValueError, match="pass root="):
        vlmlab.task("coco", protocol="retrieval")


def test_counts_that_are_not_published_are_said(tmp_path):
    disk.coco(tmp_path)
    with pytest.warns(UserWarning, match="train has 2 images, published are 113,287"):
        load("coco", tmp_path)
