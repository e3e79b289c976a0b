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
from ..pages.artefact import measured_by
from ..pages.provenance import read_provenance, record
from ..places import Places, need_writable
from .claim import Claim, load
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
        frame = pd.read_csv(path).rename(columns={"dataset": "task"})
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
        frame = pd.read_csv(path)
        if "kind" in frame:
            frame = frame[frame["kind"] == "measured"]
        if "n" not in frame:
            frame["n"] = len(note["seeds"])
        return Rows(frame, name, tuple(note["run_keys"]), tuple(note["seeds"]))


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
    places = Places.of(profile, runs, figures, notebooks, **others)
    evidence, claims = Evidence(found, profile, places, train), load(study, notebooks)
    need_writable(places.figures / study, "--figures")
    used: list[Rows] = []
    judged = [one(claim, evidence, used.append) for claim in claims]
    note = record(
        study=study,
        artefact="claims",
        profile=profile,
        run_keys={k for r in used for k in r.keys},
        seeds={s for r in used for s in r.seeds},
    )
    result = {"claims": judged, "profile": profile, "provenance": json.loads(note)}
    write_json(places.figures / study / "claims.json", result)
    return result


def one(claim: Claim, evidence: Evidence, use: Callable[[Rows], None]) -> dict:
    """A claim with its verdict, as plain values."""
    bound = claim.threshold
    text = f"{bound[0]:g} to {bound[1]:g}" if claim.direction == "within" else f"{claim.direction} {bound:g}"
    told = {k: getattr(claim, k) for k in ("id", "sentence", "source", "measurement", "holds", "unit")}
    told |= {"threshold": text, "kind": "published" if claim.data[0].startswith("published/") else "measured"}
    numbers = dict.fromkeys(("effect", "spread", "interval", "n"))
    try:
        rows = evidence.first(claim.data)
        e = estimate(rows.frame, claim)
    except LookupError as error:
        return {**told, **numbers, "verdict": NOT_TESTABLE, "reason": error.args[0], "evidence": []}
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
