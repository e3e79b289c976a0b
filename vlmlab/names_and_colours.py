"""Who looks how: one printed name, colour, marker and line per method, split, role and level.

The colours are those of Okabe and Ito, with a grey that stays apart from them under colour blindness too.
There are more methods than colours: within a study colours differ, across studies marker and line do.
"""

import re
from collections.abc import Iterable
from zlib import crc32

BLUE, VERMILLION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
SKY, PURPLE, YELLOW, BLACK, GREY = "#56b4e9", "#cc79a7", "#f0e442", "#000000", "#595959"
OLIVE = "#8a7d00"  # the edge of yellow markers, which alone are too pale for white paper
PALETTE = (BLUE, VERMILLION, GREEN, ORANGE, SKY, PURPLE, BLACK, YELLOW, GREY)
# those of Tol's muted scheme, for classes of images: no class looks like a method
CLASS_COLOURS = (
    "#332288",
    "#cc6677",
    "#44aa99",
    "#ddcc77",
    "#aa4499",
    "#999933",
    "#88ccee",
    "#882255",
    "#117733",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "h")  # all can be filled; hollow ones mean published
DASHED, DOTTED, DASHDOT = "--", ":", "-."
LINES = ("-", DASHED, DASHDOT, DOTTED)

# name: printed, colour, marker, line
NAMES = {
    # prompt learning
    "zero_shot": ("CLIP", GREY, "h", DOTTED),
    "linear_probe": ("linear probe", SKY, "v", DASHDOT),
    "coop": ("CoOp", BLACK, "p", DASHED),
    "maple": ("MaPLe", ORANGE, "^", DASHDOT),
    "promptsrc": ("PromptSRC", YELLOW, "P", "-"),
    "hicropl": ("HiCroPL", PURPLE, "X", DASHED),
    "mmrl": ("MMRL", GREEN, "D", DASHDOT),
    "mmrl_unified": ("MMRL, unified", GREEN, "*", DASHED),
    "mmrlpp": ("MMRL++", VERMILLION, "s", DASHED),
    "mmrlpp_unified": ("MMRL++, unified", VERMILLION, "*", DASHDOT),
    "mmrlpp_per_target": ("MMRL++, per target", VERMILLION, "X", DASHED),
    "aligned_norm": ("AlignedNorm", BLUE, "o", "-"),
    "aligned_norm_decoupled": ("AlignedNorm, decoupled", BLUE, "*", DASHED),
    # label-free tuning and neighbourhood Gaussian aggregation
    "lafter": ("LaFTer", VERMILLION, "D", DASHED),
    "cascade_clip": ("Cascade-CLIP", ORANGE, "v", DASHDOT),
    "nga": ("NGA", GREEN, "P", DASHDOT),
    "lafter_nga": ("LaFTer + NGA", BLUE, "h", "-"),
    "lafter_nga_single": ("single layer", BLACK, "p", DOTTED),
    "lafter_nga_cascade": ("cascade only", ORANGE, "^", DASHED),
    "lafter_nga_nga": ("NGA only", GREEN, "P", DASHDOT),
    "lafter_nga_both": ("cascade + NGA", BLUE, "h", "-"),
    "lafter_nga_both_true": ("cascade + NGA, true labels", SKY, "*", DASHED),
    "lafter_nga_deepest_first": ("cascade + NGA, deepest first", SKY, "^", DASHED),
    # orders of unfreezing
    "joint": ("all at once", BLUE, "h", "-"),
    "deepest_first": ("deepest first", SKY, "^", DASHED),
    "front_first": ("front first", VERMILLION, "s", DASHDOT),
    # distillation; controls are grey
    "teacher": ("teacher", BLACK, "*", DOTTED),
    "finetune": ("fine-tuned", GREY, "s", DASHED),
    "scratch": ("scratch", GREY, "v", DASHDOT),
    "random_init": ("random init", GREY, "D", DASHDOT),
    "kd": ("KD", ORANGE, "v", DASHDOT),
    "fitnet": ("FitNet", YELLOW, "^", "-"),
    "promptkd": ("PromptKD", PURPLE, "X", DASHED),
    "c2kd": ("C2KD-DE", GREEN, "D", DASHDOT),
    "llava_kd": ("LLaVA-KD-DE", VERMILLION, "s", DASHED),
    "clip_kd": ("CLIP-KD", SKY, "P", DOTTED),
    "cmapkd": ("CMAPKD", BLUE, "o", "-"),
    # decoding
    "greedy": ("greedy", GREY, "h", DOTTED),
    "dola": ("DoLa", ORANGE, "^", DASHDOT),
    "dola_static": ("DoLa-static", VERMILLION, "s", DASHED),
    "fusion": ("fusion", BLUE, "o", "-"),
    "fusion_plain": ("SigLIP fused, no contrast", GREEN, "D", DASHDOT),
    "dola_vision": ("DoLa in vision", SKY, "v", DASHED),
    "dola_language": ("DoLa in language", VERMILLION, "s", DASHED),
    "dola_joint": ("DoLa in both", BLUE, "o", "-"),
    "dola_joint_trie": ("DoLa in both, trie", BLUE, "*", DOTTED),
    "dola_joint_plan": ("DoLa in both, plan's numbers", PURPLE, "X", DASHED),
    "dola_raw": ("DoLa in language, raw read-out", ORANGE, "^", DASHDOT),
    "dola_published": ("DoLa in language, published choice", YELLOW, "P", "-"),
    "dola_jsd": ("DoLa in language, JS choice", BLACK, "p", DOTTED),
    "all_layers": ("greedy, all layers kept", BLACK, "X", DASHED),
    "normed": ("normed", BLUE, "o", "-"),
    "raw": ("raw", ORANGE, "^", DASHDOT),
    "read": ("layer alone", GREY, "h", DOTTED),
    "contrasted": ("last contrasted with it", BLUE, "o", "-"),
    "objects accuracy": ("said, of what is shown", BLUE, "o", "-"),
    "objects hallucinated": ("not there, of what is said", VERMILLION, "s", DASHED),
    # systems of the survey
    "resnet": ("ResNet", GREY, "h", DOTTED),
    "vit": ("ViT", BLACK, "p", DASHED),
    "moco": ("MoCo", SKY, "v", DASHDOT),
    "transformer": ("Transformer", YELLOW, "s", DASHED),
    "bert": ("BERT", YELLOW, "P", "-"),
    "clip": ("CLIP", GREY, "h", DOTTED),
    "albef": ("ALBEF", ORANGE, "^", DASHDOT),
    "blip": ("BLIP", PURPLE, "X", DASHED),
    "coca": ("CoCa", SKY, "D", DOTTED),
    "flamingo": ("Flamingo", GREEN, "D", DASHDOT),
    "blip2": ("BLIP-2", VERMILLION, "s", DASHED),
    "llava": ("LLaVA", BLUE, "o", "-"),
    # splits
    "base": ("base", BLUE, "o", "-"),
    "new": ("new", VERMILLION, "s", DASHED),
    "hm": ("HM", BLACK, "D", DASHDOT),
    "source": ("source", BLUE, "o", "-"),
    "target": ("target", VERMILLION, "s", DASHED),
    # token roles
    "cls": ("class token", BLUE, "o", "-"),
    "prompt": ("prompt tokens", VERMILLION, "s", DASHED),
    "patch": ("patches", GREY, "^", DOTTED),
    "register": ("registers", GREEN, "D", DASHDOT),
    "sos": ("start token", SKY, "v", DASHDOT),
    "word": ("words", GREY, "^", DOTTED),
    "eos": ("end token", BLUE, "o", "-"),
    # pyramid levels, fine to coarse, of image and text
    "P2": ("P2", SKY, "o", "-"),
    "P3": ("P3", GREEN, "s", DASHED),
    "P4": ("P4", ORANGE, "^", DASHDOT),
    "P5": ("P5", VERMILLION, "D", DOTTED),
    "L1": ("L1", SKY, "h", "-"),
    "L2": ("L2", GREEN, "p", DASHED),
    "L3": ("L3", ORANGE, "v", DASHDOT),
    "L4": ("L4", VERMILLION, "P", DOTTED),
    "black": ("black", BLACK, "o", "-"),
}

LIGHT = 0.5  # of a colour that a light one keeps

EMBEDDED = "emoji/"  # the ids of the embedded tasks begin so
OWN = re.compile(
    r"(?:folder|table|csv|parquet|split):(?:.*/)?([^/]+)/*"
)  # those of own images, with their name

AXES = {"layer": "block", "layer_other": "block"}  # what an axis is called in print, where it differs


def label(name: str) -> str:
    """The printed name of a method, split, role, level or task; one that has none is printed as it is."""
    own = OWN.fullmatch(name)
    return NAMES[name][0] if name in NAMES else own[1] if own else name.removeprefix(EMBEDDED)


def colour(name: str) -> str:
    """The fixed colour of a name; see `looks` for names that have none."""
    return looks([name])[name]["color"]


def light(colour: str) -> str:
    """The colour that stands beside a hex colour for its second half: the same hue, much nearer to white."""
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 - (255 - part) * LIGHT):02x}" for part in parts)


def looks(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """name -> color, marker and linestyle, as keywords of `Axes.plot`, for names drawn together.

    A name of the table looks the same in every figure. Another one takes what its letters hash to, or
    the next colour and marker that no name before it uses: the same names in the same order always look
    the same, and up to nine never share a colour. A hex colour is itself.
    """
    names = list(dict.fromkeys(names))
    colours, markers = ([NAMES[n][i] for n in names if n in NAMES] for i in (1, 2))
    out = {}
    for name in names:
        if name in NAMES:
            c, m, line = NAMES[name][1:]
        elif name.startswith("#"):
            c, m, line = name, "o", "-"
        else:
            code = crc32(name.encode())
            c, m = _free(PALETTE, code, colours), _free(MARKERS, code // len(PALETTE), markers)
            line = LINES[len(colours) % len(LINES)]
            colours.append(c)
            markers.append(m)
        out[name] = {"color": c, "marker": m, "linestyle": line}
    return out


def _free(choices: tuple[str, ...], start: int, taken: list[str]) -> str:
    """The choice used least so far, the first of those from `start` on, round and round."""
    order = [choices[(start + i) % len(choices)] for i in range(len(choices))]
    return min(order, key=taken.count)
