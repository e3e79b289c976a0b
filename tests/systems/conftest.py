"""Small tasks of drawn scenes, made once."""

import dataclasses

import pytest

import vlmlab


def few(task, train: int = 48, test: int = 24):
    """The first images of a task."""
    tests = {name: images.select(range(test)) for name, images in task.tests.items()}
    return dataclasses.replace(task, train=task.train.select(range(train)), val=None, tests=tests)


@pytest.fixture(scope="session")
def pairs():
    return few(vlmlab.task("shapes/pairs", protocol="retrieval"))


@pytest.fixture(scope="session")
def handful(pairs):
    """For those that take long to write."""
    return few(pairs, test=6)


@pytest.fixture(scope="session")
def one():
    return few(vlmlab.task("shapes/one", protocol="few_shot"), 96)


@pytest.fixture(scope="session")
def tiny():
    return vlmlab.load("tiny")


@pytest.fixture(scope="session")
def language(pairs, tmp_path_factory):
    """A language model that has read captions for a moment."""
    sizes = {"width": 32, "layers": 2, "hidden": 64, "vocabulary": 40}
    out = tmp_path_factory.mktemp("language")
    return vlmlab.fit("language", {}, pairs, out=out, steps=40, batch=16, lr=1e-2, **sizes)
