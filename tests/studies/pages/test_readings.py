"""What ends below the model without training is said, with the side on which it loses."""

import pandas as pd
import pytest

from vlmlab.studies.pages import readings


def rows(**numbers):
    """Two seeds around each method's (base, new, hm)."""
    lines = []
    for method, values in numbers.items():
        for split, value in zip(("base", "new", "hm"), values):
            lines += [(method, "average", split, seed, value + step) for seed, step in ((1, -0.5), (2, 0.5))]
            lines.append((method, "toy/a", split, 1, 0.0))  # no task counts but the average
    return pd.DataFrame(lines, columns=["method", "task", "split", "seed", "value"])


def test_each_that_is_below_with_its_reason_worst_first():
    found = readings.below(
        rows(zero_shot=(60, 50, 54.5), coop=(62, 45, 52.1), mmrl=(58, 52, 54.0), maple=(70, 55, 61.6)),
        names={"zero_shot": "CLIP"},
    )
    assert len(found) == 2
    assert found[0].startswith(
        "CoOp ends 2.4 points of HM below CLIP, the model without training: +2.0 on the"
    )
    assert "-5.0 on new ones; what it learns of its own classes costs more on the others" in found[0]
    assert found[1].startswith("MMRL ends 0.5") and "do not gain" in found[1]


def test_none_is_below():
    (found,) = readings.below(rows(zero_shot=(60, 50, 54.5), coop=(62, 52, 56.6)))
    assert found == "No method ends below CLIP, the model without training."
    with pytest.raises(KeyError, match="nope"):
        readings.below(rows(coop=(1, 1, 1)), against="nope")


@pytest.mark.parametrize(
    ("base", "new", "words"), [(-1, -1, "helps neither"), (0, 0, "helps neither"), (1, 1, "balance")]
)
def test_no_more_than_was_measured(base, new, words):
    assert words in readings.why(base, new)
