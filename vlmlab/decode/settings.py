"""The settings of DoLa-static in both towers and of their fusion, one small frozen object."""

from typing import Literal

import msgspec

from ..schema import Section, Whole, Wrong, describe, described, short

Share = described(float, "a number from 0 to 1", ge=0, le=1)
Strength = described(float, "a number from 0 to 100", ge=0, le=100)
Top = described(int, "a whole number above 0", ge=1)
Layers = described(tuple[Whole, ...], "a list of whole numbers from 0, not empty", min_length=1)


class Dola(Section):
    """What `decode.generate` and `decode.candidates` do; the defaults are the plan's (section 6 of it).

    language, image: the switches of the two towers (use_dola_lm_static, use_dola_siglip_static). With both off and
    no fusion, a model generates as it does without vlmlab.
    contrast_layer, image_contrast_layer: the block whose read-out is the early one (j_L, j_V), from 1; 0 is what
    enters the first. Default: block 24 of 30 and 20 of 24, and the same share of another depth.
    apc_threshold, image_apc_threshold: alpha of the adaptive plausibility constraint (alpha_L, alpha_V).
    readout: how the early layer is read: "normed" by final norm and head, as the plan says; "raw" by the head alone,
    as the released code of DoLa; "uniform" reads nothing, q_J is uniform: the check, which restores the model's own
    greedy choice.
    layer_choice: "static", or chosen anew at each step among `layers` by the "published" criterion (one for the
    batch) or by the true "jensen_shannon" (each row its own). layers: default, every second block from the middle.
    fusion_strength: lambda (lambda_mm); 0 leaves the fusion out. fusion: "lift" over the prior at every step, "trie",
    which follows what is written of a candidate, or the plan's two sentences as they stand, "literal_minus_inf" and
    "literal_zero", which show their faults. top_candidates: how many of the best are fused (mm_topk_for_T).

    Raises ValueError that names the field.

    >>> dola = decode.Dola(contrast_layer=24, apc_threshold=0.05)
    >>> out = decode.generate(model, inputs, dola=dola, max_new_tokens=20)
    """

    language: bool = True
    contrast_layer: Whole | None = None
    apc_threshold: Share = 0.1
    readout: Literal["normed", "raw", "uniform"] = "normed"
    layer_choice: Literal["static", "published", "jensen_shannon"] = "static"
    layers: Layers | None = None
    image: bool = True
    image_contrast_layer: Whole | None = None
    image_apc_threshold: Share = 0.1
    fusion_strength: Strength = 0.7
    fusion: Literal["lift", "trie", "literal_minus_inf", "literal_zero"] = "lift"
    top_candidates: Top = 5

    def __post_init__(self):
        for field in msgspec.structs.fields(type(self)):
            value = getattr(self, field.name)
            value = getattr(value, "item", lambda value=value: value)()  # NumPy's numbers
            try:
                msgspec.structs.force_setattr(self, field.name, msgspec.convert(value, field.type))
            except msgspec.ValidationError:
                words = describe(field.type)
                raise Wrong(field.name, f"{field.name} must be {words}; it is {short(value)}") from None
        if self.layer_choice == "static" and self.layers is not None:
            raise Wrong("layers", 'layers are for layer_choice="published" or "jensen_shannon"')
        if self.layer_choice != "static" and self.contrast_layer is not None:
            raise Wrong(
                "contrast_layer", f'contrast_layer is for layer_choice="static", not {self.layer_choice!r}'
            )

    def language_layers(self, depth: int) -> tuple[int, ...]:
        """The early layers that decoding reads of a language model with so many blocks; ValueError for others."""
        if self.layer_choice == "static":
            found = (scaled(24, 30, depth) if self.contrast_layer is None else self.contrast_layer,)
            return checked("contrast_layer", found, depth)
        found = (
            tuple(range(depth // 2, depth, 2)) if self.layers is None else tuple(dict.fromkeys(self.layers))
        )
        return checked("layers", found, depth)

    def image_layer(self, depth: int) -> int:
        """The early layer of an image tower with so many blocks; ValueError for one that it has not."""
        layer = self.image_contrast_layer
        found = scaled(20, 24, depth) if layer is None else layer
        return checked("image_contrast_layer", (found,), depth)[0]


PLAN = Dola()  # the plan's settings
PLAIN = Dola(language=False, image=False, fusion_strength=0)  # a model as it is


def scaled(layer: int, of: int, depth: int) -> int:
    """The layer at the same share of another depth, below the last."""
    return min(round(layer * depth / of), depth - 1)


def checked(name: str, layers: tuple[int, ...], depth: int) -> tuple[int, ...]:
    """The layers; ValueError for one that is the last or none."""
    if beyond := [layer for layer in layers if layer >= depth]:
        why = " is its last, which has nothing to be contrasted with" if beyond[0] == depth else " it has not"
        raise ValueError(
            f"{name} is {beyond[0]}, and the tower has {depth} blocks: {beyond[0]}{why}; expected is 0 to {depth - 1}"
        )
    return layers
