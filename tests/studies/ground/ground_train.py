"""What trains the ground study: vlmlab itself, with a list of the calls, and scores that ask an eighth of the data."""

import dataclasses
from pathlib import Path


def train(job: dict, runs: str) -> dict:
    with Path(runs, "calls.txt").open("a") as calls:
        calls.write(
            f"{job['method'].rpartition(':')[2]} {job['variant']} {job['task']} {job['protocol']} {job['seed']}\n"
        )
    import vlmlab
    from vlmlab.studies.jobs import train as real

    evaluate = vlmlab.evaluate
    vlmlab.evaluate = lambda run, task, **options: evaluate(run, thinned(task), **options)
    try:
        return real.train(job, runs)
    finally:
        vlmlab.evaluate = evaluate


def thinned(task):
    return dataclasses.replace(task, tests={n: s.select(range(0, len(s), 8)) for n, s in task.tests.items()})
