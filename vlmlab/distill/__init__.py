"""Students that train wholly beside a frozen teacher, and what they are compared with. One file each."""

SHARED = (  # by several of them
    "alsn",
    "builder",
    "contrast",
    "language",
    "proxies",
    "pyramid",
    "schedules",
    "selection",
    "student",
    "student_terms",
    "taps",
    "terms",
)
