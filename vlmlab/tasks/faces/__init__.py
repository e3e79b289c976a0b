"""Generated faces: drawn from what they feel, hence with exact label distributions and region masks."""
