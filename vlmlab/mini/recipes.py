"""The embedded models by name, and what their pretraining sets beside the defaults of `Clip` (clip.py)."""

RECIPES = {
    "tiny": {},
    # a teacher: wider, on another grid of patches (9 x 9), at most 25 MB
    "small": {"width": 180, "head_width": 36, "image": 72},
}
