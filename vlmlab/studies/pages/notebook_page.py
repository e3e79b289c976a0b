"""An executed notebook as a page to read: text, code and what came out, in one file that loads nothing."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

from markupsafe import Markup

from ...files import write
from .words import block

HERE = Path(__file__).parent
IMAGES = ("image/png", "image/jpeg")
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # colours of a terminal


def save(notebook: Path, path: Path, title: str, back: str) -> Path | None:
    """Write a notebook as HTML, unless that is there already; None for a file that is no notebook.

    back: where the link at the top leads. The same notebook gives the same bytes.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        text = render([cell(c) for c in cells], title, back)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if not (path.is_file() and path.read_bytes() == text.encode()):
        write(path, lambda t: t.write_text(text, encoding="utf-8", newline="\n"))
    return path


def render(cells: list[dict], title: str, back: str) -> str:
    from .gallery import environment

    css = (HERE / "notebook_page.css").read_text(encoding="utf-8")
    return (
        environment()
        .get_template("notebook_page.html")
        .render(cells=cells, title=title, back=back, css=Markup(css), css_digest=digest(css))
    )


def digest(text: str) -> str:
    """What a page's policy allows a style or a script by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def cell(raw: dict) -> dict:
    """kind, html of the source, outputs."""
    source = "".join(raw["source"])
    if raw["cell_type"] == "markdown":
        return {"kind": "text", "html": block(source), "outputs": []}
    outputs = [shown for o in raw.get("outputs", ()) if (shown := output(o))]
    return {"kind": "code", "html": coloured(source), "outputs": outputs}


def coloured(source: str) -> Markup:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return Markup(highlight(source, PythonLexer(), HtmlFormatter(nowrap=True)))


def output(raw: dict) -> dict | None:
    """What the page shows of an output: a picture, a table, or text."""
    data = raw.get("data", {})
    for kind in IMAGES:
        if kind in data:
            return {"kind": "image", "source": f"data:{kind};base64,{''.join(''.join(data[kind]).split())}"}
    if "<table" in (page := "".join(data.get("text/html", ""))):
        return {"kind": "tables", "tables": Tables(page).found}
    text = raw.get("text") or data.get("text/plain") or raw.get("traceback") or ""
    text = ESCAPES.sub("", text if isinstance(text, str) else "".join(text))
    return (
        {"kind": "warning" if raw.get("name") == "stderr" else "print", "text": text}
        if text.strip()
        else None
    )


class Tables(HTMLParser):
    """The tables of an HTML text as rows of cells (tag, text, colspan, rowspan): their words, nothing else."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[list[list[dict]]] = []
        self.open = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag == "table":
            self.found.append([])
        elif tag == "tr" and self.found:
            self.found[-1].append([])
        elif tag in ("th", "td") and self.found and self.found[-1]:
            spans = {k: int(v) for k, v in attrs if k in ("colspan", "rowspan") and (v or "").isdigit()}
            self.found[-1][-1].append({"tag": tag, "text": "", "colspan": 1, "rowspan": 1, **spans})
            self.open = True

    def handle_endtag(self, tag: str) -> None:
        self.open = self.open and tag not in ("th", "td")

    def handle_data(self, data: str) -> None:
        if self.open:
            self.found[-1][-1][-1]["text"] += data.strip(" \n\xa0")
