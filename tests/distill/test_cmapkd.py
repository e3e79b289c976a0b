"""CMAPKD: what trains in which stage, gradients, resume, and what is left when its helpers are dropped."""

import itertools

import pytest
import torch

import vlmlab
from vlmlab import registry
from vlmlab.distill import schedules
from vlmlab.distill.cmapkd import CMAPKD
from vlmlab.learner import Stage
from vlmlab.train.loop import Loop
from vlmlab.train.run import Run

SMALL = dict(channels=12, sizes=(8, 4, 2, 1))
QUICK = dict(batch_size=12, max_steps=15, lr=1e-3) | SMALL
DEPLOYED = ("visual.proj", "visual.ln_post.weight", "ln_final.weight", "text_projection", "logit_scale")


@pytest.fixture(scope="module")
def entered():
    """(stage, parameters before it) of the run `whole`, as it was trained."""
    return []


@pytest.fixture(scope="module")
def whole(models, task, entered, tmp_path_factory):
    enter = CMAPKD.enter

    def look(self, stage):
        entered.append((stage.name, {n: p.detach().clone() for n, p in self.named_parameters()}))
        enter(self, stage)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CMAPKD, "enter", look)
        run = vlmlab.fit("cmapkd", models, task, out=tmp_path_factory.mktemp("whole"), watch=2, **QUICK)
    del entered[len(run.info["stages"]) :]  # to open the run, its stages are entered again
    return run


def learner_of(models, **config):
    torch.manual_seed(0)
    return registry.build("cmapkd", models, **SMALL, **config).train()


def gradients(learner, batch) -> dict:
    learner.zero_grad()
    sum(learner.losses(batch).values()).backward()
    return {name: p.grad for name, p in learner.student.clip.named_parameters()}


def test_one_step_of_the_full_loss_reaches_every_parameter_of_the_student(models, batch):
    learner = learner_of(models)
    terms = learner.losses(batch)
    assert set(terms) == {*"intra_v intra_l align_single align_pyr rel_sample rel_layer task alsn".split()}
    found = gradients(learner, batch)
    used = {t for text in batch["text"] for t in learner.student.tokenize([text])[0].tolist()}
    for name, grad in found.items():
        assert grad is not None and grad.isfinite().all() and grad.abs().sum() > 0, name
    assert set(found["token_embedding.weight"].abs().sum(1).nonzero().flatten().tolist()) <= used
    assert set(DEPLOYED) <= set(found)
    helpers = {n: p.grad for n, p in learner.named_parameters() if n.startswith(("builder.", "alsn."))}
    assert all(g is not None and g.isfinite().all() and g.abs().sum() > 0 for g in helpers.values())
    given = [*models["teacher"].parameters(), *models["student"].parameters()]
    assert all(p.grad is None for p in given)
    assert all(p.grad is None for p in learner.teacher_builder.parameters())


def test_the_plans_task_leaves_the_deployed_embedding_without_a_gradient(models, batch):
    found = gradients(learner_of(models, literal=("heads_only",)), batch)
    assert [n for n, g in found.items() if g is None] == [
        *("text_projection", "logit_scale", "visual.proj", "visual.ln_post.weight", "visual.ln_post.bias"),
        *("ln_final.weight", "ln_final.bias"),
    ]


def test_no_loss_of_the_student_has_a_gradient_for_alsn_and_none_of_alsn_for_the_student(models, batch):
    learner = learner_of(models)
    terms = learner.losses(batch)
    alsn, student = list(learner.alsn.parameters()), list(learner.student.clip.parameters())
    rest = sum(v for k, v in terms.items() if k != "alsn")
    assert all(g is None for g in torch.autograd.grad(rest, alsn, retain_graph=True, allow_unused=True))
    assert all(g is None for g in torch.autograd.grad(terms["alsn"], student, allow_unused=True))


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_schedules_keep_their_epochs(models, task, name):
    for weights in ("alsn", "uniform"):
        learner = learner_of(models, schedule=name, weights=weights)
        stages = learner.stages(task, learner.Options(batch_size=12), seed=0)
        epochs = {s.name: s.steps / s.epoch for s in stages}
        assert epochs.pop("prefit") == 1
        assert sum(epochs.values()) == {"seed_plan3": 20}.get(name, 25)
        assert ("alsn" in epochs) == (weights == "alsn" and name != "one_stage")
    if name == "unified":
        assert [p.name for p in schedules.parts(name, warm_all=False)] == ["coarse", "medium", "alsn", "fine"]


def test_frozen_parts_of_a_stage_are_bit_identical_behind_it(whole, entered, models):
    end = ("end", {n: p.detach().clone() for n, p in whole.model.named_parameters()})
    for (name, before), (_, after) in itertools.pairwise([*entered, end]):
        part = {"prefit": schedules.PREFIT, **{p.name: p for p in schedules.parts("unified", True)}}[name]
        moved = {n for n in after if not torch.equal(before[n], after[n])}
        moves = [pattern.removesuffix("*") for pattern in part.rates]
        assert moved and all(n.startswith(tuple(moves)) for n in moved), name
        for pattern in moves:
            assert any(n.startswith(pattern) for n in moved), (name, pattern)
    assert models["teacher"].fingerprint() == whole.info["models"]["teacher"]["weights"]


def test_a_stop_inside_every_stage_ends_with_the_same_bits(whole, models, task, tmp_path, monkeypatch):
    step, done = Loop.step, set()

    def stop(self, stage, n, batch):
        if n == min(3, stage.steps - 1) and stage.name not in done:
            done.add(stage.name)
            raise KeyboardInterrupt
        return step(self, stage, n, batch)

    monkeypatch.setattr(Loop, "step", stop)
    stages = [name for name, _ in whole.info["stages"]]
    for _ in stages:
        with pytest.raises(KeyboardInterrupt):
            vlmlab.fit("cmapkd", models, task, out=tmp_path, watch=2, **QUICK)
    again = vlmlab.fit("cmapkd", models, task, out=tmp_path, watch=2, **QUICK)
    assert list(done) and done == set(stages) and again.key == whole.key
    assert all(torch.equal(x, again.model.own()[name]) for name, x in whole.model.own().items())
    assert (again.path / "metrics.jsonl").read_bytes() == (whole.path / "metrics.jsonl").read_bytes()


def test_without_its_helpers_the_student_is_the_same_model(whole, tmp_path):
    model, images = whole.model, torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        before = model.encode_image(images), model.encode_text(["a red disc"])
    assert model.decoders is None  # thrown away behind the prefit
    there = vlmlab.load(model.export(tmp_path / "model"), device="cpu")
    with torch.no_grad():
        after = there.encode_image(images), there.encode_text(["a red disc"])
    assert all(torch.equal(a, b) for a, b in zip(before, after))
    assert {n.split(".")[0] for n in there.wrapped.state_dict()} == {
        n.split(".")[0] for n in model.student.wrapped.state_dict()
    }


def test_the_shares_of_the_terms_in_the_gradient_are_in_the_log(whole):
    log = whole.metrics
    shares = log[[c for c in log if c.startswith("share_")]]
    fine = (log["stage"] == "fine") & shares.notna().any(axis=1)
    assert fine.any() and shares[fine].sum(axis=1).to_numpy() == pytest.approx(1.0, abs=1e-5)
    assert shares.loc[fine, "share_alsn"].eq(0).all() and shares.loc[fine, "share_task"].gt(0).all()


def test_the_prefit_lowers_its_loss_and_trains_the_scale(models, task):
    learner = learner_of(models)
    stage = learner.stages(task, learner.Options(batch_size=24, epochs=300), 0)[0]
    assert stage.name == "prefit" and stage.steps == 12
    scale, optimiser = learner.pair_scale.item(), torch.optim.AdamW(learner.parameters(), lr=1e-2)
    found = []
    for batch, _ in zip(stage.feed(0), range(stage.steps)):
        optimiser.zero_grad()
        loss = sum(learner.losses(batch, stage).values())
        loss.backward()
        optimiser.step()
        found.append(loss.item())
    assert found[-1] < found[0] - 0.3 and learner.pair_scale.item() != scale
    assert all(p.grad is None for p in learner.student.parameters())


@pytest.mark.parametrize(
    ("config", "gone"),
    [
        ({"w_align": 0.0}, {"align_single", "align_pyr"}),
        ({"w_rel": 0.0}, {"rel_sample", "rel_layer"}),
        ({"vision_levels": (5,)}, {"rel_layer"}),
        ({"weights": "uniform"}, {"alsn"}),
        ({"w_task": 0.0}, {"task"}),
    ],
)
def test_an_ablation_changes_one_key(models, batch, config, gone):
    full, less = set(learner_of(models).losses(batch)), set(learner_of(models, **config).losses(batch))
    assert full - less == gone


@torch.no_grad()
def test_weights_of_levels(models, batch):
    def weights(part=None, **config):
        learner = learner_of(models, **config).eval()
        return learner, learner.weights(learner.levels(batch), learner.teacher_levels(batch), part)

    learner, w = weights()
    assert w.shape == (8, 2, 4) and torch.allclose(w.sum(-1), torch.ones(8, 2)) and w.std(0).max() > 0
    coarse = weights(learner.parts["coarse"])[1]
    assert coarse[0].tolist() == [[0, 0, 0, 1]] * 2
    assert torch.allclose(weights(weights="manual")[1][0], torch.tensor([[0.1, 0.2, 0.3, 0.4]] * 2))
    few = weights(vision_levels=(3, 5), weights="uniform")[1][0]
    assert few.tolist() == [[0, 0.5, 0, 0.5], [0.25] * 4]


@pytest.mark.parametrize("objective", ["literal", "relative", "utility"])
def test_alsn_learns_its_objective(models, batch, objective):
    learner = learner_of(models, objective=objective).train()
    stage = Stage("alsn", 1)
    for p in learner.student.parameters():
        p.requires_grad_(False)
    learner.alsn.net.body[2].p = 0.0
    optimiser, found = torch.optim.Adam(learner.alsn.parameters(), lr=3e-3), []
    for _ in range(8):
        optimiser.zero_grad()
        (loss,) = learner.losses(batch, stage).values()
        loss.backward()
        optimiser.step()
        found.append(loss.item())
    assert found[-1] < found[0] - 1e-3


def test_the_utility_learns_on_pairs_that_the_student_never_sees(models, task):
    learner = learner_of(models, objective="utility")
    seen, held = (set(x.ids) for x in learner.divided(task.train))
    assert held and not seen & held and len(seen) + len(held) == len(task.train)
    assert schedules.ALSN not in learner.rates(learner.parts["fine"])
    with pytest.raises(ValueError, match="a stage of its own"):
        learner_of(models, objective="utility", schedule="one_stage")


def test_balanced_terms_weigh_what_the_preset_says(models, batch):
    learner = learner_of(models, balance="init")
    terms = learner.losses(batch)
    assert terms["intra_v"].item() == pytest.approx(1.0) and terms["rel_layer"].item() == pytest.approx(0.09)
    again = learner.losses(batch)
    assert again["task"].item() == pytest.approx(0.1, rel=1e-4)


def test_alsn_learns_where_only_one_level_is_active(models, batch):
    learner = learner_of(models, vision_levels=(5,), language_levels=(3, 4))
    sum(learner.losses(batch).values()).backward()
    grads = [p.grad for p in learner.alsn.parameters()]
    assert all(g.isfinite().all() for g in grads) and any(g.abs().sum() > 0 for g in grads)


@pytest.mark.parametrize("levels", [(2, 3), (1, 5), (5, 5), ()])
def test_levels_that_are_none_are_refused(models, levels):
    with pytest.raises(ValueError, match="vision_levels are some of 2, 3, 4, 5"):
        learner_of(models, vision_levels=levels)


def test_every_literal_form_runs(models, batch):
    every = ("language", "last_axis", "quarter", "raw_products", "batch_means", "heads_only", "sigmoid")
    for literal in ((), every):
        learner = learner_of(models, literal=literal, align_single="interactive", relation_of="concat")
        assert all(v.isfinite() for v in learner.losses(batch).values())
    quarter = [learner_of(models, literal=x).eval().losses(batch)["intra_v"] for x in ((), ("quarter",))]
    assert torch.allclose(quarter[0], 4 * quarter[1])
    with pytest.raises(ValueError, match="pyramid"):
        registry.configure("cmapkd", {"literal": ("pyramid",)})


def test_the_native_grid_has_the_students_places(models, batch):
    learner = learner_of(models, native_grid=True)
    assert [tuple(x.shape[2:]) for x in learner.levels(batch).maps] == [(4, 4)] * 4
    assert [tuple(x.shape[2:]) for x in learner.teacher_levels(batch).maps] == [(4, 4)] * 4


@pytest.mark.parametrize("basis", ["pca", "regress"])
def test_a_teacher_without_a_pyramid_is_compared_within_a_modality(models, task, tmp_path, basis):
    config = dict(teacher_basis=basis, w_align=0.0, relation_levels="cka", schedule="one_stage")
    run = vlmlab.fit("cmapkd", models, task, out=tmp_path, **QUICK | {"max_steps": 3}, **config)
    assert [name for name, _ in run.info["stages"]] == ["joint"] and run.metrics["loss"].notna().all()
    again = Run(run.path).attach(models, task)
    if basis == "pca":
        there = again.model.teacher_builder.vision_axes
        assert torch.allclose(there.transpose(1, 2) @ there, torch.eye(12).expand(4, 12, 12), atol=1e-5)
    with pytest.raises(ValueError, match="w_align must be 0"):
        learner_of(models, teacher_basis=basis)


def test_more_axes_than_the_teacher_has_are_refused(models):
    with pytest.raises(ValueError, match="no more principal axes"):
        registry.build("cmapkd", models, channels=64, teacher_basis="pca", w_align=0.0, relation_levels="cka")
