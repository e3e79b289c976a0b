"""What contrasting layers costs a model that writes: time of a generation over plain generation in the same round.

    python benchmarks/decode.py [--model tiny-janus] [--batch 8] [--tokens 24] [--rounds 8] [--device cuda]

MODEL is whatever `vlmlab.load` opens and writes: an embedded model, smollm2-135m, a folder of Hugging Face. One line per way of
decoding: the median over interleaved rounds of its time divided by plain generation's of the same round, with quartiles. A model
that takes images is asked about generated scenes. "all layers kept" is plain generation that returns every hidden state.
"""

import argparse
import warnings

import torch

import vlmlab
from vlmlab import decode, measures
from vlmlab.decode.generation import prompt
from vlmlab.tasks import shapes

LIMIT = 1.10  # of the language side
WAYS = {
    "contrast, normed": (decode.Dola(fusion_strength=0), LIMIT),
    "contrast, raw": (decode.Dola(readout="raw", fusion_strength=0), LIMIT),
    "layer chosen by JS": (decode.Dola(layer_choice="jensen_shannon", fusion_strength=0), None),
}


def inputs_of(model, batch: int, question: str) -> dict:
    """A batch of the same question, about a scene each where the model takes images."""
    found = shapes.scenes(batch, kind="pairs")
    images = [found.image(i) for i in range(batch)] if hasattr(model.processor, "tokenizer") else None
    about = {"text": [prompt(model, question, images and images[0])] * batch}
    about |= {} if images is None else {"images": images}
    inputs = model.processor(**about, return_tensors="pt")
    return {k: v.to(model.device) for k, v in inputs.items() if isinstance(v, torch.Tensor)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny-janus")
    parser.add_argument("--question", default="describe the picture.")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    model = vlmlab.load(options.model, device=options.device, precision="fp32")
    inputs = inputs_of(model, options.batch, options.question)
    same = {"max_new_tokens": options.tokens, "min_new_tokens": options.tokens, "do_sample": False}
    whole = {"output_hidden_states": True, "return_dict_in_generate": True}
    calls = {"plain": lambda: model.generate(**inputs, **same)}
    calls |= {n: lambda d=d: decode.generate(model, inputs, d, **same) for n, (d, _) in WAYS.items()}
    calls["all layers kept"] = lambda: model.generate(**inputs, **same | whole)
    with torch.inference_mode():
        times = measures.interleaved(calls, options.rounds)
    over = times / times.sel(call="plain")
    each = float(times.sel(call="plain").median()) / options.tokens
    print(f"{model.name}, batch {options.batch}, {options.device}: plain {each:.2f} ms a word")
    print(f"{'way':24}{'median':>8}{'quartiles':>16}  limit")
    for name in calls:
        low, middle, high = (float(x) for x in over.sel(call=name).quantile([0.25, 0.5, 0.75]))
        limit = WAYS.get(name, (None, None))[1]
        print(f"{name:24}{middle:>8.3f}{f'{low:.3f}-{high:.3f}':>16}{f'  {limit:.2f}' if limit else ''}")


if __name__ == "__main__":
    main()
