"""The small models, their task and a batch of it, made once."""

import pytest
from small_pairs import STUDENT, TEACHER, captions, small

from vlmlab import registry
from vlmlab.tasks.task import Task


@pytest.fixture(scope="session")
def models():
    return {"student": small(STUDENT, 0), "teacher": small(TEACHER, 1)}


@pytest.fixture(scope="session")
def task():
    data = captions()
    return Task("drawn", "retrieval", None, 1, "{}", data, None, {"test": data})


@pytest.fixture(scope="session")
def batch(models, task):
    """Eight pairs as `fit` feeds them, the teacher's pixels of the same crop."""
    learner = registry.build("kd", models)
    (stage,) = learner.stages(task, learner.Options(batch_size=8, max_steps=1), seed=0)
    return next(stage.feed(0))
