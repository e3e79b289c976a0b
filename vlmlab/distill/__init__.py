"""Students that train wholly beside a frozen teacher, and what they are compared with. One file each."""

SHARED = (
    "alsn",
    "contrast",
    "language",
    "pyramid",
    "schedules",
    "student",
    "taps",
    "terms",
)  # what they share
