"""How a learner of cmapkd is put together, as tables of boxes (`plots.boxes`): read off the modules and the configuration
of a run, so that a drawing shows what was trained."""

import pandas as pd

from ...distill import schedules
from ...distill.cmapkd import CMAPKD
from ...distill.language import LEVELS as LANGUAGE
from ...distill.pyramid import LEVELS as VISION
from ...distill.student_terms import TERMS
from ...distill.taps import grid_of

COLUMNS = ("name", "column", "row", "text", "group")
APART = 0.85  # of the terms
SIDES = (("image", "vision", VISION, "pyramid"), ("text", "language", LANGUAGE, "hierarchy"))
READS = {"teacher": ("teacher",), "student": ("student",), "both": ("teacher", "student")}  # by ALSN
WEIGHTS = {  # term -> the settings whose product it has in the sum
    "intra_v": ("w_intra",),
    "intra_l": ("w_intra",),
    "align_single": ("w_align",),
    "align_pyr": ("w_align", "w_align_pyr"),
    "rel_sample": ("w_rel",),
    "rel_layer": ("w_rel", "w_rel_layer"),
    "task": ("w_task",),
}
NAMES = {
    "intra_v": "levels of images",
    "intra_l": "levels of texts",
    "align_single": "P5 with L4",
    "align_pyr": "all pairs of levels",
    "rel_sample": "relations of samples",
    "rel_layer": "relations of levels",
    "task": "CLIP's loss, deployed",
    "alsn": "objective of ALSN",
    "prefit_pairs": "pre-fit: pairs of levels",
    "prefit_decoder": "pre-fit: what maps keep",
}


def size(module) -> str:
    """'5.97 M' or '12 k' parameters."""
    count = sum(p.numel() for p in module.parameters())
    return f"{count / 1e6:.2f} M" if count >= 1e5 else f"{count / 1e3:.0f} k"


def weights(config) -> dict[str, float]:
    """Term -> its weight in the sum; balance none."""
    found = {}
    for term in TERMS:
        found[term] = 1.0
        for name in WEIGHTS[term]:
            found[term] *= getattr(config, name)
    return found


def tower_text(model, kind: str) -> str:
    tower = getattr(model, kind)
    grid = "x".join(map(str, grid_of(model))) + " patches\n" if kind == "image" else ""
    return f"{kind} tower\n{grid}{tower.depth} blocks of width {tower.width}"


def overview(learner: CMAPKD) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Figure 1: both models, their pyramids, ALSN and the terms with their weights; boxes and links."""
    rows, links = [], []
    for top, role, builder in ((0, "teacher", learner.teacher_builder), (3, "student", learner.builder)):
        model, trained = getattr(learner, role), {"teacher": "frozen", "student": "trains wholly"}[role]
        rows.append((role, 0, top + 0.5, f"{role}\n{model.name}\n{size(model)}, {trained}", role))
        for k, (kind, name, levels, what) in enumerate(SIDES):
            part = getattr(builder, name, builder)  # a basis without learnt parts is one
            text = f"{what} {levels[0]}-{levels[-1]}\n{size(part)}"
            rows.append((f"{role} {kind}", 1, top + k, tower_text(model, kind), role))
            rows.append((f"{role} {what}", 2, top + k, text, role))
            links += [(role, f"{role} {kind}"), (f"{role} {kind}", f"{role} {what}")]
    rows.append(("weights", 3, 2, weighing(learner), "cmapkd"))
    if learner.config.weights == "alsn":
        readers = READS[learner.config.alsn_inputs]
        links += [(f"{role} {what}", "weights") for role in readers for *_, what in SIDES]
    shown = {term: w for term, w in weights(learner.config).items() if w}
    for k, (term, w) in enumerate(shown.items()):
        place = 2 + APART * (k - (len(shown) - 1) / 2)
        rows.append((term, 4, place, f"{NAMES[term]}\nx {w:g}", "kd"))
    links += [("weights", term) for term in ("intra_v", "intra_l") if term in shown]
    return pd.DataFrame(rows, columns=COLUMNS), links


def weighing(learner: CMAPKD) -> str:
    """What weighs the levels."""
    c = learner.config
    if c.weights != "alsn":
        return f"{c.weights} weights"
    return f"ALSN\n{size(learner.alsn)}\nfrom P5, L4 of {' and '.join(READS[c.alsn_inputs])}"


def pyramid(learner: CMAPKD) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Figure 2a: from the blocks of the student's image tower to P2 to P5."""
    blocks, _ = learner.builder.blocks
    sizes = learner.builder.vision.sizes
    channels = learner.builder.vision.lateral[0].out_channels
    rows, links = [], []
    for k, (level, block, size) in enumerate(zip(VISION, blocks, sizes, strict=True)):
        row = len(VISION) - 1 - k  # the deepest on top
        smooth = "pooled" if level == VISION[-1] else "+ the level above,\n3x3 convolution"
        rows.append((f"block {block}", 0, row, f"behind block {block}\n1x1 convolution", "student"))
        rows.append((level, 1, row, f"{level}: {size[0]}x{size[1]}, {channels} ch.\n{smooth}", "cmapkd"))
        links.append((f"block {block}", level))
        links += [(VISION[k + 1], level)] if k + 1 < len(VISION) else []
    return pd.DataFrame(rows, columns=COLUMNS), links


def hierarchy(learner: CMAPKD) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Figure 2b: from the blocks of the student's text tower to L1 to L4."""
    _, blocks = learner.builder.blocks
    how = ("mean of words", "phrases of three", "pooled words", "the token read")
    if "language" in learner.config.literal:
        how = ("mean with padding", "across the batch", "across the batch", "token 0")
    channels = learner.builder.language.project[0].out_features
    rows, links = [], []
    for k, (level, block) in enumerate(zip(LANGUAGE, blocks, strict=True)):
        row = len(LANGUAGE) - 1 - k
        rows.append((f"block {block}", 0, row, f"behind block {block}", "student"))
        rows.append((level, 1, row, f"{level}: {channels} ch.\n{how[k]}", "cmapkd"))
        links.append((f"block {block}", level))
    return pd.DataFrame(rows, columns=COLUMNS), links


def schedule(config) -> str:
    """The stages of a configuration in a line: name, epochs of its own length, levels, what trains."""
    adaptive = config.weights == "alsn"
    parts = schedules.parts(config.schedule, config.warm_all, adaptive)
    told = []
    for part in parts:
        levels = f"{VISION[-part.levels]}-P5" if part.levels > 1 else "P5"
        who = (
            "ALSN"
            if not part.student_trains
            else "student" + " + ALSN" * (adaptive and schedules.ALSN in part.rates)
        )
        told.append(f"{part.name} {part.epochs} ({levels}, {who})")
    return ", ".join(told)
