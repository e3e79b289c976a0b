"""The systems of the survey, small enough to train on a laptop and to look into, their paper's size in `real()`. One
file each."""

SHARED = (  # by several of them
    "aligned",
    "between",
    "capfilt",
    "decoding",
    "documents",
    "elsewhere",
    "layers",
    "masking",
    "matching",
    "momentum",
    "perceiver",
    "residual",
    "system",
    "words",
    "writing",
)
