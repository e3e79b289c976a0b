"""A class of one's own, from a notebook or a file: trained, measured, opened; its faults name its file."""

import importlib
import sys

import pytest
import torch
from safetensors.torch import load_file

import vlmlab
from vlmlab import cli, methods, registry
from vlmlab.train.run import Run, results

HEAD = "import dataclasses\nimport torch\nfrom vlmlab.methods.zero_shot import ZeroShot\n\n\n"
OWN = HEAD + "class Own(ZeroShot):\n    x = 1\n"
TRAINED = HEAD + (
    "class Own(ZeroShot):\n"
    "    def __init__(self, *args):\n"
    "        super().__init__(*args)\n"
    "        self.w = torch.nn.Parameter(torch.zeros(1))\n\n"
    "    def losses(self, batch, stage=None):\n"
    "        return {losses}\n"
)


@pytest.fixture(scope="module")
def vlm():
    return vlmlab.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def task():
    return vlmlab.task("emoji/food", protocol="base_to_new", shots=1, seed=1, backgrounds=1)


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write my_method.py where Python finds it; its path."""
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def write(text):
        (folder / "my_method.py").write_text(text)
        sys.modules.pop("my_method", None)
        importlib.invalidate_caches()
        return folder / "my_method.py"

    yield write
    sys.modules.pop("my_method", None)


def test_a_class_of_a_notebook(vlm, task, tmp_path):
    names = {"__name__": "some_notebook"}
    exec(OWN, names)
    run = vlmlab.fit(names["Own"], vlm, task, out=tmp_path)
    assert set(run.info["job"]["code"]) == {"some_notebook:Own", "vlmlab.methods.zero_shot"}
    frame = vlmlab.evaluate(run, task)
    assert set(frame["method"]) == {"some_notebook:Own"} and len(results(tmp_path)) == len(frame)
    with pytest.raises(
        ValueError, match=r"was trained by some_notebook:Own, which is not found here.*attach"
    ):
        vlmlab.open_run(run.path, device="cpu")
    assert Run(run.path).attach(vlm, task, names["Own"]).model.x == 1


def test_a_class_of_a_file_opens_alone_and_tells_when_its_code_changed(vlm, task, tmp_path, written):
    written(OWN)
    run = vlmlab.fit("my_method:Own", vlm, task, out=tmp_path / "runs")
    assert type(vlmlab.open_run(run.path, device="cpu").model).__name__ == "Own"
    written(OWN.replace("x = 1", "x = 22"))
    with pytest.warns(UserWarning, match="was trained by other code of my_method than this"):
        assert vlmlab.open_run(run.path, device="cpu").model.x == 22


def food():
    return vlmlab.task("emoji/food", protocol="base_to_new", shots=2, seed=1, backgrounds=1)


FAULTS = {
    "class Own(\n": "line 1: SyntaxError",
    "import nothing_like_it\n": "No module named 'nothing_like_it'",
    "1 / 0\n": "line 1: ZeroDivisionError: division by zero",
    "class Other:\n    pass\n": "no attribute 'Own'",
    "class Own:\n    pass\n": "is no learner; extend vlmlab.methods.Method",
    HEAD
    + "class Own(ZeroShot):\n    class Config:\n        a: int = 1\n": "Config must be a class under @dataclass",
    HEAD + "class Own(ZeroShot):\n    Config = 5\n": "Config must be a class under @dataclass",
    HEAD
    + "class Own(ZeroShot):\n    @dataclasses.dataclass(frozen=True)\n    class Config:\n        a: 'Nix' = 1\n": "a type in Config is not known: name 'Nix'",
    HEAD
    + "class Own(ZeroShot):\n    @dataclasses.dataclass(frozen=True)\n    class Config:\n        a: int\n": "Config.a needs a default value",
    TRAINED.replace("{losses}", "self.w.sum()"): "losses must give",
    TRAINED.replace("{losses}", "{'a': self.w.sum(), 'b': self.w}"): "losses must give",
    TRAINED.replace("{losses}", "{'a': 0.5}"): "losses must give",
    TRAINED.replace("{losses}", "{}"): "losses must give",
}
UNNAMED = ("No module named", "no attribute")  # Python says the module


@pytest.mark.parametrize("text", FAULTS)
def test_what_is_wrong_with_it_names_its_file(vlm, task, tmp_path, written, text):
    path, words = written(text), FAULTS[text]
    with pytest.raises(ValueError) as caught:
        vlmlab.fit("my_method:Own", vlm, task, out=tmp_path / "runs", epochs=1, max_steps=1)
    assert words in str(caught.value)
    assert (str(path) if not words.startswith(UNNAMED) else "my_method") in str(caught.value)


def test_a_setting_of_the_wrong_type_is_refused_by_name(vlm, task, tmp_path, written):
    text = (
        HEAD
        + "class Own(ZeroShot):\n    @dataclasses.dataclass(frozen=True)\n    class Config:\n        strength: float = 1.0\n"
    )
    written(text)
    with pytest.raises(ValueError, match="strength is 'much': expected `float`"):
        vlmlab.fit("my_method:Own", vlm, task, out=tmp_path / "runs", strength="much")
    assert registry.about("my_method:Own")["settings"][0] == {
        "name": "strength",
        "default": 1.0,
        "type": "a number",
    }


def test_the_command_line_trains_it(tmp_path, written, capsys):
    written(OWN)
    words = [
        "fit",
        "my_method:Own",
        "emoji/food",
        "--shots",
        "1",
        "--out",
        str(tmp_path / "runs"),
        "--device",
        "cpu",
    ]
    assert cli.main(words) == 0
    assert "my_method:Own" in capsys.readouterr().out
    written("class Own(\n")
    assert cli.main(words) == 2
    assert "my_method.py, line 1: SyntaxError" in capsys.readouterr().err


class Norms(methods.find("zero_shot")):
    """LayerNorms of its own copy of the image tower."""

    def __init__(self, vlm, *args):
        super().__init__(vlm, *args)
        self.vlm = vlm.thaw("visual.*ln_*")


class Careless(methods.find("zero_shot")):
    """Would train LayerNorms of the model that it was given."""

    def __init__(self, vlm, *args):
        super().__init__(vlm, *args)
        for name, p in vlm.clip.visual.named_parameters():
            p.requires_grad_("ln_" in name)


def test_a_method_trains_its_own_copy_of_the_layer_norms(vlm, tmp_path):
    image, before = torch.randn(2, 3, 64, 64), vlm.fingerprint()
    with torch.no_grad():
        features = vlm.encode_image(image)
    settings = dict(epochs=1, batch_size=4, max_steps=2, warmup_epochs=0, lr=1e-2)
    run = vlmlab.fit(Norms, vlm, food(), out=tmp_path, **settings)
    kept = load_file(run.path / "trainables.safetensors")
    assert kept and all("ln_" in name for name in kept)
    with torch.no_grad():
        assert vlm.fingerprint() == before and torch.equal(vlm.encode_image(image), features)
        assert not torch.equal(run.model.vlm.encode_image(image), features)
        again = vlmlab.Run(run.path).attach(vlm, food())
        assert torch.equal(again.model.vlm.encode_image(image), run.model.vlm.encode_image(image))
    assert not vlmlab.fit("zero_shot", vlm, food(), out=tmp_path).model.trainable()


def test_a_method_cannot_train_the_model_it_was_given(vlm, tmp_path):
    with pytest.raises(
        ValueError, match=r"Careless would train \d+ parameters of a model that it was given.*thaw"
    ):
        vlmlab.fit(Careless, vlm, food(), out=tmp_path)
    assert not any(p.requires_grad for p in vlm.parameters()) and not list(tmp_path.glob("**/run.json"))
    with pytest.raises(ValueError, match="the vlm is thawed; give fit the frozen model"):
        vlmlab.fit("zero_shot", vlm.thaw("*"), food(), out=tmp_path)
