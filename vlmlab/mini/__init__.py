"""Systems that train from nothing, at a size for looking inside, and heads for towers that lack one. One file each."""

SHARED = ("recipes", "vision_start", "vocabulary", "words")
