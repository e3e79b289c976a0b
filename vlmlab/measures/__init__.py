"""Measures: labelled arrays in, a labelled array out. They draw nothing, open no file and know no model.

Those of `cost` and `timing` take a model or functions instead, and run them.
"""

import importlib
import sys

from .. import own_files

_MODULES = {
    "norms": ("token_norms", "norm_by_role", "norm_of_mean", "norm_ratio", "effect_size"),
    "attention": (
        "mass",
        "entropy",
        "row_sum_error",
        "distance",
        "head_similarity",
        "coupling",
        "key_norms",
        "key_cosines",
        "key_logits",
    ),
    "similarity": ("cka", "minibatch_cka", "rbf_cka", "svcca", "rsa"),
    "similarity_running": ("RunningCKA",),
    "geometry": (
        "uniformity",
        "tolerance_same_class",
        "tolerance_all_pairs",
        "alignment",
        "pca",
        "tsne",
        "umap",
        "silhouette",
        "knn_accuracy",
        "modality_gap",
        "effective_rank",
    ),
    "field": (
        "prompt_field",
        "field_bound",
        "gradient_through_norm",
        "gradient_noise",
        "gradient_noise_bound",
        "attention_gate",
        "key_gradient_bound",
        "pair_cosines",
        "field_agreement",
    ),
    "relevance": ("rollout", "chefer", "legrad", "grad_times_attention", "region_shares"),
    "lens": ("readout", "lens_logits", "lens_accuracy", "predictions", "agreement"),
    "probe": ("probe_predictions", "probe_accuracy"),
    "cost": ("parameters", "flops", "transformer_flops"),
    "timing": ("interleaved", "training_step", "latency", "peak_memory", "circumstances"),
    "confidence": ("calibration",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
__all__ = list(_HOME)
sys.modules[__name__].__class__ = own_files.Room
own_files.join(sys.modules[__name__])


def __getattr__(name: str):
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    try:
        return own_files.member(sys.modules[__name__], name)
    except AttributeError as error:
        raise AttributeError(f"{error}; it has {', '.join(__all__)}") from error


def __dir__() -> list[str]:
    return sorted(__all__)
