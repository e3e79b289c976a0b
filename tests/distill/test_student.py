"""What all students share: the feed, the protocol of training, the export, what a test asks."""

import pytest
import torch
import torch.nn.functional as F

import vlmlab
import vlmlab.cli
from vlmlab import registry
from vlmlab.distill.finetune import Finetune
from vlmlab.distill.student import views_of
from vlmlab.learner import grouped
from vlmlab.tasks.task import Task

NAMES = ("finetune", "random_init", "kd", "fitnet", "clip_kd")
QUICK = dict(batch_size=8, max_steps=4, lr=1e-3)


def given(name: str, models: dict) -> dict:
    return {role: models[role] for role in registry.find(name).models_needed}


@pytest.mark.parametrize("name", NAMES)
def test_a_student_trains_is_scored_and_opens_as_an_ordinary_clip(name, models, task, tmp_path):
    run = vlmlab.fit(name, given(name, models), task, out=tmp_path, **QUICK)
    log, before = run.metrics, models["student"].fingerprint()
    assert len(log) == 4 and log["loss"].notna().all()
    terms = [c for c in log if c not in ("step", "stage", "epoch", "lr", "loss")]
    assert torch.allclose(
        torch.tensor(log[terms].sum(axis=1).to_numpy()), torch.tensor(log["loss"].to_numpy())
    )
    scores = vlmlab.evaluate(run, task).set_index("metric")["value"]
    assert 0 <= scores["i2t R@1"] <= scores["i2t R@10"] <= 100
    there = vlmlab.load(run.model.export(tmp_path / "model"), device="cpu")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(there.encode_image(images), run.model.encode_image(images))
        assert torch.equal(there.encode_text(["a disc"]), run.model.encode_text(["a disc"]))
    assert there.logit_scale == pytest.approx(run.model.scale)
    assert models["student"].fingerprint() == before != there.fingerprint()


def test_the_exported_folder_opens_in_plain_open_clip(models, tmp_path):
    open_clip = pytest.importorskip("open_clip", minversion="3.0")
    learner = registry.build("finetune", models["student"])
    folder = learner.export(tmp_path / "model")
    clip = open_clip.create_model(f"local-dir:{folder}")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(clip.eval().encode_image(images), learner.encode_image(images), atol=1e-6)


def test_the_embedded_model_keeps_its_vocabulary(tmp_path):
    learner = registry.build("finetune", vlmlab.load("tiny", device="cpu"))
    there = vlmlab.load(learner.export(tmp_path / "model"), device="cpu")
    assert torch.equal(there.tokenize(["a dog face"]), learner.student.tokenize(["a dog face"]))
    with torch.no_grad():
        assert torch.equal(there.encode_text(["a dog face"]), learner.encode_text(["a dog face"]))


def test_random_init_starts_from_other_weights_of_the_same_shapes(models):
    torch.manual_seed(3)
    learner = registry.build("random_init", models["student"])
    own, old = learner.student.clip.state_dict(), models["student"].clip.state_dict()
    assert {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in old.items()}
    assert not torch.equal(own["visual.proj"], old["visual.proj"])


def test_every_parameter_has_a_gradient_and_none_of_the_teacher(models, batch):
    for name in ("finetune", "kd", "fitnet", "clip_kd"):
        learner = registry.build(name, given(name, models)).train()
        sum(learner.losses(batch).values()).backward()
        for parameter, p in learner.trainable().items():
            assert p.grad is not None and p.grad.isfinite().all(), (name, parameter)
        assert all(p.grad is None for p in models["teacher"].parameters())


def test_vectors_and_scales_do_not_decay(models):
    learner = registry.build("clip_kd", models)
    groups = learner.groups({"student.*": 1e-3, "*": 1e-2}, 0.2)
    members = grouped(learner.trainable(), groups)
    assert sum(map(len, members)) == len(learner.trainable())
    for group, its in zip(groups, members):
        assert all((p.ndim < 2) == (group.weight_decay == 0) for p in its.values())
        assert all((group.lr == 1e-3) == name.startswith("student.") for name in its)


def test_student_and_teacher_see_the_same_crop_in_their_own_pixels(models, batch, task):
    assert batch["image"].shape == (8, 3, 32, 32) and batch["teacher_image"].shape == (8, 3, 40, 40)
    small = F.interpolate(batch["teacher_image"], (32, 32), mode="bicubic", antialias=True)
    same = F.cosine_similarity(small.flatten(1), batch["image"].flatten(1))
    other = F.cosine_similarity(small.flatten(1), batch["image"].roll(1, 0).flatten(1))
    assert same.min() > 0.9 > 0.5 > other.max()
    assert list(views_of(models["student"], models["student"], (0.5, 1), False)) == ["image"]


def test_data_without_captions_are_refused(models, task):
    classes = vlmlab.task("emoji/food", protocol="few_shot", shots=1)
    with pytest.raises(ValueError, match="images with captions"):
        vlmlab.fit("finetune", models["student"], classes)


def test_a_finished_student_can_be_a_teacher(models, task, tmp_path):
    first = vlmlab.fit("finetune", models["student"], task, out=tmp_path, **QUICK)
    run = vlmlab.fit("kd", {"student": models["student"], "teacher": first}, task, out=tmp_path, **QUICK)
    assert run.model.teacher is first.model.student


def test_a_teacher_without_texts_is_refused(models, task, tmp_path):
    with pytest.raises(ValueError, match="teacher must be a model of images and texts"):
        registry.build("kd", {**models, "teacher": torch.nn.Linear(2, 2)})


@pytest.mark.parametrize("name", [*NAMES, "promptkd", "c2kd", "llava_kd", "cmapkd"])
def test_what_a_method_changes_is_said_by_its_class(name):
    assert len(registry.about(name)["differs"]) > 40


def test_what_a_method_changes_is_said_beside_its_numbers(models, task, tmp_path, capsys):
    for seed in (0, 1):
        run = vlmlab.fit(
            "finetune", models["student"], task, out=tmp_path, seed=seed, **QUICK | {"max_steps": 1}
        )
        vlmlab.evaluate(run, task)
    assert "a control without a teacher" in run._repr_html_()
    vlmlab.cli.main(["results", "--runs", str(tmp_path)])
    assert capsys.readouterr().out.count(f"differs   finetune: {Finetune.differs}") == 1


def test_zero_shot_classes(models):
    learner = registry.build("finetune", models["student"])
    learner.set_classes(["red_disc", "cross"], "a {}")
    with torch.no_grad():
        z = learner.image_features(torch.randn(3, 3, 32, 32))
        w = F.normalize(learner.encode_text(["a red disc", "a cross"]), dim=-1)
        assert torch.allclose(learner.classify(z), learner.scale * z @ w.T)


def test_a_task_is_only_for_its_kind(models):
    empty = Task(
        "none",
        "zero_shot",
        None,
        1,
        "{}",
        vlmlab.task("emoji/captions", protocol="retrieval").train.select([]),
        None,
        {},
    )
    with pytest.raises(ValueError, match="images with captions"):
        registry.build("finetune", models["student"]).steps(empty, None)
