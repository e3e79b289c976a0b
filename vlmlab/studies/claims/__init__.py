"""A paper's sentences, judged on measured numbers."""
