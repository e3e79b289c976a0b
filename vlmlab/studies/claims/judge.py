"""`judge`: a paper's sentences (claims.toml, read by claim.py) tested on what runs and artefacts measured."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from ...files import write_json
from .. import manifest
from ..jobs.receipts import TRAIN, Index
from ..manifest import Study
from ..pages import table_damage
from ..pages.artefact import measured_by
from ..pages.provenance import read_provenance, record
from ..places import Places, known, need_writable
from .claim import FILE, Claim, read
from .evaluations import NOT_TESTABLE, VERDICTS, estimate, verdict


@dataclasses.dataclass(frozen=True)
class Rows:
    """Tidy rows with what they are evidence of."""

    frame: pd.DataFrame
    evidence: str
    keys: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()


class Evidence:
    """Reads what claims name as data, each once. LookupError says why it cannot be had."""

    def __init__(self, study: Study, profile: str, places: Places, train: str = TRAIN):
        self.study, self.profile, self.places, self.train = study, profile, places, train
        study.profile(profile)
        self.found: dict[str, Rows | LookupError] = {}

    def first(self, names: list[str]) -> Rows:
        """Of the first that can be read; LookupError with all reasons."""
        problems = []
        for name in names:
            if name not in self.found:
                try:
                    self.found[name] = self.read(name)
                except LookupError as error:
                    self.found[name] = error
            if isinstance(self.found[name], Rows):
                return self.found[name]
            problems.append(self.found[name].args[0])
        raise LookupError("; ".join(problems))

    def read(self, name: str) -> Rows:
        kind, _, rest = name.partition("/")
        if kind == "published" and rest:
            return self.published(rest)
        return self.runs(*rest.split("/")) if kind == "runs" and rest else self.artefact(name)

    def published(self, table: str) -> Rows:
        path = self.places.data / "published" / self.study.id / f"{table}.csv"
        if not path.is_file():
            raise LookupError(f"there are no published numbers {path.name}")
        frame = table_of(path).rename(columns={"dataset": "task"})
        return Rows(frame, f"published/{table}")

    def runs(self, matrix: str, metric: str) -> Rows:
        """One row per run, task and split, with averages over tasks; all runs of the matrix or none."""
        from ..pages.tables import per_seed

        if matrix not in self.study.profile(self.profile).matrices:
            raise LookupError(f"profile {self.profile} has no matrix {matrix}")
        index = Index(self.study.id, self.places, self.train)
        jobs = self.study.jobs(self.profile, (matrix,))
        done = [d for job in jobs if (d := index.done(job))]
        if len(done) < len(jobs):
            raise LookupError(
                f"{len(jobs) - len(done)} of {len(jobs)} runs of {matrix} are missing, or of "
                "other code or data"
            )
        frames = [measured_by(self.places.runs / d.run, j.protocol, j.variant) for j, d in zip(jobs, done)]
        rows = pd.concat(frames, ignore_index=True)
        seeds = tuple(job.seed for job in jobs)
        frame = per_seed(rows[rows["metric"] == metric], self.study.id, data=self.places.data)
        return Rows(frame, f"runs/{matrix}: {len(done)} runs, {metric}", tuple(d.key for d in done), seeds)

    def artefact(self, name: str) -> Rows:
        """The CSV of an artefact that was made under the profile; its record tells the seeds."""
        folder = self.places.figures / self.study.id
        path = folder / f"{name}.csv"
        if not path.is_file():
            known = name in self.study.artefacts
            what = "was not made yet" if known else f"is no artefact of study {self.study.id} yet"
            raise LookupError(f"{name} {what}")
        try:
            note = read_provenance(path)
        except ValueError as error:
            raise LookupError(str(error)) from error
        if note["profile"] != self.profile:
            raise LookupError(f"{name} was made under profile {note['profile']}")
        frame = table_of(path)
        if "kind" in frame:
            frame = frame[frame["kind"] == "measured"]
        if "n" not in frame:
            frame["n"] = len(note["seeds"])
        return Rows(frame, name, tuple(note["run_keys"]), tuple(note["seeds"]))


NUMBERS = ("mean", "sd", "n", "measured_mean", "measured_sd", "sd_over_seeds")


def table_of(path: Path) -> pd.DataFrame:
    """A CSV; LookupError names one that cannot be read, or a column of numbers that holds something else."""
    try:
        frame = table_damage.read(path)
        columns = [name for name in NUMBERS if name in frame]
        return frame.assign(**{name: pd.to_numeric(frame[name]) for name in columns})
    except ValueError as error:
        raise LookupError(f"{path.name} cannot be used: {' '.join(str(error).split())}") from error


def judge(
    study: str,
    profile: str = "demo",
    runs: str | Path = "runs",
    figures: str | Path | None = None,
    notebooks: str | Path = "notebooks",
    *,
    train: str = TRAIN,
    **others,
) -> dict:
    """Test every claim of a study on what is there; nothing is trained or drawn.

    Writes `<figures>/<study>/claims.json` and returns what it holds: `claims` (one dict each), `profile`,
    `provenance` (as in a figure). Raises as `load` does, and PermissionError when it cannot write.
    """
    found = manifest.load(study, notebooks)
    places = Places.of(profile, runs, figures, found.notebooks, **others)
    path = found.path.with_name(FILE)
    evidence, claims = Evidence(found, profile, places, train), read(path)
    need_writable(places.figures / found.id, "--figures")
    file = places.figures / found.id / "claims.json"
    before = known(file)
    used: list[Rows] = []
    judged = [one(claim, evidence, used.append, path) for claim in claims]
    judged = [better(claim, now, before, profile) for claim, now in zip(claims, judged)]
    if plain(judged) == before.get("claims") and before.get("profile") == profile:
        return before  # nothing new: the commit alone is no reason to write
    note = record(
        study=found.id,
        artefact="claims",
        profile=profile,
        run_keys={k for r in used for k in r.keys},
        seeds={s for r in used for s in r.seeds},
    )
    result = {"claims": judged, "profile": profile, "provenance": json.loads(note)}
    write_json(file, result)
    return result


def plain(value: object) -> object:
    """As JSON reads it back."""
    return json.loads(json.dumps(value))


def rank(claim: Claim, found: dict) -> int:
    """Which of the claim's sources a verdict rests on, 0 the best; one more than there are for none."""
    told = next(iter(found.get("evidence") or []), "")
    for place, name in enumerate(claim.data):
        kind, _, rest = name.partition("/")
        matrix, _, metric = rest.partition("/")
        if told == name or (
            kind == "runs" and told.startswith(f"runs/{matrix}:") and told.endswith(f", {metric}")
        ):
            return place
    return len(claim.data)


def better(claim: Claim, now: dict, before: dict, profile: str) -> dict:
    """The verdict of now, unless there is one of the same claim and profile on better evidence, which is kept.

    Where runs are missing, as in a fresh clone, a claim would else lose what the runs have shown.
    """
    claims = before.get("claims")
    stored = (
        [c for c in claims if isinstance(c, dict) and c.get("id") == claim.id]
        if isinstance(claims, list)
        else []
    )
    if before.get("profile") != profile or not stored or stored[0].keys() != now.keys():
        return now
    same = all(stored[0][k] == plain(now)[k] for k in TOLD)
    whole = stored[0]["verdict"] in VERDICTS and isinstance(stored[0]["evidence"], list)
    return stored[0] if same and whole and rank(claim, stored[0]) < rank(claim, now) else now


TOLD = ("id", "sentence", "source", "measurement", "holds", "unit", "threshold", "kind")


def one(claim: Claim, evidence: Evidence, use: Callable[[Rows], None], path: Path) -> dict:
    """A claim with its verdict, as plain values. ValueError names file and claim where numbers are none."""
    bound = claim.threshold
    text = f"{bound[0]:g} to {bound[1]:g}" if claim.direction == "within" else f"{claim.direction} {bound:g}"
    told = {k: getattr(claim, k) for k in TOLD[:6]}
    told |= {"threshold": text, "kind": "published" if claim.data[0].startswith("published/") else "measured"}
    numbers = dict.fromkeys(("effect", "spread", "interval", "n"))
    try:
        rows = evidence.first(claim.data)
        e = estimate(rows.frame, claim)
    except LookupError as error:
        return {**told, **numbers, "verdict": NOT_TESTABLE, "reason": str(error.args[0]), "evidence": []}
    except (ValueError, TypeError) as error:
        where = f"{path}, claim {claim.id}, on {rows.evidence}"
        raise ValueError(f"{where}: {' '.join(str(error).split())}") from error
    use(rows)
    published = told["kind"] == "published"
    word, reason = verdict(e, claim.direction, claim.threshold, claim.exact or published)
    if published:
        reason = "what the paper's own table says; nothing was measured"
    interval = None if e.low is None else [e.low, e.high]
    numbers = {"effect": e.effect, "spread": e.sd, "interval": interval, "n": None if published else e.n}
    return {**told, **numbers, "verdict": word, "reason": reason, "evidence": [rows.evidence]}


def table(result: dict) -> str:
    """What `judge` returned, as aligned text: one line per claim and a count of the verdicts."""
    cells = [("verdict", "claim", "effect", "95 % interval", "holds if", "n", "kind", "evidence or reason")]
    cells += [row(c) for c in result["claims"]]
    widths = [max(len(line[i]) for line in cells) for i in range(7)]
    lines = ["  ".join([*(f"{cell:<{w}}" for cell, w in zip(line, widths)), line[-1]]) for line in cells]
    found = [c["verdict"] for c in result["claims"]]
    counts = ", ".join(f"{found.count(v)} {v}" for v in VERDICTS)
    return "\n".join([*lines, "", f"{counts} (profile {result['profile']})"])


def row(c: dict) -> tuple[str, ...]:
    unit = f" {c['unit']}" if c["unit"] else ""
    effect = "-" if c["effect"] is None else f"{c['effect']:.3g}{unit}"
    interval = "-" if not c["interval"] else " to ".join(f"{x:.3g}" for x in c["interval"])
    why = "; ".join(filter(None, [*c["evidence"], c["reason"]]))
    return c["verdict"], c["id"], effect, interval, c["threshold"], str(c["n"] or "-"), c["kind"], why
