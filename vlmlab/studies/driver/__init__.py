"""How a study is driven: what is stale, what is made again."""
