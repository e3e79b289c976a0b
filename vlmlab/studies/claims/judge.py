"""claims.toml: the sentences of a paper that can be tested, and `judge`, which tests them.

One file per study, `notebooks/<study>/claims.toml`, one section per sentence:

    [[claim]]
    id = "new_above_unified"
    sentence = "AlignedNorm raises the accuracy on new classes."  # a paraphrase or a short quotation
    source = "Section 5.2, Table 1"                # where the paper says so
    holds = "its accuracy is above that of MMRL++" # what must be so, in words
    data = ["runs/main/balanced_accuracy", "table1"]  # the first of these that is there is read
    where = { task = "average", split = "new" }    # only these rows; a value or a list per column
    measurement = "difference"                     # see evaluations.py
    of = { method = "aligned_norm" }               # the rows that the sentence is about
    against = { method = "mmrlpp_unified" }        # those it compares with
    direction = "above"                            # above | below one number, within two
    threshold = 0

    value = "value"       # the column with the numbers (the default); summaries use mean, sd and n
    over = ["task"]       # columns whose values are compared one by one, before seeds (the default)
    reduce = "mean"       # mean (the default), min or max over them
    magnitude = false     # true: without sign, before reducing
    gap = { split = ["new", "base"] }  # gap_change: the two selections whose difference is compared
    to = { method = "zero_shot" }      # closer: the rows that of and against are compared with
    by = "column"         # correlation: with what
    unit = "points"
    exact = false         # true: no seed plays a part (a count, a bound)

`data` names runs of a matrix and their metric (`runs/<matrix>/<metric>`), the CSV of an artefact of the
same profile, or `published/<table>`. A claim read from published numbers asks whether the paper's own table
says what its text says; such verdicts have kind "published" and never mix with measured ones.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from ...files import write_json
from .. import manifest, schema
from ..jobs.receipts import TRAIN, Index
from ..manifest import Study
from ..pages.provenance import read_provenance, record
from ..places import Places, need_writable
from .evaluations import MEASURES, NOT_TESTABLE, VERDICTS, estimate, verdict

SELECTION = schema.Kind("a table, not empty", lambda v: isinstance(v, dict) and bool(v))
FLAG = schema.Kind("true or false", lambda v: isinstance(v, bool))
COLUMNS = schema.Kind("a list of columns", lambda v: v == [] or schema.is_texts(v))


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value)) and value[0] <= value[1]


def is_gap(value: object) -> bool:
    return (
        isinstance(value, dict)
        and len(value) == 1
        and all(isinstance(v, list) and len(v) == 2 for v in value.values())
    )


TABLE, TEXT, REQUIRED = schema.TABLE, schema.TEXT, schema.REQUIRED
BOUND = schema.Kind("a number, or two in rising order", lambda v: is_number(v) or is_pair(v))
schema.FIELDS["claim"] = {  # claims.toml is read and complained about as study.toml is
    "id": (schema.NAME, REQUIRED),
    "sentence": (TEXT, REQUIRED),
    "source": (TEXT, REQUIRED),
    "holds": (TEXT, REQUIRED),
    "data": (schema.TEXTS, REQUIRED),
    "where": (TABLE, {}),
    "measurement": (schema.one_of(*MEASURES), REQUIRED),
    "of": (TABLE, {}),
    "against": (SELECTION, {}),
    "gap": (schema.Kind('one column with two values, as { split = ["new", "base"] }', is_gap), {}),
    "to": (SELECTION, {}),
    "by": (TEXT, ""),
    "value": (TEXT, "value"),
    "over": (COLUMNS, ["task"]),
    "reduce": (schema.one_of("mean", "min", "max"), "mean"),
    "magnitude": (FLAG, False),
    "direction": (schema.one_of("above", "below", "within"), REQUIRED),
    "threshold": (BOUND, REQUIRED),
    "unit": (TEXT, ""),
    "exact": (FLAG, False),
}
Claim = dataclasses.make_dataclass("Claim", list(schema.FIELDS["claim"]), frozen=True)
Claim.__doc__ = "One [[claim]]; its fields are those of the file."


class Builder(schema.Reader):
    """Turns the checked sections into claims."""

    def claims(self) -> list:
        for section in self.raw:
            if section != "claim":
                self.fail(section, 0, None, "unknown; legal is [[claim]]")
        if not isinstance(self.raw.get("claim"), list):
            self.fail("claim", 0, None, "needs at least one [[claim]]")
        found = {}
        for nth, raw in enumerate(self.raw["claim"]):
            claim = Claim(**self.fields("claim", "claim", nth, raw))
            if claim.id in found:
                self.fail("claim", nth, "id", f"{claim.id!r} is there twice")
            self.check(nth, claim)
            found[claim.id] = claim
        return list(found.values())

    def check(self, nth: int, claim) -> None:
        for field in MEASURES[claim.measurement][0]:
            if not getattr(claim, field):
                self.fail("claim", nth, field, f"is missing; the measurement {claim.measurement} needs it")
        if isinstance(claim.threshold, list) != (claim.direction == "within"):
            wanted = "two numbers" if claim.direction == "within" else "one number"
            self.fail("claim", nth, "threshold", f"must be {wanted} for the direction {claim.direction}")
        for name in claim.data:
            if name.startswith("runs/") and name.count("/") != 2:
                self.fail("claim", nth, "data", f"{name!r} must be runs/<matrix>/<metric>")


def load(study: str, notebooks: str | Path = "notebooks") -> list:
    """The claims of a study. FileNotFoundError when it has none, ValueError with file, line and field."""
    path = manifest.load(study, notebooks).path.with_name("claims.toml")
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}; vlmlab/studies/claims/judge.py shows how one is written"
        )
    return Builder(path).claims()


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
        from ...train.run import Run
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
        rows = pd.concat([Run(self.places.runs / d.run).results for d in done], ignore_index=True)
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


def one(claim, evidence: Evidence, use: Callable[[Rows], None]) -> dict:
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
