"""Every score, asked of learners that read images of two colours, of learners that are blind, and found by the test."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

import vlmlab.scores as scores
from vlmlab.learner import Learner
from vlmlab.tasks import Captions, Images, Questions, Split
from vlmlab.train.evaluate import pictures_for

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
PAIRS = list(itertools.permutations(COLOURS, 2))
IDS = [f"{left} {right}" for left, right in PAIRS]


def read(id, rng=None):
    left, right = id.split()
    image = Image.new("RGB", (16, 16), COLOURS[left])
    image.paste(COLOURS[right], (8, 0, 16, 16))
    return image


def halves(id):
    left = np.arange(16) < 8
    return np.stack([np.tile(left, (16, 1)), np.tile(~left, (16, 1))])


READING = {"read": read, "content": str.encode}
CAPTIONS = Captions(
    IDS, tuple(f"{a} on {b}" for a, b in PAIRS), range(6), tuple(PAIRS), mask_of=halves, **READING
)
QUESTIONS = Questions(
    IDS,
    tuple(f"what colour is {side}?" for _ in PAIRS for side in ("left", "right")) + ("is it red?",),
    [*np.repeat(range(6), 2), 0],
    tuple({colour: 1} for pair in PAIRS for colour in pair) + ({"yes": 8, "no": 2},),
    ("other",) * 12 + ("yes/no",),
    **READING,
)
SPLIT = Split(IDS, [list(COLOURS).index(a) for a, _ in PAIRS], tuple(COLOURS), "{}", **READING)
SOFT = dataclasses.replace(SPLIT, distributions=np.eye(3, dtype=np.float32)[SPLIT.labels])
RULES = {"unified": None}


def vector(text):
    """(6,): the colours of the words before and after "on"."""
    left, _, right = text.partition(" on ")
    return torch.tensor([float(c == name) for c in (left, right) for name in COLOURS])


class Reader(Learner):
    """Reads both colours, and says what it sees."""

    def __init__(self):
        super().__init__({}, None)

    device = torch.device("cpu")
    rules = ("unified",)

    def preprocess(self, image):
        return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255

    def encode_image(self, images):
        return torch.cat([images[:, :, 8, 4], images[:, :, 8, 12]], 1)

    def encode_text(self, texts):
        return torch.stack([vector(t) for t in texts])

    def names(self, images):
        return [[list(COLOURS)[int(i)] for i in z.view(2, 3).argmax(1)] for z in self.encode_image(images)]

    def generate(self, images, texts):
        said = []
        for (left, right), text in zip(self.names(images), texts, strict=True):
            told = {"": f"{left}, {right}!", "is it red?": "Yes."}
            said.append(told.get(text, left if "left" in text else right))
        return said

    def match(self, images, texts):
        return (self.encode_image(images) * self.encode_text(texts)).sum(1)

    def log_likelihood(self, images, texts):
        tokens = torch.tensor([len(t.split()) for t in texts])
        per_token = torch.full((len(texts),), -1.0) if images is None else self.match(images, texts) - 2
        return per_token * tokens, tokens

    def relevance(self, images, texts):
        asked = torch.stack([torch.tensor(COLOURS[t.split()[-1].strip(".")]) / 255 for t in texts])
        return (images[:, :, ::4, ::4] * asked[:, :, None, None]).sum(1)

    def set_classes(self, names, template):
        self.classes = torch.stack([vector(n) for n in names])

    def image_features(self, images):
        return self.encode_image(images)

    def classify(self, z, rule, part):
        return 10 * z @ self.classes.T


class Blind(Reader):
    """Sees nothing: every image is the same grey."""

    def preprocess(self, image):
        return torch.full((3, 16, 16), 0.5)


def values(score, learner, test):
    answers = score.ask(learner, test, pictures_for(learner, batch_size=4), RULES)["unified"]
    rows = score.rows("test", test, answers)
    assert all(r["split"] == "test" and r["n"] > 0 and np.isfinite(r["value"]) for r in rows)
    return {r["metric"]: r["value"] for r in rows}


def module(name):
    return next(m for m in scores.found(CAPTIONS, Reader()) if m.__name__.endswith(name))


def test_a_test_finds_its_score():
    found = {
        test: scores.find(test).__name__.rpartition(".")[2] for test in (SPLIT, SOFT, CAPTIONS, QUESTIONS)
    }
    assert list(found.values()) == ["classification", "label_distribution", "retrieval", "questions"]
    assert set(found.values()) < set(scores.names())
    with pytest.raises(ValueError, match=r"nothing can be asked about Images\(1\); a test needs labels"):
        scores.find(Images(["a"], **READING))


def test_a_learner_is_asked_all_that_it_can_answer():
    def names(test, learner):
        return [m.__name__.rpartition(".")[2] for m in scores.found(test, learner)]

    asked = ["retrieval", "captions", "language_loss", "ranking", "pointing"]
    assert names(CAPTIONS, Reader()) == asked
    assert names(dataclasses.replace(CAPTIONS, mask_of=None, shows=None), Reader()) == [asked[0], *asked[2:4]]
    assert names(SOFT, Reader()) == ["label_distribution"]
    with pytest.raises(ValueError, match=r"Linear cannot be asked about .*; it needs generate$"):
        names(QUESTIONS, torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r"it needs set_classes and image_features and classify$"):
        names(SPLIT, torch.nn.Linear(1, 1))


def test_retrieval():
    found = values(module("retrieval"), Reader(), CAPTIONS)
    assert found["i2t R@1"] == found["t2i R@1"] == 100 and found["i2t median rank"] == 1
    blind = values(module("retrieval"), Blind(), CAPTIONS)
    assert blind["t2i R@1"] == blind["i2t R@1"] == pytest.approx(100 / 6)
    assert blind["t2i median rank"] == 3.5 and blind["t2i R@5"] == pytest.approx(500 / 6)


def test_retrieval_by_classes_is_the_same():
    by_class = Reader()
    by_class.encode_text = None
    assert values(module("retrieval"), by_class, CAPTIONS) == values(module("retrieval"), Reader(), CAPTIONS)


def test_retrieval_with_several_captions_an_image():
    texts = tuple(text for pair in zip(CAPTIONS.texts, ("something else",) * 6, strict=True) for text in pair)
    two = dataclasses.replace(CAPTIONS, texts=texts, image_of=np.repeat(range(6), 2))
    score, reader = module("retrieval"), Reader()
    reader.encode_text = lambda texts: torch.stack([vector(t) + 0.1 for t in texts])
    found = values(score, reader, two)
    assert found["i2t R@1"] == 100  # one of its two captions is enough
    assert found["t2i R@1"] == pytest.approx((100 + 100 / 6) / 2)  # half of the texts say nothing
    answers = score.ask(reader, two, pictures_for(reader, batch_size=4), RULES)["unified"]
    rows = {r["metric"]: r["n"] for r in score.rows("test", two, answers)}
    assert rows["i2t R@1"] == 6 and rows["t2i R@1"] == rows["t2i median rank"] == 12


def test_equal_texts_of_two_images_tie():
    both = dataclasses.replace(CAPTIONS, texts=(CAPTIONS.texts[0],) * 2 + CAPTIONS.texts[2:])
    found = values(module("retrieval"), Reader(), both)
    # image 0 finds its text among two equal ones; that of image 1 is not true of it, and ties with two others
    assert found["i2t R@1"] == pytest.approx(100 * (1 / 2 + 1 / 3 + 4) / 6)
    assert found["t2i R@1"] == pytest.approx(100 * 5 / 6)


def test_captions():
    found = values(module("captions"), Reader(), CAPTIONS)
    assert found == {"attributes_right": 100, "hallucinated": 0, "captions_hallucinated": 0}
    blind = values(module("captions"), Blind(), CAPTIONS)  # always says "red, red!"
    assert blind == pytest.approx(
        {"attributes_right": 100 / 3, "hallucinated": 100 / 3, "captions_hallucinated": 100 / 3}
    )


def test_questions():
    score = scores.find(QUESTIONS)
    assert values(score, Reader(), QUESTIONS) == dict.fromkeys(
        ("vqa_accuracy", "vqa_accuracy other", "vqa_accuracy yes/no"), 100
    )
    blind = values(score, Blind(), QUESTIONS)
    assert blind["vqa_accuracy other"] == pytest.approx(100 / 3)
    assert blind["vqa_accuracy"] == pytest.approx((12 * blind["vqa_accuracy other"] + 100) / 13)
    single = QUESTIONS.select([1, 2])
    assert set(values(score, Reader(), single)) == {"exact_match", "exact_match other"}


def test_language_loss():
    found = values(module("language_loss"), Reader(), CAPTIONS)
    assert found["nll_true_image"] == 0 and found["nll_no_image"] == 1
    assert 1 < found["nll_shuffled_image"] < 2
    blind = values(module("language_loss"), Blind(), CAPTIONS)
    assert blind["nll_true_image"] == blind["nll_shuffled_image"]


def test_ranking():
    found = values(module("ranking"), Reader(), CAPTIONS)
    assert found == {"AUC": 100, "average_precision": 100}
    assert values(module("ranking"), Blind(), CAPTIONS) == {"AUC": 50, "average_precision": 50}


def test_pointing():
    score = module("pointing")
    assert values(score, Reader(), CAPTIONS) == {"pointing": 100, "pointing_within": 100}
    assert values(score, Blind(), CAPTIONS)["pointing"] == 50
    rows = score.rows("test", CAPTIONS, np.ones((12, 4, 4)))
    assert [r["chance"] for r in rows] == [50, pytest.approx(100 * 9 / 16)] and rows[0]["n"] == 12


def test_classification_and_label_distribution():
    found = values(scores.find(SOFT), Reader(), SOFT)
    assert found["accuracy"] == 100 and 0 < found["KL"] < 0.01
    assert values(scores.find(SPLIT), Reader(), SPLIT) == {"accuracy": 100, "balanced_accuracy": 100}
    assert values(scores.find(SOFT), Blind(), SOFT)["KL"] == pytest.approx(np.log(3))


@pytest.mark.parametrize(("score", "answer"), [("captions", ["red"]), ("questions", ["red"])])
def test_a_missing_answer_is_an_error(score, answer):
    test = QUESTIONS if score == "questions" else CAPTIONS
    which = scores.find(test) if score == "questions" else module(score)
    with pytest.raises(ValueError, match="got 1"):
        which.rows("test", test, answer)


@pytest.mark.parametrize("name", ["retrieval", "language_loss", "ranking", "pointing"])
def test_answers_that_are_not_finite_are_an_error(name):
    broken = Reader()
    broken.preprocess = lambda image: torch.full((3, 16, 16), torch.nan)
    with pytest.raises(FloatingPointError, match=r"Reader gives .* that are not finite on Captions"):
        values(module(name), broken, CAPTIONS)


def test_the_other_image_is_never_the_own_one():
    from vlmlab.scores.asking import others

    for n in (2, 3, 50):
        assert sorted(others(n)) == list(range(n)) and (others(n) != np.arange(n)).all()
