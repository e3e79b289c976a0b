"""Markdown of notebooks and study files as safe HTML: no markup of others, no requests, letters with an index."""

import re

from markdown_it import MarkdownIt
from markupsafe import Markup

MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
INDEXED = re.compile(r"(?<![\w/.-])([^\W\d_]|∇)_(\w+)")
APART = re.compile(r"(<code.*?</code>|<[^>]*>)", re.S)


def inline(text: str) -> Markup:
    """One line or paragraph, without <p>."""
    return indexed(MARKDOWN.renderInline(text))


def block(text: str) -> Markup:
    return indexed(MARKDOWN.render(text))


def indexed(text: str) -> Markup:
    """HTML in which z_p stands with a subscript, outside of tags and code."""
    parts = APART.split(text)
    return Markup("".join(p if i % 2 else INDEXED.sub(r"\1<sub>\2</sub>", p) for i, p in enumerate(parts)))
