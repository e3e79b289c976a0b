"""A small Janus (Wu et al. 2024): vision tower, aligner and a LLaMA that writes, as transformers builds them.

As there, the vision tower begins as that of a SigLIP (the first blocks of `tiny-siglip`) and trains with the rest, which
begins with random weights. It learns to say what is in a generated scene, to answer questions about it, and the names of
emoji of animals and food, all behind the image; the loss is on what it writes alone. Images are not generated: Janus' VQ
part is there as transformers wants it, at its smallest, untrained. Head and embeddings are not tied, as in Janus.
"""

import copy
import dataclasses
import functools
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..files import write, write_json
from ..learner import Batch, Group, Learner, Stage
from ..rates import half_cosine
from ..tasks.emoji import augment
from ..tasks.emoji.captions import pretraining_concepts
from ..tasks.emoji.pictures import STRENGTH
from ..tasks.emoji.pretraining import Sampler
from ..tasks.shapes import pretraining as shapes
from ..tasks.shapes.asked import ask
from ..tasks.shapes.texts import caption
from .clip import prepared
from .vision_start import begin
from .words import processor_of

DESCRIBE, NAME = "describe the picture.", "what is this?"
GROUPS = ("animals-nature", "food-drink")  # of the emoji that it learns to name
KINDS = ("one", "pairs", "many")
LONGEST = 32  # tokens that it writes unless told otherwise


class Janus(Learner):
    """A vision-language model in the layout of Janus, trained wholly to write behind an image."""

    models_needed = ("vlm",)

    @dataclasses.dataclass(frozen=True)
    class Config:
        """Its sizes, where they are not those of the SigLIP; hidden: between the layers of an MLP."""

        width: int = 128
        head_width: int = 32
        hidden: int = 256
        blocks: int = 12  # of the language model
        image_blocks: int = 6
        image: int = 48  # pixels of a side
        patch: int = 8
        words: int = 1024  # tokens, at most

    @dataclasses.dataclass(frozen=True)
    class Options:
        """Its training; samples are images seen.

        one, pairs, many: scenes in a batch; described: of them, the others come with a question; emoji: drawings to
        name; mono: of these, black and white where there is such a drawing.
        """

        samples: int = 32_000
        one: int = 6
        pairs: int = 12
        many: int = 6
        described: int = 16
        emoji: int = 8
        mono: float = 0.15
        lr: float = 1e-3
        lr_vision: float = 3e-4
        weight_decay: float = 0.05
        warmup: int = 50  # steps
        save_every: int = 100  # steps

    def __init__(self, models, config):
        super().__init__(models, config)
        self.processor = processor_of(corpus(), config)
        self.module = module_of(config, self.processor.tokenizer)
        self.module.to(self.device)
        images = shapes.images(shapes.stream(dict.fromkeys(KINDS, 8), 0, 0)).to(self.device)
        begin(self.module.model.vision_model, models["vlm"].clip.visual, prepared(images, config.image))

    def stages(self, task, options: Options, seed: int) -> list[Stage]:
        """One; the rate falls to 0 along half a cosine."""
        o = options
        batches = Batches(o, seed)
        steps = o.samples // batches.size

        return [
            Stage(
                "write",
                steps,
                batches.feed,
                self.groups(o),
                "adamw",
                {"betas": (0.9, 0.95)},
                half_cosine(steps, o.warmup),
                o.save_every,
                clip=1.0,
            )
        ]

    def groups(self, o: Options) -> tuple[Group, ...]:
        """A rate of its own for the vision tower; weight decay for matrices only."""
        parts = (("*.vision_model.", o.lr_vision), ("", o.lr))
        plain = ("*norm*", "*.bias")
        return tuple(
            Group(part + names, lr, 0.0 if names in plain else o.weight_decay)
            for part, lr in parts
            for names in (*plain, "*")
        )

    def losses(self, batch: Batch, stage: Stage | None = None) -> dict[str, Tensor]:
        """Cross-entropy, per token, of text behind image (batch, 3, height, width) in [0, 1] and prompt."""
        ids, labels = self.words(batch["prompt"], batch["text"])
        images = prepared(batch["image"], self.config.image)
        # padding stands behind all that is read: a causal model needs no mask for it
        hidden = self.module.model(input_ids=ids, pixel_values=images, use_cache=False).last_hidden_state
        scored = labels[:, 1:] >= 0
        logits = self.module.lm_head(hidden[:, :-1][scored])
        return {"text": F.cross_entropy(logits, labels[:, 1:][scored])}

    def words(self, prompts: list[str], texts: list[str]) -> tuple[Tensor, Tensor]:
        """(text, token) ids of prompt, text and its end, padded on the right; labels, -100 where nothing is scored."""
        p, end = self.processor, [self.processor.tokenizer.eos_token_id]
        image = p.image_start_token + p.image_token * p.num_image_tokens + p.image_end_token
        rows, labels = [], []
        for prompt, text in zip(prompts, texts, strict=True):
            before = p.tokenizer(image + prompt)["input_ids"]
            own = p.tokenizer(text, add_special_tokens=False)["input_ids"] + end
            rows.append(torch.tensor(before + own))
            labels.append(torch.tensor([-100] * len(before) + own))
        pad = torch.nn.utils.rnn.pad_sequence
        ids = pad(rows, batch_first=True, padding_value=p.tokenizer.pad_token_id)
        return ids.to(self.device), pad(labels, batch_first=True, padding_value=-100).to(self.device)

    def export(self, folder: Path, about: dict) -> Path:
        """Write what transformers and `vlmlab.load` read: fp16 weights, configuration, processor, `about` beside them."""
        with tempfile.TemporaryDirectory() as made:
            copy.deepcopy(self.module).half().save_pretrained(made)
            self.processor.save_pretrained(made)
            for file in sorted(Path(made).iterdir()):
                write(folder / file.name, functools.partial(shutil.copyfile, file))
        write_json(folder / "pretraining.json", about)
        return folder


def module_of(c: Janus.Config, tokenizer) -> torch.nn.Module:
    """The model of transformers, with random weights."""
    from transformers import GenerationConfig, JanusConfig, JanusForConditionalGeneration

    ids = {f"{k}_token_id": getattr(tokenizer, f"{k}_token_id") for k in ("bos", "eos", "pad")}
    heads = c.width // c.head_width
    text = {"model_type": "llama", "vocab_size": len(tokenizer), "hidden_size": c.width, **ids}
    text |= {"num_hidden_layers": c.blocks, "num_attention_heads": heads, "intermediate_size": c.hidden}
    text |= {"tie_word_embeddings": False, "max_position_embeddings": 256}
    vision = {"hidden_size": c.width, "num_hidden_layers": c.image_blocks, "num_attention_heads": heads}
    vision |= {"image_size": c.image, "patch_size": c.patch, "num_image_tokens": (c.image // c.patch) ** 2}
    vision |= {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "projection_dim": c.width}
    # its group norms have 32 groups
    vq = {"base_channels": 32, "channel_multiplier": [1], "num_res_blocks": 0, "latent_channels": 8}
    vq |= {"embed_dim": 8, "num_embeddings": 8, "projection_dim": 8, "image_token_embed_dim": c.width}
    image_id = tokenizer.convert_tokens_to_ids(tokenizer.image_token)
    module = JanusForConditionalGeneration(
        JanusConfig(
            text_config=text,
            vision_config=vision,
            vq_config=vq,
            image_token_id=image_id,
            tie_word_embeddings=False,
        )
    )
    for part in ("vqmodel", "generation_embeddings", "generation_aligner", "generation_head"):
        getattr(module.model, part).requires_grad_(False)
    module.generation_config = GenerationConfig(**ids, max_new_tokens=LONGEST)
    return module


def names() -> dict[int, str]:
    """Row of `pretraining_concepts` -> name, of the emoji that it learns to name."""
    table = pretraining_concepts()
    return table[table["group"].isin(GROUPS)]["name"].to_dict()


def corpus() -> list[str]:
    """Texts that have all words that it reads and writes."""
    scenes = shapes.stream(dict.fromkeys(KINDS, 512), 0, 0)
    asked = [text for of in scenes for question, answer, _ in ask(of) for text in (question, answer)]
    return [DESCRIBE, NAME, *map(caption, scenes), *asked, *names().values()]


class Batches:
    """Images with prompts and texts, a function of (options, seed, step)."""

    def __init__(self, options: Janus.Options, seed: int):
        self.options, self.seed, self.names = options, seed, names()
        self.counts = {kind: getattr(options, kind) for kind in KINDS}
        self.size = sum(self.counts.values()) + options.emoji
        self.emoji = Sampler(options, seed)

    def feed(self, first: int) -> Iterator[Batch]:
        """Batches from step `first` on."""
        return map(self.batch, itertools.count(first))

    def batch(self, step: int) -> Batch:
        """image (batch, 3, 64, 64) in [0, 1]; prompt and text, lists."""
        rng = np.random.default_rng([self.seed, step])
        scenes = shapes.stream(self.counts, self.seed, step)
        shown = rng.permutation(len(scenes)) < self.options.described
        said = [
            (DESCRIBE, caption(of)) if describe else self.asked(of, rng)
            for of, describe in zip(scenes, shown)
        ]
        images, texts = self.drawn(rng, step)
        said += [(NAME, text) for text in texts]
        prompts, texts = map(list, zip(*said, strict=True))
        return {"image": torch.cat([shapes.images(scenes), images]), "prompt": prompts, "text": texts}

    def asked(self, of, rng: np.random.Generator) -> tuple[str, str]:
        """One of the questions about a scene, and its answer."""
        questions = ask(of)
        return questions[rng.integers(len(questions))][:2]

    def drawn(self, rng: np.random.Generator, step: int) -> tuple[Tensor, list[str]]:
        """Augmented drawings and what they are called."""
        chosen = rng.choice([*self.names], self.options.emoji, replace=False)
        rgba = torch.stack([self.emoji.picture(rng, int(c))[1] for c in chosen])
        g = torch.Generator().manual_seed(self.seed * 10**6 + step)
        return augment.compose(g, rgba, self.emoji.flip[chosen], STRENGTH), [self.names[c] for c in chosen]
