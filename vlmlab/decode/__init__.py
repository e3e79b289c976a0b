"""Decoding that compares a model with its own earlier layers (DoLa), in a language and in a dual tower.

Nothing trains here and no model is changed. `generate` is the verb for a user; the rest are its parts.
"""

import lazy_loader

SHARED = (  # none of them is a learner
    "choices",
    "distributions",
    "dola",
    "dual_tower",
    "fusion",
    "generation",
    "language",
    "settings",
    "words_of_candidates",
)
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "choices": ["Choices", "choose", "usual_grid"],
        "distributions": ["choose_layer", "contrast", "jensen_shannon", "plausible", "published_criterion"],
        "dola": ["LayerContrast"],
        "dual_tower": ["Candidates", "apc_width", "candidate_logits", "candidates", "contrasted"],
        "fusion": ["Fusion", "joint", "lift", "literal"],
        "generation": ["generate"],
        "language": ["layer_logits"],
        "settings": ["Dola"],
        "words_of_candidates": ["CandidateTokens", "candidate_tokens"],
    },
)
