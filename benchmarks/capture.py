"""What looking inside costs: time and memory of a forward pass with capture's hooks, and without.

    python benchmarks/capture.py [--model ViT-B-32-quickgelu] [--batch 16] [--rounds 3] [--device cuda]

Random weights. One line per variant: the median over interleaved rounds of its time divided by the raw
forward's of the same round, the peak of tensor memory divided by the raw forward's, and what is kept.
On the CPU one thread, and CPU time, so that a busy machine disturbs little. The raw forward uses the
native attention op of nn.MultiheadAttention. "fast path off" is the module's other path as it is, which
projects a strided view slowly; capture hands it the same input in a better memory order.
The last line is a whole `capture` call of four batches. Peers are measured where they are installed
(pip install nnsight torch_cka), on a copy of the tower, because what they leave on a model stays there.
"""

import argparse
import contextlib
import copy
import importlib.util
import logging
import statistics
import time

import torch

from vlmlab import capture
from vlmlab.capturing.hooks import Hooks
from vlmlab.capturing.module_tower import towers_of
from vlmlab.capturing.sites import resolve
from vlmlab.capturing.sources import open_source
from vlmlab.models.load import load

BLOCKS, PROBS = "image.resid.post", "image.attn.probs"
VARIANTS = {
    "fast path off": ([], None),
    "block outputs, class token": ([BLOCKS], capture.roles("cls")),
    "block outputs, norms": ([BLOCKS], capture.norms),
    "block outputs, patch mean": ([BLOCKS], capture.mean("patch")),
    "block outputs, everything": ([BLOCKS], None),
    "attention, class row": ([PROBS], capture.cls_row),
    "attention, all heads": ([PROBS], None),
    "every site, everything": (["image.*"], None),
}
LIMITS = {
    "block outputs, class token": 1.05,
    "block outputs, norms": 1.05,
    "block outputs, patch mean": 1.05,
    "attention, all heads": 1.10,
}


@contextlib.contextmanager
def fast_path_off():
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def variant(vlm, images, sites, keep):
    """A function that runs the forward once under the hooks of one variant, and its hooks."""
    if not sites:

        def off():
            with fast_path_off():
                vlm.encode_image(images)

        return off, None
    wanted = resolve(sites, towers_of(vlm))
    source = open_source(vlm, images, "image", None, len(images))
    hooks = Hooks(source, wanted, {w.name: keep for w in wanted}, torch.float32)

    def hooked():
        with hooks:
            vlm.encode_image(images)

    return hooked, hooks


def nnsight_peer(visual, images):
    """Class tokens of all blocks by nnsight's trace."""
    import nnsight

    model = nnsight.NNsight(visual)

    def run():
        with model.trace(images):
            nnsight.save([block.output[:, 0] for block in model.transformer.resblocks])

    return run


def torch_cka_peer(visual, images):
    """The block outputs that torch_cka's hooks keep; no CKA is computed here (benchmarks/cka.py does)."""
    import torch_cka

    blocks = [f"transformer.resblocks.{i}" for i in range(len(visual.transformer.resblocks))]
    torch_cka.CKA(visual, visual, model1_layers=blocks, device=images.device)
    return lambda: visual(images)


PEERS = {
    "nnsight": ("nnsight, class token", nnsight_peer),
    "torch_cka": ("torch_cka hooks, everything", torch_cka_peer),
}


def peers(vlm, images) -> dict:
    """The installed peers as further variants."""
    found = {}
    for module, (name, make) in PEERS.items():
        if importlib.util.find_spec(module) is None:
            print(f"{module} is not installed: left out")
            continue
        found[name] = make(copy.deepcopy(vlm.clip.visual), images), None
    return found


def seconds(run, device) -> float:
    if device.type != "cuda":
        start = time.process_time()
        run()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def peak(run, device) -> float:
    """Largest amount of tensor memory allocated during a run, above what was there before, in bytes."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - before
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True) as profile:
        run()
    held, most = 0, 0
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ViT-B-32-quickgelu")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # open_clip warns that the weights are random
    torch.set_num_threads(1)
    torch.manual_seed(0)
    vlm = load(options.model, device=options.device, precision="fp32")
    images = torch.randn(options.batch, 3, vlm.image_size, vlm.image_size, device=vlm.device)
    runs = {name: variant(vlm, images, *what) for name, what in VARIANTS.items()} | peers(vlm, images)
    with torch.no_grad():
        report(vlm, images, runs, options.rounds)
        whole_call(vlm, images)


def report(vlm, images, runs, rounds: int) -> None:
    def raw():
        vlm.encode_image(images)

    raw()
    ratios = {name: [] for name in runs}
    for _ in range(rounds):
        base = seconds(raw, vlm.device)
        for name, (run, _) in runs.items():
            ratios[name].append(seconds(run, vlm.device) / base)
    floor = peak(raw, vlm.device)
    print(
        f"{vlm.name}, batch {len(images)}, {vlm.device}: raw forward {base * 1e3:.0f} ms, "
        f"peak {floor / 2**20:.0f} MiB"
    )
    print(f"{'variant':32}{'time':>8}{'peak':>8}{'kept MiB':>10}  limit")
    for name, (run, hooks) in runs.items():
        if hooks:
            hooks.kept.clear()
        memory = peak(run, vlm.device) / floor
        kept = sum(k.values.nbytes for k in hooks.kept.values()) / 2**20 if hooks else 0
        limit = f"  {LIMITS[name]:.2f}" if name in LIMITS else ""
        print(f"{name:32}{statistics.median(ratios[name]):>8.2f}{memory:>8.2f}{kept:>10.1f}{limit}")


def whole_call(vlm, images) -> None:
    many = images.repeat(4, 1, 1, 1)

    def plain():
        for start in range(0, len(many), len(images)):
            vlm.encode_image(many[start : start + len(images)])

    def call():
        capture(vlm, many, BLOCKS, keep=capture.norms, batch_size=len(images), progress=False)

    ratio = seconds(call, vlm.device) / seconds(plain, vlm.device)
    print(f"{'capture(), norms, 4 batches':32}{ratio:>8.2f}   1 batch runs twice, 2 images check the layout")


if __name__ == "__main__":
    main()
