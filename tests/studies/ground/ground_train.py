"""What trains the ground study: vlmlab itself, with a list of the calls."""

from pathlib import Path


def train(job: dict, runs: str) -> dict:
    with Path(runs, "calls.txt").open("a") as calls:
        calls.write(
            f"{job['method'].rpartition(':')[2]} {job['variant']} {job['task']} {job['protocol']} {job['seed']}\n"
        )
    from vlmlab.studies.jobs import train as real

    return real.train(job, runs)
