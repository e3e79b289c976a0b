"""Progress in a log is whole lines; in a terminal one line that is drawn again."""

import io
import sys

import pytest

from vlmlab import progress


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def told(monkeypatch, screen, **options) -> str:
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    with progress.bar(total=40, desc="train", unit="step", **options) as bar:
        for i in range(40):
            bar.update()
            bar.set_postfix({"loss": f"{i}"})
    return screen.getvalue()


def test_a_log_gets_a_line_at_the_start_and_one_with_the_final_numbers(monkeypatch):
    text = told(monkeypatch, io.StringIO())
    first, last = text.splitlines()
    assert "\r" not in text and text.endswith("\n")
    assert first.startswith("train: 0/40 step, 00:00 gone")
    assert last.startswith("train: 40/40 step") and last.endswith("loss=39")


def test_a_log_gets_a_line_now_and_then(monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    assert len(told(monkeypatch, io.StringIO()).splitlines()) > 30


def test_what_is_soon_over_leaves_no_line(monkeypatch):
    assert told(monkeypatch, io.StringIO(), delay=1, leave=False) == ""


def test_a_terminal_is_drawn_again_and_keeps_the_final_numbers(monkeypatch):
    text = told(monkeypatch, Screen())
    assert "\r" in text and "40/40" in text.splitlines()[-1]


@pytest.mark.parametrize("screen", [io.StringIO, Screen])
def test_it_can_be_silent(monkeypatch, screen):
    assert told(monkeypatch, screen(), shown=False) == ""


def test_a_message_stands_between_the_lines(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress.bar(total=2, desc="jobs") as bar:
        bar.write("one failed", file=sys.stderr)
        bar.update(2)
    assert [line.partition(",")[0] for line in screen.getvalue().splitlines()] == [
        "jobs: 0/2 it",
        "one failed",
        "jobs: 2/2 it",
    ]
