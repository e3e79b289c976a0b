"""What trains the ground study: vlmlab itself, or for what it cannot train yet a stand-in without any steps.

A stand-in adds up what it was given: a number for each model by role, and what the runs it follows measured.
"""

import hashlib
import json
from pathlib import Path

STAND_INS = ("from_nothing", "reader", "joiner")


def train(job: dict, runs: str) -> dict:
    with Path(runs, "calls.txt").open("a") as calls:
        calls.write(f"{job['method']} {job['variant']} {job['task']} {job['seed']}\n")
    if job["method"] not in STAND_INS:
        from vlmlab.studies.jobs import train as real

        return real.train(job, runs)
    followed = {role: Path(runs, run, "results.jsonl").read_text() for role, run in job["after"].items()}
    followed = {role: json.loads(text.splitlines()[0])["value"] for role, text in followed.items()}
    given = job["models"] | followed
    value = job["seed"] + job["config"].get("width", 0) + sum(followed.values())
    key = hashlib.sha256(json.dumps([job, given], sort_keys=True).encode()).hexdigest()[:16]
    run = Path(runs, job["study"], job["method"], key)
    run.mkdir(parents=True, exist_ok=True)
    (run / "run.json").write_text(json.dumps({"key": key, "status": "finished", "given": given}))
    (run / "results.jsonl").write_text(json.dumps({"value": value}) + "\n")
    return {"run": run.relative_to(runs).as_posix(), "key": key, "status": "finished", "digest": key}
