"""Images of one's own as tasks: what each form gives, under every protocol it can serve."""

import os
import pickle
import shutil

import numpy as np
import own_data as own
import pandas as pd
import pytest
from PIL import Image

import vlmlab
from vlmlab.tasks.own import tasks as own_tasks

pytestmark = pytest.mark.filterwarnings("ignore:.*nobody divided the images")
TREES = "a photo of a {}, a type of tree."


def test_a_folder_per_class(tmp_path):
    own.folders(tmp_path / "trees")
    id = f"folder:{tmp_path / 'trees'}"
    task = vlmlab.task(id, protocol="base_to_new", template=TREES, shots=3, seed=1)
    assert task.train.classnames == task.base.classnames == ("Norway spruce", "beech")
    assert task.new.classnames == ("elm", "oak") and task.template == TREES
    assert task.train.prompts[0] == "a photo of a Norway spruce, a type of tree."
    assert (task.train.counts() == 3).all() and (task.base.counts() == 3).all()
    assert task.train.image(0).size == (12, 10) and task.train.ids[0].startswith("Norway_spruce/")
    assert task.provenance == {"train": "drawn", "base": "drawn", "new": "drawn"}
    whole = vlmlab.task(id, protocol="few_shot")
    parts = [whole.train.ids, whole.val.ids, whole.tests["test"].ids]
    assert [len(p) for p in parts] == [20, 8, 12] and len({i for p in parts for i in p}) == 40
    assert {i for i in whole.train.ids if "elm" in i} != {
        f"elm/{i}.png" for i in range(5)
    }  # not the first ones
    other = vlmlab.task(id, protocol="few_shot", shots=2, seed=5)
    assert other.tests["test"].ids == whole.tests["test"].ids  # the division is that of every seed
    zero = vlmlab.task(id)
    assert len(zero.tests["test"]) == 40 and not len(zero.train) and zero.template == "a photo of a {}."


def test_the_division_is_said(tmp_path):
    own.folders(tmp_path / "trees")
    with pytest.warns(UserWarning, match="nobody divided the images: .* half train, .* seed 1"):
        vlmlab.task(f"folder:{tmp_path / 'trees'}", protocol="few_shot")


@pytest.mark.parametrize(
    ("names", "lengths"),
    [
        (("train", "val", "test"), (16, 8, 12)),
        (("Training", "valid", "TEST"), (16, 8, 12)),
        (("train", None, "testing"), (16, None, 12)),
        (("train", "validation", None), (16, None, 8)),  # as ImageNet: val is the test
    ],
)
@pytest.mark.filterwarnings("ignore:.*there are no test images")
def test_folders_of_parts(tmp_path, names, lengths):
    for name, each in zip(names, (4, 2, 3)):
        if name:
            own.folders(tmp_path / name, each)
    task = vlmlab.task(f"folder:{tmp_path}", protocol="few_shot")
    found = [None if s is None else len(s) for s in (task.train, task.val, task.tests["test"])]
    assert tuple(found) == lengths and task.provenance == {}


def test_training_images_alone_are_divided_and_test_images_alone_are_tested(tmp_path):
    own.folders(tmp_path / "a/train", 4)
    task = vlmlab.task(f"folder:{tmp_path}/a", protocol="few_shot")
    assert [len(task.train), len(task.val), len(task.tests["test"])] == [8, 4, 4]
    own.folders(tmp_path / "b/test", 3)
    assert len(vlmlab.task(f"folder:{tmp_path}/b").tests["test"]) == 12
    with pytest.raises(
        ValueError, match="has no protocol few_shot; it has zero_shot; few_shot needs training"
    ):
        vlmlab.task(f"folder:{tmp_path}/b", protocol="few_shot")


def test_what_systems_leave_is_no_image(tmp_path):
    own.folders(tmp_path, 3)
    before = vlmlab.task(f"folder:{tmp_path}")
    for name in ("Thumbs.db", ".DS_Store", "._0.png", "desktop.ini"):
        (tmp_path / "elm" / name).write_bytes(b"no image")
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
        own.picture(tmp_path / name / "0.png")
        own.picture(tmp_path / "elm" / name / "0.png")
    assert vlmlab.task(f"folder:{tmp_path}").fingerprint() == before.fingerprint()
    (tmp_path / "elm/notes.txt").write_text("a note")
    own.picture(tmp_path / "loose.png")
    with pytest.warns(UserWarning) as said:
        vlmlab.task(f"folder:{tmp_path}")
    texts = "\n".join(str(w.message) for w in said)
    assert "1 images beside the folders are left out: loose.png" in texts and "1 .txt" in texts


def test_endings_depth_links_and_letters(tmp_path):
    own.picture(tmp_path / "t/Fichte/A.JPEG")
    own.picture(tmp_path / "t/Fichte/deep/er/b.WebP")
    own.picture(
        tmp_path / "t/e\u0301pice\u0301a/\u00fc \U0001f333.TIF"
    )  # letters with separate accents, as macOS has
    own.picture(tmp_path / "elsewhere/x.bmp")
    os.symlink(tmp_path / "elsewhere", tmp_path / "t/linked")
    os.symlink(tmp_path / "elsewhere/x.bmp", tmp_path / "t/Fichte/y.bmp")
    test = vlmlab.task(f"folder:{tmp_path}/t").tests["test"]
    assert test.classnames == ("Fichte", "\u00e9pic\u00e9a", "linked")
    assert test.labels.tolist() == [0, 0, 0, 1, 2]
    assert all(test.image(i).mode == "RGB" for i in range(5))


def test_paths_with_home_and_root(tmp_path, monkeypatch):
    own.folders(tmp_path / "data/trees", 4)
    there = vlmlab.task(f"folder:{tmp_path}/data/trees", protocol="few_shot")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "data")
    for id, root in (
        ("folder:~/data/trees", None),
        ("folder:trees", None),
        ("folder:trees", tmp_path / "data"),
    ):
        task = vlmlab.task(id, protocol="few_shot", root=root)
        assert task.training_fingerprint() == there.training_fingerprint()
        assert task.id == id and own_tasks.folder_name(id) == "folder.trees"
        monkeypatch.chdir(tmp_path)  # it opens again from elsewhere
        assert vlmlab.task(**task.arguments).fingerprint() == task.fingerprint()
        monkeypatch.chdir(tmp_path / "data")


@pytest.mark.parametrize(
    ("id", "name"),
    [
        ("emoji/food", "emoji.food"),
        ("folder:/data/trees/", "folder.trees"),
        ("table:../my list.csv", "table.my-list.csv"),
        ("folder:..", "folder.images"),
        ("folder:/a/.hidden", "folder.hidden"),
        ("folder:/data/B\u00e4ume", "folder.B\u00e4ume"),
    ],
)
def test_the_name_of_the_run_folder_is_no_path(id, name):
    assert own_tasks.folder_name(id) == name


def test_the_fingerprint_is_of_content_not_of_the_place(tmp_path):
    own.folders(tmp_path / "trees", 4)
    task = vlmlab.task("folder:trees", protocol="few_shot", root=tmp_path)
    before, path = task.fingerprint(), tmp_path / "trees" / task.train.ids[0]
    shutil.copytree(tmp_path / "trees", tmp_path / "moved/trees")
    assert vlmlab.task("folder:trees", protocol="few_shot", root=tmp_path / "moved").fingerprint() == before
    data = bytearray(path.read_bytes())
    data[-20] ^= 1  # of the same size
    path.write_bytes(data)
    assert task.fingerprint() != before
    split = pickle.loads(pickle.dumps(task.tests["test"]))  # for workers that load
    assert split.image(0).size == (12, 10)


# what is done to a folder of images -> whether what it holds counts as changed
STATES = {
    "nothing": (lambda folder: None, False),
    "a note": (lambda folder: (folder / "README.md").write_text("so"), False),
    "bytes": (lambda folder: (folder / "oak/0.png").write_bytes(b"other"), True),
    "size alone": (lambda folder: resized(folder / "oak/0.png"), True),
    "time alone": (lambda folder: os.utime(folder / "oak/0.png", (1, 1)), True),
    "one more": (lambda folder: shutil.copy2(folder / "oak/0.png", folder / "oak/more.png"), True),
    "one less": (lambda folder: (folder / "oak/0.png").unlink(), True),
    "a name": (lambda folder: (folder / "oak/0.png").rename(folder / "oak/other.png"), True),
    "a class": (lambda folder: (folder / "oak").rename(folder / "ash"), True),
}


def resized(path):
    stat = path.stat()
    path.write_bytes(path.read_bytes() + b"more")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("change", STATES)
def test_what_a_folder_holds_now(tmp_path, change):
    folder, (act, changes) = tmp_path / "trees", STATES[change]
    own.folders(folder, 3)
    before = own_tasks.state(f"folder:{folder}")
    act(folder)
    assert (own_tasks.state(f"folder:{folder}") != before) == changes and len(before) == 64
    shutil.rmtree(folder)
    assert own_tasks.state(f"folder:{folder}") == ""


@pytest.mark.parametrize("name", ["list.csv", "list.tsv", "list.parquet"])
def test_a_table_of_labels(tmp_path, name):
    rows = own.rows(tmp_path)
    path = own.table(tmp_path, rows, name, **({"sep": "\t"} if name.endswith("tsv") else {}))
    task = vlmlab.task(f"table:{path}", protocol="base_to_new", shots=1, seed=2)
    assert task.base.classnames + task.new.classnames == ("Norway spruce", "beech", "elm", "oak")
    assert (task.train.counts() == 1).all() and own_tasks.folder_name(task.id) == f"table.{name}"
    assert vlmlab.task(**task.arguments).fingerprint() == task.fingerprint()


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({"sep": ";"}, lambda rows: rows),
        ({"lineterminator": "\r\n"}, lambda rows: rows),
        ({"lineterminator": "\r"}, lambda rows: rows),
        ({"quoting": 1}, lambda rows: rows),
        ({"encoding": "utf-8-sig"}, lambda rows: rows),
        ({"index": True}, lambda rows: rows),  # the column that pandas adds
        ({}, lambda rows: [{"File_Name": r["path"], " Label ": r["label"]} for r in rows]),
        ({}, lambda rows: [{"path": f".\\{r['path']}", "label": f" {r['label']}"} for r in rows]),
        ({}, lambda rows: [{**r, "label": own.NAMES.index(r["label"]), "name": r["label"]} for r in rows]),
        (
            {},
            lambda rows: [
                {**r, "label": float(own.NAMES.index(r["label"])), "name": r["label"]} for r in rows
            ],
        ),
    ],
)
def test_forms_of_csv(tmp_path, options, change):
    path = own.table(tmp_path, change(own.rows(tmp_path)), **options)
    task = vlmlab.task(f"csv:{path}", protocol="few_shot")
    assert task.train.classnames == ("Norway spruce", "beech", "elm", "oak")
    assert len(task.train) + len(task.val) + len(task.tests["test"]) == 16
    assert {i.removeprefix("./").rstrip("0123.png") for i in task.train.ids} == {*own.NAMES}


def test_a_table_with_a_split_and_images_elsewhere(tmp_path):
    rows = [
        r | {"split": ("train", "dev", "Test", "test")[i % 4]}
        for i, r in enumerate(own.rows(tmp_path / "img"))
    ]
    path = own.table(tmp_path / "meta", rows)
    with pytest.raises(
        FileNotFoundError, match=r"16 of 16 images are not in .*meta: Norway_spruce0.png, .* 13 more"
    ):
        vlmlab.task(f"table:{path}", protocol="few_shot")
    task = vlmlab.task(f"table:{path}", protocol="few_shot", root=tmp_path / "img")
    assert [len(task.train), len(task.val), len(task.tests["test"])] == [4, 4, 8]
    absolute = own.table(tmp_path / "meta", [r | {"path": str(tmp_path / "img" / r["path"])} for r in rows])
    assert (
        vlmlab.task(f"table:{absolute}", protocol="few_shot", root=tmp_path).train.ids[0].startswith("img/")
    )
    with pytest.raises(
        ValueError, match=r"16 paths are empty or lead out of .*meta.*; name the folder that holds all"
    ):
        vlmlab.task(f"table:{absolute}", protocol="few_shot")


def test_parquet_with_an_index(tmp_path):
    frame = pd.DataFrame(own.rows(tmp_path))
    frame.iloc[::2].to_parquet(tmp_path / "half.parquet")
    frame.set_index("path").to_parquet(tmp_path / "named.parquet")
    assert len(vlmlab.task(f"table:{tmp_path}/half.parquet").tests["test"]) == 8
    assert len(vlmlab.task(f"table:{tmp_path}/named.parquet").tests["test"]) == 16
    frame.assign(label=0.5).iloc[::2].iloc[1:].to_parquet(tmp_path / "half.parquet")
    with pytest.raises(ValueError, match=r"the label 0.5 of Norway_spruce2.png is no whole number"):
        vlmlab.task(f"table:{tmp_path}/half.parquet")


@pytest.mark.filterwarnings("ignore:.*the classes are called by their numbers")
def test_kinds_of_labels(tmp_path):
    rows = own.rows(tmp_path)
    for values, names in (
        (np.arange(16) // 4, ("0", "1", "2", "3")),
        (np.arange(16) % 2 == 0, ("False", "True")),
        ([f"{'NA' if i % 2 else 'None'}" for i in range(16)], ("NA", "None")),  # names, not what is missing
    ):
        path = own.table(tmp_path, [r | {"label": v} for r, v in zip(rows, values)], "kinds.parquet")
        assert vlmlab.task(f"table:{path}").tests["test"].classnames == names
    with pytest.warns(UserWarning, match="called by their numbers, '0', '1' ...; a column `name` gives"):
        path = own.table(tmp_path, [r | {"label": i // 8} for i, r in enumerate(rows)])
        vlmlab.task(f"table:{path}")


def test_soft_labels(tmp_path):
    rng = np.random.default_rng(0)
    votes = rng.integers(0, 5, (16, 3)) + [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]] * 4
    rows = [
        {"path": r["path"]} | dict(zip(("very_happy", "sad", "angry"), map(int, v)))
        for r, v in zip(own.rows(tmp_path), votes)
    ]
    path = own.table(tmp_path, rows)
    task = vlmlab.task(f"table:{path}", protocol="label_distribution", shots=2, template="a {} face.")
    test = task.tests["test"]
    assert test.classnames == ("very happy", "sad", "angry") and test.prompts[0] == "a very happy face."
    np.testing.assert_allclose(test.distributions.sum(1), 1, atol=1e-6)
    wanted = dict(zip((r["path"] for r in rows), votes / votes.sum(1, keepdims=True)))
    np.testing.assert_allclose(test.distributions, [wanted[i] for i in test.ids], atol=1e-6)
    assert (test.labels == test.distributions.argmax(1)).all()
    rare = [r | {"very_happy": 1, "sad": 9, "angry": 0.5} for r in rows]
    rare[3]["angry"] = 10  # the only one that is angry most of all
    whole = vlmlab.task(f"table:{own.table(tmp_path, rare, 'rare.csv')}", protocol="label_distribution")
    assert set(whole.train.labels) == {1} and whole.train.shares().min() > 0  # no image is mostly happy
    with pytest.raises(
        ValueError, match=r"no protocol retrieval; it has .*label_distribution; retrieval needs a column"
    ):
        vlmlab.task(f"table:{path}", protocol="retrieval")


def test_texts(tmp_path):
    rows = [{"path": r["path"], "text": f'a "{r["label"]}",\nold'} for r in own.rows(tmp_path)]
    rows += [r | {"text": "again"} for r in rows[:2]]
    task = vlmlab.task(f"table:{own.table(tmp_path, rows)}", protocol="retrieval")
    parts = (task.train, task.val, task.tests["test"])
    assert [len(p) for p in parts] == [8, 3, 5] and sum(len(p.texts) for p in parts) == 18
    texts = {p.ids[i]: [p.texts[j] for j in p.texts_of[i]] for p in parts for i in range(len(p))}
    assert texts["Norway_spruce0.png"] == ['a "Norway_spruce", old', "again"]
    assert texts["oak3.png"] == ['a "oak", old'] and task.template == "{}"
    tested = own.table(tmp_path, [r | {"split": "test"} for r in rows], "test.csv")
    task = vlmlab.task(f"table:{tested}", protocol="retrieval")
    assert len(task.train) == 0 and len(task.tests["test"]) == 16
    with pytest.raises(ValueError, match="has no protocol zero_shot; it has retrieval"):
        vlmlab.task(f"table:{tested}")


def test_labels_and_texts_serve_both(tmp_path):
    rows = [r | {"text": f"one {r['label']}"} for r in own.rows(tmp_path)]
    path = own.table(tmp_path, rows)
    assert len(vlmlab.task(f"table:{path}", protocol="few_shot").train.classnames) == 4
    assert len(vlmlab.task(f"table:{path}", protocol="retrieval").train.texts) == 8


def test_a_split_file_as_coops(tmp_path):
    path = own.split_file(tmp_path)
    task = vlmlab.task(f"table:{path}", protocol="base_to_new", shots=2, template=TREES)
    assert task.base.classnames == ("Norway_spruce", "beech") and (task.new.counts() == 2).all()
    assert task.train.image(0).size == (12, 10)  # found in images/
    assert (
        vlmlab.task(f"split:{path}", protocol="base_to_new", shots=2, template=TREES).train.ids
        == task.train.ids
    )


def test_own_images_are_upright_coops_as_published(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    own.folders(tmp_path, 2)
    own.picture(tmp_path / "elm/turned.jpg", exif=exif)
    test = vlmlab.task(f"folder:{tmp_path}").tests["test"]
    assert test.image(test.ids.index("elm/turned.jpg")).size == (10, 12)


def test_templates_of_other_tasks(tmp_path):
    task = vlmlab.task("emoji/food", protocol="base_to_new", shots=1, template="a drawing of {}.")
    assert task.base.prompts[0].startswith("a drawing of ") and task.train.template == task.template
    usual = vlmlab.task("emoji/food", protocol="base_to_new", shots=1)
    assert usual.train.ids == task.train.ids and usual.training_fingerprint() != task.training_fingerprint()
    assert vlmlab.task(**task.arguments).template == "a drawing of {}."
    for wrong in ("a photo", "{} or {}", "a {x} {}", "", 5, "a {0}."):
        with pytest.raises(ValueError, match=r"exactly one {} for the class name"):
            vlmlab.task("emoji/food", template=wrong)
