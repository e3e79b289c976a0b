"""The usual sets of emotions in their own layouts, in miniature."""

import numpy as np
import own_data as own
import pytest

import vlmlab
from vlmlab.tasks.own import describe, emotions

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*nobody divided the images", "ignore:.*are called as in RAF-DB"
)
CLASSES = ("anger", "disgust", "fear", "joy", "sadness", "surprise", "neutral")
MIKELS = ("amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness")


def emotion6(root):
    """ground_truth.txt beside images/anger/1.jpg: tabs, brackets, ratings, and shares of 15 answers."""
    head = ["[image_filename]", "[valence]", "[arousal]", *(f"[prob. {name}]" for name in CLASSES)]
    lines, rng = ["\t".join(head)], np.random.default_rng(0)
    for name in CLASSES[:-1]:
        for i in range(1, 5):
            own.picture(root / f"images/{name}/{i}.jpg")
            votes = rng.multinomial(15, [0.6 if n == name else 0.4 / 6 for n in CLASSES]) / 15
            lines.append("\t".join([f"{name}/{i}.jpg", "4.53", "5.2", *(f"{v:.6f}" for v in votes)]))
    (root / "ground_truth.txt").write_text("\r\n".join(lines) + "\r\n")
    return root / "ground_truth.txt"


def ldl(root, sep, name):
    """Flickr_LDL, Twitter_LDL: a column of votes an emotion, images/ beside it."""
    lines = [sep.join(["image_name", *MIKELS])]
    for i in range(16):
        own.picture(root / f"images/{i}.jpg")
        lines.append(sep.join([f"{i}.jpg", *(str(v) for v in np.roll([7, 3, 1, 0, 0, 0, 0, 0], i))]))
    (root / name).write_text("\n".join(lines) + "\n")
    return root / name


def fer2013(root, rows=28, side=48):
    """emotion,pixels,Usage: 48 x 48 numbers in quotes or not."""
    root.mkdir(parents=True, exist_ok=True)
    rng, lines = np.random.default_rng(1), ["emotion,pixels,Usage"]
    for i in range(rows):
        pixels = " ".join(map(str, rng.integers(0, 256, side**2)))
        lines.append(f"{i % 7},{pixels},{('Training', 'Training', 'PublicTest', 'PrivateTest')[i // 7]}")
    (root / "fer2013.csv").write_text("\n".join(lines) + "\n")
    return root / "fer2013.csv"


def raf(root):
    """train/1 to test/7 with train_00001_aligned.jpg."""
    for part, each in (("train", 3), ("test", 2)):
        for label in range(1, 8):
            for i in range(each):
                own.picture(root / part / str(label) / f"{part}_{label}{i:04}_aligned.jpg")
    return root


def test_emotion6(tmp_path):
    task = vlmlab.task(f"table:{emotion6(tmp_path)}", protocol="label_distribution")
    assert task.classes.names == CLASSES
    whole = vlmlab.task(f"table:{tmp_path}/ground_truth.txt").tests["test"]
    assert len(whole) == 24 and whole.distributions.shape == (24, 7)
    assert np.allclose(whole.distributions.sum(1), 1, atol=1e-5)
    assert (whole.labels == whole.distributions.argmax(1)).all()
    assert whole.ids[0] == "anger/1.jpg" and whole.image(0).size == (12, 10)


@pytest.mark.parametrize("sep, name", [("\t", "ground_truth.txt"), (" ", "votes.txt"), (",", "votes.csv")])
def test_votes_an_emotion(tmp_path, sep, name):
    found = vlmlab.task(f"table:{ldl(tmp_path, sep, name)}").tests["test"]
    assert found.classnames == MIKELS and len(found) == 16
    assert np.allclose(found.distributions[0, :3], [7 / 11, 3 / 11, 1 / 11])
    assert found.labels.tolist() == [*range(8), *range(8)]


def test_fer2013(tmp_path):
    path = fer2013(tmp_path)
    task = vlmlab.task(f"table:{path}", protocol="few_shot", shots=1)
    assert task.classes.names == emotions.FER2013
    assert (len(task.train), len(task.val), len(task.tests["test"])) == (7, 7, 7)
    pixels = path.read_text().splitlines()[22].split(",")[1].split()  # the first of PrivateTest
    image = np.asarray(task.tests["test"].image(0))
    assert image.shape == (48, 48, 3)
    assert image[..., 0].ravel().tolist() == [*map(int, pixels)]
    prints = task.fingerprint()
    path.write_text(path.read_text().replace(" ".join(pixels), " ".join(pixels[::-1])))
    assert vlmlab.task(f"table:{path}", protocol="few_shot", shots=1).fingerprint() != prints
    told = describe.describe(str(path))
    assert told["images"] == 28 and told["sizes"] and not told["problems"] and told["marks"]["grey"]


@pytest.mark.filterwarnings("ignore:.*test images are also")
def test_a_doubled_face_of_fer2013_is_said(tmp_path):
    path = fer2013(tmp_path)
    lines = path.read_text().splitlines()
    lines[-1] = lines[-1].replace(lines[-1].split(",")[1], lines[1].split(",")[1])
    path.write_text("\n".join(lines))
    with pytest.warns(UserWarning, match="1 test images are also training .*row 28 is row 1"):
        vlmlab.task(f"table:{path}", protocol="few_shot")


@pytest.mark.parametrize(
    "change, why",
    [
        (
            lambda rows: [*rows[:-1], rows[-1][:200]],
            "1 images have a wrong number of pixels, the first in row 28",
        ),
        (
            lambda rows: [rows[0], "7" + rows[1][1:], *rows[2:]],
            "emotion says '7'; the emotions of FER2013 are 0 to 6",
        ),
        (
            lambda rows: [r.replace("PublicTest", "Public") for r in rows],
            "split says 'Public'; it may say train",
        ),
        (
            lambda rows: [rows[0], rows[1].replace(" ", " 300 ", 1).replace(" ", "", 1), *rows[2:]],
            "not 0 to 255",
        ),
        (
            lambda rows: [rows[0], rows[1].replace(" ", " x", 1), *rows[2:]],
            "pixels holds what is no whole number",
        ),
        (
            lambda rows: [r.partition(",")[2] for r in rows],
            "has neither labels nor texts",
        ),  # the contest's test.csv
        (
            lambda rows: ["emotion,pixel,Usage", *rows[1:]],
            "no column path in its first line, but 'emotion', 'pixel'",
        ),
    ],
)
def test_faults_of_fer2013(tmp_path, change, why):
    path = fer2013(tmp_path)
    path.write_text("\n".join(change(path.read_text().splitlines())))
    with pytest.raises(ValueError, match=why):
        vlmlab.task(f"table:{path}")


def test_raf_db(tmp_path):
    task = vlmlab.task(f"folder:{raf(tmp_path / 'RAF-DB')}", protocol="few_shot", shots=2)
    assert task.classes.names == emotions.RAF_DB
    test = task.tests["test"]
    assert {id.split("/")[1]: test.classnames[label] for id, label in zip(test.ids, test.labels)} == {
        str(i): name for i, name in enumerate(emotions.RAF_DB, start=1)
    }


def test_other_folders_called_1_to_7_keep_their_names(tmp_path):
    own.folders(tmp_path / "digits", names=tuple("1234567"))
    assert vlmlab.task(f"folder:{tmp_path / 'digits'}").classes.names == tuple("1234567")


def test_faults_of_votes(tmp_path):
    path = ldl(tmp_path, "\t", "ground_truth.txt")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "0.jpg" + "\t0" * 8, *lines[2:]]))
    with pytest.raises(ValueError, match=r"the soft labels of 0.jpg are all 0"):
        vlmlab.task(f"table:{path}")
    (tmp_path / "images/3.jpg").unlink()
    path.write_text("\n".join(lines))
    with pytest.raises(FileNotFoundError, match=r"1 of 16 images are not in .*images: 3.jpg"):
        vlmlab.task(f"table:{path}")
