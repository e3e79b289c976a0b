"""The loop: kill -9 inside stages and between them, other people's models, processes, synchronisations."""

import functools
import socket
import threading
from pathlib import Path

import pytest
import torch
from forked import Fork, killed
from safetensors.torch import load_file
from small_learners import LEARNERS, Distil, Net, Numbers, Queue, TwoStages, models_of

import vlmlab
from vlmlab import processes
from vlmlab.train import loop
from vlmlab.train.run import Run

HERE = Path(__file__).parent


def fitted(name, out) -> Run:
    cls = LEARNERS[name]
    return vlmlab.fit(cls, models_of(cls), Numbers(), out=out)


def bytes_of(run: Run) -> tuple:
    files = ("trainables.safetensors", "metrics.jsonl")
    return tuple((run.path / name).read_bytes() for name in files)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    return {name: fitted(name, root) for name in LEARNERS}


@pytest.mark.parametrize(
    ("name", "kills"),
    # inside the first stage, before anything is saved, right between the stages, inside the second
    [("two_stages", (1, 4, 5, 9)), ("distil", (6,)), ("queue", (4,)), ("growing", (4, 7))],
)
def test_kill_9_anywhere_ends_with_the_same_bytes(whole, name, kills, tmp_path):
    for kill in kills:
        out = tmp_path / str(kill)
        killed(functools.partial(fitted, name, out), kill)
        (folder,) = (p.parent for p in out.glob("**/run.json"))
        assert Run(folder).status == "running"
        assert bytes_of(fitted(name, out)) == bytes_of(whole[name]), kill


def test_stages_and_their_terms_are_logged(whole):
    log = whole["two_stages"].metrics
    assert log["stage"].tolist() == ["texts"] * 5 + ["views"] * 7 and log["step"].tolist() == [*range(12)]
    assert log["lr"][5] == 1e-2 and log["lr"][6] == pytest.approx(5e-3)
    assert whole["two_stages"].info["stages"] == [["texts", 5], ["views", 7]]


def test_a_stage_trains_its_groups_alone(whole):
    first = load_file(whole["two_stages"].path / "trainables.safetensors")
    torch.manual_seed(0)
    start = Net()
    kept = {k.removeprefix("net."): v for k, v in first.items() if k.startswith("net.")}
    same = {k for k, v in start.state_dict().items() if torch.equal(kept[k], v)}
    assert same == {"body.0.weight", "body.0.bias", "body.2.weight", "body.2.bias"}
    assert {k for k in first if not k.startswith("net.")} == {"head.weight", "head.bias", "prompt"}
    assert first["prompt"].abs().max() > 0


def test_a_momentum_copy_and_a_queue_are_kept_but_no_given_model(whole):
    assert {"q.weight", "k.weight", "queue", "at"} <= load_file(
        whole["queue"].path / "trainables.safetensors"
    ).keys()
    names = load_file(whole["distil"].path / "trainables.safetensors")
    assert "scale" in names and not any(name.startswith("teacher") for name in names)


def test_a_grown_run_opens_in_its_last_shape(whole):
    model = Run(whole["growing"].path).attach({}).model
    assert len(model.layers) == 2 and not model.training
    saved = load_file(whole["growing"].path / "trainables.safetensors")
    assert torch.equal(model.layers[1].weight, saved["layers.1.weight"])


@pytest.mark.parametrize("cls", [TwoStages, Distil])
def test_models_that_are_given_never_change(cls, tmp_path):
    models = models_of(cls)
    before = {
        role: (m.fingerprint(), [p.requires_grad for p in m.parameters()]) for role, m in models.items()
    }
    run = vlmlab.fit(cls, models, Numbers(), out=tmp_path)
    assert before == {
        role: (m.fingerprint(), [p.requires_grad for p in m.parameters()]) for role, m in models.items()
    }
    assert run.status == "finished"


def test_a_stage_that_would_train_a_given_model_is_refused(tmp_path):
    class Greedy(TwoStages):
        def enter(self, stage):
            super().enter(stage)
            self.taken = self.loaded[0].requires_grad_(True)

    with pytest.raises(ValueError, match=r"Greedy would train .* parameters of a model that it was given"):
        vlmlab.fit(Greedy, models_of(TwoStages), Numbers(), out=tmp_path)


def test_roles_are_named():
    with pytest.raises(ValueError, match=r"needs models by role, .*'student'.*'teacher'.*; got one model"):
        vlmlab.fit(Distil, Net(), Numbers())
    with pytest.raises(ValueError, match="needs models for student, teacher; got student"):
        vlmlab.fit(Distil, {"student": Net()}, Numbers())
    with pytest.raises(ValueError, match="needs models for no role; got vlm"):
        vlmlab.fit(Queue, {"vlm": Net()}, Numbers())


def test_a_run_stands_in_for_what_it_trained(whole, tmp_path):
    class On(TwoStages):
        def __init__(self, models, config):
            super().__init__({"vlm": models["vlm"].student}, config)
            self.loaded = (models["vlm"],)

    run = vlmlab.fit(On, whole["distil"], Numbers(), out=tmp_path)
    record = run.info["models"]["vlm"]
    assert (run.path / record["run"]).resolve() == whole["distil"].path.resolve()
    assert run.info["job"]["models"]["vlm"]["run"] == whole["distil"].key
    other = vlmlab.fit(Distil, models_of(Distil), Numbers(), out=tmp_path, seed=2)
    assert vlmlab.fit(On, other, Numbers(), out=tmp_path).key != run.key


def test_no_step_waits_for_the_device(tmp_path, monkeypatch):
    """Values are asked for once a block and once a saved state, not in every step."""
    asked = []
    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy"):
        real = getattr(torch.Tensor, name)

        def counted(self, *args, real=real, **kwargs):
            if threading.current_thread() is threading.main_thread():  # the saver reads its own copies
                asked.append(1)
            return real(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counted)
    monkeypatch.setattr(loop, "BLOCK", 5)
    made, optimiser = loop.Loop.step, []

    def step(self, *args):
        before = len(asked)
        made(self, *args)
        optimiser.append(len(asked) - before)

    monkeypatch.setattr(loop.Loop, "step", step)
    vlmlab.fit(Distil, models_of(Distil), Numbers(), out=tmp_path)
    # AdamW's own count of steps stands in the CPU's memory
    assert len(optimiser) == 9 and set(optimiser) == {optimiser[0]}
    steps_of_adam = optimiser[0]
    plain = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2)) for _ in range(7)])
    for group in plain.param_groups:
        for p in group["params"]:
            p.grad = torch.ones(2)
    before = len(asked)
    plain.step()
    assert steps_of_adam == len(asked) - before


def test_saving_goes_on_beside_the_steps(tmp_path, monkeypatch):
    """A state that takes long to write does not keep the loop from its next step."""
    release, order = threading.Event(), []
    write = loop.RunFolder.write_state

    def slow(self, state):
        release.wait(20)
        order.append("saved")
        write(self, state)

    step = loop.Loop.step

    def noted(self, *args):
        order.append("step")
        if order.count("step") == 5:
            release.set()
        step(self, *args)

    monkeypatch.setattr(loop.RunFolder, "write_state", slow)
    monkeypatch.setattr(loop.Loop, "step", noted)
    run = vlmlab.fit(Distil, models_of(Distil), Numbers(), out=tmp_path)
    assert order.index("saved") >= 5 and run.status == "finished"  # the first state is that of step 4


@pytest.mark.parametrize("then", ["another is saved", "the run ends"])
def test_a_state_that_could_not_be_written_is_never_taken_for_saved(then):
    def full():
        raise OSError("no space left")

    saver = loop.Saver()
    saver.submit(full)
    with pytest.raises(OSError, match="no space left"):
        saver.submit(lambda: None) if then == "another is saved" else saver.close()
    saver.close()  # said once


def test_a_group_without_parameters_is_named(tmp_path):
    class Typo(TwoStages):
        def stages(self, task, options, seed):
            (first, _) = super().stages(task, options, seed)
            return [first.__class__("x", 2, first.feed, (loop.Stage("", 0).groups[0].__class__("haed.*"),))]

    with pytest.raises(
        ValueError, match=r"no parameter is left for the group 'haed.\*'; there are .*head.weight"
    ):
        vlmlab.fit(Typo, Net(), Numbers(), out=tmp_path)


def test_a_feed_that_ends_too_early_is_named(tmp_path):
    class Short(Queue):
        def stages(self, task, options, seed):
            (stage,) = super().stages(task, options, seed)
            import dataclasses
            import itertools

            return [dataclasses.replace(stage, feed=lambda n: itertools.islice(stage.feed(n), 2))]

    with pytest.raises(ValueError, match="feed of stage 'moco' ended after 2 of 8 steps"):
        vlmlab.fit(Short, {}, Numbers(), out=tmp_path)


TWO = """
import sys; sys.path.insert(0, sys.argv[1])
import torch; torch.set_num_threads(1)
import small_learners as s, vlmlab
vlmlab.fit(s.Distil, s.models_of(s.Distil), s.Numbers(), out=sys.argv[2])
"""


def test_two_processes_equal_one(whole, tmp_path):
    """Gradients are averaged and terms across the batch gathered: the same losses and weights."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [torchrun | {"RANK": str(i), "LOCAL_RANK": str(i)} for i in range(2)]
    run = [Fork(TWO, HERE, tmp_path / "runs", env=rank) for rank in ranks]
    for done in [p.finish() for p in run]:
        assert done.returncode == 0, done.stderr[-2000:]
    (path,) = (tmp_path / "runs").glob("**/run.json")
    both, one = Run(path.parent), whole["distil"]
    assert both.key == one.key and both.status == "finished"
    for term in ("clip", "kd", "loss"):
        assert both.metrics[term].to_numpy() == pytest.approx(one.metrics[term].to_numpy(), rel=1e-5)
    a, b = (load_file(r.path / "trainables.safetensors") for r in (both, one))
    assert all(torch.allclose(a[k], b[k], atol=1e-6) for k in b)


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch):
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(ValueError, match="a batch of 5 cannot be divided among 2 processes"):
        processes.share(range(5))
