"""study.toml is read as its docstring says, and its errors name line, field and legal values."""

import pytest

from vlmlab import studies
from vlmlab.studies.sections import Resources

GOOD = """[study]
id = "fake"
title = "A study"

[[artefact]]
id = "fig1"
notebook = "fig1.ipynb"
kind = "figure"
runs = ["main"]

[[artefact]]
id = "table1"
notebook = "table1.ipynb"
kind = "table"
params = { digits = 2 }

[profile.demo]
model = "tiny"
config = { epochs = 10, lr = 0.1 }

[[profile.demo.matrix]]
name = "main"
methods = ["zero_shot", "mmrlpp"]
tasks = ["toy/a", "toy/b"]
seeds = [1, 2, 3]
shots = [16]
config = { lr = 0.2 }

[profile.demo.matrix.method.mmrlpp]
token_mix = 0.5

[[profile.demo.matrix]]
name = "zero"
methods = ["zero_shot"]
tasks = ["toy/a"]
seeds = [1]
protocol = "zero_shot"
"""


@pytest.fixture
def load(project):
    project.notebook("fig1")
    project.notebook("table1")

    def load(text=GOOD):
        project.write("notebooks/fake/study.toml", text)
        return studies.load("fake", project.root / "notebooks")

    return load


def test_jobs_of_a_matrix(load):
    study = load()
    jobs = study.jobs("demo", study.artefacts["fig1"].runs)
    assert len(jobs) == 2 * 2 * 3 == len({j.id for j in jobs})
    assert all(
        j.models == {"vlm": {"name": "tiny"}} and j.protocol == "base_to_new" and j.shots == 16 for j in jobs
    )
    by_method = {j.method: j for j in jobs}
    assert by_method["zero_shot"].config == {"epochs": 10, "lr": 0.2}
    assert by_method["mmrlpp"].config == {"epochs": 10, "lr": 0.2, "token_mix": 0.5}
    assert all(j.rules is None for j in jobs)  # the method itself says what it reports
    assert by_method["mmrlpp"].label == "mmrlpp toy/b 16-shot seed 3"


def test_runs_named_twice_are_trained_once(load):
    again = '\n[[profile.demo.matrix]]\nname = "again"\nmethods = ["zero_shot"]\ntasks = ["toy/a"]\n'
    study = load(GOOD + again + "seeds = [1, 4]\nshots = [16]\nconfig = { lr = 0.2 }\n")
    assert len(study.jobs("demo", ("main", "again"))) == 13


def test_what_a_profile_says_of_a_method_stands_below_its_matrices(load):
    first = '[[profile.demo.matrix]]\nname = "main"'
    text = GOOD.replace(first, f"[profile.demo.method.mmrlpp]\nlr = 5\nrank = 2\n\n{first}")
    configs = {j.method: j.config for j in load(text).jobs("demo", ("main",))}
    assert configs["mmrlpp"] == {"epochs": 10, "lr": 0.2, "rank": 2, "token_mix": 0.5}
    assert configs["zero_shot"] == {"epochs": 10, "lr": 0.2}
    with pytest.raises(ValueError, match=r"profile\.demo\.method: 'mrlpp' is not among .*zero_shot, mmrlpp"):
        load(text.replace("method.mmrlpp]\nlr", "method.mrlpp]\nlr"))


def test_what_a_profile_says_for_all_its_matrices_stands_below_theirs(load):
    shared = (
        'seeds = [4, 5]\nprotocol = "few_shot"\nrules = ["unified"]\npresets = true\ntemplate = "a {}."\n'
    )
    text = GOOD.replace(
        'model = "tiny"\n', f'model = "tiny"\ntasks = ["toy/a", "toy/b"]\nshots = [16]\n{shared}'
    )
    text = text.replace('tasks = ["toy/a", "toy/b"]\nseeds = [1, 2, 3]\nshots = [16]\nconfig', "config")
    study = load(text)
    main, zero = (study.jobs("demo", (name,)) for name in ("main", "zero"))
    assert [(j.method, j.task, j.seed) for j in main[:3]] == [
        ("zero_shot", "toy/a", 4),
        ("zero_shot", "toy/a", 5),
        ("mmrlpp", "toy/a", 4),
    ]
    assert {(j.shots, j.protocol, j.rules, j.presets, j.template) for j in main} == {
        (16, "few_shot", ("unified",), True, "a {}.")
    }
    assert [(j.task, j.seed, j.protocol) for j in zero] == [("toy/a", 1, "zero_shot")]


def test_variants_are_runs_of_their_own(load):
    text = GOOD + "[profile.demo.matrix.variants]\nfirst = { lr = 0.5 }\nsecond = { lr = 0.1, rank = 2 }\n"
    jobs = load(text).jobs("demo", ("zero",))
    assert [j.name for j in jobs] == ["zero_shot_first", "zero_shot_second"]
    assert [j.config for j in jobs] == [{"epochs": 10, "lr": 0.5}, {"epochs": 10, "lr": 0.1, "rank": 2}]
    assert len({j.id for j in jobs}) == 2
    variants = "[profile.demo.matrix.variants]"
    method = text.replace(variants, f"[profile.demo.matrix.method.zero_shot]\nlr = 7\nrank = 1\n{variants}")
    configs = [j.config for j in load(method).jobs("demo", ("zero",))]
    assert configs == [{"epochs": 10, "lr": 0.5, "rank": 1}, {"epochs": 10, "lr": 0.1, "rank": 2}]


def test_presets_make_another_job(load):
    plain = load().jobs("demo", ("zero",))
    preset = load(GOOD.replace("seeds = [1]\n", "seeds = [1]\npresets = true\n")).jobs("demo", ("zero",))
    assert [j.presets for j in plain + preset] == [False, True] and plain[0].id != preset[0].id


def test_a_profile_may_leave_out_a_matrix(load):
    study = load(GOOD + '\n[profile.small]\nmodel = "tiny"\n')
    assert [a.id for a in study.choose(None, "demo")] == ["fig1", "table1"]
    assert [a.id for a in study.choose(None, "small")] == ["table1"]
    with pytest.raises(ValueError, match=r"fig1 reads the matrix 'main', which profile small leaves out"):
        study.choose(["fig1"], "small")


def test_rules_and_shots_that_are_left_out(load):
    (job,) = load().jobs("demo", ("zero",))
    assert (job.rules, job.shots, job.label) == (None, None, "zero_shot toy/a seed 1")
    rules = GOOD.replace("config = { lr = 0.2 }", 'config = { lr = 0.2 }\nrules = { mmrlpp = ["unified"] }')
    found = {j.method: j.rules for j in load(rules).jobs("demo", ("main",))}
    assert found == {"mmrlpp": ("unified",), "zero_shot": None}


def test_resources_of_a_matrix_go_over_those_of_the_profile(load):
    text = GOOD.replace('model = "tiny"', 'model = "tiny"\nresources = { cores = 4, memory_gb = 16 }')
    study = load(text.replace("shots = [16]", "shots = [16]\nresources = { gpus = 1, memory_gb = 32.5 }"))
    assert {j.resources for j in study.jobs("demo", ("main",))} == {Resources(4, 1, 32.5, 24)}
    assert {j.resources for j in study.jobs("demo", ("zero",))} == {Resources(4, 0, 16, 24)}
    assert {j.resources for j in load().jobs("demo", ("main",))} == {Resources(1, 0, None, 24)}
    assert [j.id for j in study.jobs("demo", ("main",))] == [j.id for j in load().jobs("demo", ("main",))]


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ('kind = "table"', 'kind = "plot"', 14, ["artefact.kind", "figure, table", "'plot'"]),
        ('kind = "figure"\n', "", 5, ["artefact.kind", "missing", "notebook"]),
        (
            'kind = "figure"',
            'knd = "figure"',
            8,
            ["artefact.knd", "unknown field (did you mean kind?)", "notebook"],
        ),
        ('"table1.ipynb"', '"nope.ipynb"', 13, ["artefact.notebook", "nope.ipynb"]),
        ('id = "table1"', 'id = "fig1"', 12, ["artefact.id", "twice"]),
        ('id = "table1"', 'id = "a/b"', 12, ["artefact.id", "a/b"]),
        ('runs = ["main"]', 'runs = ["mian"]', 9, ["artefact.runs", "'mian'", "main, zero"]),
        ('runs = ["main"]', 'runs = "main"', 9, ["artefact.runs", "list of strings"]),
        ('id = "fake"', 'id = "other"', 2, ["study.id", "'fake'"]),
        ('model = "tiny"', 'modle = "tiny"', 18, ["profile.demo.modle", "did you mean model?"]),
        ("seeds = [1, 2, 3]", "seeds = [1, true]", 25, ["profile.demo.matrix.seeds", "whole numbers"]),
        ("seeds = [1, 2, 3]", "seeds = []", 25, ["profile.demo.matrix.seeds", "not empty"]),
        ("shots = [16]", "shots = [0]", 26, ["profile.demo.matrix.shots", "above 0"]),
        (
            'protocol = "zero_shot"',
            'protocol = "zeroshot"',
            37,
            ["matrix.protocol", "base_to_new", "'zeroshot'"],
        ),
        ("seeds = [1]\n", "", 32, ["profile.demo.matrix.seeds", "missing"]),
        (
            "matrix.method.mmrlpp]",
            "matrix.method.mrlpp]",
            29,
            ["matrix.method", "'mrlpp'", "zero_shot, mmrlpp"],
        ),
        ("shots = [16]", "variants = { a = 1 }", 26, ["matrix.variants", "tables of parameters"]),
        ("shots = [16]", 'shots = [16]\npresets = "yes"', 27, ["matrix.presets", "true or false", "'yes'"]),
        (
            'model = "tiny"',
            'model = "tiny"\nresources = { cores = 0 }',
            19,
            ["profile.demo.resources", "cores (whole number from 1)", "{'cores': 0}"],
        ),
        (
            "shots = [16]",
            "shots = [16]\nresources = { gpu = 1 }",
            27,
            ["matrix.resources", "gpus", "{'gpu': 1}"],
        ),
        ("[profile.demo]", "[profiles.demo]", 17, ["profiles", "[profile.<name>]"]),
        ('"fig1.ipynb"', '"../x/fig1.ipynb"', 7, ["artefact.notebook", "study's folder", "../x/fig1"]),
        ('"fig1.ipynb"', '"/etc/fig1.ipynb"', 7, ["artefact.notebook", "nothing outside"]),
        ('"fig1.ipynb"', '"a/../../fig1.ipynb"', 7, ["artefact.notebook"]),
        ('"fig1.ipynb"', '"."', 7, ["artefact.notebook", ".ipynb"]),
        ('"fig1.ipynb"', '"fig\\u0000.ipynb"', 7, ["notebook", "NUL"]),
        ('id = "table1"', 'id = "FIG1"', 12, ["artefact.id", "fig1 and FIG1", "capital letters"]),
        ('id = "table1"', f'id = "{"a" * 101}"', 12, ["artefact.id", "at most 100 letters"]),
        ("[profile.demo]", '[profile."../x"]\nmodel = "tiny"\n[profile.demo]', 17, ["the name of a profile"]),
        ("[profile.demo]", '[profile.DEMO]\nmodel = "tiny"\n[profile.demo]', 19, ["DEMO and demo"]),
        ("seeds = [1, 2, 3]", f"seeds = {list(range(10**5))}", 25, ["400000 runs", "at most 10000"]),
        (
            "shots = [16]",
            f"shots = {[*range(1, 2001)]}",
            26,
            ["24000 runs (2 methods x 2 tasks x 2000 shots x 3 seeds)"],
        ),
        ("seeds = [1, 2, 3]", "seeds = [4294967296]", 25, ["4294967295", "4294967296"]),
        ("lr = 0.2", 'out = "elsewhere"', 27, ["matrix.config", "must not set out"]),
        ("token_mix = 0.5", 'study = "../x"', 29, ["matrix.method", "must not set study"]),
        ("lr = 0.2", "workers = 100000", 27, ["workers", "from 0 to 512; it is 100000"]),
        ("lr = 0.2", "lr = inf", 27, ["config.lr must be a finite number; it is inf"]),
        ("lr = 0.2", "day = 1979-05-27", 27, ["config.day is the date", "in quotes"]),
        ("digits = 2", "day = 07:32:00", 15, ["artefact.1.params.day is the date or time"]),
        ("digits = 2", f"digits = {'[' * 30}{']' * 30}", None, ["more than 20 deep"]),
    ],
)
def test_errors_name_line_and_field(load, old, new, line, words):
    assert GOOD.count(old) == 1
    with pytest.raises(ValueError) as caught:
        load(GOOD.replace(old, new))
    message = str(caught.value)
    assert line is None or f"study.toml, line {line}, " in message, message
    assert len(message) < 1000
    assert all(word in message for word in words), message


def test_broken_toml(load):
    with pytest.raises(ValueError, match=r"study\.toml: not valid TOML: .*line 6"):
        load(GOOD.replace('id = "fig1"', "id = fig1"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (GOOD.encode("utf-16"), "byte order mark"),
        (b"\xef\xbb\xbf" + GOOD.encode(), "byte order mark"),
        (GOOD.replace("A study", "\xe9").encode("latin-1"), "no text in UTF-8"),
        (b"", "at least one"),
        (f"x = {'[' * 5000}{']' * 5000}".encode(), "too deep"),
        (f"x = {'9' * 5000}".encode(), "not valid TOML"),
        (b"#" * 20_000_001, "20000001 bytes"),
    ],
)
def test_files_that_are_no_study(load, project, content, words):
    load()
    path = project.root / "notebooks/fake/study.toml"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        studies.load("fake", project.root / "notebooks")
    assert str(path) in str(caught.value)


def test_unknown_study_profile_and_artefact(load, project):
    study = load()
    with pytest.raises(FileNotFoundError, match=r"no study 'fkae'.*fake"):
        studies.load("fkae", project.root / "notebooks")
    with pytest.raises(ValueError, match=r"no profile 'dmo'; did you mean demo\?; it has demo"):
        study.profile("dmo")
    with pytest.raises(ValueError, match=r"no artefact 'fig9'; did you mean fig1\?; it has fig1, table1"):
        study.choose(["fig1", "fig9"], "demo")
