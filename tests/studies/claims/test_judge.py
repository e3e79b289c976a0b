"""claims.toml: what is wrong with one is named with its line; judging writes verdicts with their evidence."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from vlmlab import cli, studies
from vlmlab.studies.claims import evidence
from vlmlab.studies.claims import judge as claims
from vlmlab.studies.claims.claim import load as load_claims
from vlmlab.studies.claims.inference import OPEN, UNTESTABLE
from vlmlab.studies.jobs import receipts
from vlmlab.studies.pages import by_seed, tables

ROOT = Path(__file__).parents[3]
ONE = """[[claim]]
id = "better"
sentence = "a is better than b."
source = "Section 1"
holds = "a is above b"
data = ["fig1"]
measurement = "difference"
of = { method = "a" }
against = { method = "b" }
direction = "above"
threshold = 0
unit = "points"
"""
FIELDS = {
    "id",
    "sentence",
    "source",
    "measurement",
    "threshold",
    "said",
    "verdict",
    "survives",
    "unit",
    "evidence",
    *claims.NUMBERS,
    "reason",
    "holds",
    "kind",
}


def write(project, text):
    project.study(project.artefact("fig1"), project.artefact("fig2"))
    return project.write("notebooks/fake/claims.toml", text)


def judge(project, profile="demo"):
    return claims.judge("fake", profile, **project.places, train="fake_train:train")


def save(project, frame, name="fig1", profile="demo", seeds=(1, 2, 3), **options):
    """An artefact's files as a notebook writes them."""
    tables.save_table(
        frame,
        project.root / "figures/fake",
        name,
        study="fake",
        profile=profile,
        run_keys=["k1"],
        seeds=seeds,
        **options,
    )


def frame(differences):
    lines = [(m, "toy/a", s, 10 + d * (m == "a")) for s, d in enumerate(differences, 1) for m in "ab"]
    return pd.DataFrame(lines, columns=["method", "task", "seed", "value"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("threshold = 0", 'threshold = "0"'), "line 11, claim.threshold: must be a number, or two"),
        (('["fig1"]', '["../fig1"]'), "line 6, claim.data: must be a list, not empty; each is"),
        (('["fig1"]', '["published/../other/table1"]'), "line 6, claim.data"),
        (('["fig1"]', '["runs/main"]'), "line 6, claim.data"),
        (('method = "a"', "method = { a = 1 }"), "line 8, claim.of: must be a table of columns"),
        (('method = "a"', 'method = [["a"]]'), "line 8, claim.of: must be a table of columns"),
        (
            ("threshold = 0", "threshold = nan"),
            "line 11, claim.threshold: claim.0.threshold must be a finite number; it is nan",
        ),
        (
            ("threshold = 0", 'threshold = 0\nover = ["value"]'),
            "line 12, claim.over: must list columns that tell units apart, each once; 'value' is no",
        ),
        (
            ("threshold = 0", 'threshold = 0\nover = ["task", "task"]'),
            "line 12, claim.over: must list columns that tell units apart, each once; one is there",
        ),
        (("threshold = 0", "threshold = [0, 1]"), "line 11, claim.threshold: must be one number"),
        (('direction = "above"', 'direction = "within"'), "line 11, claim.threshold: must be two numbers"),
        (
            ('direction = "above"', 'direction = "up"'),
            "line 10, claim.direction: must be one of above, below",
        ),
        (
            ('measurement = "difference"', 'measurement = "guess"'),
            "line 7, claim.measurement: must be one of",
        ),
        (('against = { method = "b" }\n', ""), "line 1, claim.against: is missing; the measurement"),
        (('holds = "a is above b"\n', ""), "line 1, claim.holds: is missing"),
        (
            ('unit = "points"', 'unitt = "points"'),
            "line 12, claim.unitt: unknown field (did you mean unit?); legal are id, sentence",
        ),
        (
            ('data = ["fig1"]', 'data = ["runs/main"]'),
            "line 6, claim.data: must be a list, not empty; each is",
        ),
        (('data = ["fig1"]', "data = []"), "line 6, claim.data: must be a list, not empty"),
        (('unit = "points"', 'gap = { split = ["new"] }'), "line 12, claim.gap: must be one column with two"),
    ],
)
def test_errors_name_line_and_field(project, change, words):
    assert change[0] in ONE
    path = write(project, ONE.replace(*change))
    with pytest.raises(ValueError) as caught:
        judge(project)
    assert str(caught.value).startswith(f"{path}, {words}")
    assert not (project.root / "figures/fake/claims.json").exists()


def test_errors_of_the_whole_file(project):
    path = write(project, ONE + ONE)
    with pytest.raises(ValueError, match=r"line 14, claim\.id: 'better' is there twice"):
        judge(project)
    path.write_text(ONE + "[other]\na = 1\n")
    with pytest.raises(ValueError, match=r"line 13, other: unknown; legal is \[\[claim\]\]"):
        judge(project)
    path.write_text("")
    with pytest.raises(ValueError, match=r"needs at least one \[\[claim\]\]"):
        judge(project)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"claims\.toml"):
        judge(project)
    with pytest.raises(FileNotFoundError, match="Studies there: fake"):
        claims.judge("nope", **project.places)


def test_a_verdict_with_its_evidence(project):
    write(project, ONE)
    save(project, frame([1, 2, 3]))
    result = judge(project)
    (found,) = result["claims"]
    assert set(found) == FIELDS
    assert (found["said"], found["verdict"], found["survives"]) == (OPEN, "not decided", False)
    assert found["effect"] == 2 and found["by_seed"] == pytest.approx(3**-0.5) and found["seeds"] == 3
    assert result["tested"] == 1 and result["expected_false"] == 0.05
    assert found["threshold"] == "above 0" and found["evidence"] == ["fig1"] and found["unit"] == "points"
    assert found["interval"] == pytest.approx([2 - 2.4841, 2 + 2.4841], abs=1e-3)
    note = result["provenance"]
    assert result["profile"] == note["profile"] == "demo" and note["artefact"] == "claims"
    assert note["run_keys"] == ["k1"] and note["seeds"] == [1, 2, 3]
    written = (project.root / "figures/fake/claims.json").read_text()
    assert json.loads(written, parse_constant=lambda text: pytest.fail(text)) == result
    judge(project)
    assert (project.root / "figures/fake/claims.json").read_text() == written


def test_new_tables_are_judged_at_once(project):
    cell = (
        "import pandas as pd\nfrom vlmlab import studies\n"
        "rows = [(m, s, 3 + GAIN * (m == 'a') * (1 + s / 1000) + s) for s in (1, 2) for m in 'ab']\n"
        "frame = pd.DataFrame(rows, columns=['method', 'seed', 'value'])\n"
        "studies.save_table(frame, out, artefact, study=study, profile=profile, seeds=[1, 2])"
    )
    project.study('[[artefact]]\nid = "fig1"\nnotebook = "fig1.ipynb"\nkind = "table"\n\n')
    project.write("notebooks/fake/claims.toml", ONE)
    path = project.root / "figures/fake/claims.json"
    for gain, verdict in ((2, "holds here"), (-2, "does not hold here")):
        project.notebook("fig1", cell.replace("GAIN", str(gain)))
        assert project.reproduce().ok
        (found,) = json.loads(path.read_text())["claims"]
        assert found["verdict"] == verdict and found["effect"] == pytest.approx(gain, rel=0.01)
    path.unlink()
    assert project.reproduce().ok and not path.exists()  # nothing was made, so there is nothing to judge


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([1, 1.1, 0.9], "holds here"),
        ([-1, -1.1, -0.9], "does not hold here"),
        ([5], "not decided"),
        ([-5], "not decided"),
        ([0, 0, 0], "not decided"),
    ],
)
def test_verdicts_follow_the_spread(project, differences, verdict):
    write(project, ONE)
    save(project, frame(differences))
    (found,) = judge(project)["claims"]
    assert found["verdict"] == verdict
    assert ("n = 1" in found["reason"]) == (len(differences) == 1)


def test_what_cannot_be_tested_says_why(project):
    texts = {
        "a": '["fig1"]',
        "b": '["fig9"]',
        "c": '["published/table9"]',
        "d": '["runs/main/accuracy"]',
        "e": '["runs/nope/accuracy"]',
        "f": '["runs/nope/accuracy", "fig9"]',
    }
    write(
        project, "".join(ONE.replace('"better"', f'"{i}"').replace('["fig1"]', t) for i, t in texts.items())
    )
    found = judge(project)["claims"]
    assert {c["said"] for c in found} == {UNTESTABLE} and {c["survives"] for c in found} == {None}
    assert {c["verdict"] for c in found} == {"not testable here"} and {c["effect"] for c in found} == {None}
    assert [c["reason"] for c in found] == [
        "fig1 was not made yet",
        "fig9 is no artefact of study fake yet",
        "there are no published numbers table9.csv",
        "2 of 2 runs of main are missing, or of other code or data",
        "profile demo has no matrix nope",
        "profile demo has no matrix nope; fig9 is no artefact of study fake yet",
    ]
    assert [c["id"] for c in found if c["kind"] == "published"] == ["c"]
    assert project.calls() == []  # nothing was trained for it


def test_files_that_do_not_fit(project):
    write(project, ONE)
    save(project, frame([1, 2]).drop(columns="method"))
    assert "no column 'method', but task, seed, value" in judge(project)["claims"][0]["reason"]
    save(project, frame([1, 2]), profile="paper")
    assert judge(project)["claims"][0]["reason"] == "fig1 was made under profile paper"
    for path in (project.root / "figures/fake").glob("fig1.[th]*"):
        path.unlink()
    assert "beside it" in judge(project)["claims"][0]["reason"]


def test_the_first_source_that_is_there_is_read(project):
    write(project, ONE.replace('["fig1"]', '["fig2", "fig1"]'))
    save(project, frame([1, 1.1, 0.9]))
    assert judge(project)["claims"][0]["evidence"] == ["fig1"]
    save(project, frame([-1, -1.1, -0.9]), "fig2")
    found = judge(project)["claims"][0]
    assert found["evidence"] == ["fig2"] and found["verdict"] == "does not hold here"


def test_published_numbers_are_a_kind_of_their_own(project):
    lines = ["method,dataset,value,note", "a,x,3,", "b,x,2,", "a,y,1,", "b,y,2,"]
    project.write("data/published/fake/table2.csv", "\n".join(lines))
    write(project, ONE.replace('["fig1"]', '["published/table2"]') + 'units = "all"\n')
    found = judge(project)["claims"][0]
    assert (found["kind"], found["verdict"], found["effect"]) == ("published", "refuted", -1)
    assert found["seeds"] is None and found["interval"] is None and found["survives"] is None
    assert found["reason"].startswith("y: -1") and "nothing was measured" in found["reason"]


def test_numbers_one_by_one_are_read_before_a_table_of_means(project):
    write(project, ONE)
    each = frame([1, 1.1, 0.9])
    tidy = tables.together(
        by_seed.measured(each, ["method", "task"]),
        tables.stated(pd.DataFrame({"method": ["a", "b"], "task": "toy/a", "value": [0.0, 50.0]}), "planned"),
    )
    save(project, tidy)
    assert "no column 'value'" in judge(project)["claims"][0]["reason"]
    save(project, tidy, each=each)
    found = judge(project)["claims"][0]
    assert found["verdict"] == "holds here" and found["effect"] == pytest.approx(1)


def test_several_verdicts_are_corrected_for_their_number(project):
    """With p of 0.03 each, one test would be a verdict, and of many none is."""
    write(project, ONE)
    save(project, frame([1, 1.3, 0.7]))
    alone = judge(project)["claims"][0]
    assert 0.025 < alone["p"] < 0.05 and alone["survives"] and alone["verdict"] == "holds here"
    write(project, ONE + ONE.replace('"better"', '"again"'))
    two = judge(project)
    assert [c["survives"] for c in two["claims"]] == [False, False] and two["tested"] == 2
    assert {c["verdict"] for c in two["claims"]} == {"holds here"}


def test_words_of_the_papers_own_scale():
    assert claims.word("fails", "paper", "measured") == "refuted" == claims.word("fails", "demo", "published")
    assert claims.word("fails", "demo", "measured") == "does not hold here"


def test_runs_are_paired_and_averaged(project, monkeypatch):
    """Through the receipts of finished runs, as `reproduce` leaves them."""
    from vlmlab.train.run import Run

    write(
        project,
        ONE.replace('["fig1"]', '["runs/main/accuracy"]')
        .replace('"difference"', '"level"')
        .replace('of = { method = "a" }', 'of = { method = "one", task = "average" }'),
    )
    rows = pd.DataFrame(
        {
            "method": "one",
            "task": "toy/a",
            "protocol": "base_to_new",
            "split": "new",
            "shots": 4,
            "rule": "unified",
            "metric": ["accuracy", "balanced_accuracy"],
            "value": [60.0, 1.0],
        }
    )
    monkeypatch.setattr(Run, "results", property(lambda run: rows.assign(seed=int(run.path.name))))

    def no_answers(runs, metric):
        raise LookupError("evaluate them again")

    monkeypatch.setattr(evidence, "drawn", no_answers)
    done = [receipts.Done(str(seed), f"k{seed}", "") for seed in (1, 2)]
    monkeypatch.setattr(evidence.Index, "done", lambda index, job: done[job.seed - 1])
    for seed in "12":
        project.write(f"runs/{seed}/run.json", "{}")
    result = judge(project)
    assert result["claims"][0]["effect"] == 60 and result["claims"][0]["seeds"] == 2
    told = "runs/main: 2 runs, accuracy (test images as they are: evaluate them again)"
    assert result["claims"][0]["evidence"] == [told]
    assert result["provenance"]["run_keys"] == ["k1", "k2"]


def test_command(project, monkeypatch, capsys):
    monkeypatch.chdir(project.root)
    write(project, ONE)
    save(project, frame([-1, -1.1, -0.9]))
    assert cli.main(["claims", "fake"]) == 0  # a refuted sentence is a result
    out = capsys.readouterr().out
    assert "does not hold here  stays" in out and "measured, profile demo: 1 does not hold here" in out
    assert (
        "1 tests with an error; 1 verdicts survive" in out and "0.05 verdicts are expected to be false" in out
    )
    assert cli.main(["claims", "fake", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["claims"][0]["sentence"] == "a is better than b."
    assert cli.main(["claims", "nope"]) == 2
    with pytest.raises(SystemExit):
        cli.main(["claims", "--help"])
    out = capsys.readouterr().out
    assert all(word in out for word in claims.WORDS["here"].values())


SHIPPED = studies.names(ROOT / "notebooks")
DRAWN = [name for name in SHIPPED if (ROOT / "figures" / name).is_dir()]


def methods_of(study, data):
    """What a claim on these data may call a method; None where a table that it reads is not drawn yet."""
    published, drawn = ROOT / "data/published" / study, ROOT / "figures" / study
    tables = [published / f"{name.partition('/')[2]}.csv" for name in data if name.startswith("published/")]
    for name in (name for name in data if "/" not in name):
        found = [
            drawn / f"{name}{end}" for end in (".csv", ".each.csv") if (drawn / f"{name}{end}").is_file()
        ]
        if not found:
            return None
        tables += found
    named = [pd.read_csv(path, dtype=str).get("method", pd.Series(dtype=str)) for path in tables]
    ours = {"aligned_norm_decoupled"}  # with MMRL++'s rule
    return ours.union(pd.read_csv(published / "methods.csv")["id"], *named)


@pytest.mark.parametrize("name", SHIPPED)
def test_claims_of_the_studies_name_what_there_is(name):
    """Methods, matrices, artefacts and published tables that a claim names exist."""
    found = load_claims(name, ROOT / "notebooks")
    study = studies.load(name, ROOT / "notebooks")
    published = ROOT / "data/published" / name
    whole = [study.profile(name) for name in ("smoke", "demo", "paper")]
    assert len(found) >= 15
    for claim in found:
        methods = methods_of(study.id, claim.data)
        for selection in (claim.where, claim.of, claim.against, claim.to, claim.gap, claim.other_gap):
            named = selection.get("method", [])
            named = {named} if isinstance(named, str) else {*named}
            assert methods is None or named <= methods, claim.id
        for name in claim.data:
            kind, _, rest = name.partition("/")
            if kind == "published":
                assert (published / f"{rest}.csv").is_file(), claim.id
            if kind == "runs":
                named = rest.split("/")[0].split("+")
                assert all({*named} <= {*p.matrices} for p in whole), claim.id
            if not rest:
                assert name in study.artefacts, claim.id


@pytest.mark.parametrize("study", DRAWN)
def test_claims_of_the_studies_fit_the_committed_figures(tmp_path, study):
    """Where the artefact is committed, its columns are those that the claim reads."""
    folder = ROOT / "figures" / study
    for path in folder.glob("*.*"):
        target = tmp_path / "figures" / study / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    (tmp_path / "figures" / study / "claims.json").unlink(missing_ok=True)
    named = {c.id: c.data for c in load_claims(study, ROOT / "notebooks")}
    result = claims.judge(study, runs=tmp_path, figures=tmp_path / "figures", notebooks=ROOT / "notebooks")
    testable = [
        c
        for c in result["claims"]
        if any((folder / f"{name}.csv").is_file() or name.startswith("published/") for name in named[c["id"]])
    ]
    assert len(testable) >= (15 if study == "alignednorm" else 1)
    assert {c["id"]: c["reason"] for c in testable if c["said"] == UNTESTABLE} == {}


RUNS_FIRST = ONE.replace('["fig1"]', '["runs/main/accuracy", "fig1"]')


def stored(project, **changes):
    """The claims.json of a call that had the runs."""
    write(project, RUNS_FIRST)
    save(project, frame([1, 1.1, 0.9]))
    result = judge(project)
    result["claims"][0] |= {"evidence": ["runs/main: 3 runs, accuracy"], "effect": 7.0, **changes}
    path = project.root / "figures/fake/claims.json"
    path.write_text(json.dumps(result | {"mark": 1}))
    return path


def test_better_evidence_is_kept(project):
    """As in a fresh clone, which has the figures and their claims, but no runs."""
    path = stored(project)
    before = path.read_bytes()
    (found,) = judge(project)["claims"]
    assert found["evidence"] == ["runs/main: 3 runs, accuracy"] and found["effect"] == 7
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"evidence": ["fig1"]},  # no better than that of now
        {"evidence": []},
        {"evidence": None},
        {"holds": "something else"},  # another claim by now
        {"threshold": "above 5"},
        {"said": "nonsense"},
    ],
)
def test_other_claims_are_judged_again(project, changes):
    stored(project, **changes)
    (found,) = judge(project)["claims"]
    assert found["evidence"] == ["fig1"] and found["effect"] == pytest.approx(1)


def test_evidence_of_another_profile_is_not_kept(project):
    path = stored(project)
    path.write_text(path.read_text().replace('"profile": "demo"', '"profile": "paper"'))
    assert judge(project)["claims"][0]["evidence"] == ["fig1"]


def test_reading_writes_only_what_is_new(project, monkeypatch):
    write(project, ONE)
    save(project, frame([1, 1.1, 0.9]))
    judge(project)
    path = project.root / "figures/fake/claims.json"
    before = path.read_bytes()
    monkeypatch.setattr(claims, "record", lambda **about: json.dumps({"git": "another commit"}))
    assert judge(project)["provenance"] == json.loads(before)["provenance"]
    assert path.read_bytes() == before
    save(project, frame([2, 2.1, 1.9]))
    assert judge(project)["provenance"] == {"git": "another commit"} and path.read_bytes() != before


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b'{"claims": 5, "profile": "demo"}',
        b'{"claims": [5, {"id": "better"}], "profile": "demo"}',
    ],
)
def test_a_damaged_claims_json_is_written_again(project, content):
    write(project, ONE)
    save(project, frame([1, 1.1, 0.9]))
    path = project.root / "figures/fake/claims.json"
    path.write_bytes(content)
    assert judge(project)["claims"][0]["verdict"] == "holds here"
    assert json.loads(path.read_text())["claims"][0]["id"] == "better"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "fig1.csv has no row"),
        (b"\xff\xfe\0\1", "fig1.csv cannot be read"),
        (b"a,b\n1,2\n1,2,3\n", "fig1.csv, row 3: 3 cells under 2 names"),
    ],
)
def test_a_damaged_table_is_named_and_no_evidence(project, content, words):
    write(project, ONE)
    save(project, frame([1]))
    (project.root / "figures/fake/fig1.csv").write_bytes(content)
    (found,) = judge(project)["claims"]
    assert found["said"] == UNTESTABLE and re.search(words, found["reason"])


def test_text_where_numbers_should_be_names_file_and_claim(project):
    path = write(project, ONE + 'value = "method"\n')
    save(project, frame([1]))
    with pytest.raises(ValueError, match=f"{path}, claim better, on fig1: the column 'method' holds 'a'"):
        judge(project)
