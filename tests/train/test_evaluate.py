"""Rules, class names per split, what is kept of which data, tests of any kind."""

import contextlib
import dataclasses
import types

import numpy as np
import pytest
import torch

import vlmlab
from vlmlab.scores.classification import accuracies, unpacked
from vlmlab.tasks.protocols import harmonic_mean
from vlmlab.train import evaluate as evaluate_module
from vlmlab.train.evaluate import predict
from vlmlab.train.records import read_lines


@pytest.fixture(scope="module")
def vlm():
    return vlmlab.load("tiny", device="cpu")


def test_harmonic_mean_of_the_paper():
    assert harmonic_mean(85.46, 77.79) == pytest.approx(81.45, abs=0.006)  # of rounded means
    assert harmonic_mean(0, 0) == 0


def test_decoupled_uses_the_class_branch_for_new_classes_only(vlm, tmp_path):
    task = vlmlab.task("emoji/food", protocol="base_to_new", shots=4, seed=1, backgrounds=1)
    run = vlmlab.fit("mmrlpp", vlm, task, out=tmp_path, epochs=2, batch_size=4, warmup_epochs=0, lr=1e-2)
    frames = {
        rule: vlmlab.evaluate(run, task, rule=rule).set_index(["split", "metric"])["value"]
        for rule in ("unified", "decoupled")
    }
    assert frames["unified"]["base", "accuracy"] == frames["decoupled"]["base", "accuracy"]
    both = vlmlab.evaluate(run, task, rule=["unified", "decoupled"]).set_index(["rule", "split", "metric"])
    assert both["value"].to_dict() == {(rule, *k): v for rule, f in frames.items() for k, v in f.items()}
    by_rule = [
        predict(run.model, task.new, rule=rule, part=part)
        for rule, part in (("unified", None), ("decoupled", "new"))
    ]
    assert not np.allclose(*by_rule)
    assert accuracies(by_rule[1], task.new.labels)["accuracy"] == frames["decoupled"]["new", "accuracy"]
    with pytest.raises(ValueError, match="must not know the split"):
        predict(run.model, task.new, rule="unified", part="new")
    assert tuple(vlmlab.evaluate(run, task).columns) == tuple(vlmlab.results(tmp_path).columns)
    with pytest.raises(ValueError, match="no rule 'other'"):
        vlmlab.evaluate(run, task, rule="other")


def test_per_target_uses_what_the_published_code_sets_for_each_target(vlm, tmp_path, monkeypatch):
    task = vlmlab.task("emoji/food", protocol="cross_dataset", shots=1, seed=1, backgrounds=1)
    own, other, third = list(task.tests)[:3]
    task = dataclasses.replace(task, tests={name: task.tests[name] for name in (own, other, third)})
    run = vlmlab.fit("mmrlpp", vlm, task, out=tmp_path, epochs=1, batch_size=4, warmup_epochs=0, lr=1e-2)
    config = run.model.config
    with pytest.raises(ValueError, match=r"no published parameters of mmrlpp .* leave \+per_target out"):
        vlmlab.evaluate(run, task, rule="decoupled+per_target")
    with pytest.raises(ValueError, match=r"unknown rule with \+mine"):
        vlmlab.evaluate(run, task, rule="unified+mine")
    found = {other: {"token_mix": 0.2}, own: {"token_mix": 0.3}}
    monkeypatch.setattr(evaluate_module, "target_presets", lambda method, target, _: found.get(target, {}))
    seen = []
    answers = evaluate_module.answers
    monkeypatch.setattr(
        evaluate_module,
        "answers",
        lambda score, method, split, parts, *rest: (
            seen.append((method.config.token_mix, parts)),
            answers(score, method, split, parts, *rest),
        )[1],
    )
    rows = vlmlab.evaluate(run, task, rule="unified+per_target")
    assert seen == [(0.9, {"unified": None}), (0.2, {"unified": None}), (0.9, {"unified": None})]
    assert set(rows["rule"]) == {"unified+per_target"} and run.model.config is config


def test_zero_shot_equals_the_library(vlm, tmp_path):
    import torch

    task = vlmlab.task("emoji/food", protocol="zero_shot", backgrounds=1)
    split = next(iter(task.tests.values()))
    run = vlmlab.fit("zero_shot", vlm, task, out=tmp_path)
    images = torch.stack([vlm.preprocess(split.image(i)) for i in range(10)])
    with torch.no_grad():
        f = vlm.clip.encode_image(images, normalize=True)
        w = vlm.clip.encode_text(vlm.tokenizer(split.prompts), normalize=True)
    assert predict(run.model, split)[:10] == pytest.approx((vlm.logit_scale * f @ w.T).numpy(), abs=1e-4)


@pytest.fixture(scope="module")
def zero_shot(vlm, tmp_path_factory):
    task = vlmlab.task("emoji/food", protocol="base_to_new", shots=4, seed=1, backgrounds=1)
    return vlmlab.fit("zero_shot", vlm, task, out=tmp_path_factory.mktemp("zero_shot")), task


def test_rows_follow_from_the_logits(zero_shot):
    run, task = zero_shot
    value = vlmlab.evaluate(run, task).set_index(["split", "metric"])
    for name in ("base", "new"):
        split = task.tests[name]
        right = predict(run.model, split).argmax(1) == split.labels
        per_class = [right[split.labels == c].mean() for c in range(len(split.classnames))]
        assert value.loc[(name, "accuracy"), "value"] == pytest.approx(100 * right.mean())
        assert value.loc[(name, "balanced_accuracy"), "value"] == pytest.approx(100 * np.mean(per_class))
        assert value.loc[(name, "accuracy"), "n"] == len(split)
    base, new, both = (value.loc[(s, "accuracy")] for s in ("base", "new", "hm"))
    assert both["value"] == pytest.approx(2 / (1 / base["value"] + 1 / new["value"]))
    assert both["n"] == base["n"] + new["n"]


def test_every_answer_is_kept(zero_shot):
    run, task = zero_shot
    vlmlab.evaluate(run, task)
    saved = [r for r in read_lines(run.path / "results.jsonl") if "right" in r]
    assert [r["split"] for r in saved] == ["base", "new"]
    for row in saved:
        split = task.tests[row["split"]]
        right = unpacked(row["right"], row["n"])
        assert (right == (predict(run.model, split).argmax(1) == split.labels)).all()
        with pytest.raises(ValueError, match="one for each of"):
            unpacked(row["right"], row["n"] + 8)


def test_a_method_is_scored_like_its_run_and_comes_back_as_it_was(zero_shot):
    run, task = zero_shot
    method = run.model.train()
    names = list(method.classnames)
    frame = vlmlab.evaluate(method, task)
    assert method.training and method.classnames == names
    wanted = vlmlab.evaluate(run, task)
    assert frame.drop(columns=["study", "key"]).equals(wanted.drop(columns=["study", "key"]))


@pytest.mark.parametrize("protocol", ["base_to_new", "cross_dataset", "few_shot"])
def test_the_classes_trained_on_are_base_whatever_the_method_holds_now(zero_shot, monkeypatch, protocol):
    run, trained = zero_shot
    id = "emoji/food" if protocol == "base_to_new" else "emoji/animals"
    other = vlmlab.task(id, protocol=protocol, shots=4)
    parts = []

    def record(score, method, split, rules, *loading):
        parts.append(rules["decoupled"])
        return {"decoupled": np.eye(len(split.classnames))[split.labels]}

    monkeypatch.setattr(evaluate_module, "answers", record)
    run.model.set_classes(trained.new.classnames, trained.template)
    vlmlab.evaluate(run, other, rule="decoupled")
    assert parts == (["base", "new"] if protocol == "base_to_new" else ["new"] * len(other.tests))


def test_other_looks_and_other_data_are_new_though_the_classes_are_those_trained_on(
    vlm, tmp_path, monkeypatch
):
    task = vlmlab.task("emoji/food", protocol="domain_shift", shots=1, backgrounds=1)
    run = vlmlab.fit("zero_shot", vlm, task, out=tmp_path)
    parts = []

    def record(score, method, split, rules, *loading):
        parts.append(rules["decoupled"])
        return {"decoupled": np.eye(len(split.classnames))[split.labels]}

    monkeypatch.setattr(evaluate_module, "answers", record)
    vlmlab.evaluate(run, task, rule="decoupled")
    assert dict(zip(task.tests, parts)) == {name: "base" if name == task.id else "new" for name in task.tests}
    assert len(task.tests) > 2 and all(
        set(t.classnames) <= set(task.train.classnames) for t in task.tests.values()
    )


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"batch_size": -1}, {"batch_size": 2.5}, {"workers": -1}]
)
def test_loading_that_cannot_be(zero_shot, wrong):
    run, task = zero_shot
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} is"):
        vlmlab.evaluate(run, task, **wrong)


def test_ctrl_c_says_what_is_kept(zero_shot, monkeypatch, capsys):
    run, task = zero_shot
    vlmlab.evaluate(run, task)
    before = (run.path / "results.jsonl").read_bytes()

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate_module, "answers", stop)
    with pytest.raises(KeyboardInterrupt):
        vlmlab.evaluate(run, task)
    assert str(run.path) in capsys.readouterr().err
    assert (run.path / "results.jsonl").read_bytes() == before


def test_logits_that_are_not_finite_are_an_error(zero_shot, monkeypatch):
    run, task = zero_shot
    nan = torch.full((1, 2), torch.nan)
    monkeypatch.setattr(type(run.model), "classify", lambda self, z, *rule: nan.expand(len(z["cls"]), 2))
    with pytest.raises(FloatingPointError, match="ZeroShot gives logits that are not finite"):
        vlmlab.evaluate(run, task)


@pytest.mark.parametrize("method", ["zero_shot", "coop"])
def test_a_damaged_weight_of_the_model_is_named(method, zero_shot, tmp_path):
    """Neither a lower rate nor other images help there."""
    broken = vlmlab.load("tiny")
    with torch.no_grad():
        broken.clip.visual.conv1.weight.view(-1)[7] = torch.nan
    with pytest.raises(FloatingPointError, match=r"the weight clip\.visual\.conv1\.weight"):
        run = vlmlab.fit(method, broken, zero_shot[1], out=tmp_path)
        vlmlab.evaluate(run, zero_shot[1])


def test_a_run_without_its_model_says_what_to_do(zero_shot):
    run, task = zero_shot
    with pytest.raises(RuntimeError, match=r"call run.attach\(models, task\)"):
        vlmlab.evaluate(vlmlab.Run(run.path), task)


def test_other_data_has_rows_of_its_own(vlm, zero_shot, tmp_path):
    """Evaluating on other data used to overwrite the earlier numbers."""
    _, task = zero_shot
    run = vlmlab.fit("zero_shot", vlm, task, out=tmp_path)
    first = vlmlab.evaluate(run, task)
    other = vlmlab.task("emoji/food", protocol="base_to_new", shots=4, seed=1, backgrounds=2)
    second = vlmlab.evaluate(run, other)
    assert second["n"].tolist() == [2 * n for n in first["n"]]
    kept = run.results
    assert len(kept) == len(first) + len(second) == 12
    for frame, data in ((first, task), (second, other)):
        found = kept[kept["test"].isin(set(frame["test"]))].reset_index(drop=True)
        assert found.equals(frame)
        for name, digest in data.test_fingerprints().items():
            assert set(frame.loc[frame["split"] == name, "test"]) == {digest[:16]}
    assert len(set(kept["test"])) == 6  # base, new and their hm, twice
    assert vlmlab.evaluate(run, task).equals(first) and len(run.results) == 12


def test_the_summary_is_of_the_protocol_not_of_the_names_of_the_tests(zero_shot):
    run, task = zero_shot
    named = dataclasses.replace(task, protocol="few_shot")
    assert set(vlmlab.evaluate(run.model, named)["split"]) == {"base", "new"}
    half = dataclasses.replace(task, tests={"base": task.base})
    assert set(vlmlab.evaluate(run.model, half)["split"]) == {"base"}


def test_by_default_a_learner_says_what_it_reports(zero_shot, monkeypatch):
    run, task = zero_shot
    assert set(vlmlab.evaluate(run.model, task)["rule"]) == {"unified"}
    monkeypatch.setattr(type(run.model), "rules", ("unified", "decoupled"))
    monkeypatch.setattr(type(run.model), "reports", {"base_to_new": ("unified", "decoupled")}, raising=False)
    assert set(vlmlab.evaluate(run.model, task)["rule"]) == {"unified", "decoupled"}
    other = dataclasses.replace(task, protocol="few_shot")
    assert set(vlmlab.evaluate(run.model, other)["rule"]) == {"unified"}
    assert set(vlmlab.evaluate(run.model, task, "decoupled")["rule"]) == {"decoupled"}


def test_a_method_is_scored_on_pairs(vlm, zero_shot):
    run, _ = zero_shot
    task = vlmlab.task("emoji/captions", protocol="retrieval")
    few = {name: test.select(range(30)) for name, test in list(task.tests.items())[:2]}
    frame = vlmlab.evaluate(run.model, dataclasses.replace(task, tests=few))
    assert set(frame["split"]) == {"test", "keywords"} and set(frame["protocol"]) == {"retrieval"}
    value = frame.set_index(["split", "metric"])["value"]
    assert value["test", "t2i R@1"] > 30 > value["keywords", "t2i R@1"] > 0  # chance is 3
    import torch

    test = few["test"]
    with torch.no_grad():
        f = vlm.clip.encode_image(
            torch.stack([vlm.preprocess(test.image(i)) for i in range(30)]), normalize=True
        )
        w = vlm.clip.encode_text(vlm.tokenizer(list(test.texts)), normalize=True)
    right = (f @ w.T).argmax(1) == torch.arange(30)
    assert value["test", "i2t R@1"] == pytest.approx(100 * right.float().mean().item())


def test_soft_labels_add_rows_and_change_none(zero_shot):
    run, _ = zero_shot
    task = vlmlab.task("emoji/emotions", protocol="label_distribution", shots=1, backgrounds=1)
    soft = vlmlab.evaluate(run.model, task)
    hard = dataclasses.replace(
        task, tests={"test": dataclasses.replace(task.tests["test"], distributions=None)}
    )
    plain = vlmlab.evaluate(run.model, hard)
    assert plain["value"].tolist() == soft["value"].tolist()[:2] and len(plain) == 2
    assert {"KL", "cosine", "clark"} < set(soft["metric"]) and (soft["test"] != plain["test"][0]).all()


def test_a_test_that_the_learner_cannot_be_asked_about(zero_shot):
    run, _ = zero_shot
    task = vlmlab.task("emoji/scenes", protocol="vqa")
    with pytest.raises(ValueError, match=r"ZeroShot cannot be asked about Questions\(.*; it needs generate"):
        vlmlab.evaluate(run.model, task)


# what is asked of whom, without any image


@pytest.mark.parametrize(
    ("protocol", "name", "known", "part"),
    [
        ("base_to_new", "base", True, "base"),
        ("base_to_new", "new", False, "new"),
        ("few_shot", "other", True, "base"),
        ("cross_dataset", "own", True, "base"),
        ("cross_dataset", "other", True, "new"),
        ("cross_dataset", "own", False, "new"),
        ("domain_shift", "other", True, "new"),
        ("domain_shift", "own", True, "base"),
    ],
)
def test_what_the_decoupled_rule_is_told(protocol, name, known, part):
    task = types.SimpleNamespace(id="own", protocol=protocol)
    assert evaluate_module.part_of(task, name, known) == part


@pytest.mark.parametrize(("right", "best"), [((0, 0, 0), 1), ((1, 3, 2), 2), ((1, 2, 2), 2), ((1, 2, 3), 3)])
def test_of_equal_epochs_the_first_is_best(monkeypatch, right, best):
    now, labels = [], np.zeros(4, int)

    @contextlib.contextmanager
    def at_epoch(epoch):
        now.append(epoch)
        yield

    def answers(score, learner, test, rules, *loading):
        guess = (np.arange(4) >= right[now[-1] - 1]).astype(int)
        return {"unified": np.eye(2, dtype=np.float32)[guess]}

    monkeypatch.setattr(evaluate_module, "answers", answers)
    learner = types.SimpleNamespace(at_epoch=at_epoch, epochs_kept=torch.tensor(3))
    test = types.SimpleNamespace(labels=labels)
    found = evaluate_module.at_best_epoch(evaluate_module.classification, learner, test, {"unified": None})
    epoch, logits = found["unified"]
    assert now == [1, 2, 3] and epoch == best
    assert (logits.argmax(1) == labels).sum() == right[best - 1]


def test_images_are_loaded_in_this_process_unless_told_otherwise(zero_shot, monkeypatch):
    run, task = zero_shot
    loaded, shown, in_order = [], [], evaluate_module.in_order
    bar = evaluate_module.progress.bar
    monkeypatch.setattr(
        evaluate_module,
        "in_order",
        lambda images, model, size, workers: (
            loaded.append((size, workers)),
            in_order(images, model, size, 0),
        )[1],
    )
    monkeypatch.setattr(
        evaluate_module.progress, "bar", lambda x, **how: (shown.append(how), bar(x, **how))[1]
    )
    few = task.tests["new"].select(range(3))
    predict(run.model, few)
    evaluate_module.predictions(run.model, few, {"unified": None})
    predict(run.model, few, batch_size=2, workers=1)
    vlmlab.evaluate(run.model, dataclasses.replace(task, tests={"new": few}))
    vlmlab.evaluate(run.model, dataclasses.replace(task, tests={"new": few}), batch_size=2, workers=3)
    list(evaluate_module.pictures_for(run.model)(few))
    assert loaded == [(None, 0), (None, 0), (2, 1), (None, 0), (2, 3), (None, 0)]
    # it is gone when it is done, and what takes less than a second shows none
    assert shown == [{"desc": "evaluate", "unit": "batch", "leave": False, "delay": 1}] * 6


def test_ctrl_c_with_a_learner_that_is_no_run_keeps_nothing_to_tell(zero_shot, monkeypatch, capsys):
    run, task = zero_shot

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate_module, "answers", stop)
    before = run.model.training, run.model.classnames, run.model.config
    with pytest.raises(KeyboardInterrupt):
        vlmlab.evaluate(run.model, task)
    said = capsys.readouterr()
    assert said.out == said.err == "" and before == (False, run.model.classnames, run.model.config)
    with pytest.raises(KeyboardInterrupt):
        vlmlab.evaluate(run, task)
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("stopped; nothing of this evaluation is kept")


def test_rows_say_what_they_are_of(zero_shot):
    run, task = zero_shot
    few = dataclasses.replace(task, tests={"new": task.tests["new"].select(range(4))}, protocol="few_shot")
    frame = vlmlab.evaluate(run.model, few, ["unified"])
    assert [*frame.columns] == [*vlmlab.evaluate(run, few).columns] and [*frame.index] == [0, 1]
    wanted = {"method": "zero_shot", "variant": "", "task": task.id, "protocol": "few_shot", "split": "new"}
    wanted |= {"shots": 4, "seed": 1, "rule": "unified", "test": few.tests["new"].fingerprint()[:16], "n": 4}
    for _, row in frame.iterrows():
        assert {k: row[k] for k in wanted} == wanted
    assert frame["metric"].tolist() == ["accuracy", "balanced_accuracy"]
