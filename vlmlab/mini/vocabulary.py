"""The part of CLIP's vocabulary that a small set of texts needs."""

import gzip
import itertools
import math
from pathlib import Path

from open_clip.tokenizer import SimpleTokenizer


def used_merges(texts: list[str]) -> list[tuple[str, str]]:
    """The BPE merges that the full CLIP vocabulary needs for `texts`, in rank order."""
    full = SimpleTokenizer()
    used, words = set(), {w for t in texts for w in full.pat.findall(full.clean_fn(t))}
    for word in words:
        parts = [full.byte_encoder[b] for b in word.encode()]
        parts[-1] += "</w>"
        while len(parts) > 1:
            rank, at = min(
                (full.bpe_ranks.get(p, math.inf), i) for i, p in enumerate(itertools.pairwise(parts))
            )
            if rank == math.inf:
                break
            used.add((parts[at], parts[at + 1]))
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return sorted(used, key=full.bpe_ranks.get)


def write_vocabulary(path: Path, texts: list[str]) -> None:
    """A merge file for open_clip's SimpleTokenizer that keeps only what `texts` need."""
    lines = ["#version: 0.2", *(" ".join(m) for m in used_merges(texts))]
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
