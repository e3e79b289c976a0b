"""Images of one's own: a folder per class, a table of paths, or a split file as CoOp writes them."""
