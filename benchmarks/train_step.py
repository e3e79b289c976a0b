"""Step time and memory of `aligned_norm` against the same method written the straightforward way.

A step is forward, backward and the optimiser. Three variants run from the same weights on the same batch:

  plain          the code path of the published MMRL++: every class runs its whole 77-token text through the
                 whole text tower in every step, a second, frozen image encoder runs the whole image tower,
                 nothing is cached but the zero-shot text features. Written below on open_clip alone.
  no shortcuts   vlmlab with `vlm.shortcuts = False`; computes the zero-shot text features in every step too
  vlmlab         vlmlab as it is

Before anything is timed, all loss terms and gradients of the three are compared: they must agree to 1e-5 of
the largest entry, else the exit status is 1. A ratio is plain / variant, the median over rounds in which the
variants take turns. On one thread the time is CPU time, which other work on the machine hardly disturbs; on
more it is wall time. Extra memory is the peak of two steps in a fresh process beyond what it occupies before
them; it is measured on Linux only.
"""

import argparse
import itertools
import logging
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlmlab import load, methods

TEMPLATE = "a photo of a {}."
LIMIT = 1e-5
VARIANTS = ("plain", "no shortcuts", "vlmlab")
NAMES = (
    ["red", "green", "blue", "black", "white", "pink", "grey", "brown", "golden", "orange"],
    ["fox", "house", "tree", "frog", "apple", "clock", "bird", "boat", "horse", "cup"],
    ["", "in the snow", "at night", "of stone", "of wood", "by the sea", "on a hill", "toy", "den"],
)
MOST = math.prod(map(len, NAMES))
EXAMPLES = """examples:
  python benchmarks/train_step.py                            the tiny model, 5 and 100 classes, under a minute
  python benchmarks/train_step.py --classes 500 --rounds 3
  python benchmarks/train_step.py --model ViT-B-16-quickgelu --classes 50    random weights; minutes on a CPU
  python benchmarks/train_step.py --model ViT-B-16-quickgelu --classes 500 --rounds 1 --skip "no shortcuts"
                                                             a quarter of an hour and 13 GB
"""


class Plain:
    """AlignedNorm as the paper's code path has it, on a CLIP of open_clip and nothing of vlmlab."""

    def __init__(self, clip: nn.Module, ids: Tensor, weights: dict[str, Tensor], config):
        self.clip, self.ids, self.config = clip, ids, config
        self.p = {k: nn.Parameter(v.detach().clone()) for k, v in weights.items()}
        with torch.no_grad():
            self.zero_shot = clip.encode_text(ids, normalize=True)

    def tokens(self, tower: str) -> Tensor:
        """(block, token, width): (W + A_l B_l) R + b_l."""
        w, a, b, bias = (self.p[f"{tower}_aligner.{part}"] for part in ("weight", "A", "B", "bias"))
        return self.p["space"] @ (w + a @ b).transpose(1, 2) + bias[:, None]

    def blocks(self, blocks: nn.ModuleList, x: Tensor, tokens: Tensor, causal: bool) -> list[Tensor]:
        """Outputs of all blocks; tokens enter at position 1 before block J and are mixed in later."""
        count, first, out = tokens.shape[1], self.config.first_block, []
        for layer, block in enumerate(blocks, start=1):
            if layer >= first:
                new = tokens[layer - first].expand(len(x), -1, -1)
                if layer == first:
                    x = torch.cat([x[:, :1], new, x[:, 1:]], dim=1)
                else:
                    new = self.config.token_mix * new + (1 - self.config.token_mix) * x[:, 1 : 1 + count]
                    x = torch.cat([x[:, :1], new, x[:, 1 + count :]], dim=1)
            mask = torch.full((x.shape[1],) * 2, -torch.inf).triu(1) if causal else None
            x = block(x, attn_mask=mask)
            out.append(x)
        return out

    def text(self) -> Tensor:
        """(class, joint) unit features; all classes, all positions."""
        clip, tokens = self.clip, self.tokens("text")
        x = clip.token_embedding(self.ids) + clip.positional_embedding
        x = clip.ln_final(self.blocks(clip.transformer.resblocks, x, tokens, causal=True)[-1])
        eos = self.ids.argmax(dim=1) + tokens.shape[1]
        return F.normalize(x[torch.arange(len(x)), eos] @ clip.text_projection, dim=-1)

    def image(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """z_c and z_p, both (batch, joint), and the outputs of all blocks."""
        v, tokens = self.clip.visual, self.tokens("image")
        x = v.conv1(images).flatten(2).transpose(1, 2)
        x = torch.cat([v.class_embedding.expand(len(x), 1, -1), x], dim=1) + v.positional_embedding
        out = self.blocks(v.transformer.resblocks, v.ln_pre(x), tokens, causal=False)
        last = v.ln_post(out[-1])
        project = v.proj + self.p["proj_A"] @ self.p["proj_B"]
        return last[:, 0] @ v.proj, last[:, 1 : 1 + tokens.shape[1]].mean(dim=1) @ project, out

    def losses(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        c, clip = self.config, self.clip
        with torch.no_grad():
            frozen = clip.encode_image(images)
        w, (z_c, z_p, out) = self.text(), self.image(images)
        by_class, by_prompt = (clip.logit_scale.exp() * F.normalize(z, dim=-1) @ w.T for z in (z_c, z_p))

        def gap(moving, target):
            return (moving.norm(dim=-1) - target.detach().norm(dim=-1)).abs().mean()

        norms = [gap(x[:, 1 : 1 + c.tokens].mean(dim=1), x[:, 0]) for x in out[c.first_block - 1 :]]
        return {
            "ce_class": (1 - c.prompt_weight) * F.cross_entropy(by_class, labels),
            "ce_prompt": c.prompt_weight * F.cross_entropy(by_prompt, labels),
            "anchor_image": c.anchor_weight * (1 - F.cosine_similarity(z_c, frozen).mean()),
            "anchor_text": c.anchor_weight * (1 - F.cosine_similarity(w, self.zero_shot).mean()),
            "proj": c.w_proj * gap(z_p, z_c),
            "token": c.w_token * sum(norms),
        }


class Bench:
    """The variants on one frozen model, each with its own copy of the trainables; `plain` is the first."""

    def __init__(self, model: str, classes: int, batch: int, variants: tuple[str, ...] = VARIANTS):
        torch.manual_seed(0)
        self.variants = variants
        self.vlm = load(model, device="cpu", precision="fp32")
        self.images = torch.randn(batch, 3, self.vlm.image_size, self.vlm.image_size)
        self.labels = torch.arange(batch) % classes
        names, weights = class_names(classes), dict(w_proj=0.1, w_token=0.05)
        made = [methods.build("aligned_norm", self.vlm, names, TEMPLATE, **weights) for _ in range(2)]
        with torch.no_grad():
            for p, q in zip(*(m.trainable().values() for m in made)):
                q.copy_(p.add_(0.05 * torch.randn_like(p)))  # the start has zeros that hide gradients
        self.ids = self.vlm.tokenize([TEMPLATE.format(n) for n in names])
        plain = Plain(self.vlm.clip, self.ids, made[0].trainable(), made[0].config)
        self.models = dict(zip(VARIANTS, (plain, *made)))
        self.trained = {"plain": list(plain.p.values())}
        self.trained |= {k: list(m.trainable().values()) for k, m in zip(VARIANTS[1:], made)}
        self.optimisers = {
            k: torch.optim.AdamW(p, lr=1e-3, weight_decay=5e-4) for k, p in self.trained.items()
        }

    def backward(self, variant: str) -> dict[str, Tensor]:
        """Loss terms; the gradients are left on the parameters."""
        self.vlm.shortcuts = variant != "no shortcuts"
        self.optimisers[variant].zero_grad()
        terms = self.models[variant].losses({"image": self.images, "label": self.labels})
        sum(terms.values()).backward()
        return {k: v.detach() for k, v in terms.items()}

    def step(self, variant: str) -> float:
        """Seconds of one step."""
        clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        start = clock()
        self.backward(variant)
        self.optimisers[variant].step()
        return clock() - start

    def differences(self) -> dict[str, float]:
        """Largest difference of each variant to `plain`, over the largest entry of each term and gradient."""
        exact, worst = self.backward("plain"), {}
        for variant in self.variants[1:]:
            terms = self.backward(variant)
            pairs = [(torch.stack([terms[k] for k in exact]), torch.stack(list(exact.values())))]
            pairs += [(p.grad, q.grad) for p, q in zip(self.trained[variant], self.trained["plain"])]
            worst[variant] = max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
        return worst


def class_names(count: int) -> list[str]:
    """`count` different names of two to five words."""
    return [" ".join(filter(None, words)) for words in itertools.islice(itertools.product(*NAMES), count)]


def extra_memory(variant: str, args: argparse.Namespace, classes: int) -> float:
    """MiB that two steps of a variant need at their peak, in a fresh process; NaN where it is not known."""
    options = {"--model": args.model, "--classes": classes, "--batch": args.batch, "--threads": args.threads}
    command = [sys.executable, __file__, "--only", variant, *map(str, itertools.chain(*options.items()))]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        sys.exit(f"measuring the memory of {variant!r} failed: {done.stderr.strip().splitlines()[-1]}")
    return float(done.stdout)


def print_extra_memory(variant: str, bench: Bench) -> None:
    """Two steps of one variant; MiB of the peak beyond what the process occupied before.

    Not from getrusage: its peak starts at that of the process that started this one.
    """

    def occupied(field):
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))

    try:
        before = occupied("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak starts anew
    except OSError:
        print("nan")
        return
    for _ in range(2):
        bench.step(variant)
    print(occupied("VmHWM") - before)


def report(args: argparse.Namespace, classes: int) -> bool:
    """Prints the table for one number of classes; whether the numbers agreed."""
    variants = tuple(v for v in VARIANTS if v != args.skip)
    bench = Bench(args.model, classes, args.batch, variants)
    longest = int(bench.ids.argmax(dim=1).max()) + 1
    print(
        f"\n{args.model}, batch {args.batch}, {classes} classes, prompts of at most {longest} of "
        f"{bench.ids.shape[1]} tokens, {args.threads} thread(s)"
    )
    worst = bench.differences()
    times = {v: [] for v in variants}  # the comparison has filled the caches
    for turn in range(args.rounds):
        for shift in range(len(variants)):
            variant = variants[(turn + shift) % len(variants)]
            times[variant].append(bench.step(variant))
    del bench
    memory = {v: math.nan if args.no_memory else extra_memory(v, args, classes) for v in variants}
    print(f"{'':14}{'s/step':>10}{'speed-up':>10}{'extra MiB':>11}{'of plain':>10}{'largest difference':>20}")
    for v in variants:
        ratio = statistics.median(p / t for p, t in zip(times["plain"], times[v]))
        extra = f"{memory[v]:11.0f}{memory[v] / memory['plain']:10.2f}"
        difference = f"{worst[v]:20.1e}" if v in worst else ""
        print(f"{v:14}{statistics.median(times[v]):10.3f}{ratio:9.2f}x{extra}{difference}")
    if max(worst.values()) > LIMIT:
        print(f"the numbers differ by more than {LIMIT:.0e}: the shortcuts are not exact", file=sys.stderr)
    return max(worst.values()) <= LIMIT


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="tiny", help="embedded model or open_clip architecture (default: tiny)")
    add("--classes", type=int, nargs="+", default=[5, 100], help="numbers of classes (default: 5 100)")
    add("--batch", type=int, default=4, help="images per step (default: 4)")
    add("--rounds", type=int, default=5, help="timed steps of each variant (default: 5)")
    add("--threads", type=int, default=1, help="CPU threads (default: 1)")
    add("--no-memory", action="store_true", help="do not start the processes that measure memory")
    add("--skip", choices=VARIANTS[1:], help="leave a variant out")
    add("--only", choices=VARIANTS, help="take two steps of one variant and print their extra memory in MiB")
    args = parser.parse_args()
    if min(*args.classes, args.batch, args.rounds, args.threads) < 1 or max(args.classes) > MOST:
        parser.error(f"classes, batch, rounds and threads must be at least 1, classes at most {MOST}")
    logging.disable(logging.WARNING)  # open_clip's note on random weights
    torch.set_num_threads(args.threads)
    if args.only:
        print_extra_memory(args.only, Bench(args.model, args.classes[0], args.batch))
    elif not all([report(args, n) for n in args.classes]):
        sys.exit(1)


if __name__ == "__main__":
    main()
