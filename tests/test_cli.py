"""The command line: what each command calls, its exit codes, and errors in one line."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import vlmlab
from vlmlab import cli, studies
from vlmlab.cli import options, places, training
from vlmlab.studies.driver.plan import STANDARD
from vlmlab.studies.driver.runner import Row, Summary

ROOT = Path(__file__).parents[1]

COMMANDS = (
    "reproduce",
    "studies",
    "cluster",
    "explain",
    "gallery",
    "pretrain",
    "fit",
    "results",
    "decode",
    "models",
    "tasks",
    "methods",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    out = capsys.readouterr().out
    assert caught.value.code == 0 and f"example:\n  vlmlab {command}" in out and "--debug" in out


def test_help_and_version_need_no_torch():
    code = "import sys; from vlmlab import cli; cli.parser().format_help(); print('torch' in sys.modules)"
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **path}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    "argv",
    [[], ["nope"], ["fit", "mmrlpp"], ["fit", "a", "b", "--shots", "0"], ["reproduce", "x", "--jobs", "two"]],
)
def test_wrong_usage(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == 2 and "usage: vlmlab" in capsys.readouterr().err


@pytest.mark.parametrize(("state", "status"), [("fresh", 0), ("made", 0), ("failed", 1), ("missing runs", 1)])
def test_exit_status_of_reproduce(monkeypatch, tmp_path, capsys, state, status):
    asked = []

    def reproduce(*args, **options):
        asked.append((options["scheduler"], *args))
        return Summary([Row("fig1", "made", 1.0), Row("fig2", state, 2.0, "why")], tmp_path)

    monkeypatch.setattr(studies, "reproduce", reproduce)
    options = ["--only", "fig1,fig2", "--jobs", "2", "--profile", "smoke", "--scheduler", "tcp://h:1"]
    assert cli.main(["reproduce", "fake", *options]) == status
    assert asked[0][:4] == ("tcp://h:1", "fake", "smoke", ["fig1", "fig2"]) and asked[0][-1] == 2
    out = capsys.readouterr().out
    assert f"fig2      {state}" in out and f"figures are in {tmp_path}" in out


def test_reproduce_without_a_name_does_every_study_that_has_the_profile(monkeypatch, tmp_path, capsys):
    for name, profile in (("a", "demo"), ("b", "demo"), ("c", "smoke")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f.ipynb").touch()
        artefact = '[[artefact]]\nid = "f"\nnotebook = "f.ipynb"\nkind = "figure"\n'
        text = f'[study]\nid = "{name}"\n\n{artefact}\n[profile.{profile}]\nmodel = "tiny"\n'
        (tmp_path / name / "study.toml").write_text(text)
    states = {"a": "failed", "b": "made"}
    monkeypatch.setattr(
        studies, "reproduce", lambda name, *a, **k: Summary([Row("f", states[name])], tmp_path / name)
    )
    command = ["reproduce", "--notebooks", str(tmp_path)]
    assert cli.main(command) == 1  # the failure of the first, though the last went well
    out, err = capsys.readouterr()
    assert f"figures are in {tmp_path / 'a'}" in out and f"figures are in {tmp_path / 'b'}" in out
    assert err == "c has no profile demo and is left out\n"
    states["a"] = "fresh"
    assert cli.main(command) == 0
    assert cli.main([*command, "--profile", "paper"]) == 2
    assert "no study in" in capsys.readouterr().err
    assert cli.main([*command, "--only", "f"]) == 2
    assert "--only names artefacts of one study" in capsys.readouterr().err


def test_ctrl_c(monkeypatch, capsys):
    def reproduce(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(studies, "reproduce", reproduce)
    assert cli.main(["reproduce", "fake"]) == 130
    assert "Go on with the same command" in capsys.readouterr().err


def fails(monkeypatch, error):
    def reproduce(*args, **options):
        raise error

    monkeypatch.setattr(studies, "reproduce", reproduce)


@pytest.mark.parametrize(
    "kind", [ValueError, FileNotFoundError, KeyError, PermissionError, FloatingPointError]
)
def test_errors_of_users_are_one_line(monkeypatch, capsys, kind):
    error = kind("unknown x;\n  there are y")
    fails(monkeypatch, error)
    assert cli.main(["reproduce", "fake"]) == 2
    assert capsys.readouterr().err == "vlmlab: error: unknown x; there are y\n"
    with pytest.raises(type(error)):
        cli.main(["reproduce", "fake", "--debug"])


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("a fault of ours"), RuntimeError("another")])
def test_faults_of_the_program_keep_their_traceback(monkeypatch, error):
    fails(monkeypatch, error)
    with pytest.raises(type(error)):
        cli.main(["reproduce", "fake"])


def test_outside_a_project(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for argv in (["studies"], ["reproduce", "alignednorm"]):
        assert cli.main([*argv, "--notebooks", "nowhere"]) == 2
        assert "run this in the folder that holds notebooks/" in capsys.readouterr().err
    assert cli.main(["studies"]) == 0
    assert "alignednorm: " in capsys.readouterr().out  # the studies that come with vlmlab
    assert cli.main(["studies", "nope"]) == 2
    assert "Studies there: alignednorm" in capsys.readouterr().err


def test_copying_the_studies_that_come_with_vlmlab(tmp_path, capsys):
    target = tmp_path / "mine"
    assert cli.main(["studies", "alignednorm", "--copy", str(target)]) == 0
    assert f"cd {target}" in capsys.readouterr().out
    assert (target / "notebooks/alignednorm/study.toml").is_file()
    assert cli.main(["studies", "nope", "--copy", str(target)]) == 2
    assert "there are alignednorm" in capsys.readouterr().err


def test_studies_are_listed_with_states(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "notebooks/fake"
    folder.mkdir(parents=True)
    cell = {
        "cell_type": "code",
        "metadata": {"tags": ["parameters"]},
        "source": "\n".join(f"{name} = ''" for name in STANDARD),
    }
    (folder / "fig1.ipynb").write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4}))
    (folder / "study.toml").write_text(
        '[study]\nid = "fake"\ntitle = "A title"\n[[artefact]]\nid = "fig1"\nnotebook = "fig1.ipynb"\n'
        'kind = "figure"\n[profile.demo]\nmodel = "tiny"\n'
    )
    assert cli.main(["studies"]) == 0
    out = capsys.readouterr().out
    assert "fake: A title (profiles demo)" in out and "fig1      missing        -  not made yet" in out
    assert cli.main(["studies", "nope"]) == 2
    assert "Studies there: fake" in capsys.readouterr().err
    assert cli.main(["studies", "alignednorm"]) == 2
    assert "`vlmlab studies alignednorm --copy .`" in capsys.readouterr().err


def test_explain(tmp_path, capsys):
    from matplotlib.figure import Figure

    studies.save_figure(
        Figure(), tmp_path, "fig3a", study="alignednorm", profile="demo", run_keys=["k1"], seeds=[1, 2]
    )
    assert cli.main(["explain", str(tmp_path / "fig3a.png")]) == 0
    out = capsys.readouterr().out
    assert "fig3a of study alignednorm, profile demo" in out and "k1" in out and "1, 2" in out
    assert "vlmlab reproduce alignednorm --profile demo --only fig3a" in out
    assert cli.main(["explain", str(tmp_path / "nope.png")]) == 2


def test_what_explain_prints_is_text_and_safe_to_paste(tmp_path, capsys):
    record = {
        "study": "mini",
        "artefact": "fig; touch PWNED #",
        "profile": "demo$(touch PWNED)",
        "run_keys": ["\x1b]0;title\x07", "\u202e"],
        "seeds": [1],
        "git": {"commit": "\x1b[2J\r\n", "dirty": None},
        "versions": {"a": "1"},
    }
    text = (
        f'<svg><description xmlns="http://purl.org/dc/elements/1.1/">{json.dumps(record)}</description></svg>'
    )
    (tmp_path / "x.svg").write_text(text)
    assert cli.main(["explain", str(tmp_path / "x.svg")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and all(line.isprintable() for line in lines)
    words = shlex.split(lines[-1].removeprefix("again"))
    assert words[:2] == ["vlmlab", "reproduce"] and words[-1] == "fig; touch PWNED #"
    assert words[4] == "demo$(touch PWNED)"
    assert cli.main(["explain", str(tmp_path / "x.svg"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["artefact"] == "fig; touch PWNED #"


def test_a_study_that_cannot_be_read_hides_no_other(tmp_path, monkeypatch, capsys):
    for name in "abc":
        (tmp_path / "notebooks" / name).mkdir(parents=True)
        text = f'[study]\nid = "{name}"\n[[artefact]]\nid = "f"\nnotebook = "f.ipynb"\nkind = "figure"\n'
        (tmp_path / "notebooks" / name / "study.toml").write_text(text + '[profile.demo]\nmodel = "tiny"\n')
        source = {"cell_type": "code", "source": "\n".join(f"{p} = ''" for p in STANDARD)}
        book = {"nbformat": 4, "cells": [source | {"metadata": {"tags": ["parameters"]}}]}
        (tmp_path / "notebooks" / name / "f.ipynb").write_text(json.dumps(book))
    (tmp_path / "notebooks/b/study.toml").write_bytes(b"\xff\xfe")
    monkeypatch.chdir(tmp_path)
    for command in (["studies"], ["reproduce", "--plan"]):
        assert cli.main(command) == 2
        out, err = capsys.readouterr()
        assert [line[0] for line in out.splitlines() if line[:2] in ("a:", "c:", "a,", "c,")] == ["a", "c"]
        assert "notebooks/b/study.toml" in err and err.count("\n") == 1


@pytest.mark.parametrize("target", ["/dev/zero", "study.toml", "nowhere", "."])
def test_a_study_that_is_no_file_is_none(tmp_path, monkeypatch, capsys, target):
    """Neither the help nor a command reads a device, a loop, a folder."""
    places.profiles_here.cache_clear()
    (tmp_path / "notebooks/mini").mkdir(parents=True)
    (tmp_path / "notebooks/mini/study.toml").symlink_to(target)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["studies", "mini"]) == 2
    assert "there is no study 'mini': no notebooks/mini/study.toml" in capsys.readouterr().err
    places.profiles_here.cache_clear()


def test_a_gallery_of_nothing_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["gallery", "--figures", "nowhere"]) == 2
    assert "there is no folder nowhere" in capsys.readouterr().err and not (tmp_path / "nowhere").exists()


def test_unknown_names_are_refused_with_the_nearest_before_torch(capsys):
    code = "import sys; from vlmlab.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    for words, near in (
        (["alignednrm"], "alignednorm"),
        (["alignednorm", "--only", "tabel1"], "table1"),
        (["alignednorm", "--profile", "papr"], "paper"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, "reproduce", *words],
            env=os.environ | paths,
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert f"did you mean {near}?" in done.stderr and done.stdout.strip() == "False", done.stderr


def test_fit_trains_and_prints_what_was_measured(capsys, tmp_path):
    words = [
        "fit",
        "mmrlpp",
        "emoji/food",
        "--seed",
        "2",
        "--shots",
        "2",
        "--epochs",
        "3",
        "--out",
        str(tmp_path),
    ]
    texts = ["token_mix=1", "rank = 2", "lr=1e-2", "crop=(0.5, 1)", "max_steps=2", "batch_size=3"]
    words += [w for text in texts for w in ("--set", text)]
    assert cli.main([*words, "--rule", "unified", "--rule", "decoupled", "--device", "cpu"]) == 0
    (path,) = tmp_path.glob("**/run.json")
    run = vlmlab.Run(path.parent)
    assert run.info["steps"] == 2 and run.settings["rank"] == 2 and run.settings["token_mix"] == 1.0
    assert run.settings["crop"] == [0.5, 1.0] and run.info["labels"]["seed"] == 2
    out = capsys.readouterr().out
    assert str(path.parent) in out and "decoupled" in out and "harmonic" not in out
    assert set(run.results["rule"]) == {"unified", "decoupled"} and set(run.results["split"]) == {
        "base",
        "new",
        "hm",
    }
    # settings as columns, and filters
    assert (
        cli.main(["results", "--runs", str(tmp_path), "--config", "rank", "--where", "split=hm", "--csv"])
        == 0
    )
    head, *rows = capsys.readouterr().out.split()
    assert head.split(",")[-1] == "rank" and len(rows) == 4 and all(row.endswith(",2") for row in rows)
    # in a terminal no column is left out, and what is the same in all rows is said once
    where = ["results", "--runs", str(tmp_path)]
    assert cli.main([*where, "--config", "rank"]) == 0
    above, head, *rows = capsys.readouterr().out.splitlines()
    assert above == "study adhoc, method mmrlpp, task emoji/food, protocol base_to_new, shots 2, seed 2"
    assert head.split() == ["rank", "split", "rule", "metric", "value", "n"] and len(rows) == 12
    assert cli.main([*where, "--where", "split=hm", "--where", "seed=2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 4 and found[0]["value"] == run.results.query("split == 'hm'")["value"].iloc[0]
    assert cli.main([*where, "--where", "split=hmm"]) == 0
    said = capsys.readouterr()
    assert (
        said.out == "" and "no number has split 'hmm'; did you mean hm?; there are base, hm, new" in said.err
    )
    # the same again is the same run; its result alone is on the output
    assert cli.main([*words, "--rule", "unified", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["key"] == run.key and {row["rule"] for row in found["results"]} == {"unified"}
    assert isinstance(found["below_zero_shot"], list)


def test_results_of_nothing_say_why(tmp_path, capsys):
    assert cli.main(["results", "--runs", str(tmp_path / "nowhere")]) == 2
    assert f"there is no folder {tmp_path / 'nowhere'}" in capsys.readouterr().err
    assert cli.main(["results", "--runs", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.out == "" and "has measured numbers" in said.err


def test_the_settings_of_a_method_are_listed(capsys):
    assert cli.main(["methods", "mmrlpp"]) == 0
    out = capsys.readouterr().out
    assert (
        "--set token_mix=0.9  (a number)" in out and "--set optimiser=adamw  (one of adamw, adam, sgd)" in out
    )
    assert cli.main(["methods", "--json"]) == 0
    found = {method["name"]: method for method in json.loads(capsys.readouterr().out)}
    assert found["mmrlpp"]["rules"] == ["unified", "decoupled"] and "epochs" in {
        s["name"] for s in found["zero_shot"]["settings"]
    }
    assert cli.main(["methods", "mmrlp"]) == 2
    assert "did you mean mmrlpp?" in capsys.readouterr().err


def test_help_of_fit_names_the_values(capsys):
    with pytest.raises(SystemExit):
        cli.main(["fit", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    for words in ("base_to_new", "domain_shift", "decoupled", "vlmlab methods METHOD", "amp_bf16", "--study"):
        assert words in out


def test_a_full_disk_behind_the_output_is_one_line():
    done = subprocess.run(
        f"{sys.executable} -m vlmlab.cli tasks > /dev/full",
        shell=True,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stderr == "vlmlab: error: [Errno 28] No space left on device\n"


def test_fit_starts_from_the_papers_settings(monkeypatch, capsys):
    asked = {}
    monkeypatch.setattr(vlmlab, "load", lambda *a, **k: "model", raising=False)
    monkeypatch.setattr(vlmlab, "task", lambda *a, **k: "task", raising=False)
    monkeypatch.setattr(vlmlab, "fit", lambda *a, **k: asked.update(k) or 1 / 0, raising=False)
    words = ["fit", "mmrlpp", "dtd", "--protocol", "few_shot", "--presets", "--set", "lr=0.01"]
    with pytest.raises(ZeroDivisionError):
        cli.main(words)
    assert (asked["anchor_weight"], asked["epochs"], asked["lr"]) == (7.0, 100, 0.01)
    assert "settings " in capsys.readouterr().out


def test_models_are_named_by_role(monkeypatch):
    monkeypatch.setattr(vlmlab, "load", lambda name, *a, **k: f"<{name}>", raising=False)

    class Two:
        models_needed = ("student", "teacher")

    found = training.by_role(Two, ["teacher=ViT-B-16"], None, None)
    assert found == {"student": "<tiny>", "teacher": "<ViT-B-16>"}
    with pytest.raises(ValueError, match="no model is needed as 'techer'; there are student, teacher"):
        training.by_role(Two, ["techer=x"], None, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rank=2.5", "rank must be int, got '2.5'"),
        ("rank=two", "rank must be int, got 'two'"),
        ("token_mix=true", "token_mix must be float"),
        ("token=1", "mmrlpp has no setting 'token'; it has first_block"),
        ("lr=-1", "lr is -1.0: expected `float` >= 0"),
        ("rank", "'rank' is not of the form key=value"),
    ],
)
def test_fit_refuses_wrong_options_before_it_loads_anything(monkeypatch, capsys, text, words):
    monkeypatch.setattr(vlmlab, "load", lambda *a, **k: pytest.fail("loaded"), raising=False)
    assert cli.main(["fit", "mmrlpp", "emoji/food", "--set", text]) == 2
    assert words in capsys.readouterr().err


def test_fit_refuses_a_rule_before_it_trains(capsys):
    assert cli.main(["fit", "mmrlpp", "emoji/food", "--rule", "decouple"]) == 2
    assert "mmrlpp has no rule 'decouple'; it has unified, decoupled" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("true", bool, True),
        ("False", bool, False),
        ("3", int, 3),
        ("3", float, 3.0),
        ("-1e3", float, -1000.0),
        ("3", str, "3"),
        ("none", int | None, None),
        ("4", int | None, 4),
        ("[1, 2]", tuple[int, ...], (1, 2)),
        ("(1,)", list[int], [1]),
    ],
)
def test_typed(text, kind, value):
    found = options.typed("key", text, kind)
    assert found == value and type(found) is type(value)


def test_results_are_filtered(monkeypatch, capsys):
    frame = pd.DataFrame({"method": ["a", "b", "b"], "seed": [1, 1, 2], "value": [1.0, 2.0, 3.0]})
    monkeypatch.setattr(vlmlab, "results", lambda root, config: frame, raising=False)
    assert cli.main(["results", "--where", "method=b", "--where", "seed=2", "--csv"]) == 0
    assert capsys.readouterr().out.split() == ["method,seed,value", "b,2,3.0"]
    assert cli.main(["results", "--where", "colour=red"]) == 2
    assert "no column 'colour'; they have method, seed, value" in capsys.readouterr().err


def test_lists(capsys):
    expected = {"models": "tiny", "tasks": "emoji/animals", "methods": "aligned_norm: "}
    for command, line in expected.items():
        assert cli.main([command]) == 0
        assert any(text.startswith(line) for text in capsys.readouterr().out.splitlines())


def test_pretrain_trains_and_exports(tmp_path, capsys):
    words = [
        "pretrain",
        "tiny",
        "--out",
        str(tmp_path),
        "--samples",
        "256",
        "--export",
        str(tmp_path / "model"),
    ]
    words += [
        w for text in ("width=32", "head_width=16", "patch=16", "line_samples=0") for w in ("--set", text)
    ]
    assert cli.main(words) == 0
    assert "exported to" in capsys.readouterr().out
    about = json.loads((tmp_path / "model/config.json").read_text())["pretraining"]
    assert (about["samples"], about["step"], about["seed"]) == (256, 2, 0)
    assert vlmlab.load(tmp_path / "model", device="cpu").image.width == 32
