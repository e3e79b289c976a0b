"""What to say of a generated face, for the pretraining of the embedded models: "a very sad and slightly angry face"."""

import numpy as np

from . import expression

# least weight -> the word before the emotion
DEGREES = ((0.75, "very "), (0.4, ""), (0.2, "slightly "))
TEMPLATES = ("a {} face.", "a drawing of a {} face.", "an emoji of a {} face.", "a photo of a {} face.")


def felt(weights: np.ndarray) -> str:
    """Every emotion of at least a fifth, the strongest first, each with its degree; the strongest one at least.

    weights: (emotion,), sum 1.
    """
    names, said = expression.emotions().index, []
    for i in np.argsort(-weights, kind="stable"):
        if degree := [word for least, word in DEGREES if weights[i] >= least][:1]:
            said.append(degree[0] + names[i])
    return " and ".join(said) or names[int(weights.argmax())]


def caption(weights: np.ndarray, rng: np.random.Generator | None = None) -> str:
    """ "a very sad and slightly angry face."; with `rng` in one of a few wordings."""
    template = TEMPLATES[0] if rng is None else str(rng.choice(TEMPLATES))
    return article(template.format(felt(weights)))


def article(text: str) -> str:
    """ "a angry face" -> "an angry face"."""
    first, _, rest = text.partition(" ")
    return f"an {rest}" if first == "a" and rest[:1] in "aeiou" else text


def corpus() -> list[str]:
    """Every word that a caption may hold, for a tokenizer."""
    return [*expression.emotions().index, *(word.strip() for _, word in DEGREES), "and", "an", *TEMPLATES]
