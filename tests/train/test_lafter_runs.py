"""LaFTer and its variant through `fit`: exact resume in and between stages, what each stage changes, epochs."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch
from forked import killed
from safetensors.torch import load_file

import vlmlab
from vlmlab.methods.lafter import TEXTS, LaFTer
from vlmlab.scores.classification import accuracies
from vlmlab.train.evaluate import predict
from vlmlab.train.run import Run

SMALL = dict(text_steps=104, batch_size=4, max_steps=104, tokens=2, descriptions="emotions")
SETTINGS = {
    "lafter": SMALL | dict(epochs=2, w_distribution=0.5),
    "lafter_nga": SMALL
    | dict(epochs=4, warmup_epochs=1, stages="9-11,12", w_consistency=0.1, w_distill=0.1, labels="true"),
}
TEXT_STEPS, EPOCH = 104, 2  # steps


@pytest.fixture(scope="module")
def vlm():
    return vlmlab.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def task():
    """Eight faces to train on, twelve to be tested on, with soft labels."""
    whole = vlmlab.task("emoji/emotions", protocol="label_distribution")
    test = whole.tests["test"].select(range(0, 142, 12))
    train = whole.train.select(range(0, 119, 15))
    return vlmlab.tasks.Task(
        "faces", "label_distribution", None, 1, whole.template, train, None, {"test": test}
    )


def fitted(name, vlm, task, out, **more):
    return vlmlab.fit(name, vlm, task, out=out, **SETTINGS[name] | more)


@pytest.fixture(scope="module")
def whole(vlm, task, tmp_path_factory):
    """A run of each, and what every tensor hashed to after each of its stages."""
    seen, after = {}, LaFTer.after_step

    def noted(self, stage, step):
        after(self, stage, step)
        if step + 1 == stage.steps:
            seen.setdefault(type(self).__name__, {})[stage.name] = hashes(self)

    LaFTer.after_step = noted
    try:
        root = tmp_path_factory.mktemp("whole")
        return {name: fitted(name, vlm, task, root) for name in SETTINGS}, seen
    finally:
        LaFTer.after_step = after


def hashes(m) -> dict[str, str]:
    """Of all parameters and buffers, those of the model it stands on too."""
    named = [*m.named_parameters(), *m.named_buffers()]
    named += [(f"given.{n}", p) for n, p in m.loaded[0].clip.named_parameters()]
    return {n: hashlib.sha256(x.detach().numpy().tobytes()).hexdigest() for n, x in named}


def bytes_of(run: Run) -> tuple:
    return tuple((run.path / name).read_bytes() for name in ("trainables.safetensors", "metrics.jsonl"))


@pytest.mark.parametrize(
    ("name", "kill"),
    [
        ("lafter", 102),
        ("lafter", TEXT_STEPS),
        ("lafter", TEXT_STEPS + EPOCH + 1),
        ("lafter_nga", TEXT_STEPS + EPOCH + 1),
    ],
    ids=["among the texts", "between texts and images", "among the images", "while unfreezing"],
)
def test_kill_9_ends_with_the_same_bytes(whole, vlm, task, name, kill, tmp_path):
    killed(lambda: fitted(name, vlm, task, tmp_path), kill)
    (folder,) = (p.parent for p in tmp_path.glob("**/run.json"))
    assert Run(folder).status == "running"
    assert bytes_of(fitted(name, vlm, task, tmp_path)) == bytes_of(whole[0][name])


def changed(before, after):
    assert before.keys() == after.keys()
    return {n for n in before if before[n] != after[n]}


RECORDS = {"history", "epochs_kept"}


def test_the_images_change_prompts_norms_and_classifier_alone(whole, vlm):
    stages = whole[1]["LaFTer"]
    found = changed(stages[TEXTS], stages["images"]) - RECORDS
    norms = {n for n in found if n.startswith("vlm.")}
    assert found - norms == {"prompt", "adapter"}  # not the teacher, not the model that was given
    assert norms == {f"vlm.clip.visual.{n}" for n, _ in vlm.clip.visual.named_parameters() if "ln_" in n}


def test_each_phase_changes_its_own(whole):
    stages = whole[1]["LaFTerNGA"]
    assert list(stages) == [TEXTS, "warmup", "unfreeze2", "images"]
    parts = [changed(a, b) - RECORDS for a, b in zip(stages.values(), [*stages.values()][1:])]
    assert parts[0] == {"prompt.1", "adapter"}
    assert parts[1] == {"prompt.0", "prompt.1", "adapter", "aggregations.0.value"}
    assert {n for n in parts[2] if not n.startswith("vlm.")} == parts[1] | {"theta"}
    norms = {n for n in parts[2] if n.startswith("vlm.")}
    assert len(norms) == 50 and not any(
        "ln_post" in n for n in norms
    )  # the read-out stays the frozen model's


def test_terms_and_rates_of_every_step(whole):
    log = whole[0]["lafter_nga"].metrics
    assert log["stage"].tolist() == [TEXTS] * 104 + ["warmup"] * 2 + ["unfreeze2"] * 2 + ["images"] * 4
    terms = ["ce", "consistency", "distill"]
    assert log[terms].iloc[104:].notna().all(axis=None) and log["ce_text"].iloc[:104].notna().all()
    assert log["ce_text"].iloc[100:104].mean() < log["ce_text"].iloc[:4].mean()
    assert set(whole[0]["lafter"].metrics["lr"]) == {5e-4}  # constant
    assert log["epoch"].iloc[104:].tolist() == [0, 0, 0, 0, 0, 0, 1, 1]


def test_prompts_of_stages_differ_and_what_was_trained_is_opened(whole, vlm, task):
    run = whole[0]["lafter_nga"]
    m = Run(run.path).attach(vlm, task).model
    assert (m.prompt[0] - m.prompt[1]).abs().max() > 1e-3
    assert all((p[0] - p[1]).abs().max() > 1e-3 for p in m.prompt)
    saved = load_file(run.path / "trainables.safetensors")
    assert all(torch.equal(x, saved[n]) for n, x in m.own().items())
    assert m.epochs_kept == 4 and (m.teacher != m.adapter).any()


def test_labels_of_images_change_nothing_where_they_are_not_read(whole, vlm, task, tmp_path):
    turned = dataclasses.replace(
        task.train,
        labels=(task.train.labels + 1) % 7,
        distributions=np.roll(task.train.distributions, 1, axis=1),
    )
    other = fitted("lafter", vlm, dataclasses.replace(task, train=turned), tmp_path)
    assert other.key != whole[0]["lafter"].key
    trained = load_file(other.path / "trainables.safetensors")
    assert all(
        torch.equal(x, trained[n])
        for n, x in load_file(whole[0]["lafter"].path / "trainables.safetensors").items()
    )


def test_images_without_labels_are_enough(vlm, task, tmp_path):
    bare = dataclasses.replace(task, train=task.train.bare(range(8)))
    run = fitted("lafter", vlm, bare, tmp_path, text_steps=2, epochs=1, max_steps=1)
    assert run.status == "finished"
    with pytest.raises(ValueError, match="labels='true' needs a distribution and a label of every image"):
        fitted("lafter", vlm, bare, tmp_path, labels="true")


def test_the_last_epoch_counts_and_the_best_one_is_said_beside_it(whole, vlm, task):
    m, test = whole[0]["lafter"].model, task.tests["test"]
    scores = vlmlab.evaluate(whole[0]["lafter"], task)
    assert scores["rule"].drop_duplicates().tolist() == ["unified", "unified+best_epoch"]
    by = scores.set_index(["rule", "metric"])["value"]
    each = []
    for epoch in (1, 2):
        with m.at_epoch(epoch):
            each.append(accuracies(predict(m, test), test.labels)["accuracy"])
    assert by["unified", "accuracy"] == each[1] and by["unified+best_epoch", "accuracy"] == max(each)
    assert by["unified+best_epoch", "epoch"] == 1 + each.index(max(each)) and ("unified", "epoch") not in by
    wanted = "accuracy balanced_accuracy KL chebyshev clark canberra cosine intersection".split()
    assert set(by["unified"].index) == set(wanted) and np.isfinite(by["unified"]).all()
    now = hashes(m)
    vlmlab.evaluate(m, task, rule="unified+best_epoch")
    assert changed(now, hashes(m)) == set()


def test_the_best_epoch_is_chosen_for_every_test_by_itself(whole, task, monkeypatch):
    m, test = whole[0]["lafter"].model, task.tests["test"]

    def classify(
        self, z, rule="unified", split=None
    ):  # epoch 1 is right about one class, epoch 2 about another
        guess = 1 if torch.equal(self.adapter, epochs[0]) else 4
        return torch.eye(7)[torch.full((len(z["cls"]),), guess)]

    with m.at_epoch(1):
        epochs = [m.adapter.detach().clone()]
    monkeypatch.setattr(LaFTer, "classify", classify)
    tests = {str(c): test.select(np.flatnonzero(test.labels == c)) for c in (1, 4)}
    found = vlmlab.evaluate(m, dataclasses.replace(task, tests=tests), rule="unified+best_epoch")
    rows = found[found["metric"].isin(["epoch", "accuracy"])].set_index(["split", "metric"])["value"]
    assert rows.to_dict() == {
        ("1", "accuracy"): 100,
        ("1", "epoch"): 1,
        ("4", "accuracy"): 100,
        ("4", "epoch"): 2,
    }


def test_who_keeps_no_epochs_has_no_best_one(vlm, task):
    zero_shot = vlmlab.methods.build("zero_shot", vlm, task.classes.names, task.template)
    with pytest.raises(ValueError, match=r"ZeroShot on .* has no \+best_epoch"):
        vlmlab.evaluate(zero_shot, task, rule="unified+best_epoch")
    untrained = vlmlab.methods.build("lafter", vlm, task.classes.names, task.template)
    with pytest.raises(ValueError, match="LaFTer has kept no epoch; train it first"):
        vlmlab.evaluate(untrained, task, rule="unified+best_epoch")
    with pytest.raises(ValueError, match=r"after the \+ stands per_target or best_epoch"):
        vlmlab.evaluate(zero_shot, task, rule="unified+best")


def test_descriptions_are_keyed_by_their_content(vlm, task, tmp_path):
    path = tmp_path / "texts.json"
    path.write_text(json.dumps({n: [f"a {n} face"] for n in task.classes.names}))
    few = dict(text_steps=2, max_steps=1, epochs=1)
    first = fitted("lafter", vlm, task, tmp_path, descriptions=path, **few)
    moved = path.rename(tmp_path / "moved.json")
    assert fitted("lafter", vlm, task, tmp_path, descriptions=moved, **few).key == first.key
    ours = fitted("lafter", vlm, task, tmp_path, descriptions="emotions", **few)
    assert ours.key != first.key and ours.info["config"]["descriptions"] == "emotions"
    assert ours.info["job"]["files"].keys() == {"descriptions"}
