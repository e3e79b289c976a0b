"""What an explorer costs where the kernel runs: until its first picture, for a block further, for another image.

    python benchmarks/explorer.py [--model tiny] [--task emoji/animals] [--samples 32] [--rounds 7] [--models 2]

CPU time on one thread, so that a busy machine disturbs little; the median over rounds, beside what is asked for
(2 s for the first picture of the embedded model, 150 ms for a block further). What the page adds, the way there and
back and the decoding of a PNG, is measured by explorer_in_browser.py. The exit status is 1 when a target is missed.
"""

import argparse
import statistics
import sys
import time

import torch

import vlmlab
from vlmlab.widgets import reading

TARGETS = {"first picture": 2.0, "the same cell again": 2.0, "a block further": 0.15}


def seconds(act, *args) -> float:
    start = time.process_time()
    act(*args)
    return time.process_time() - start


def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--model", default="tiny")
    ap.add_argument("--pretrained")
    ap.add_argument("--task", default="emoji/animals")
    ap.add_argument("--samples", type=int, default=32)
    ap.add_argument("--rounds", type=int, default=7)
    ap.add_argument(
        "--models", type=int, choices=(1, 2), default=1, help="one, or the same twice side by side"
    )
    args = ap.parse_args()
    torch.set_num_threads(1)
    vlm = vlmlab.load(args.model, args.pretrained)
    task = vlmlab.task(args.task, protocol="base_to_new", shots=16, seed=1)
    models = vlm if args.models == 1 else {"first": vlm, "second": vlm}

    def explore():
        return vlmlab.explore(models, task, samples=args.samples)

    found = {"first of the kernel": [seconds(explore)]}  # with the imports of a new kernel
    for round_ in range(args.rounds):
        reading.READ.kept.clear()
        reading.LOOKED.kept.clear()
        found.setdefault("first picture", []).append(seconds(explore))
        found.setdefault("the same cell again", []).append(seconds(explore))
        ui = explore()
        for layer in range(1, 4):
            found.setdefault("a block further", []).append(seconds(setattr, ui.looking.layer, "value", layer))
        found.setdefault("another image", []).append(seconds(ui.choose, 1 + round_ % (len(ui.rows) - 1)))
    missed = False
    for name, times in found.items():
        median, target = statistics.median(times), TARGETS.get(name)
        missed |= target is not None and median > target
        said = "" if target is None else f"  (asked for: {target * 1000:.0f} ms)"
        print(f"{name:<22}{1000 * median:8.0f} ms{said}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
