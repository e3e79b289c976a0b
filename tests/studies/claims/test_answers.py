"""What runs answered, under draws of the test concepts, on real runs of the embedded model."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from test_inference import claim

import vlmlab
from vlmlab.learner import Learner
from vlmlab.studies.claims import answers
from vlmlab.studies.claims.inference import estimates
from vlmlab.studies.pages import by_seed
from vlmlab.train.run_folder import RESULTS


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    vlm, folder = vlmlab.load("tiny", device="cpu"), tmp_path_factory.mktemp("runs")
    found = []
    for seed in (1, 2):
        task = vlmlab.task("emoji/food", protocol="base_to_new", shots=1, seed=seed)
        for method, settings in (("zero_shot", {}), ("coop", {"max_steps": 2})):
            run = vlmlab.fit(method, vlm, task, out=folder, **settings)
            vlmlab.evaluate(run, task)
            found.append(run)
    return found


@pytest.fixture(scope="module")
def rows(runs):
    return answers.drawn([(run.path, "base_to_new", "") for run in runs], "balanced_accuracy")


def test_what_was_observed_is_in_the_first_column(runs, rows):
    by = ["method", "seed", "split"]
    for run in runs:
        kept = run.results.query("metric == 'balanced_accuracy'").set_index(by)["value"]
        assert np.allclose(rows.set_index(by)[0].loc[kept.index], kept)


def test_concepts_are_counted_and_drawn_the_same_for_all_runs(runs, rows):
    splits = vlmlab.task("emoji/food", protocol="base_to_new", shots=1, seed=1).tests.values()
    concepts = {split.concept(id) for split in splits for id in split.ids}
    assert rows.attrs["concepts"] == len(concepts) < sum(map(len, splits))
    frozen = rows.query("method == 'zero_shot' and split == 'new'")
    assert np.array_equal(*frozen[list(range(50))].to_numpy())  # which no seed changes


def test_a_model_that_no_seed_changes_has_an_error_over_concepts(rows):
    wide = by_seed.per_seed(rows, "none")
    wide.attrs |= rows.attrs
    chosen = {"task": "average", "split": "hm", "method": "zero_shot"}
    (found,) = estimates(wide, claim("level", of=chosen))
    assert found.by_seed == pytest.approx(0, abs=1e-9) and 1 < found.by_concept < 20 and found.seeds == 2
    (gain,) = estimates(
        wide,
        claim(
            "difference",
            where={"task": "average", "split": "new"},
            of={"method": "coop"},
            against={"method": "zero_shot"},
        ),
    )
    (level,) = estimates(wide, claim("level", of={"task": "average", "split": "new", "method": "coop"}))
    assert gain.by_concept < level.by_concept  # paired: the same images


def test_a_draw_without_a_class_is_the_mean_of_the_others():
    worth, classes = np.array([100.0, 0.0, 100.0]), np.array([0, 0, 1])
    factor = np.array([[1.0, 3.0], [1.0, 1.0], [1.0, 0.0]])  # the second draw has no answer of class 1
    assert answers.mean(worth, classes, factor).tolist() == [75, 75]
    assert answers.mean(worth, classes, factor[:, :1]).tolist() == [75]


def test_what_cannot_be_drawn_says_why(runs):
    with pytest.raises(LookupError, match="no single answers stand behind mean R"):
        answers.drawn([], "mean R")
    with pytest.raises(LookupError, match="no run has KL"):
        answers.drawn([(run.path, "base_to_new", "") for run in runs], "KL")
    path = runs[0].path / RESULTS
    before = path.read_text()
    try:
        lines = [json.loads(line) for line in before.splitlines()]
        kept = [{k: v for k, v in line.items() if k not in ("right", "check")} for line in lines]
        path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        with pytest.raises(LookupError, match="keeps no single answers; evaluate it again"):
            answers.drawn([(runs[0].path, "base_to_new", "")], "accuracy")
    finally:
        path.write_text(before)


def test_distances_of_label_distributions_are_drawn_over_images(runs, tmp_path):
    vlm = vlmlab.load("tiny", device="cpu")
    task = vlmlab.task("emoji/emotions", protocol="label_distribution", shots=1, seed=1)
    run = vlmlab.fit("zero_shot", vlm, task, out=tmp_path)
    frame = vlmlab.evaluate(run, task).set_index("metric")["value"]
    for metric in ("KL", "intersection"):
        found = answers.drawn([(run.path, "label_distribution", "")], metric)
        assert found[0].item() == pytest.approx(frame[metric], rel=1e-6)  # single answers are float32
        assert 0 < found[list(range(1, 300))].to_numpy().std() < 0.2 * frame[metric]


class Towers(Learner):
    """The frozen model's two towers, asked about pairs."""

    models_needed = ("vlm",)

    def __init__(self, models, config):
        super().__init__(models, config)
        self.vlm, self.unused = models["vlm"], torch.nn.Parameter(torch.zeros(1))

    def encode_image(self, images):
        return self.vlm.encode_image(images)

    def encode_text(self, texts):
        return self.vlm.encode_text(texts)


def test_recalls_are_drawn_over_images_with_their_captions(tmp_path):
    vlm, rows = vlmlab.load("tiny", device="cpu"), ["path,text,split"]
    for i, colour in enumerate(("red", "orange", "yellow", "green", "blue", "purple") * 3):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{i}.png")
        rows += [f"{i}.png,{colour} {i},test", f"{i}.png,a {colour} thing,test"]
    (tmp_path / "table.csv").write_text("\n".join(rows))
    task = vlmlab.task(f"table:{tmp_path}/table.csv", protocol="retrieval")
    run = vlmlab.fit(Towers, vlm, task, out=tmp_path / "runs")
    frame = vlmlab.evaluate(run, task).set_index("metric")["value"]
    for metric in ("i2t R@1", "t2i R@5"):
        found = answers.drawn([(run.path, "retrieval", "")], metric)
        assert found[0].item() == pytest.approx(frame[metric]) and found.attrs["concepts"] == 18
        assert found["metric"].tolist() == [metric] and found[list(range(1, 300))].to_numpy().std() > 0
