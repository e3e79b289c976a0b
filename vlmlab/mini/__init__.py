"""Systems that train from nothing, at a size for looking inside. One file each."""

SHARED = ("recipes", "vocabulary")
