"""What stands in study.toml at its limits, what a run is called by, and where files of a study lie."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import pytest
from test_manifest import GOOD

from vlmlab import studies
from vlmlab.paths import PACKAGE, shipped_notebooks
from vlmlab.studies import code, manifest, places, sections
from vlmlab.studies.profiles import Job, reached
from vlmlab.studies.sections import Resources


@pytest.fixture
def load(project):
    project.notebook("fig1")
    project.notebook("table1")

    def load(*changes):
        text = GOOD
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        project.write("notebooks/fake/study.toml", text)
        return studies.load("fake", project.root / "notebooks")

    return load


VARIANTS = 'protocol = "zero_shot"\n\n[profile.demo.matrix.variants]\n'


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('protocol = "zero_shot"\n', VARIANTS + 'a = { out = "x" }\n', "matrix.variants: must not set out"),
        ('protocol = "zero_shot"\n', VARIANTS + '"a b" = { }\n', "tables of parameters by the variant's name"),
        ("token_mix = 0.5", "workers = 513", "matrix.method: workers (processes that load images) must be"),
        ("token_mix = 0.5", "workers = -1", "from 0 to 512; it is -1"),
        ("epochs = 10", "method = 1", "profile.demo.config: must not set method"),
        ('model = "tiny"', 'model = "tiny"\nmethod = { mmrlpp = { task = "x" } }', "demo.method: must not set"),
        ('model = "tiny"', 'model = "tiny"\nmethod = { nope = { } }', "demo.method: 'nope' is not among the"),
        ("shots = [16]", 'rules = { nope = ["unified"] }', "matrix.rules: 'nope' is not among the methods"),
        ("shots = [16]", 'rules = { mmrlpp = [] }', "matrix.rules: must be a list of strings, or a table"),
        ("shots = [16]", "resources = { hours = 0 }", "matrix.resources: must be a table of cores"),
        ("shots = [16]", "resources = { memory_gb = 0 }", "matrix.resources: must be a table of cores"),
        ("shots = [16]", "resources = { gpus = -1 }", "matrix.resources: must be a table of cores"),
        ("shots = [16]", 'after = { a = "nope" }', "has no matrix 'nope'; it has main, zero"),
        ('name = "zero"', 'name = "main"', "matrix.name: 'main' is there twice"),
        ('name = "zero"', 'name = "../x"', "matrix.name: must be a name of at most 100 letters"),
        ("params = { digits = 2 }", "params = 5", "artefact.params: must be a table"),
        ("[study]", "[[study]]", "a study needs at least one [study]"),
        ('digits = 2 }', "digits = 2 }\n\n[other]", "other: unknown; legal are [study], [[artefact]], [profile"),
    ],
)  # fmt: skip
def test_what_is_not_legal(load, old, new, words):
    with pytest.raises(ValueError) as caught:
        load((old, new))
    assert words in str(caught.value), str(caught.value)


@pytest.mark.parametrize("precision", ["fp32", "amp_bf16", "amp_fp16", None])
@pytest.mark.parametrize("where", ["profile", "model"])
def test_precisions(load, precision, where):
    written = f'precision = "{precision or "fp64"}"'
    models = f'models = {{ vlm = {{ name = "tiny", {written} }} }}'
    change = ('model = "tiny"', f'model = "tiny"\n{written}' if where == "profile" else models)
    if precision is None:
        with pytest.raises(ValueError, match=r"fp32, amp_bf16, amp_fp16|a table of models by role"):
            load(change)
    else:
        assert load(change).profile("demo").models == {"vlm": {"name": "tiny", "precision": precision}}


PROTOCOLS = ("zero_shot", "few_shot", "base_to_new", "cross_dataset", "domain_shift", "retrieval", "vqa")


@pytest.mark.parametrize("protocol", [*PROTOCOLS, "label_distribution"])
def test_protocols(load, protocol):
    (job,) = load(('protocol = "zero_shot"', f'protocol = "{protocol}"')).jobs("demo", ("zero",))
    assert job.protocol == protocol


def test_a_matrix_has_at_most_ten_thousand_runs(load):
    most = ("seeds = [1]\n", f"seeds = {list(range(10_000))}\n")
    assert len(load(most).profile("demo").matrices["zero"].seeds) == 10_000
    more = ("seeds = [1]\n", f"seeds = {list(range(3_400))}\n")
    three = ('protocol = "zero_shot"\n', f"{VARIANTS}a = {{}}\nb = {{}}\nc = {{}}\n")
    with pytest.raises(ValueError, match=r"matrix\.seeds: asks for 10200 runs \(3400 seeds x 3 variants\)"):
        load(more, three)


def test_what_a_study_leaves_out(load):
    study = load(('title = "A study"\n', ""), ('runs = ["main"]\n', ""))
    assert study.title == "" and study.artefacts["fig1"].title == ""
    assert study.artefacts["fig1"].runs == () and study.artefacts["fig1"].params == {}
    assert dataclasses.astuple(Resources()) == (1, 0, None, 24)
    (job,) = study.jobs("demo", ("zero",))
    assert (job.presets, job.variant, job.template, job.rules) == (False, "", None, None)
    workers = load(("epochs = 10", "workers = 512")).jobs("demo", ("zero",))
    assert workers[0].config["workers"] == 512
    assert studies.load("fake", study.notebooks).profile("demo").params == {}


@pytest.mark.parametrize(
    ("names", "two"),
    [(["a", "b", "A"], ("a", "A")), (["a", "a"], None), (["ab", "Ba"], None), (["aB", "Ab"], ("aB", "Ab"))],
)
def test_names_that_differ_by_case_alone(names, two):
    assert sections.only_by_case(names) == two


def test_two_readings_of_a_file_are_the_same_profile(load):
    """Also when the jobs of one are known already; they are no part of how it prints."""
    first, second = load().profile("demo"), load().profile("demo")
    assert first.jobs("fake", "main") is first.jobs("fake", "main")
    assert first == second and "Job(" not in repr(first)


JOB = Job("s", {"vlm": {"name": "tiny"}}, "one", "toy/a", "few_shot", 4, 2, ("r",), {"lr": 1, "rank": 2})


def test_the_id_of_a_run_is_that_of_what_is_trained():
    """Receipts are named by it: another id for the same run would train it again."""
    spec = {
        "study": "s", "models": {"vlm": {"name": "tiny"}}, "method": "one", "task": "toy/a", "shots": 4,
        "protocol": "few_shot", "seed": 2, "rules": ("r",), "config": {"rank": 2, "lr": 1}, "presets": False,
        "variant": "", "after": {},
    }  # fmt: skip
    assert JOB.spec == spec
    assert JOB.id == hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
    turned = dataclasses.replace(JOB, config={"rank": 2, "lr": 1})
    assert turned.id == JOB.id
    other = dataclasses.replace(JOB, template="a {}.", follows={"teacher": JOB})
    assert other.spec == spec | {"template": "a {}.", "after": {"teacher": JOB.id}}
    assert dataclasses.replace(JOB, resources=Resources(cores=4)) == JOB != other


def test_matrices_are_reached_at_any_distance(load):
    after = ("shots = [16]\n", 'shots = [16]\nafter = { teacher = "zero" }\n')
    matrices = load(after, ("seeds = [1]\n", "seeds = [1, 2, 3]\n")).profile("demo").matrices
    assert reached("main", matrices) == {"zero"} and reached("zero", matrices) == set()


# ---------------------------------------------------------------------------------------- where a study is found


def test_studies_that_are_not_there_say_where_some_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        studies.load("alignednorm", "own")
    assert "Studies there: none; run this in the folder that holds notebooks/" in str(caught.value)
    copy = "One comes with vlmlab: `vlmlab studies alignednorm --copy .` puts it in notebooks/ here"
    assert str(caught.value).endswith(copy)
    with pytest.raises(FileNotFoundError) as caught:
        studies.load("nope", "own")
    assert "comes with vlmlab" not in str(caught.value)
    for bad in ("..", "a b", ".hidden"):
        with pytest.raises(FileNotFoundError, match="there is no study"):
            studies.load(bad, "own")


def test_names_are_those_of_folders_with_a_study(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.toml").touch()
    (tmp_path / "c/study.toml").mkdir(parents=True)
    assert manifest.names(tmp_path) == ["a", "b"]
    assert "alignednorm" in manifest.names(shipped_notebooks())


@pytest.mark.parametrize("word", ["./mine", "mine/study.toml", "sub/../mine"])
def test_a_study_by_the_path_of_its_folder(tmp_path, monkeypatch, word):
    (tmp_path / "books/mine").mkdir(parents=True)
    (tmp_path / "books/sub").mkdir()
    (tmp_path / "books/mine/study.toml").touch()
    monkeypatch.chdir(tmp_path / "books")
    assert manifest.where(word).resolve() == tmp_path / "books/mine/study.toml"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert manifest.where("~/books/mine") == tmp_path / "books/mine/study.toml"
    monkeypatch.chdir(tmp_path / "books/mine")
    assert manifest.where("./") == tmp_path / "books/mine/study.toml"  # its folder has a name


def test_a_model_that_nobody_trained_is_named(load, tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "data_dir", lambda: tmp_path)
    study = load()
    words = "profile demo of fake needs the embedded model 'tiny', which is not trained yet: `vlmlab pretrain"
    assert study.untrained("demo").startswith(words)
    (tmp_path / "models/tiny").mkdir(parents=True)
    (tmp_path / "models/tiny/config.json").touch()
    assert study.untrained("demo") == ""
    assert load(('model = "tiny"', 'model = "unheard-of"')).untrained("demo") == ""


# --------------------------------------------------------------------------------------------- places and digests


@pytest.mark.parametrize(
    ("profile", "given", "figures"),
    [("demo", {}, "figures"), ("paper", {"runs": "r"}, "r/figures/paper"), ("paper", {"figures": "f"}, "f")],
)
def test_where_figures_lie(tmp_path, monkeypatch, profile, given, figures):
    monkeypatch.chdir(tmp_path)
    found = places.Places.of(profile, **given)
    assert found.figures == Path(figures) and found.runs == Path(given.get("runs", "runs"))
    assert places.Places.of(profile, data="d").data == Path("d") and found.data == places.data_dir()


def test_digests_are_the_beginning_of_sha256(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"abc")
    assert places.file_digest(tmp_path / "a.bin") == hashlib.sha256(b"abc").hexdigest()[:16]
    text = '{"a": "x/y", "b": [1, null]}'
    wanted = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert places.digest({"b": [1, None], "a": Path("x/y")}) == wanted


@pytest.mark.parametrize("name", ["", ".", "..", "./toy", "toy/../toy", "toy//", "ABSOLUTE"])
def test_only_folders_of_the_data_are_digested(tmp_path, name):
    for kind in ("parquet", "csv", "safetensors", "json", "gz"):
        (tmp_path / "data/toy/below").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"data/toy/below/a.{kind}").touch()
    assert len(places.data_digests(tmp_path / "data", ["toy", "toy/below"])) == 5
    name = name.replace("ABSOLUTE", str(tmp_path / "data/toy"))
    assert places.data_digests(tmp_path / "data", [name]) == {}


def test_where_the_studies_of_a_notebook_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(places.own_files.NOTEBOOKS, raising=False)
    assert places.own_notebooks() == Path("notebooks")
    monkeypatch.setenv(places.own_files.NOTEBOOKS, "/elsewhere/books")
    assert places.own_notebooks() == Path("/elsewhere/books")


def test_a_folder_is_made_and_left_empty(tmp_path):
    places.need_writable(tmp_path / "a/b", "--runs")
    assert [*(tmp_path / "a/b").iterdir()] == []
    (tmp_path / "file").touch()
    with pytest.raises(
        PermissionError, match=r"cannot write in .*file/b \(.+\); make room, or name .* --runs"
    ):
        places.need_writable(tmp_path / "file/b", "--runs")


# ------------------------------------------------------------------------------------------------ records of code


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("part", ["part.py"]),
        (".part", ["part.py"]),
        ("sub", ["sub/__init__.py"]),
        ("sub.inner", ["sub/inner.py"]),
        ("vlmlab.paths", [PACKAGE / "paths.py"]),
        ("vlmlab.methods", [PACKAGE / "methods/__init__.py"]),
        ("lost", []),
        ("", []),
    ],
)
def test_modules_that_a_text_in_a_package_names(tmp_path, text, files):
    for name in ("part.py", "sub/__init__.py", "sub/inner.py", "__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert code.named(text, tmp_path) == {tmp_path / name for name in files}


def test_what_is_no_python_goes_by_its_bytes(tmp_path):
    (tmp_path / "a.py").write_text("class (")
    found = code.Sources(tmp_path).record([str(tmp_path / "a.py")])
    assert found == {"a.py": hashlib.sha256(b"class (").hexdigest()[:16]}
    (tmp_path / "a.py").write_text("a = 1\n")
    (again,) = code.Sources(tmp_path).record([str(tmp_path / "a.py")]).values()
    assert len(again) == 16 and again != found["a.py"]
    assert code.Sources(tmp_path).digests(["lost.py"]) == {"lost.py": ""}


def test_a_record_is_written_for_a_notebook(tmp_path):
    (tmp_path / "mine.py").write_text("a = 1\n")
    code.save(str(tmp_path / "out.json"), str(tmp_path), [str(tmp_path / "mine.py"), json.__file__])
    assert [*json.loads((tmp_path / "out.json").read_text())] == ["mine.py"]


def test_files_of_another_size_and_time_are_other_files(tmp_path, monkeypatch):
    """What comes with vlmlab is compared by what it says, not by how long ago it was written."""
    from vlmlab.studies import shipped

    source = tmp_path / "ours"
    for name in ("a/study.toml", "a/__pycache__/x.pyc", "a/.hidden"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("says")
    monkeypatch.setattr(shipped, "shipped_notebooks", lambda: source)
    mine = tmp_path / "home/notebooks/a/study.toml"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    os.utime(mine, ns=(7, 7))
    os.utime(source / "a/study.toml", ns=(7, 7))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(FileExistsError, match="says something else"):
        shipped.copy("~")
    mine.unlink()
    assert shipped.copy("~") == [mine] and [p.name for p in mine.parent.iterdir()] == ["study.toml"]
    (source / "a/study.toml").unlink()
    with pytest.raises(FileNotFoundError, match="no study 'b' comes with vlmlab; there are none"):
        shipped.copy("~", "b")


def test_what_studies_offer():
    names = "artefact folder load names plan read_provenance reproduce runs_of save_figure save_table states"
    assert dir(studies) == sorted(studies.__all__) == names.split()
    assert all(callable(getattr(studies, name)) for name in names.split())
    with pytest.raises(AttributeError, match=r"vlmlab\.studies has no 'nope'; it has artefact, folder"):
        studies.nope  # noqa: B018
