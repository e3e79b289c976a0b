"""A wheel, built and installed: it works in an empty folder, without the checkout, git or a place to write in."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOT_SOURCES = (".*", "build", "dist", "figures", "runs", "*.egg-info", "__pycache__")
BACKEND = (
    "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"
)
SESSION = """
import vlmlab
from vlmlab import measures, paths

vlm = vlmlab.load("tiny")
task = vlmlab.task("emoji/animals", protocol="base_to_new", shots=1, seed=1)
run = vlmlab.fit("aligned_norm", vlm, task, max_steps=2, epochs=1)
table = vlmlab.evaluate(run, task, rule="unified")
acts = vlmlab.capture(run.model, task.new, ["image.final"])
print(len(table), measures.norm_ratio(acts).dims, run.info["git"])
print(paths.PACKAGE)
"""
pytestmark = pytest.mark.install


def build(kind: str, source: Path, out: Path) -> Path:
    """A wheel or an sdist of a folder, by its build backend, without network."""
    command = [sys.executable, "-c", BACKEND, f"build_{kind}", str(out)]
    done = subprocess.run(command, cwd=source, check=True, capture_output=True, encoding="utf-8")
    return out / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """Made from a copy of the repository without .git."""
    work = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT, work / "vlmlab", ignore=shutil.ignore_patterns(*NOT_SOURCES))
    return build("sdist", work / "vlmlab", work)


@pytest.fixture(scope="module")
def site(sdist, tmp_path_factory):
    """Where the wheel of the sdist is installed."""
    work = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(work, filter="data")
    wheel = build("wheel", work / sdist.name.removesuffix(".tar.gz"), work)
    install = ["install", "-q", "--no-deps", "--no-index", "--no-compile", "--target", str(work / "site")]
    subprocess.run([sys.executable, "-m", "pip", *install, str(wheel)], check=True)
    return work / "site"


@pytest.fixture
def call(site, tmp_path, monkeypatch):
    """Runs Python, for its stdout and then its stderr, in an empty folder, where vlmlab is the installed one and there is no program git."""
    for name in [name for name in os.environ if name.startswith("VLMLAB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert not shutil.which("git")
    before = {p: p.stat().st_mtime_ns for p in site.rglob("*")}

    def run(*words: str, folder: Path = tmp_path, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-P", *words], cwd=folder, capture_output=True, encoding="utf-8", check=False
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    yield run
    assert before == {p: p.stat().st_mtime_ns for p in site.rglob("*")}, "an installed copy is read only"


def test_what_there_is(call):
    assert {"tiny", "small"} <= {*call("-m", "vlmlab", "models").split()}
    assert "emoji/animals" in call("-m", "vlmlab", "tasks").split()
    assert "alignednorm: " in call("-m", "vlmlab", "studies")


def test_a_session(call, site):
    rows, package = call("-W", "ignore", "-c", SESSION).splitlines()[:2]
    assert int(rows.split()[0]) >= 3 and rows.endswith("('sample',) {'commit': None, 'dirty': None}")
    assert Path(package) == site / "vlmlab"


def test_a_study_from_an_empty_folder_and_from_a_copy(call, site, tmp_path):
    (tmp_path / "vlmlab").mkdir()
    (tmp_path / "vlmlab/__init__.py").write_text("raise RuntimeError('a folder that only has the name')")
    figure = ["--profile", "smoke", "--only", "fig3a"]
    said = call(str(site / "bin/vlmlab"), "reproduce", "alignednorm", *figure)
    assert "fig3a     made" in said and "those that come with vlmlab" in said
    made = tmp_path / "runs/figures/smoke/alignednorm"
    assert (made / "fig3a.svg").is_file()
    code = json.loads((made / ".state.json").read_text(encoding="utf-8"))["fig3a"]["code"]
    assert "vlmlab/measures/norms.py" in code, "another version of vlmlab makes it stale"
    assert not (tmp_path / "notebooks").exists()
    call("-m", "vlmlab", "studies", "--copy", "mine")
    for name in ("tour.ipynb", "gallery_of_measures.ipynb", "alignednorm/study.toml"):
        assert (tmp_path / "mine/notebooks" / name).read_bytes() == (ROOT / "notebooks" / name).read_bytes()
    folders = ["--runs", "../runs", "--profile", "smoke"]
    listed = call("-m", "vlmlab", "studies", *folders, folder=tmp_path / "mine")
    assert "fig3a           fresh" in listed, "the copy is the same study"
