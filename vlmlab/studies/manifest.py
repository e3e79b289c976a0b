"""study.toml: what a study draws, which runs that needs, and how they are trained per profile.

One file per study, `notebooks/<study>/study.toml`. It may lie anywhere: `vlmlab reproduce <study>` finds it in
notebooks/ here, in the folder that --notebooks or $VLMLAB_NOTEBOOKS names, or takes the path of the study's own
folder. Methods and measures of your own lie beside that folder of studies (vlmlab/own_files.py).

    [study]
    id = "alignednorm"                 # the folder's name
    title = "AlignedNorm"

    [[artefact]]                       # one figure or table of the paper
    id = "fig3a"                       # as in the paper; the name of its files
    title = "r(x) of base and new samples"
    notebook = "fig3a_norm_ratio.ipynb"
    kind = "figure"                    # figure | table
    runs = ["main"]                    # names of the matrices it reads; may be left out
    params = { task = "emoji/animals" }  # fixed notebook parameters; may be left out

    [profile.demo]
    model = "tiny"                     # as in vlmlab.load; also pretrained, device, precision
    # or by role: models = { student = "tiny", teacher = { name = "small", precision = "amp_bf16" } },
    # and models = {} for methods that start from nothing; device and precision hold for all of them
    resources = { cores = 1, gpus = 0, memory_gb = 8, hours = 24 }  # of each job; may be left out
    params = { epochs = 10 }           # passed to every notebook that declares them
    config = { epochs = 10 }           # passed to vlmlab.fit in every matrix
    seeds = [1, 2, 3]                  # what a matrix of this profile leaves out: its tasks, seeds, shots, protocol,
                                       # template, rules (a list) and presets may stand here once

    [profile.demo.method.aligned_norm] # goes over that for one method; may be left out
    w_proj = 0.1

    [[profile.demo.matrix]]            # one run per method x task x shots x seed
    name = "main"
    methods = ["zero_shot", "mmrlpp"]
    tasks = ["emoji/animals", "emoji/food"]  # also your own images, "folder:data/trees", "table:labels.csv"
    seeds = [1, 2, 3]
    shots = [16]                       # left out for zero_shot
    protocol = "base_to_new"           # the default
    template = "a photo of a {}."      # in place of the data's own; may be left out
    rules = ["unified"]                # or { mmrlpp = ["unified", "decoupled"] }; may be left out
    config = { lr = 1e-3 }             # goes over what the profile says
    models = { student = "tiny" }      # instead of the profile's; may be left out
    after = { teacher = "first" }      # the runs of another matrix fill a role; may be left out
    presets = true                     # start from the papers' values for the data set; false when left out
    resources = { gpus = 1 }           # goes over the profile's resources

    [profile.demo.matrix.method.mmrlpp]  # goes over all that for one method; belongs to the matrix above
    token_mix = 0.5

    [profile.demo.matrix.variants]     # all runs of the matrix once per line, with these values over the
    linear = { token_mix = 1.0 }       # rest; tables call them mmrlpp_linear; may be left out

A profile may leave out a matrix that another one has: the artefacts that read it are no part of it then.

Without `rules`, a method is evaluated with the rules that it itself says it reports.

A run that comes `after` another matrix builds on that one's run of the same seed, and of the same task, shots
and variant where the other matrix has them (a variant called as the other run is, such as cmapkd_uniform, follows that
one); it is trained after it, and again when that one changes.

`resources` belong to one job, a training run or a notebook. `cores` are also its threads (1), `gpus` are its
own GPUs (0: it shares what there is), `memory_gb` limits the data that each process of the job may reserve
(no limit; on Linux; a process with torch and the tiny model starts at 2 GB), `hours` its wall time (24; a
notebook 0.5). They change where and when a job runs, not which run it is.
"""

import dataclasses
import os
import re
from pathlib import Path

from ..mini.recipes import RECIPES
from ..nearest import hint
from ..paths import data_dir, shipped_notebooks
from ..schema import NAME_RULE, Name, TomlFile, Wrong, describe
from .places import notebooks_folder
from .profiles import Job, Profile, reached
from .sections import Entry, Head, Matrix, ProfileSection, among, only_by_case

FILE = "study.toml"
MOST_BEFORE = 50  # matrices that one comes after, directly or not
SAME_FILES = "differ in capital letters alone, and not every disk tells their files apart"


@dataclasses.dataclass(frozen=True)
class Artefact:
    """One figure or table: its notebook (a path), the matrices it reads, its fixed parameters."""

    id: str
    title: str
    notebook: Path
    kind: str
    runs: tuple[str, ...]
    params: dict


@dataclasses.dataclass(frozen=True)
class Study:
    """A study as its file says it; `path` is study.toml."""

    id: str
    title: str
    path: Path
    artefacts: dict[str, Artefact]
    profiles: dict[str, Profile]

    @property
    def notebooks(self) -> Path:
        """The folder that holds it, perhaps with others."""
        return self.path.parent.parent

    def profile(self, name: str) -> Profile:
        if name not in self.profiles:
            raise ValueError(
                f"study {self.id} has no profile {name!r}{hint(name, self.profiles)}; it has {', '.join(self.profiles)}"
            )
        return self.profiles[name]

    def choose(self, only: list[str] | None, profile: str) -> list[Artefact]:
        """The artefacts with these ids, or all that the profile has.

        ValueError names an unknown id, or one that reads a matrix which the profile leaves out.
        """
        matrices = self.profile(profile).matrices
        lacks = {a.id: [m for m in a.runs if m not in matrices] for a in self.artefacts.values()}
        for id in only or ():
            if id not in lacks:
                raise ValueError(
                    f"study {self.id} has no artefact {id!r}{hint(id, lacks)}; it has {', '.join(lacks)}"
                )
            if lacks[id]:
                there = ", ".join(matrices) or "none"
                raise ValueError(
                    f"{self.path}: {id} reads the matrix {lacks[id][0]!r}, which profile "
                    f"{profile} leaves out; it has {there}"
                )
        return [a for a in self.artefacts.values() if (a.id in only if only else not lacks[a.id])]

    def jobs(self, profile: str, matrices: tuple[str, ...]) -> list[Job]:
        """The runs of these matrices of a profile, each once, in the order of the file."""
        p = self.profile(profile)
        return list({job.id: job for name in matrices for job in p.jobs(self.id, name)}.values())

    def untrained(self, profile: str) -> str:
        """Which embedded model a profile needs that nobody has trained yet, and what trains it; "" for none."""
        jobs = self.jobs(profile, tuple(self.profile(profile).matrices))
        named = {model["name"] for job in jobs for model in job.models.values()} & {*RECIPES}
        for name in sorted(named):
            if not (data_dir() / "models" / name / "config.json").is_file():
                return (
                    f"profile {profile} of {self.id} needs the embedded model {name!r}, which is not trained yet: "
                    f"`vlmlab pretrain {name} --export data/models/{name}` does it, for hours"
                )
        return ""


def names(notebooks: str | Path = "notebooks") -> list[str]:
    """The studies below a folder, its subfolders with a study.toml; where notebooks/ has none, those of vlmlab."""
    found = notebooks_folder(notebooks).glob(f"*/{FILE}")
    return sorted(p.parent.name for p in found if p.is_file())


def where(study: str | Path, notebooks: str | Path = "notebooks") -> Path:
    """The study.toml of a study: named, of the folder `notebooks`; or the study's own folder, as a path."""
    if "/" in str(study) or os.sep in str(study):
        folder = Path(study).expanduser()
        path = folder if folder.name == FILE else folder / FILE
        if not path.is_file():
            raise FileNotFoundError(f"there is no study in {folder}: no {path}")
        return path if folder.name not in ("", ".", "..") else Path(os.path.abspath(path))
    path, there = notebooks_folder(notebooks) / study / FILE, names(notebooks)
    if not re.match(NAME_RULE, str(study)) or not path.is_file():
        listed = (
            ", ".join(there)
            or "none; run this in the folder that holds notebooks/, name one with --notebooks, or give the study's own folder"
        )
        if (shipped_notebooks() / str(study) / FILE).is_file():
            listed += f". One comes with vlmlab: `vlmlab studies {study} --copy .` puts it in notebooks/ here"
        raise FileNotFoundError(
            f"there is no study {study!r}{hint(study, there)}: no {path}. Studies there: {listed}"
        )
    return path


def load(study: str | Path, notebooks: str | Path = "notebooks") -> Study:
    """Read and check `<notebooks>/<study>/study.toml`; study: its name, or the path of its folder.

    Raises FileNotFoundError with the studies there are, ValueError with file, line, field and legal values.
    """
    return Manifest(where(study, notebooks)).study()


class Manifest(TomlFile):
    """study.toml; turns its checked sections into the classes above."""

    def study(self) -> Study:
        raw = self.raw
        for section in raw:
            if section not in ("study", "artefact", "profile"):
                self.fail(section, 0, "", "unknown; legal are [study], [[artefact]], [profile.<name>]")
        for section, kind, written in (
            ("study", dict, "[study]"),
            ("artefact", list, "[[artefact]]"),
            ("profile", dict, "[profile.<name>]"),
        ):
            if not isinstance(raw.get(section), kind) or not raw[section]:
                self.fail(section, 0, "", f"a study needs at least one {written}")
        head = self.section(Head, "study", 0, raw["study"])
        if head.id != self.path.parent.name:
            folder = self.path.parent.name
            self.fail("study", 0, "id", f"{head.id!r} must be the name of the folder, {folder!r}")
        for name in raw["profile"]:
            if not re.match(NAME_RULE, name):
                self.fail(f'profile."{name}"', 0, "", f"the name of a profile must be {describe(Name)}")
        if two := only_by_case(raw["profile"]):
            self.fail(f"profile.{two[1]}", 0, "", f"profiles {two[0]} and {two[1]} {SAME_FILES}")
        profiles = {name: self.profile(name, head.id, value) for name, value in raw["profile"].items()}
        artefacts = {}
        for nth, value in enumerate(raw["artefact"]):
            artefact = self.artefact(nth, value, profiles)
            if artefact.id in artefacts:
                self.fail("artefact", nth, "id", f"{artefact.id!r} is there twice")
            artefacts[artefact.id] = artefact
        if two := only_by_case(artefacts):
            self.fail("artefact", [*artefacts].index(two[1]), "id", f"{two[0]} and {two[1]} {SAME_FILES}")
        return Study(head.id, head.title, self.path, artefacts, profiles)

    def artefact(self, nth: int, raw: object, profiles: dict[str, Profile]) -> Artefact:
        entry = self.section(Entry, "artefact", nth, raw)
        notebook = self.path.parent / entry.notebook
        if not notebook.is_file():
            self.fail("artefact", nth, "notebook", f"there is no file {notebook}")
        known = list(dict.fromkeys(name for profile in profiles.values() for name in profile.matrices))
        if unknown := [name for name in entry.runs if name not in known]:
            there = ", ".join(known) or "none"
            self.fail("artefact", nth, "runs", f"no profile has a matrix {unknown[0]!r}; there are {there}")
        return Artefact(entry.id, entry.title, notebook, entry.kind, entry.runs, entry.params)

    def profile(self, name: str, study: str, raw: object) -> Profile:
        section = f"profile.{name}"
        checked = self.section(ProfileSection, section, 0, raw)
        matrices = {}
        for nth, value in enumerate(map(checked.under, checked.matrix)):
            matrix = self.section(Matrix, f"{section}.matrix", nth, value)
            if matrix.name in matrices:
                self.fail(f"{section}.matrix", nth, "name", f"{matrix.name!r} is there twice")
            matrices[matrix.name] = matrix
        profile = Profile(name, checked, matrices)
        try:
            among(
                "method",
                checked.method,
                tuple(dict.fromkeys(m for x in matrices.values() for m in x.methods)),
            )
        except Wrong as error:
            self.fail(section, 0, error.field, str(error))
        self.check_order(section, profile, study)
        return profile

    def check_order(self, section: str, profile: Profile, study: str) -> None:
        """What comes after what must be there, lead to one run, and never back to itself."""
        matrices = profile.matrices
        for nth, matrix in enumerate(matrices.values()):
            for other in matrix.after.values():
                if other not in matrices:
                    message = f"profile {profile.name} has no matrix {other!r}; it has {', '.join(matrices)}"
                    self.fail(f"{section}.matrix", nth, "after", message)
        for nth, name in enumerate(matrices):
            if name in (before := reached(name, matrices)):
                self.fail(f"{section}.matrix", nth, "after", f"{name!r} comes after itself")
            if len(before) > MOST_BEFORE:
                message = f"{name!r} comes after {len(before)} others; {MOST_BEFORE} are the most"
                self.fail(f"{section}.matrix", nth, "after", message)
        for nth, (name, matrix) in enumerate(matrices.items()):
            try:
                profile.jobs(study, name) if matrix.after else None
            except Wrong as error:
                self.fail(f"{section}.matrix", nth, error.field, str(error))
