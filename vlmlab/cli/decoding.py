"""The command that decodes: an image and a question in, the answer with and without contrast out."""

import argparse
import json
import typing
from pathlib import Path

from ..nearest import hint
from . import options


def decode(args: argparse.Namespace) -> int:
    options.check_device(args.device)
    if args.choices and args.set:
        raise ValueError("--choices holds the settings; leave out --set, or --choices")
    if args.candidates and args.image is None:
        raise ValueError("--candidates are scored on an image; name one with --image")
    dola, image = args.choices or chosen(args.set), opened(args.image)
    import vlmlab

    from ..decode.generation import prompt, settings_of
    from ..models.huggingface import LanguageModel

    model = vlmlab.load(args.model, device=args.device, precision="fp32")
    if not isinstance(model, LanguageModel):
        raise ValueError(f"{args.model} does not write; decode takes a language or vision-language model")
    dola = settings_of(dola, args.domain, model, None)
    inputs = model.prompt(prompt(model, args.question, image), image)
    found = candidates(args, image, dola)
    options_of_generate = {"max_new_tokens": args.tokens, "do_sample": False}
    answers = {
        "plain": model.generate(**inputs, **options_of_generate),
        "dola": vlmlab.decode.generate(model, inputs, dola, found, **options_of_generate),
    }
    texts = {name: answer(model, ids[0], inputs) for name, ids in answers.items()}
    if args.json:
        print(
            json.dumps(
                texts | {"settings": settings(dola), "candidates": ranked(found)},
                indent=1,
                ensure_ascii=False,
            )
        )
        return 0
    for name, text in texts.items():
        print(f"{name:<10}{text}")
    if found is not None:
        best = ", ".join(f"{one['name']} {one['p']:.2f}" for one in ranked(found)[:5])
        print(f"image     {best}; the threshold left {int(found.left[0])} of {len(found.names)}")
    return 0


def chosen(texts: list[str]):
    """The settings of --set KEY=VALUE. ValueError for an unknown key or a wrong value."""
    from ..decode import Dola

    legal, found = typing.get_type_hints(Dola), {}
    for key, value in map(options.split, texts):
        if key not in legal:
            raise ValueError(f"there is no setting {key!r}{hint(key, legal)}; there are {', '.join(legal)}")
        found[key] = options.typed(key, value, legal[key])
    return Dola(**found)


def settings(dola) -> dict:
    import msgspec

    return msgspec.to_builtins(dola)


def opened(path: Path | None):
    """The picture; FileNotFoundError says what is nearly called so."""
    if path is None:
        return None
    from ..files import nearby
    from ..image_files import read

    if not path.is_file():
        raise FileNotFoundError(f"there is no image {path}{nearby(path.absolute())}")
    return read(path)


def candidates(args: argparse.Namespace, image, dola):
    """What the dual tower says of --candidates; None where none are named."""
    if not args.candidates:
        return None
    import vlmlab

    vlm = vlmlab.load(args.dual_tower, device=args.device)
    names = [name.strip() for name in args.candidates.split(",")]
    return vlmlab.decode.candidates(vlm, [image], names, dola, args.template)


def ranked(found) -> list[dict]:
    """Candidates of the one image, best first."""
    if found is None:
        return []
    p = found.log_p.exp()[0].tolist()
    return [{"name": found.names[i], "p": p[i]} for i in found.ranking()[0].tolist()]


def answer(model, ids, inputs) -> str:
    """The new text of one row of token ids, which begins with the prompt unless the model leaves it out."""
    prompt = inputs["input_ids"][0]
    new = ids[len(prompt) :] if ids[: len(prompt)].equal(prompt) else ids
    return model.tokenizer.decode(new, skip_special_tokens=True).strip()


DECODE = {
    "model": {"metavar": "MODEL", "help": "a folder of a Hugging Face model that writes, or smollm2-135m"},
    "--question": {"required": True, "metavar": "TEXT", "help": "what to ask, or to go on from"},
    "--image": {"type": Path, "metavar": "FILE", "help": "the picture that is asked about"},
    "--candidates": {"metavar": "A,B,...", "help": "what may be seen, for the fusion with a dual tower"},
    "--dual-tower": {
        "default": "tiny",
        "metavar": "MODEL",
        "help": "CLIP or SigLIP that scores candidates (tiny)",
    },
    "--template": {
        "default": "a photo of a {}.",
        "metavar": "TEXT",
        "help": "prompt with {} for a candidate (a photo of a {}.)",
    },
    "--set": {
        "action": "append",
        "default": [],
        "metavar": "KEY=VALUE",
        "help": "a setting of vlmlab.decode.Dola, repeatable: contrast_layer=24, apc_threshold=0.1, readout=raw ...",
    },
    "--choices": {"metavar": "FILE", "help": "settings that decode.choose saved, instead of --set"},
    "--domain": {"metavar": "NAME", "help": "which domain of --choices"},
    "--tokens": {"type": options.positive, "default": 20, "metavar": "N", "help": "new tokens at most (20)"},
    "--device": {"help": "cpu, cuda, cuda:1 ... (the GPU when there is one)"},
}


def commands(command) -> None:
    """decode."""
    p = command(
        "decode",
        decode,
        "Answer a question about an image, greedily, plain and by contrast of layers (DoLa).",
        'vlmlab decode ~/models/llava-1.5-7b-hf --image cat.jpg --question "What is it?" --candidates cat,dog,fox',
    )
    for name, how in DECODE.items():
        p.add_argument(name, **how)
    options.json(p)
