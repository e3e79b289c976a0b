"""A frozen model and a method with prompts, on a few images."""

import pytest

import vlmlab
from vlmlab import registry


@pytest.fixture(scope="session")
def vlm():
    return vlmlab.load("tiny")


@pytest.fixture(scope="session")
def task():
    return vlmlab.task("emoji/animals", protocol="base_to_new", shots=4, seed=1)


@pytest.fixture(scope="session")
def tuned(vlm, task):
    """MMRL++ as it starts: it has a prompt branch."""
    cls = registry.find("mmrlpp")
    base = task.base
    return cls(vlm, list(base.classnames), base.template, cls.Config()).eval()


@pytest.fixture
def fresh(monkeypatch):
    """Nothing is chosen yet."""
    from vlmlab.widgets import frame

    monkeypatch.setattr(frame, "KEPT", {})


@pytest.fixture
def forgotten(fresh, monkeypatch):
    """Nothing is read yet either."""
    from vlmlab.widgets import reading

    monkeypatch.setattr(reading, "READ", reading.Memory(reading.MEMORY))
    monkeypatch.setattr(reading, "LOOKED", reading.Memory(reading.MEMORY))


@pytest.fixture
def both(vlm, tuned, task, fresh):
    """An explorer of two models."""
    return vlmlab.explore({"CLIP": vlm, "MMRL++": tuned}, task, samples=6)


@pytest.fixture(scope="session")
def press():
    """press(widget, "save figure") presses the first button of that name in a widget."""
    import ipywidgets

    def inside(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from inside(child)

    def pressed(widget, name: str) -> None:
        next(w for w in inside(widget) if isinstance(w, ipywidgets.Button) and w.description == name).click()

    return pressed


@pytest.fixture
def pressed():
    """A Watch whose button is pressed at the first step."""
    from vlmlab.widgets.watch import Watch

    class Pressed(Watch):
        def step(self):
            self.button.click()
            super().step()

    return Pressed


@pytest.fixture(scope="session")
def pointed_at():
    """pointed_at(figure or drawing, ...): what they say where one points, in no order."""
    from matplotlib.figure import Figure

    from vlmlab.widgets.drawing import drawn

    def texts(*given) -> list[str]:
        found = [drawn(d) if isinstance(d, Figure) else d for d in given]
        return sorted(value.text for drawing in found for value in drawing.values)

    return texts
