"""A run knows itself: what its key is made of, what its rows say, how it is opened from its folder alone."""

import dataclasses
import importlib
import json
import shutil
import sys

import pytest
import torch
from small_learners import Distil, Growing, Numbers, models_of

import vlmlab
from vlmlab import methods, registry
from vlmlab.train.key import identity
from vlmlab.train.run import results
from vlmlab.train.run_folder import RunFolder

FAST = dict(epochs=1, batch_size=4, max_steps=1, rep_dim=8)


@pytest.fixture(scope="module")
def vlm():
    return vlmlab.load("tiny", device="cpu")


def food(**changes):
    return vlmlab.task(
        "emoji/food", **{"protocol": "base_to_new", "shots": 2, "seed": 1, "backgrounds": 1} | changes
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(vlm, root):
    found = vlmlab.fit("mmrlpp", vlm, food(), out=root, **FAST)
    vlmlab.evaluate(found, food())
    return found


SOURCE = """
import dataclasses
from pathlib import Path
from vlmlab.methods.zero_shot import ZeroShot

class Own(ZeroShot):
    '''It.'''

    @dataclasses.dataclass(frozen=True)
    class Config:
        strength: float = 1.0
        texts: Path | None = None

    def classify(self, z, *rule):
        return super().classify(z, *rule) * 1.0
"""


def own(text=SOURCE):
    """A class as a notebook has it: in no file."""
    names = {"__name__": "a_notebook"}
    exec(text, names)
    return names["Own"]


def other_weights():
    model = vlmlab.load("tiny", device="cpu")
    with torch.no_grad():
        model.clip.visual.proj[0, 0] += 1
    return model


def template(task):
    return dataclasses.replace(
        task,
        template="a sketch of a {}.",
        train=dataclasses.replace(task.train, template="a sketch of a {}."),
    )


def a_label(task):
    labels = task.train.labels.copy()
    labels[[0, -1]] = labels[[-1, 0]]
    return dataclasses.replace(task, train=dataclasses.replace(task.train, labels=labels))


# what of a call is changed -> how; each makes another run
CHANGES = {
    "code of the method": lambda a: a | {"method": own(SOURCE.replace("* 1.0", "* 2.0"))},
    "code of its Config": lambda a: (
        a | {"method": own(SOURCE.replace("strength: float = 1.0", "strength: float = 2.0"))}
    ),
    "another method": lambda a: a | {"method": "zero_shot", "texts": None, "strength": None},
    "config": lambda a: a | {"strength": 2.0},
    "options": lambda a: a | {"lr": 1e-2},
    "seed": lambda a: a | {"seed": 7},
    "number of shots": lambda a: a | {"task": food(shots=3)},
    "drawn images": lambda a: a | {"task": food(seed=2), "seed": 1},
    "classes": lambda a: a | {"task": food(protocol="few_shot")},
    "template": lambda a: a | {"task": template(a["task"])},
    "a label": lambda a: a | {"task": a_label(a["task"])},
    "weights": lambda a: a | {"models": other_weights()},
    "precision": lambda a: a | {"models": vlmlab.load("tiny", device="cpu", precision="amp_bf16")},
    "content of a file": lambda a: a | {"texts": changed(a["texts"], "other")},
}
# and each of these the same
NO_CHANGES = {
    "nothing": lambda a: a,
    "another load of the model": lambda a: a | {"models": vlmlab.load("tiny", device="cpu", name="mine")},
    "name of a file": lambda a: a | {"texts": a["texts"].rename(a["texts"].with_name("moved.txt"))},
    "test data": lambda a: a | {"task": food(backgrounds=2)},
    "workers": lambda a: a | {"workers": 2},
    "variant": lambda a: a | {"variant": "mine"},
    "words of the class": lambda a: a | {"method": own("# a comment\n\n" + SOURCE)},
}


def changed(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize("change", [*CHANGES, *NO_CHANGES])
def test_what_shapes_weights_makes_another_run_and_nothing_else(vlm, tmp_path, change):
    call = {"method": own(), "models": vlm, "task": food(), "seed": 1, "strength": 1.0}
    call |= {"texts": changed(tmp_path / "texts.txt", "a drawing")}

    def fitted(call, out):
        call = {k: v for k, v in call.items() if v is not None}
        return vlmlab.fit(
            call.pop("method"), call.pop("models"), call.pop("task"), out=tmp_path / out, **call
        )

    first = fitted(call, "runs")
    again = fitted({**CHANGES, **NO_CHANGES}[change](dict(call)), "runs")
    assert (again.key != first.key) == (change in CHANGES)
    assert (again.path != first.path) == (change in CHANGES)


def test_where_it_lies_and_how_it_is_measured_is_not_in_the_key(vlm, tmp_path):
    first = vlmlab.fit("zero_shot", vlm, food(), out=tmp_path / "a")
    other = vlmlab.fit("zero_shot", vlm, food(), out=tmp_path / "b", study="mine")
    assert first.key == other.key
    frames = [vlmlab.evaluate(run, food(), batch_size=size) for run, size in ((first, 7), (other, 64))]
    assert frames[0].drop(columns="study").equals(frames[1].drop(columns="study"))


def test_what_a_run_is_built_on_is_in_its_key(tmp_path):
    keys = []
    for seed in (1, 2):
        before = vlmlab.fit(Growing, {}, Numbers(), out=tmp_path, seed=seed, device="cpu")
        keys.append(identity(before))
    assert keys[0] != keys[1] and {*keys[0]} == {"run", "weights"}


def test_the_code_of_a_method_is_in_the_key_but_not_its_words(vlm, tmp_path, monkeypatch):
    folder = tmp_path / "own"
    folder.mkdir()
    text = '"""A method of one\'s own."""\nfrom vlmlab.methods.zero_shot import ZeroShot\n\n\nclass Own(ZeroShot):\n    """It."""\n'
    monkeypatch.syspath_prepend(str(folder))
    keys = []
    for name, code in (
        ("a", text),
        ("b", text.replace("It.", "It, in other words.") + "    # so\n"),
        ("c", text + "    x = 1\n"),
    ):
        (folder / "own_method.py").write_text(code)
        sys.modules.pop("own_method", None)
        importlib.invalidate_caches()
        module = importlib.import_module("own_method")
        module = importlib.reload(module)
        keys.append(vlmlab.fit("own_method:Own", vlm, food(), out=tmp_path / name).key)
    assert keys[0] == keys[1] != keys[2]
    assert set(methods_code := registry.code(methods.find("aligned_norm"))) == {
        "vlmlab.methods.aligned_norm",
        "vlmlab.methods.mmrlpp",
        "vlmlab.methods.mmrl",
    } and all(methods_code.values())


# a method in a package of one's own, and what stands beside it
FILES = {
    "mylab/__init__": "",
    "mylab/method": (
        "from vlmlab.methods.zero_shot import ZeroShot\nfrom .scales import SCALE\nimport mylab.sums as sums\n\n\n"
        "class Own(ZeroShot):\n    def half(self, x):\n        return sums.half(x) * SCALE\n"
    ),
    "mylab/scales": "from . import deep\n\nSCALE = deep.ONE\n",
    "mylab/sums": "def half(x):\n    from mylab.late import two\n\n    return x / two()\n",
    "mylab/late": "def two():\n    return 2\n",
    "mylab/deep": "ONE = 1\n\n\ndef three():\n    import mylab.broken, nothing_of_that_name\n",
    "mylab/broken": "(",
    "mylab/other": "THREE = 3\n",
}
# module, what is there, what replaces it -> whether what the method trains is another run
EDITS = {
    "itself": ("method", "* SCALE", "/ SCALE", True),
    "a number that it imports": ("scales", "deep.ONE", "deep.ONE + 1", True),
    "a module that it imports": ("sums", "x /", "x *", True),
    "what an imported module imports": ("deep", "1", "2", True),
    "what a function imports": ("late", "2", "3", True),
    "words": ("sums", "    return x", "    # so\n    return x", False),
    "a module that it does not import": ("other", "3", "4", False),
    "what is no Python and never imported": ("broken", "(", "((", False),
}


@pytest.mark.parametrize("edit", EDITS)
def test_modules_that_a_method_of_ones_own_imports_are_in_the_key(tmp_path, monkeypatch, edit):
    monkeypatch.syspath_prepend(str(tmp_path))

    def code():
        for name in [n for n in sys.modules if n.split(".")[0] == "mylab"]:
            monkeypatch.delitem(sys.modules, name)
        importlib.invalidate_caches()
        importlib.import_module("mylab.other")
        before = registry.code(method := methods.find("mylab.method:Own"))
        method.half(None, 1)  # imports one more
        assert registry.code(method) == before
        return before

    for name, text in FILES.items():
        (tmp_path / f"{name}.py").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text(text)
    before = code()
    module, old, new, another = EDITS[edit]
    path = tmp_path / f"mylab/{module}.py"
    path.write_text(path.read_text().replace(old, new, 1) + "\n")
    assert (code() != before) == another
    assert set(before) == {
        *("mylab.method", "mylab.scales", "mylab.sums", "mylab.late", "mylab.deep", "mylab"),
        "vlmlab.methods.zero_shot",
    }


def test_test_data_is_not_in_the_key_and_its_rows_stay_apart(run, vlm, root):
    more = food(backgrounds=2)
    again = vlmlab.fit("mmrlpp", vlm, more, out=root, **FAST)
    assert again.path == run.path
    before = run.results
    shown = vlmlab.evaluate(again, more)
    after = run.results
    assert len(after) == 2 * len(before) and after["test"].nunique() == 2 * before["test"].nunique()
    assert set(shown["test"]).isdisjoint(before["test"]) and len(shown) == len(before)
    first = after[after["test"].isin(before["test"])]["value"].tolist()
    assert first == before["value"].tolist()


def test_a_file_that_the_config_names_counts_by_its_content(vlm, tmp_path):
    task, names = food(), food().classes.names
    texts = tmp_path / "one.json"
    texts.write_text(
        json.dumps({n.replace("_", " "): ["a drawing"] for s in food().tests.values() for n in s.classnames})
    )
    settings = dict(epochs=1, batch_size=4, max_steps=1, tokens=4)
    first = vlmlab.fit("hicropl", vlm, task, out=tmp_path, descriptions=texts, **settings)
    moved = shutil.copy(texts, tmp_path / "two.json")
    assert vlmlab.fit("hicropl", vlm, task, out=tmp_path, descriptions=moved, **settings).key == first.key
    texts.write_text(texts.read_text().replace("a drawing", "a photo"))
    assert (
        names
        and vlmlab.fit("hicropl", vlm, task, out=tmp_path, descriptions=texts, **settings).key != first.key
    )
    with pytest.raises(ValueError, match="trained with other content of descriptions"):
        vlmlab.open_run(first.path, device="cpu")
    with pytest.raises(FileNotFoundError, match=r"descriptions names .*none.json, and there is no such file"):
        vlmlab.fit("hicropl", vlm, task, out=tmp_path, descriptions=tmp_path / "none.json", **settings)


def test_settings_can_be_told_apart_in_results(vlm, tmp_path):
    for variant, mix in (("linear", 1.0), ("half", 0.5)):
        one = vlmlab.fit("mmrlpp", vlm, food(), out=tmp_path, variant=variant, token_mix=mix, **FAST)
        vlmlab.evaluate(one, food())
    frame = results(tmp_path, config=["token_mix", "lr"])
    assert frame.groupby("variant")["token_mix"].unique().map(list).to_dict() == {
        "linear": [1.0],
        "half": [0.5],
    }
    assert frame["lr"].eq(1e-3).all()
    assert set(results(tmp_path, variant="half")["variant"]) == {"half"}
    with pytest.raises(ValueError, match=r"no run has a setting 'tokn_mix'; there are .*token_mix"):
        results(tmp_path, config=["tokn_mix"])


def test_a_run_opens_from_its_folder_alone(run):
    opened = vlmlab.open_run(run.path, device="cpu")
    images = torch.stack([opened.model.vlm.preprocess(opened.task.base.image(i)) for i in range(3)])
    with torch.no_grad():
        assert torch.equal(opened.model.logits(images), run.model.logits(images))
    assert opened.task.fingerprint() == food().fingerprint()


def test_what_cannot_be_opened_alone_says_why(run, tmp_path, vlm):
    by_hand = dataclasses.replace(food(), arguments=None)
    made = vlmlab.fit("zero_shot", vlm, by_hand, out=tmp_path)
    with pytest.raises(ValueError, match="a task made by hand; open it with Run"):
        vlmlab.open_run(made.path, device="cpu")
    handed = vlmlab.fit(Distil, models_of(Distil), Numbers(), out=tmp_path)
    with pytest.raises(ValueError, match="a student that was handed over as an object"):
        vlmlab.open_run(handed.path)
    other = vlmlab.Run(shutil.copytree(run.path, tmp_path / "copy"))
    info = json.loads((other.path / "run.json").read_text())
    info["task"]["shots"] = 3
    RunFolder(other.path).write_info(info)
    with pytest.raises(ValueError, match="was trained on other data than emoji/food holds now"):
        vlmlab.open_run(other.path, device="cpu")


def test_a_captured_record_below_the_runs_is_left_alone(run, vlm, root):
    before = len(results(root))
    vlmlab.capture(vlm, food().new, "image.final", out=root / "records/new", progress=False)
    (root / "other").mkdir(exist_ok=True)
    (root / "other/run.json").write_text('{"of": "another program"}')
    assert len(results(root)) == before > 0


def test_two_processes_that_measure_keep_all_rows(run, tmp_path):
    copy = vlmlab.Run(shutil.copytree(run.path, tmp_path / "run"))
    row = {"task": "t", "protocol": "p", "split": "s", "rule": "r", "test": "x", "value": 1.0}
    import os

    children = []
    for number in range(2):
        if not (child := os.fork()):
            for i in range(20):
                copy.save_results([row | {"metric": f"{number} {i}"}])
            os._exit(0)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    assert len(copy.results.query("protocol == 'p'")) == 40
