"""Pretrain the embedded CLIP (`vlmlab pretrain tiny`): open_clip's modules, our data.

Symmetric contrastive loss with multi-positive targets: a caption such as "fruit" matches every
fruit of the batch. Depth grows from 6 to 12 blocks by splitting every block into two half steps.

Tried and left: copies whose residual outputs start at zero (they stayed nearly idle, 5 % of the stream
against 40 % of the others), and a memory of earlier features as further negatives (the features drifted
away from it, retrieval fell to a tenth).
"""

import dataclasses
import gzip
import itertools
import json
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from ..tasks.emoji import augment, captions
from ..tasks.emoji import data as emoji


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What determines the pretrained weights. Lengths are in samples (images seen)."""

    samples: int = 627_200
    batch: int = 128
    width: int = 128
    head_width: int = 32
    patch: int = 8
    context: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.1
    warmup: int = 12_800
    ramp: float = 0.35  # augmentation reaches full strength after this share of the run
    grow: float = 0.5  # 6 -> 12 blocks
    scenes: float = 0.5  # two-object scenes join the batches
    mono: float = 0.15  # share of black-and-white drawings where a concept has one
    seed: int = 0


def used_merges(texts: list[str]) -> list[tuple[str, str]]:
    """The BPE merges that the full CLIP vocabulary needs for `texts`, in rank order."""
    full = SimpleTokenizer()
    used, words = set(), {w for t in texts for w in full.pat.findall(full.clean_fn(t))}
    for word in words:
        parts = [full.byte_encoder[b] for b in word.encode()]
        parts[-1] += "</w>"
        while len(parts) > 1:
            rank, at = min(
                (full.bpe_ranks.get(p, math.inf), i) for i, p in enumerate(itertools.pairwise(parts))
            )
            if rank == math.inf:
                break
            used.add((parts[at], parts[at + 1]))
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return sorted(used, key=full.bpe_ranks.get)


def write_vocabulary(path: Path, texts: list[str]) -> None:
    """A merge file for open_clip's SimpleTokenizer that keeps only what `texts` need."""
    lines = ["#version: 0.2", *(" ".join(m) for m in used_merges(texts))]
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


def model_config(recipe: Recipe, vocab: int, layers: int = 12) -> dict:
    """open_clip's model configuration, as `CLIP(**config)` takes it."""
    return {
        "embed_dim": recipe.width,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": 64,
            "layers": layers,
            "width": recipe.width,
            "head_width": recipe.head_width,
            "patch_size": recipe.patch,
            "patch_dropout": 0.5,
        },
        "text_cfg": {
            "context_length": recipe.context,
            "vocab_size": vocab,
            "width": recipe.width,
            "heads": recipe.width // recipe.head_width,
            "layers": layers,
        },
    }


def grow(small: CLIP, big: CLIP) -> None:
    """Copy a model into one of twice the depth that does nearly the same where updates are small steps.

    Block i of `small` becomes blocks 2i and 2i+1 of `big`, both a copy with halved residual outputs: two
    half steps of the same update, so that all blocks go on learning alike.
    """
    state = {}
    for name, value in small.state_dict().items():
        if ".resblocks." not in name:
            state[name] = value
            continue
        head, tail = name.split(".resblocks.")
        block, rest = tail.split(".", 1)
        half = value / 2 if rest.startswith(("attn.out_proj", "mlp.c_proj")) else value
        for new in (2 * int(block), 2 * int(block) + 1):
            state[f"{head}.resblocks.{new}.{rest}"] = half
    big.load_state_dict(state)


class Sampler:
    """Batches as a function of (recipe, step): pictures, captions and which of them match."""

    def __init__(self, recipe: Recipe):
        self.recipe, self.table = recipe, captions.pretraining_concepts()
        self.matrix = torch.from_numpy(captions.attributes()[0])
        self.art = {s: emoji.art(s) for s in emoji.PRETRAIN_STYLES}
        colour = emoji.PRETRAIN_STYLES[:-1]
        self.styles = [[s for s in colour if h in self.art[s][1].index] for h in self.table["hexcode"]]
        self.has_mono = self.table["hexcode"].isin(self.art["emojione-mono"][1].index).to_numpy()
        faces = self.table["subgroup"].isin(emoji.FACES).to_numpy()
        flags = (self.table["group"] == "flags").to_numpy()
        weight = np.where(faces, 2.5, np.where(flags, 0.4, 1.0)) * [bool(s) for s in self.styles]
        self.weight = weight / weight.sum()
        # mirroring would change the meaning of these
        fixed = self.table["group"].isin(["symbols", "flags"]) | self.table["name"].str.contains(
            "left|right|clock|hand|o'clock"
        )
        self.flip = torch.from_numpy(~fixed.to_numpy())

    def picture(self, rng: np.random.Generator, concept: int) -> tuple[str, Tensor]:
        mono = self.has_mono[concept] and rng.random() < self.recipe.mono
        style = "emojione-mono" if mono else str(rng.choice(self.styles[concept]))
        stack, row = self.art[style]
        return style, torch.from_numpy(stack[row[self.table["hexcode"][concept]]])

    def batch(self, step: int) -> dict:
        """images (batch, 3, 64, 64); texts; match (text, image) bool."""
        r, at = self.recipe, step * self.recipe.batch / self.recipe.samples
        rng, g = np.random.default_rng([r.seed, step]), torch.Generator().manual_seed(r.seed * 10**6 + step)
        scenes = r.batch // 6 if at >= r.scenes else 0
        chosen = rng.choice(len(self.table), r.batch + scenes, replace=False, p=self.weight)
        singles, left, right = (
            chosen[: r.batch - scenes],
            chosen[r.batch - scenes : r.batch],
            chosen[r.batch :],
        )
        strength = min(1.0, at / r.ramp)
        drawn = [self.picture(rng, c) for c in singles]
        texts, wants = zip(
            *(captions.caption(rng, c, s) for c, (s, _) in zip(singles, drawn, strict=True)), strict=True
        )
        images = augment.compose(g, torch.stack([p for _, p in drawn]), self.flip[singles], strength)
        texts, name = list(texts), self.table["name"]
        match = torch.eye(r.batch, dtype=torch.bool)
        for i, columns in enumerate(wants):
            if columns:
                match[i, : len(singles)] |= self.matrix[singles][:, columns].all(1)
        if scenes:
            pair = [torch.stack([self.picture(rng, c)[1] for c in side]) for side in (left, right)]
            images = torch.cat([images, augment.side_by_side(g, *pair, strength)])
            order = rng.random(scenes) < 0.5
            texts += [
                captions.SCENE.format(*((name[a], name[b]) if o else (name[b], name[a])))
                for a, b, o in zip(left, right, order, strict=True)
            ]
        return {"images": images, "texts": texts, "match": match}


def contrastive(image: Tensor, text: Tensor, scale: Tensor, match: Tensor) -> Tensor:
    """Symmetric multi-positive InfoNCE over unit features (batch, width).

    match (text, image) is bool; the positives of a query share its weight.
    """
    logits, match = scale * text @ image.T, match.float()
    total = 0.0
    for side, positive in ((logits, match), (logits.T, match.T)):
        log_p = F.log_softmax(side, dim=1)
        total = total - ((log_p * positive).sum(1) / positive.sum(1)).mean()
    return total / 2


def parameter_groups(model: CLIP, decay: float) -> list[dict]:
    plain = {n for n, p in model.named_parameters() if p.ndim < 2} | model.no_weight_decay()
    named = list(model.named_parameters())
    return [
        {"params": [p for n, p in named if n not in plain], "weight_decay": decay},
        {"params": [p for n, p in named if n in plain], "weight_decay": 0.0},
    ]


class Pretraining:
    """The state of a run: model, optimiser, step. `save` and `resume` are exact."""

    def __init__(self, recipe: Recipe, out: Path, device: str = "cpu"):
        self.recipe, self.out, self.device = recipe, out, torch.device(device)
        out.mkdir(parents=True, exist_ok=True)
        if not (out / "bpe.txt.gz").exists():
            write_vocabulary(out / "bpe.txt.gz", captions.corpus())
        self.tokenizer = SimpleTokenizer(bpe_path=str(out / "bpe.txt.gz"), context_length=recipe.context)
        self.step, self.steps = 0, recipe.samples // recipe.batch
        torch.manual_seed(recipe.seed)
        self.build(6)

    def build(self, layers: int) -> None:
        old = getattr(self, "model", None)
        self.model = CLIP(**model_config(self.recipe, self.tokenizer.vocab_size, layers))
        if old is None:
            self.model.logit_scale.data.fill_(math.log(14))
        else:
            grow(old, self.model)
        self.model.to(self.device)
        self.layers = layers
        self.optimiser = torch.optim.AdamW(
            parameter_groups(self.model, self.recipe.weight_decay), lr=self.recipe.lr, betas=(0.9, 0.98)
        )
        self.built_at = self.step

    def rate(self) -> float:
        r, seen = self.recipe, self.step * self.recipe.batch
        warm = min(1.0, (self.step + 1) / (r.warmup / r.batch), (self.step - self.built_at + 1) / 50)
        return r.lr * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, seen / r.samples)))

    def tokens(self, texts: list[str]) -> Tensor:
        return self.tokenizer(texts).to(self.device)

    def encode_text(self, ids: Tensor) -> Tensor:
        """As `model.encode_text`, cut at the longest caption: causal attention makes that exact."""
        m, n = self.model, int(ids.argmax(1).max()) + 1
        x = m.token_embedding(ids[:, :n]) + m.positional_embedding[:n]
        x = m.ln_final(m.transformer(x, attn_mask=m.attn_mask[:n, :n]))
        return F.normalize(x[torch.arange(len(x)), ids.argmax(1)] @ m.text_projection, dim=-1)

    def train_step(self, batch: dict) -> float:
        r, m, at = self.recipe, self.model, self.step / self.steps
        if self.layers == 6 and at >= r.grow:
            self.build(12)
            m = self.model
        m.train()
        m.visual.patch_dropout.prob = 0.5 if at < 0.8 else 0.25 if at < 0.95 else 0.0
        torch.manual_seed(r.seed * 10**6 + self.step)  # patch dropout
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
        images = ((batch["images"] - mean) / std).to(self.device)
        image = F.normalize(m.visual(images), dim=-1)
        text = self.encode_text(self.tokens(batch["texts"]))
        loss = contrastive(image, text, m.logit_scale.exp(), batch["match"].to(self.device))
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the pretraining loss is {loss.item()} at step {self.step}; lower lr")
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0)
        self.optimiser.step()
        m.logit_scale.data.clamp_(max=math.log(100))
        self.step += 1
        return loss.item()

    def save(self) -> None:
        """Everything to go on from, in one safetensors file written under a temporary name first."""
        tensors = {f"model.{k}": v.detach().cpu().clone() for k, v in self.model.state_dict().items()}
        for i, s in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{i}.{k}": v.detach().cpu().clone() for k, v in s.items()}
        meta = {
            "step": self.step,
            "layers": self.layers,
            "built_at": self.built_at,
            "recipe": dataclasses.asdict(self.recipe),
        }
        temporary = self.out / "state.tmp"
        save_file(tensors, temporary, metadata={"pretraining": json.dumps(meta)})
        temporary.replace(self.out / "state.safetensors")

    def resume(self) -> bool:
        """Load the last saved state; False when there is none. ValueError when it is of another recipe."""
        path = self.out / "state.safetensors"
        if not path.exists():
            return False
        from safetensors import safe_open

        with safe_open(path, "pt") as f:
            meta = json.loads(f.metadata()["pretraining"])
        if meta["recipe"] != dataclasses.asdict(self.recipe):
            raise ValueError(
                f"{path} was made with another recipe ({meta['recipe']}); choose another --out or remove it"
            )
        tensors, self.step = load_file(path), meta["step"]
        if meta["layers"] != self.layers:
            self.build(meta["layers"])
        self.built_at = meta["built_at"]
        part = {
            n: {k[len(n) + 1 :]: v for k, v in tensors.items() if k.startswith(n + ".")}
            for n in ("model", "optimiser")
        }
        self.model.load_state_dict(part["model"])
        state = self.optimiser.state_dict()
        for key, value in part["optimiser"].items():
            i, name = key.split(".", 1)
            state["state"].setdefault(int(i), {})[name] = value
        self.optimiser.load_state_dict(state)
        return True

    def export(self, folder: Path) -> Path:
        """Write the model that `vlmlab.load` reads: fp16 weights, configuration, vocabulary."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {k: v.detach().cpu().half().contiguous() for k, v in self.model.state_dict().items()}
        save_file(weights, folder / "model.tmp")
        (folder / "model.tmp").replace(folder / "model.safetensors")
        config = model_config(self.recipe, self.tokenizer.vocab_size, self.layers)
        config["vision_cfg"]["patch_dropout"] = 0.0
        record = {"model_cfg": config, "pretraining": {**dataclasses.asdict(self.recipe), "step": self.step}}
        (folder / "config.json").write_text(json.dumps(record, indent=2) + "\n")
        (folder / "bpe.txt.gz").write_bytes((self.out / "bpe.txt.gz").read_bytes())
        return folder


def pretrain(
    out: Path, recipe: Recipe = Recipe(), *, device: str = "cpu", threads: int = 1, save_every: int = 100
) -> Pretraining:
    """Train, or go on training, in `out`; interruptions lose at most `save_every` steps."""
    torch.set_num_threads(threads)
    run = Pretraining(recipe, Path(out), device)
    run.resume()
    sampler = Sampler(recipe)
    log = (run.out / "log.csv").open("a", buffering=1)
    mean = None
    with tqdm(total=run.steps, initial=run.step, desc="pretrain", unit="step") as bar:
        while run.step < run.steps:
            loss = run.train_step(sampler.batch(run.step))
            mean = loss if mean is None else 0.98 * mean + 0.02 * loss
            bar.set_postfix(loss=f"{mean:.3f}", lr=f"{run.rate():.1e}", refresh=False)
            bar.update()
            if run.step % 20 == 0:
                log.write(f"{run.step},{mean:.4f},{run.model.logit_scale.exp().item():.2f}\n")
            if run.step % save_every == 0 or run.step == run.steps:
                run.save()
    return run
