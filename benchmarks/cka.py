"""Linear CKA of 12 x 12 layers, 2,000 samples of width 768: time, memory and error of every way to get it.

One thread, CPU time, so that a busy machine disturbs little. A ratio is time / time of "plain Gram" in the
same round, the median over rounds in which the variants take turns. Memory is the peak of a call beyond its
input. The error is the largest difference of the 144 values from the exact unbiased ones in float64.

  plain Gram            as one writes it down: 12 centred n x n Gram matrices in NumPy, one product (biased)
  ... memory reused     the same, centred in place in memory that earlier rounds have already touched
  ... in torch          the same; torch multiplies X by its transpose without making use of the symmetry
  torch_cka             the package of that name, where it is installed (pip install torch_cka); on the same
                        batches as minibatch_cka, and with --whole on one batch of all samples (a minute)

The exit status is 1 when a number is wrong. A missed time or memory target is printed, not an error.
"""

import argparse
import contextlib
import importlib.util
import io
import statistics
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable

import numpy as np
import torch
import xarray as xr
from threadpoolctl import threadpool_limits
from torch.utils.data import DataLoader, TensorDataset

from vlmlab import measures
from vlmlab.measures.similarity import stack_of, tiled_hsic

BATCH = 256
PLAIN, EXACT, RUNNING, MINI = "plain Gram", "cka", "RunningCKA", "minibatch_cka"
PEER, PEER_WHOLE = "torch_cka, the same batches", "torch_cka, one batch of all"


def residual_stream(layers: int, n: int, width: int, seed: int = 0) -> xr.DataArray:
    """(layer, sample, feature) float32: 20 weak classes in noise, to which every layer adds its part."""
    random = np.random.default_rng(seed)
    x = 0.3 * random.normal(size=(20, width))[np.arange(n) % 20] + random.normal(size=(n, width))
    out = np.empty((layers, n, width), np.float32)
    for layer in range(layers):
        w = random.normal(size=(width, width)) / width**0.5
        x = x + np.tanh(x @ w) + 0.1  # the constant: a common direction, as in real streams
        out[layer] = x
    return xr.DataArray(out, {"layer": np.arange(1, layers + 1)}, ("layer", "sample", "feature"))


def from_grams(flat) -> np.ndarray:
    """CKA from (layer, n * n) centred Gram matrices."""
    h = np.asarray(flat @ flat.T)
    size = np.sqrt(np.diag(h))
    return h / size[:, None] / size


def plain(x: np.ndarray) -> np.ndarray:
    def centred(k):
        return k - k.mean(axis=0) - k.mean(axis=1, keepdims=True) + k.mean()

    grams = np.stack([centred(z @ z.T) for z in x])
    return from_grams(grams.reshape(len(x), -1))


def plain_reused(x: np.ndarray, room: np.ndarray) -> np.ndarray:
    for z, k in zip(x, room):
        np.matmul(z, z.T, out=k)
        mean = k.mean(axis=0)
        k -= mean[:, None]
        k -= mean - mean.mean()
    return from_grams(room.reshape(len(x), -1))


def plain_torch(x: np.ndarray) -> np.ndarray:
    def centred(k):
        return k - k.mean(dim=0) - k.mean(dim=1, keepdim=True) + k.mean()

    grams = torch.stack([centred(z @ z.T) for z in torch.from_numpy(x)])
    return from_grams(grams.flatten(1))


def running(x: xr.DataArray, batch: int = 500) -> np.ndarray:
    total = measures.RunningCKA()
    for start in range(0, x.sizes["sample"], batch):
        total.add(x.isel(sample=slice(start, start + batch)))
    return total.value().values


class Replay(torch.nn.Module):
    """A model whose layers output what was recorded: (sample, layer, feature) in, for packages with hooks."""

    def __init__(self, layers: int):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Identity() for _ in range(layers))

    def forward(self, x):
        for i, layer in enumerate(self.layers):
            layer(x[:, i])


def torch_cka(x: np.ndarray, batch: int, shuffle: bool = False) -> np.ndarray:
    from torch_cka import CKA

    names = [f"layers.{i}" for i in range(len(x))]
    data = TensorDataset(torch.from_numpy(x.transpose(1, 0, 2)))
    loader = DataLoader(data, batch_size=batch, shuffle=shuffle, drop_last=True)
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # its warnings and bar
        warnings.simplefilter("ignore")
        peer = CKA(Replay(len(x)), Replay(len(x)), "ours", "other", names, names)
        peer.compare(loader)
    return peer.export()["CKA"].numpy()


def exact(x: xr.DataArray) -> np.ndarray:
    """The unbiased estimator in float64."""
    h = tiled_hsic([z.astype(np.float64) for z in stack_of(x.astype(np.float64))], 512)
    return h / np.sqrt(np.outer(np.diag(h), np.diag(h)))


def variants(x: xr.DataArray) -> dict[str, Callable[[], np.ndarray]]:
    values, n = x.values, x.sizes["sample"]
    room = np.ones((len(values), n, n), np.float32)
    table = {
        PLAIN: lambda: plain(values),
        "plain Gram, memory reused": lambda: plain_reused(values, room),
        "plain Gram, in torch": lambda: plain_torch(values),
        EXACT: lambda: measures.cka(x).values,
        RUNNING: lambda: running(x),
        MINI: lambda: measures.minibatch_cka(x, batch=BATCH, seed=None).values,
    }
    if importlib.util.find_spec("torch_cka"):
        table[PEER] = lambda: torch_cka(values, BATCH)
    else:
        print("torch_cka is not installed, so it is left out (pip install torch_cka)")
    return table


def seconds(run: Callable) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def peak(run: Callable, of_torch: bool) -> float:
    """MiB a call needs at its peak. NumPy's is seen by tracemalloc, torch's by its own profiler."""
    if of_torch:
        return float(measures.peak_memory(lambda _: run(), torch.zeros(1)))
    tracemalloc.start()
    run()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / 2**20


def table(x: xr.DataArray, runs: dict, rounds: int, slow: tuple[str, ...]) -> tuple[dict, dict, dict]:
    """Prints one line per variant; returns median times, peaks and errors."""
    truth, found = exact(x), {name: run() for name, run in runs.items() if name not in slow}  # and warm up
    times = {name: [] for name in runs}
    for turn in range(rounds):
        for name, run in runs.items():
            if name not in slow:
                times[name].append(seconds(run))
            elif not turn:
                times[name].append(seconds(lambda: found.update({name: run()})))  # noqa: B023
    base = statistics.median(times[PLAIN])
    print(f"{'':28}{'s':>8}{'of plain':>10}{'peak MiB':>10}{'error':>10}")
    memory, error, middle = {}, {}, {}
    for name, run in runs.items():
        each = [t / p for t, p in zip(times[name], times[PLAIN])]
        middle[name], error[name] = statistics.median(times[name]), np.abs(found[name] - truth).max()
        ratio = statistics.median(each) if len(each) > 1 else times[name][0] / base
        memory[name] = float("nan") if name in slow else peak(run, "torch" in name)
        print(f"{name:28}{middle[name]:8.3f}{ratio:10.2f}{memory[name]:10.0f}{error[name]:10.1e}")
    return times, memory, error


def ratio(times: dict, above: str, below: str) -> float:
    """Median of the ratios within the rounds."""
    return statistics.median(a / b for a, b in zip(times[above], times[below]))


def judge(what: str, value: float, limit: float, at_least: bool = False, digits: str = ".2f") -> bool:
    met = value >= limit if at_least else value <= limit
    sign = "at least" if at_least else "at most"
    print(f"{what:62}{value:>10{digits}}   {sign} {limit:g}: {'met' if met else 'MISSED'}")
    return met


def targets(x: xr.DataArray, runs: dict, found: tuple[dict, dict, dict]) -> bool:
    """Prints what was aimed at beside what came out; whether the numbers are right."""
    times, memory, error = found
    print()
    judge(f"cka / {PLAIN}, time", ratio(times, EXACT, PLAIN), 0.65)
    judge("cka, extra memory in MiB", memory[EXACT], 120, digits=".0f")
    right = judge("cka, error", error[EXACT], 1e-4, digits=".1e")
    right &= judge("RunningCKA, error", error[RUNNING], 1e-4, digits=".1e")
    both = x.isel(layer=[0, 0], sample=np.random.default_rng(0).permutation(x.sizes["sample"]))
    off = np.abs(measures.cka(both).values - 1).max()
    off = max(off, np.abs(measures.minibatch_cka(both, batch=BATCH).values - 1).max())
    right &= judge("one layer twice, shuffled: distance of our CKA from 1", off, 1e-4, digits=".1e")
    if PEER in runs:
        same = np.abs(runs[PEER]() - runs[MINI]()).max()
        right &= judge("minibatch_cka and torch_cka, difference", same, 1e-4, digits=".1e")
        judge("torch_cka / minibatch_cka, time", ratio(times, PEER, MINI), 15, at_least=True, digits=".1f")
        torch.manual_seed(0)
        diagonal = np.diag(torch_cka(x.values[:2], BATCH, shuffle=True))
        print(f"torch_cka of a model with itself, shuffle=True: diagonal {np.round(diagonal, 3).tolist()}")
    if PEER_WHOLE in runs:
        whole = times[PEER_WHOLE][0] / statistics.median(times[EXACT])
        judge("torch_cka / cka, all samples, time", whole, 15, at_least=True, digits=".1f")
    return right


def break_even(layers: int, width: int, sizes: list[int]) -> None:
    """From which number of samples RunningCKA is cheaper than cka; by arithmetic (layers + 1) width."""
    print(f"\n{'samples':>8}{'cka s':>9}{'running s':>11}{'cka / running':>15}{'minibatch / cka':>17}")
    shares = []
    for n in sizes:
        x = residual_stream(layers, n, width)
        a, b, c = (
            seconds(f)
            for f in (
                lambda x=x: measures.cka(x),
                lambda x=x: running(x),
                lambda x=x: measures.minibatch_cka(x, batch=BATCH),
            )
        )
        shares.append(a / b)
        print(f"{n:8,}{a:9.2f}{b:11.2f}{a / b:15.2f}{c / a:17.3f}")
    if shares[0] < 1 < shares[-1]:
        even = np.interp(1, shares, sizes)
        print(f"break-even at {even:,.0f} samples; arithmetic says {(layers + 1) * width:,}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--layers", type=int, default=12)
    add("--samples", type=int, default=2000)
    add("--width", type=int, default=768)
    add("--rounds", type=int, default=5, help="timed calls of each variant (default: 5)")
    add("--whole", action="store_true", help="also torch_cka on one batch of all samples, once")
    add(
        "--sizes",
        type=int,
        nargs="*",
        default=[2000, 6000, 10000],
        metavar="N",
        help="numbers of samples for the break-even (default: 2000 6000 10000, half a minute; none to skip)",
    )
    args = parser.parse_args()
    if args.samples < 2 * BATCH or min(args.layers, args.width, args.rounds, *args.sizes, 99) < 1:
        parser.error(f"at least {2 * BATCH} samples, and 1 of everything else")
    torch.set_num_threads(1)
    threadpool_limits(1)
    x = residual_stream(args.layers, args.samples, args.width)
    print(
        f"{args.layers} layers, {args.samples:,} samples, width {args.width}, float32, one thread, "
        f"median of {args.rounds} rounds"
    )
    runs = variants(x)
    if args.whole and PEER in runs:
        runs[PEER_WHOLE] = lambda: torch_cka(x.values, args.samples)
    right = targets(x, runs, table(x, runs, args.rounds, slow=(PEER_WHOLE,)))
    if args.sizes:
        break_even(args.layers, args.width, sorted(args.sizes))
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
