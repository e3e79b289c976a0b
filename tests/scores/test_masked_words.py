"""Masked words: what is asked of a caption, of one that looks and of one that does not."""

import numpy as np
import pytest
import torch

from vlmlab.learner import Learner
from vlmlab.scores import found as scores_of
from vlmlab.scores import masked_words
from vlmlab.tasks import shapes
from vlmlab.tasks.shapes.composition import scene
from vlmlab.tasks.shapes.texts import caption
from vlmlab.train.evaluate import pictures_for

TEST = shapes.scenes(40, seed=5)
RULES = {"unified": None}


class Looker(Learner):
    """Fills in what the caption of the image says there."""

    device = torch.device("cpu")
    image_size = 64

    def __init__(self):
        super().__init__({}, None)
        self.true = {
            self.preprocess(TEST.image(i)).numpy().tobytes(): caption(scene(id))
            for i, id in enumerate(TEST.ids)
        }

    def preprocess(self, image):
        return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1).float()

    def fill(self, images, texts):
        own = [self.true[x.numpy().tobytes()].split() for x in images]
        filled = zip(own, (text.split() for text in texts))
        return [
            " ".join(o[i] if w == "[MASK]" and i < len(o) else w for i, w in enumerate(t)) for o, t in filled
        ]


class Guesser(Looker):
    def fill(self, images, texts):
        return [text.replace("[MASK]", "red") for text in texts]


def values(learner):
    found = masked_words.ask(learner, TEST, pictures_for(learner, batch_size=7), RULES)["unified"]
    return {row["metric"]: row for row in masked_words.rows("test", TEST, found)}


def test_each_colour_and_shape_is_masked_in_turn():
    found = list(masked_words.questions("a small red circle left of a large red heart"))
    assert [(q[0], q[2], q[3]) for q in found[:2]] == [
        ("a small [MASK] circle left of a large red heart", "red", "colour"),
        ("a small red [MASK] left of a large red heart", "circle", "shape"),
    ]
    assert [q[1] for q in found] == [2, 3, 8, 9]
    assert not list(masked_words.questions("the sky is red and a circle"))


def test_one_that_looks_needs_the_right_image():
    found = values(Looker())
    assert found["masked_colour_true_image"]["value"] == found["masked_shape_true_image"]["value"] == 100
    assert found["masked_colour_true_image"]["n"] == 80
    assert found["masked_colour_shuffled_image"]["value"] < 50
    assert found["masked_colour_true_image"]["chance"] == pytest.approx(100 / 6)
    assert found["masked_shape_true_image"]["chance"] == pytest.approx(25)


def test_one_that_guesses_is_right_by_chance_with_any_image():
    found = values(Guesser())
    true, other = (found[f"masked_colour_{image}_image"]["value"] for image in ("true", "shuffled"))
    assert true == other and 5 < true < 35
    assert found["masked_shape_true_image"]["value"] == 0


def test_it_is_asked_of_those_that_fill_in_about_shapes():
    names = [m.__name__.rpartition(".")[2] for m in scores_of(TEST, Looker())]
    assert names == ["masked_words"] and masked_words.fits(TEST)
    with pytest.raises(ValueError, match="asks for 160 masked words, got 1 texts"):
        masked_words.rows("test", TEST, {"true_image": ["red"]})
