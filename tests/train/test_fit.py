"""Training on the embedded data: exact resume, faults, no hidden state."""

import dataclasses
import json
import resource
import shutil
import signal
import time

import pytest
import torch
from forked import Fork
from safetensors import safe_open
from safetensors.torch import load_file

import vlmlab
from vlmlab import methods
from vlmlab.train.fit import fit
from vlmlab.train.loop import Loop
from vlmlab.train.run import Run

SETTINGS = dict(epochs=3, batch_size=8, rep_dim=32, token_mix=0.5)


@pytest.fixture(scope="module")
def vlm():
    return vlmlab.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def task():
    return vlmlab.task("emoji/food", protocol="base_to_new", shots=8, seed=1)


@pytest.fixture(scope="module")
def whole(vlm, task, tmp_path_factory):
    return fit("mmrlpp", vlm, task, out=tmp_path_factory.mktemp("whole"), **SETTINGS)


def same(a: Run, b: Run) -> bool:
    tensors = [load_file(r.path / "trainables.safetensors") for r in (a, b)]
    return (
        all(torch.equal(tensors[0][k], tensors[1][k]) for k in tensors[0])
        and (a.path / "metrics.jsonl").read_bytes() == (b.path / "metrics.jsonl").read_bytes()
    )


def test_every_term_is_logged_and_only_trainables_are_kept(whole, task):
    steps = 3 * (len(task.train) // 8)
    assert len(whole.metrics) == steps and whole.info["steps"] == steps
    names = ["ce_class", "ce_prompt", "anchor_image", "anchor_text"]
    assert steps == 9  # three per epoch: a stop can fall inside one
    assert list(whole.metrics.columns) == ["step", "stage", "epoch", "lr", *names, "loss"]
    terms = whole.metrics[names].sum(axis=1)
    assert terms.to_numpy() == pytest.approx(whole.metrics["loss"].to_numpy(), rel=1e-5)
    assert set(load_file(whole.path / "trainables.safetensors")) == set(whole.model.trainable())
    assert not (whole.path / "state.safetensors").exists()


def test_a_finished_run_is_returned(whole, vlm, task, monkeypatch):
    monkeypatch.setattr(Loop, "step", lambda *a: pytest.fail("trained again"))
    again = fit("mmrlpp", vlm, task, out=whole.path.parents[3], **SETTINGS)
    assert again.path == whole.path


def test_a_stop_loses_at_most_an_epoch(whole, vlm, task, tmp_path, monkeypatch, capsys):
    step, calls = Loop.step, []

    def stop(self, *args):
        calls.append(1)
        if len(calls) == len(whole.metrics) - 1:
            raise KeyboardInterrupt
        return step(self, *args)

    monkeypatch.setattr(Loop, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        fit("mmrlpp", vlm, task, out=tmp_path, **SETTINGS)
    assert "2 of 3 epochs are kept" in capsys.readouterr().err
    monkeypatch.undo()
    assert same(fit("mmrlpp", vlm, task, out=tmp_path, **SETTINGS), whole)


def test_kill_9_then_the_same_call_ends_with_the_same_bits(whole, vlm, task, tmp_path):
    program = (
        "import sys, torch, vlmlab; torch.set_num_threads(1); from vlmlab.train.fit import fit\n"
        "task = vlmlab.task('emoji/food', protocol='base_to_new', shots=8, seed=1)\n"
        f"fit('mmrlpp', vlmlab.load('tiny', device='cpu'), task, out=sys.argv[1], **{SETTINGS!r})"
    )
    child = Fork(program, tmp_path)
    for _ in range(6000):
        if list(tmp_path.glob("**/state.safetensors")) or child.poll() is not None:
            break
        time.sleep(0.05)
    child.kill()
    assert child.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    (path,) = tmp_path.glob("**/run.json")
    assert json.loads(path.read_text())["status"] == "running"
    assert same(fit("mmrlpp", vlm, task, out=tmp_path, **SETTINGS), whole)


def test_seeds_differ(whole, vlm, task, tmp_path):
    other = fit("mmrlpp", vlm, task, out=tmp_path, seed=2, **SETTINGS)
    assert other.key != whole.key and not same(other, whole)


def test_zero_weights_train_like_mmrlpp(whole, vlm, task, tmp_path):
    other = fit("aligned_norm", vlm, task, out=tmp_path, w_proj=0, w_token=0, **SETTINGS)
    a, b = load_file(whole.path / "trainables.safetensors"), load_file(other.path / "trainables.safetensors")
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_nan_loss_names_step_and_term_and_keeps_the_last_epoch(vlm, task, tmp_path, monkeypatch):
    losses = methods.find("mmrlpp").losses

    def poisoned(self, batch, stage=None):
        poisoned.calls += 1
        terms = losses(self, batch, stage)
        return terms | {"ce_class": terms["ce_class"] * float("nan")} if poisoned.calls > 4 else terms

    poisoned.calls = 0
    monkeypatch.setattr(methods.find("mmrlpp"), "losses", poisoned)
    with pytest.raises(FloatingPointError, match=r"ce_class .* step 4 .*lower lr"):
        fit("mmrlpp", vlm, task, out=tmp_path, **SETTINGS)
    (path,) = tmp_path.glob("**/run.json")
    info = json.loads(path.read_text())
    assert info["status"] == "failed"
    assert info["error"].startswith("FloatingPointError: the loss term ce_class")
    assert (path.parent / "state.safetensors").exists() and len(Run(path.parent).metrics) == 4


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"tokn_mix": 0.5}, "no parameter 'tokn_mix'.*token_mix.*its training takes.*epochs"),
        ({"token_mix": "0.5"}, "token_mix is '0.5': expected `float`"),
        ({"epochs": 2.5}, "epochs is 2.5: expected `int`"),
        ({"optimiser": "adam2"}, "optimiser is 'adam2': expected one of adamw, adam, sgd"),
        ({"crop": (0.5, 2)}, "crop is .*expected `float` <= 1"),
        ({"crop": (0.5, 0.4)}, "crop must be two shares"),
        ({"crop": ("0.5", 1)}, "crop is .*expected `float`"),
        ({"lr": float("nan")}, "lr is nan: expected `float` >= 0"),
        ({"lr": True}, "lr is True: expected `float`"),
        ({"epochs": 10**9}, "epochs is 1000000000: expected `int` <= 100000"),
        ({"seed": 2**32}, "seed is 4294967296: expected `int` <= 4294967295"),
        ({"seed": -1}, "seed is -1: expected `int` >= 0"),
        ({"workers": 10**6}, "workers is 1000000: expected `int` <= 512"),
        ({"warmup_epochs": -1}, "warmup_epochs is -1: expected `int` >= 0"),
        ({"max_steps": 0}, "max_steps is 0: expected `int` >= 1"),
        ({"seed": "1"}, "seed is '1': expected `int`"),
        ({"workers": None}, "workers is None: expected `int`"),
    ],
)
def test_wrong_settings_stop_before_anything_is_written(vlm, task, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        fit("mmrlpp", vlm, task, out=tmp_path, **settings)
    assert not list(tmp_path.iterdir())


def test_unknown_method_lists_the_methods(vlm, task, tmp_path):
    with pytest.raises(
        ValueError, match=r"unknown method 'mmrl3'; did you mean mmrl\?; there are .*aligned_norm"
    ):
        fit("mmrl3", vlm, task, out=tmp_path)


def test_a_task_without_training_images_is_refused(vlm, tmp_path):
    with pytest.raises(ValueError, match="no training images"):
        fit("mmrlpp", vlm, vlmlab.task("emoji/food"), out=tmp_path)


def test_a_folder_that_cannot_be_written_is_one_clear_line(vlm, task, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*choose another `out`"):
        fit("zero_shot", vlm, task, out=tmp_path / "file")


def test_what_went_wrong_first_is_said_also_where_nothing_is_stepped(vlm, task, tmp_path, monkeypatch):
    def full(self, *args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vlmlab.train.run_folder.RunFolder.write_own", full)
    with pytest.raises(OSError, match="No space left"):
        fit("zero_shot", vlm, task, out=tmp_path)
    (path,) = tmp_path.glob("**/run.json")
    assert json.loads(path.read_text())["status"] == "failed"


def test_a_run_refuses_other_weights(whole, task):
    other = vlmlab.load("tiny", device="cpu")
    with torch.no_grad():
        other.clip.visual.proj[0, 0] += 1
    with pytest.raises(ValueError, match=r"was trained on weights .* load the model it was trained on"):
        Run(whole.path).attach(other, task)


class Restless(methods.find("mmrlpp")):
    """Draws random numbers in its losses, averages over epochs, and is told how many there are."""

    @dataclasses.dataclass(frozen=True)
    class Config(methods.config("mmrlpp")):
        epochs: int = 3

    def __init__(self, *args):
        super().__init__(*args)
        self.register_buffer("average", torch.zeros_like(self.space))

    def losses(self, batch, stage=None):
        image = batch["image"]
        return super().losses({**batch, "image": image + 0.1 * torch.randn_like(image)})

    @torch.no_grad()
    def after_step(self, stage, step):
        if stage.ends_epoch(step):
            epoch = step // stage.epoch + 1
            self.average.add_(self.space, alpha=epoch)
            if epoch == self.config.epochs:
                self.space.copy_(self.average)


def test_randomness_and_running_state_of_a_class_of_ones_own_survive_a_stop(vlm, task, tmp_path, monkeypatch):
    settings = {"batch_size": 12, "rep_dim": 32}
    wanted = fit(Restless, vlm, task, out=tmp_path / "whole", **settings)
    # the method's own number of epochs counts where none is given
    assert wanted.info["job"]["options"]["epochs"] == 3 and len(wanted.info["seconds"]) == 3
    save = Loop.save

    def stop(self):
        save(self)
        raise RuntimeError("stop")

    for _ in range(3):
        monkeypatch.setattr(Loop, "save", stop)
        with pytest.raises(RuntimeError, match="stop"):
            fit(Restless, vlm, task, out=tmp_path / "cut", **settings)
    monkeypatch.setattr(Loop, "save", save)
    assert same(fit(Restless, vlm, task, out=tmp_path / "cut", **settings), wanted)


def test_a_name_that_config_and_options_share_is_one_value(vlm, task, tmp_path):
    job = fit(Restless, vlm, task, out=tmp_path, epochs=1, max_steps=1, rep_dim=32).info["job"]
    assert job["config"]["epochs"] == job["options"]["epochs"] == 1


def test_a_full_disk_is_one_clear_line_and_the_run_can_go_on(whole, vlm, task, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # room for run.json, not for tensors
    try:
        with pytest.raises(OSError, match=r"cannot write .*state.safetensors .*make room"):
            fit("mmrlpp", vlm, task, out=tmp_path, **SETTINGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (path,) = tmp_path.glob("**/run.json")
    assert sorted(p.name for p in path.parent.iterdir()) == [".lock", "metrics.jsonl", "run.json"]
    assert Run(path.parent).status == "failed"
    assert same(fit("mmrlpp", vlm, task, out=tmp_path, **SETTINGS), whole)


@pytest.mark.parametrize("name", ["state.safetensors", "metrics.jsonl", "run.json"])
def test_damage_in_an_unfinished_run_is_named(vlm, task, tmp_path, monkeypatch, name):
    save = Loop.save
    monkeypatch.setattr(Loop, "save", lambda self: (save(self), 1 / 0))
    with pytest.raises(ZeroDivisionError):
        fit("mmrlpp", vlm, task, out=tmp_path, **SETTINGS)
    (path,) = tmp_path.glob(f"**/{name}")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"{name} is damaged .*move the folder .* away and run again"):
        fit("mmrlpp", vlm, task, out=tmp_path, **SETTINGS)


def test_a_checkpoint_says_which_weights_it_needs(whole, task, tmp_path):
    with safe_open(whole.path / "trainables.safetensors", "pt") as f:
        record = json.loads(f.metadata()["vlmlab"])
    assert record["models"]["vlm"] == whole.info["models"]["vlm"] and record["config"]["token_mix"] == 0.5
    run = Run(shutil.copytree(whole.path, tmp_path / "run"))
    path = run.path / "trainables.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"trainables.safetensors is damaged .*move the folder"):
        run.attach(vlmlab.load("tiny", device="cpu"), task)


def test_a_run_from_disk_has_the_same_model(whole, vlm, task):
    images = torch.stack([vlm.preprocess(task.base.image(i)) for i in range(4)])
    with torch.no_grad():
        assert torch.equal(Run(whole.path).attach(vlm, task).model.logits(images), whole.model.logits(images))


def test_mixed_precision_is_another_run(whole, task, tmp_path):
    run = fit(
        "mmrlpp",
        vlmlab.load("tiny", device="cpu", precision="amp_bf16"),
        task,
        out=tmp_path,
        **SETTINGS | {"epochs": 1, "max_steps": 1},
    )
    assert run.info["job"]["models"]["vlm"]["precision"] == "amp_bf16" and run.info["steps"] == 1
    assert all(p.dtype == torch.float32 for p in run.model.trainable().values())
    assert run.metrics["loss"][0] == pytest.approx(whole.metrics["loss"][0], rel=0.2)
    assert run.metrics["loss"][0] != whole.metrics["loss"][0]
