"""What tells code from other code: each thing a class says changes its digest, words and places do not."""

import pytest

from vlmlab import source_code

CLASS = '''
import functools
from vlmlab.learner import Learner

class Own(Learner):
    """It."""

    gain, name, sizes, flag, none = 1.5, "one", (1, 2), True, None
    weights = {"a": [1, 2], "b": {3}}

    class Config:
        """Its settings."""

        depth: int = 3

    def classify(self, z, w):
        scale = 2
        return self.cosine(z) * scale + w

    @property
    def size(self):
        return len(self.sizes)

    @classmethod
    def made(cls, a, b):
        return cls(a - b)

    @staticmethod
    def cut(x):
        return [y + 1 for y in x if y in {4, 5}]

    @functools.wraps(cut)
    def wrapped(self):
        return 6

    @functools.cached_property
    def kept(self):
        return 8

    half = functools.partialmethod(made, b=9)

    def losses(self, batch, stage=None, *, share=0.5):
        """Named terms."""
        return {"loss": batch * share}

    def __len__(self):
        return 7
'''
CHANGES = {
    "a constant in a method": ("scale = 2", "scale = 3"),
    "an operation": ("* scale", "/ scale"),
    "a name that it calls": ("self.cosine(z)", "self.distance(z)"),
    "which argument it uses": ("(z) * scale + w", "(w) * scale + z"),
    "a property": ("len(self.sizes)", "len(self.sizes) + 1"),
    "a class method": ("cls(a - b)", "cls(b - a)"),
    "a static method": ("y + 1 for", "y + 2 for"),
    "the constants of a set": ("{4, 5}", "{4, 6}"),
    "a special method": ("return 7", "return 8"),
    "a cached property": ("return 8", "return 9"),
    "an argument that is given": ("b=9", "b=10"),
    "a default of an argument": ("stage=None", "stage=0"),
    "a default of a keyword": ("share=0.5", "share=0.6"),
    "a number in a table": ("[1, 2]", "[1, 3]"),
    "a key of a table": ('{"a"', '{"c"'),
    "a number": ("1.5", "1.25"),
    "a text": ('"one"', '"two"'),
    "a tuple": ("(1, 2)", "(1, 3)"),
    "a flag": ("True", "False"),
    "nothing becomes something": ("True, None", "True, 0"),
    "a default in its Config": ("depth: int = 3", "depth: int = 4"),
    "a new method": ("    def __len__", "    def more(self):\n        pass\n\n    def __len__"),
    "the name of a method": ("def classify", "def classed"),
}
SAME = {
    "nothing": ("", ""),
    "a comment": ("scale = 2", "scale = 2  # why"),
    "layout": ("self.cosine(z) * scale + w", "(\n            self.cosine(z) * scale + w\n        )"),
    "lines above": ("import functools", "# so\n\n\nimport functools"),
    "words about the class": ('"""It."""', '"""It, in other words."""'),
    "words about a method": ('"""Named terms."""', '"""All terms, by name."""'),
    "words about its settings": ('"""Its settings."""', '"""All of them."""'),
}


def of_class(text, file="<cell 1>"):
    names = {"__name__": "a_notebook"}
    exec(compile(text, file, "exec"), names)
    return source_code.of_class(names["Own"])


@pytest.mark.parametrize("change", [*CHANGES, *SAME])
def test_a_class_that_stands_in_no_file(change):
    old, new = {**CHANGES, **SAME}[change]
    assert old in CLASS
    assert (of_class(CLASS.replace(old, new, 1)) != of_class(CLASS)) == (change in CHANGES)


def test_the_cell_that_a_class_stands_in_plays_no_part():
    assert of_class(CLASS) == of_class(CLASS, "<cell 2>") and len(of_class(CLASS)) == 16


@pytest.mark.parametrize("change", [*CHANGES, *SAME])
def test_a_file(change, tmp_path):
    old, new = {**CHANGES, **SAME}[change]
    path = tmp_path / "own.py"
    path.write_text(CLASS)
    before = source_code.digest(path)
    path.write_text(CLASS.replace(old, new, 1) + "\n")
    assert (source_code.digest(path) != before) == (change in CHANGES) and len(before) == 16
