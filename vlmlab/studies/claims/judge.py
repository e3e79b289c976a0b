"""`judge`: a paper's sentences (claims.toml, read by claim.py) tested on what runs and artefacts measured."""

import json
from collections.abc import Callable
from pathlib import Path

from ...files import write_json
from .. import manifest
from ..jobs.receipts import TRAIN
from ..pages.provenance import record
from ..places import Places, known, need_writable
from .claim import FILE, Claim, read
from .evidence import Evidence, Rows
from .inference import FAILS, HOLDS, LEVEL, OPEN, UNTESTABLE, Estimate, estimates, holm, verdict

SAID = (HOLDS, FAILS, OPEN, UNTESTABLE)
WORDS = {  # of the paper's own models and data, and of any others
    "paper": dict(zip(SAID, ("supported", "refuted", "not decided", "not testable here"))),
    "here": dict(zip(SAID, ("holds here", "does not hold here", "not decided", "not testable here"))),
}


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
    judged = corrected([better(claim, now, before, profile) for claim, now in zip(claims, judged)], profile)
    if plain(judged) == before.get("claims") and before.get("profile") == profile:
        return before  # nothing new: the commit alone is no reason to write
    note = record(
        study=found.id,
        artefact="claims",
        profile=profile,
        run_keys={k for r in used for k in r.keys},
        seeds={s for r in used for s in r.seeds},
    )
    result = {"claims": judged, "profile": profile, **counted(judged), "provenance": json.loads(note)}
    write_json(file, result)
    return result


def corrected(judged: list[dict], profile: str) -> list[dict]:
    """The same with `survives`, whether a verdict stays after Holm's correction for their number, and in words."""
    kept = holm([c["p"] for c in judged])
    return [c | {"survives": k, "verdict": word(c["said"], profile, c["kind"])} for c, k in zip(judged, kept)]


def counted(judged: list[dict]) -> dict:
    """How many verdicts of the tested ones would be false, at most, were every effect exactly on its threshold."""
    tested = sum(c["p"] is not None for c in judged)
    return {"tested": tested, "expected_false": round(tested * (1 - LEVEL), 2)}


def word(said: str, profile: str, kind: str) -> str:
    """A verdict in words: what is measured at another scale than the paper's is said of that scale."""
    return WORDS["paper" if profile == "paper" or kind == "published" else "here"][said]


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
            kind == "runs" and told.startswith(f"runs/{matrix}:") and f" runs, {metric}" in told
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
    if before.get("profile") != profile or not stored or not {*now} <= {*stored[0]}:
        return now
    same = all(stored[0][k] == plain(now)[k] for k in TOLD)
    whole = stored[0]["said"] in SAID and isinstance(stored[0]["evidence"], list)
    return stored[0] if same and whole and rank(claim, stored[0]) < rank(claim, now) else now


TOLD = ("id", "sentence", "source", "measurement", "holds", "unit", "threshold", "kind")


def one(claim: Claim, evidence: Evidence, use: Callable[[Rows], None], path: Path) -> dict:
    """A claim with its verdict, as plain values. ValueError names file and claim where numbers are none."""
    bound = claim.threshold
    text = f"{bound[0]:g} to {bound[1]:g}" if claim.direction == "within" else f"{claim.direction} {bound:g}"
    told = {k: getattr(claim, k) for k in TOLD[:6]}
    published = claim.data[0].startswith("published/")
    told |= {"threshold": text, "kind": "published" if published else "measured"}
    rows = None
    try:
        rows = evidence.first(claim.data)
        found = estimates(rows.frame, claim)
    except LookupError as error:
        return {
            **told,
            **dict.fromkeys(NUMBERS),
            "said": UNTESTABLE,
            "reason": str(error.args[0]),
            "evidence": [],
        }
    except (ValueError, TypeError) as error:
        where = f"{path}, claim {claim.id}, on {rows.evidence if rows else ' or '.join(claim.data)}"
        raise ValueError(f"{where}: {' '.join(str(error).split())}") from error
    use(rows)
    v = verdict(found, claim.direction, bound, claim.exact or published)
    e = worst(found, claim.direction, bound)
    reason = "; ".join(
        filter(None, [v.why, "the paper's own table; nothing was measured" if published else ""])
    )
    return {
        **told,
        **numbers(e, v.p, published),
        "said": v.said,
        "reason": reason,
        "evidence": [rows.evidence],
    }


NUMBERS = ("effect", "interval", "by_seed", "by_concept", "seeds", "concepts", "detectable", "p")


def numbers(e: Estimate, p: float | None, published: bool) -> dict:
    """An effect as plain values, as it is shown."""
    low_high = e.interval()
    found = {
        "effect": e.shown(e.effect),
        "interval": None if low_high is None else [e.shown(x) for x in low_high],
        "by_seed": e.by_seed,
        "by_concept": e.by_concept,
        "seeds": None if published else e.seeds,
        "concepts": e.concepts,
        "detectable": None if e.detectable is None else e.shown(e.detectable),
        "p": p,
    }
    return found


def worst(found: list[Estimate], direction: str, bound: float | tuple[float, float]) -> Estimate:
    """The one of several units that is furthest from holding."""
    if direction == "within":
        middle = sum(bound) / 2
        return max(found, key=lambda e: abs(e.effect - middle))
    return (min if direction == "above" else max)(found, key=lambda e: e.effect)


def table(result: dict) -> str:
    """What `judge` returned, as aligned text: a line per claim, a count of the verdicts, and what to make of them."""
    cells = [
        ("verdict", "after correction", "claim", "effect", "95 % interval", "holds if", "detectable", "n")
    ]
    cells = [(*cells[0], "kind", "evidence or reason"), *(row(c) for c in result["claims"])]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]) - 1)]
    lines = ["  ".join([*(f"{cell:<{w}}" for cell, w in zip(line, widths)), line[-1]]) for line in cells]
    counts = [count(result, kind) for kind in ("measured", "published")]
    return "\n".join([*lines, "", *filter(None, counts), expectation(result)])


def count(result: dict, kind: str) -> str:
    """'measured: 10 holds here, ... (profile demo)'."""
    found = [c["verdict"] for c in result["claims"] if c["kind"] == kind]
    what = {"measured": f"measured, profile {result['profile']}", "published": "about the paper's own tables"}
    return (
        f"{what[kind]}: {', '.join(f'{found.count(v)} {v}' for v in dict.fromkeys(found))}" if found else ""
    )


def expectation(result: dict) -> str:
    survive = sum(c["survives"] is True and c["said"] in (HOLDS, FAILS) for c in result["claims"])
    return (
        f"{result['tested']} tests with an error; {survive} verdicts survive Holm's correction; without it up to "
        f"{result['expected_false']:g} verdicts are expected to be false"
    )


def row(c: dict) -> tuple[str, ...]:
    unit = f" {c['unit']}" if c["unit"] else ""
    effect = "-" if c["effect"] is None else f"{c['effect']:.3g}{unit}"
    interval = "-" if not c["interval"] else " to ".join(f"{x:.3g}" for x in c["interval"])
    seen = "-" if c["detectable"] is None else f"{c['detectable']:.2g}"
    n = " × ".join(f"{c[k]} {k}" for k in ("seeds", "concepts") if c[k])
    why = "; ".join(filter(None, [*c["evidence"], c["reason"]]))
    stays = {True: "stays", False: "open", None: "-"}[c["survives"] if c["said"] in (HOLDS, FAILS) else None]
    return c["verdict"], stays, c["id"], effect, interval, c["threshold"], seen, n or "-", c["kind"], why
