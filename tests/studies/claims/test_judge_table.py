"""Verdicts as text, which evidence is the better one, and the fields of one claim in claims.toml."""

from types import SimpleNamespace

import pytest
from test_judge import ONE, frame, judge, save, write

from vlmlab.studies.claims import judge as claims
from vlmlab.studies.claims.claim import read
from vlmlab.studies.claims.inference import Estimate

PLAIN = {
    "said": "holds",
    "verdict": "holds here",
    "survives": True,
    "id": "a",
    "effect": 1.23456,
    "interval": [0.5, 2.0049],
    "threshold": "above 0",
    "detectable": 0.987,
    "seeds": 3,
    "concepts": 40,
    "kind": "measured",
    "evidence": ["fig1"],
    "reason": "",
    "unit": "points",
}
OTHERS = [
    {"id": "longer", "said": "open", "verdict": "not decided", "survives": False, "unit": "", "concepts": None},
    {
        "id": "b",
        "said": "untestable",
        "verdict": "not testable here",
        "survives": None,
        **dict.fromkeys(("effect", "interval", "detectable", "seeds", "concepts")),
        "evidence": [],
        "reason": "fig9 is no artefact",
    },
    {"said": "fails", "verdict": "refuted", "survives": False, "kind": "published", "reason": "the paper's own"},
]  # fmt: skip


def test_the_table_of_verdicts():
    result = {"claims": [PLAIN, *(PLAIN | o for o in OTHERS)], "profile": "demo", "tested": 3}
    text = claims.table(result | {"expected_false": 0.15})
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines == [
        "verdict            after correction  claim   effect       95 % interval  holds if  detectable  n                      kind       evidence or reason",
        "holds here         stays             a       1.23 points  0.5 to 2       above 0   0.99        3 seeds × 40 concepts  measured   fig1",
        "not decided        -                 longer  1.23         0.5 to 2       above 0   0.99        3 seeds                measured   fig1",
        "not testable here  -                 b       -            -              above 0   -           -                      measured   fig9 is no artefact",
        "refuted            open              a       1.23 points  0.5 to 2       above 0   0.99        3 seeds × 40 concepts  published  fig1; the paper's own",
        "",
        "measured, profile demo: 1 holds here, 1 not decided, 1 not testable here",
        "about the paper's own tables: 1 refuted",
        "3 tests with an error; 1 verdicts survive Holm's correction; without it up to 0.15 verdicts are expected to be false",
    ]  # fmt: skip
    alone = claims.table(result | {"claims": [PLAIN], "expected_false": 0.05})
    assert "about the paper" not in alone  # of which there is nothing to say


@pytest.mark.parametrize(
    ("profile", "kind", "words"),
    [
        ("paper", "measured", ("supported", "refuted", "not decided", "not testable here")),
        ("demo", "published", ("supported", "refuted", "not decided", "not testable here")),
        ("demo", "measured", ("holds here", "does not hold here", "not decided", "not testable here")),
    ],
)
def test_words_of_all_verdicts(profile, kind, words):
    said = ("holds", "fails", "open", "untestable")
    assert tuple(claims.word(s, profile, kind) for s in said) == words


def test_how_many_verdicts_are_false_by_chance():
    assert claims.counted([{"p": 0.5}, {"p": None}, {"p": 0.0}]) == {"tested": 2, "expected_false": 0.1}


@pytest.mark.parametrize(
    ("told", "place"),
    [
        (["runs/a+b: 4 runs, t2i R@5"], 0),
        (["runs/a+b: 4 runs, t2i R@5 (test images as they are: why)"], 0),
        (["runs/a+b: 4 runs, accuracy"], 3),  # another metric
        (["runs/a: 4 runs, t2i R@5"], 3),  # other runs
        (["fig1"], 1),
        (["published/table1"], 2),
        (["fig2"], 3),
        ([], 3),
    ],
)
def test_the_source_that_a_verdict_rests_on(told, place):
    claim = SimpleNamespace(data=("runs/a+b/t2i R@5", "fig1", "published/table1"))
    assert claims.rank(claim, {"evidence": told}) == place


@pytest.mark.parametrize(
    ("direction", "bound", "effects", "found"),
    [
        ("above", 0, (3, -1, 2), -1),
        ("below", 0, (3, -1, 2), 3),
        ("within", (0, 10), (6, 9, 2), 9),
        ("within", (0, 10), (6, 8, 1), 1),
    ],
)
def test_of_several_units_the_worst_is_shown(direction, bound, effects, found):
    assert claims.worst([Estimate(x) for x in effects], direction, bound).effect == found


def test_all_units_of_a_claim_within_two_numbers(project):
    write(project, ONE.replace('"above"', '"within"').replace("= 0", "= [-1.5, 0]") + 'units = "all"\n')
    rows = frame([-1.0, -1.0, -1.0])
    rows.loc[rows["task"].index[-1], "value"] += 0.25
    save(project, rows)
    (found,) = judge(project)["claims"]
    assert found["threshold"] == "-1.5 to 0" and found["effect"] == pytest.approx(-1 - 0.25 / 3)


def test_sizes_are_shown_as_roots(project):
    """Squares are compared, and what is shown is in the unit of the numbers."""
    write(project, ONE.replace("threshold = 0", "threshold = 1.5") + "magnitude = true\n")
    save(project, frame([-2.0, -2.0, -2.0]))
    (found,) = judge(project)["claims"]
    assert found["effect"] == pytest.approx(2) and found["interval"] == pytest.approx([2, 2])
    assert found["detectable"] is None and found["said"] == "holds" and found["concepts"] is None


def test_a_profile_that_is_not_there_and_a_folder_that_is_locked(project):
    write(project, ONE)
    with pytest.raises(ValueError, match=r"study fake has no profile 'domo'; did you mean demo\?"):
        judge(project, "domo")
    places = project.places | {"figures": "/proc/nowhere"}
    with pytest.raises(PermissionError, match=r"cannot write in /proc/nowhere/fake .* --figures"):
        claims.judge("fake", **places)


def one(project, text):
    (found,) = read(project.write("claims.toml", text))
    return found


def test_what_a_claim_leaves_out(project):
    found = one(project, ONE.replace('unit = "points"\n', ""))
    left = ("where", "gap", "other_gap", "to", "by", "value", "over", "units", "magnitude", "unit", "exact")
    values = ({}, {}, {}, {}, "", "value", ("task",), "mean", False, "", False)
    assert tuple(getattr(found, name) for name in left) == values


TWO = ONE.replace('"above"', '"within"')
GAPS = ONE.replace('"difference"', '"gap_change"') + 'gap = { split = ["new", "base"] }\n'
OTHER = GAPS + 'other_gap = { method = ["a", "b"] }\n'


@pytest.mark.parametrize(
    "text",
    [
        TWO.replace("= 0", "= [0, 0]"),
        TWO.replace("= 0", "= [-0.5, 2]"),
        GAPS,
        OTHER.replace('of = { method = "a" }\n', "").replace('against = { method = "b" }\n', ""),
        ONE.replace('["fig1"]', '["runs/a+b/t2i R@5", "published/table1", "fig1"]'),
        ONE + 'over = ["block", "task"]\n',
        ONE.replace('"difference"', '"level"').replace('against = { method = "b" }\n', ""),
    ],
)
def test_legal_claims(project, text):
    assert one(project, text).id == "better"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TWO.replace("= 0", "= [1, 0]"), "must be two numbers in rising order; it is [1.0, 0.0]"),
        (TWO.replace("= 0", "= [1, 2, 3]"), "claim.threshold: must be a number, or two in rising order"),
        (GAPS.replace('of = { method = "a" }\n', ""), "claim.of: is missing; the measurement gap_change"),
        (OTHER.replace('gap = { split = ["new", "base"] }\n', "", 1), "claim.gap: is missing"),
        (GAPS.replace('"base"] }', '"base"], a = [1, 2] }'), "claim.gap: must be one column with two values"),
        (GAPS.replace('{ split = ["new", "base"] }', "{}"), "claim.gap: must be one column with two values"),
        (ONE.replace('{ method = "b" }', "{}"), "claim.against: must be a table of columns"),
        (ONE.replace('"difference"', '"closer"'), "claim.to: is missing; the measurement closer needs it"),
        (ONE.replace('"difference"', '"quotient"'), "claim.by: is missing; the measurement quotient needs"),
        (ONE.replace('"difference"', '"correlation"'), "claim.by: is missing; the measurement correlation"),
        (ONE.replace('of = { method = "a" }\n', ""), "claim.of: is missing; the measurement difference"),
        (ONE + 'by = "norm"\nover = ["norm"]\n', "each once; 'norm' is no such column"),
        (ONE + 'over = ["seed"]\n', "each once; 'seed' is no such column"),
        (ONE + 'over = ["concept"]\n', "each once; 'concept' is no such column"),
        (ONE + 'value = "score"\nover = ["score"]\n', "each once; 'score' is no such column"),
        ('claim = "x"\n', "claim: needs at least one [[claim]]"),
    ],
)
def test_illegal_claims(project, text, words):
    with pytest.raises(ValueError) as caught:
        one(project, text)
    assert words in str(caught.value)


@pytest.mark.parametrize("measurement", ["ratio", "effect_size", "closer"])
def test_two_sides_need_both(project, measurement):
    text = ONE.replace('"difference"', f'"{measurement}"') + 'to = { method = "c" }\n'
    for side in ('of = { method = "a" }\n', 'against = { method = "b" }\n'):
        with pytest.raises(ValueError, match=f"claim.{side.split()[0]}: is missing; .* {measurement} needs"):
            one(project, text.replace(side, ""))
