"""The gallery: `figures/index.html`, one page with all figures and tables and where they came from.

A static file that needs no server and loads nothing from outside: style and script stand in the page,
pictures and notebooks are relative links. It is made from what lies in the folders and holds no time, so
the same files give the same bytes. What a study lists and nobody made is shown as missing. Beside it come
`<study>/notebooks/<artefact>.html`, the executed notebooks to read, and `<study>/numbers.csv`, all tables in one.
"""

import contextlib
import csv
import io
import os
import re
from collections import Counter
from pathlib import Path
from urllib.parse import quote

from ...files import write
from ...git import committed
from ...names_and_colours import NAMES, label
from .. import manifest
from ..manifest import Artefact, Study
from ..places import known, notebooks_folder
from . import notebook_page
from .about import Names, about
from .gallery_table import comparison
from .notebook_page import digest
from .number_texts import minus
from .provenance import DPI, read_provenance
from .state import FILES, SUFFIXES, State
from .words import block, inline

HERE = Path(__file__).parent
INCH = 135  # CSS pixels; a figure as wide as the page, 6.9 inches, fills the column
SCALES = {  # profile -> (badge, what it means)
    "smoke": ("smoke run", "A few steps of training, to see that every cell runs; its numbers mean nothing."),
    "demo": (
        "demo scale",
        "Measured with a small model on embedded data, on a laptop. That shows how a "
        "method works, not how well it does on the data of the paper.",
    ),
    "paper": ("paper scale", "Measured with the models, data and schedules of the paper."),
}
LINKS = {"svg": "SVG", "png": "PNG", "pdf": "PDF", "html": "HTML", "csv": "data (CSV)", "tex": "LaTeX"}
RECORD = {"profile", "run_keys", "seeds", "git", "versions"}
IN_PAPER = re.compile(r"(fig|table)(\d+)(.*)")  # ids of a paper's artefacts: its order
WORDS = {"fig": "Figure", "table": "Table"}
VALUES = ("measured", "published", "planned")
TONES = {
    "holds": "good",
    "fails": "bad",
    "open": "open",
    "untestable": "none",
}  # what is said -> how it looks


def build(figures: str | Path = "figures", notebooks: str | Path = "notebooks") -> Path:
    """Write `<figures>/index.html` for all studies in `notebooks`; returns its path.

    Raises FileNotFoundError where there is no study, ValueError where a study.toml is not valid.
    """
    figures, notebooks = Path(figures), notebooks_folder(notebooks)
    if not (names := manifest.names(notebooks)):
        raise FileNotFoundError(f"no study in {notebooks}; run this in the folder that holds notebooks/")
    found = [section(manifest.load(name, notebooks), figures) for name in names]
    for study in found:
        save_numbers(study, figures / study["id"] / "numbers.csv")
    path, text = figures / "index.html", render(found)
    write(path, lambda t: t.write_text(text, encoding="utf-8", newline="\n"))
    return path


def render(studies: list[dict]) -> str:
    """The page as text. The template escapes every value; style and script are allowed by their digests."""
    from markupsafe import Markup

    methods = {m for s in studies for e in s["entries"] for m in e["methods"]} & NAMES.keys()
    content = {
        "studies": studies,
        "methods": sorted(methods, key=lambda m: (label(m).lower(), m)),
        "scales": SCALES,
        "tones": TONES,
        "kinds": VALUES,
    }
    for kind in ("css", "js"):
        text = (HERE / f"gallery.{kind}").read_text(encoding="utf-8")
        content |= {kind: Markup(text), f"{kind}_digest": digest(text)}
    return environment().get_template("gallery.html").render(**content)


def environment():
    """The templates of this folder; they escape every value."""
    import jinja2

    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    env.filters |= {"inline": inline, "block": block, "label": label}
    return env


def section(study: Study, figures: Path) -> dict:
    """One study: what it is, what was run, its artefacts in the paper's order, its claims with their verdicts."""
    state, said = State(figures / study.id), about(study)
    found = known(file := state.folder / "claims.json")
    names = Names(study.id)
    artefacts = sorted(study.artefacts.values(), key=lambda a: in_order(a.id))
    entries = [entry(study, artefact, state, names, said.reference) for artefact in artefacts]
    try:
        claims = [claim(c, study) for c in found.get("claims", [])]
    except (KeyError, TypeError, ValueError) as error:
        again = f"move it away and `vlmlab claims {study.id}` writes it anew"
        raise ValueError(f"{file} is damaged ({type(error).__name__}: {error}); {again}") from error
    return {
        "id": study.id,
        "title": study.title,
        "short": study.title.partition(":")[0].strip() or study.id,
        "about": said,
        "ran": ran(entries),
        "names": names,
        "profile": found.get("profile", ""),
        "entries": entries,
        "extras": next((e["id"] for e in entries if not IN_PAPER.fullmatch(e["name"])), ""),
        "claims": sorted(claims, key=lambda c: list(TONES).index(c["said"])),
        "verdicts": counted(claims),
        "tested": {k: found.get(k) for k in ("tested", "expected_false")},
        "survive": sum(c["survives"] is True and c["tone"] in ("good", "bad") for c in claims),
        "numbers": f"{quote(study.id)}/numbers.csv" if any(e["rows"] for e in entries) else "",
    }


def counted(claims: list[dict]) -> dict[str, Counter]:
    """Kind -> how often what was said, as (words, tone), best first: measured and printed ones are counted apart."""
    tones, kinds = list(TONES.values()), dict.fromkeys(c["kind"] for c in claims)
    ordered = sorted(claims, key=lambda c: tones.index(c["tone"]))
    return {k: Counter((c["verdict"], c["tone"]) for c in ordered if c["kind"] == k) for k in kinds}


def in_order(id: str) -> tuple:
    """Figures and tables by their numbers, then what a paper does not have, as study.toml lists it."""
    match = IN_PAPER.fullmatch(id)
    return (match[1], int(match[2]), match[3]) if match else ("with no number",)


def printed(id: str) -> str:
    """'fig3a' as a paper says it: 'Figure 3a'. What has no number there has only its title: ''."""
    match = IN_PAPER.fullmatch(id)
    return f"{WORDS[match[1]]} {match[2]}{match[3]}" if match else ""


def ran(entries: list[dict]) -> dict:
    """What the shown artefacts were made from: profiles, seeds, methods, tasks, runs, commits with their days."""
    records = [e["record"] for e in entries if e["record"]]
    named = [label.split() for e in entries for label in e["runs"].values() if label]
    commits = dict.fromkeys(r["git"].get("commit") or "" for r in records)
    return {
        "profiles": sorted({r["profile"] for r in records}),
        "seeds": sorted({s for r in records for s in r["seeds"]}),
        "methods": sorted({parts[0] for parts in named} & NAMES.keys(), key=lambda m: label(m).lower()),
        "tasks": sorted({parts[1] for parts in named if len(parts) > 1}),
        "runs": len({key for e in entries for key in e["runs"]}),
        "commits": [(commit[:10], committed(commit)) for commit in commits if commit],
        "dirty": any(r["git"].get("dirty") for r in records),
    }


def save_numbers(study: dict, path: Path) -> None:
    """All rows of the study's tables below each other, under the columns that any of them has."""
    rows = [{"artefact": e["name"], **row} for e in study["entries"] for row in e["rows"]]
    if not rows:
        return
    file = io.StringIO()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    text = file.getvalue()
    if not path.is_file() or path.read_bytes() != text.encode():
        write(path, lambda t: t.write_text(text, encoding="utf-8", newline="\n"))


def entry(study: Study, artefact: Artefact, state: State, names: Names, reference: tuple[str, ...]) -> dict:
    """All that the page says about one artefact."""
    files = {s: p for s in SUFFIXES if (p := state.folder / f"{artefact.id}.{s}").is_file()}
    rows = read_csv(files["csv"]) if "csv" in files else []
    record = provenance([path for suffix, path in files.items() if suffix != "csv"])
    runs = run_labels(record, state.made.get(artefact.id))
    picture = files.get("svg", files.get("png"))
    executed = state.executed(artefact)
    cells = known(executed).get("cells", [])
    page = executed.is_file() and notebook_page.save(
        executed, executed.with_suffix(".html"), artefact.id, f"../../index.html#{study.id}/{artefact.id}"
    )
    notebooks = {
        **({"executed notebook": page} if page else {}),
        "executed notebook (.ipynb)": executed,
        "last failure": state.failed(artefact),
        "source notebook": artefact.notebook,
    }
    named = [
        *((LINKS[s], p) for s, p in files.items()),
        *((text, p) for text, p in notebooks.items() if p.is_file()),
    ]
    root, table = state.folder.parent, artefact.kind == "table"
    same = bool(record) and record["profile"] == "paper"
    return {
        "id": f"{study.id}/{artefact.id}",
        "name": artefact.id,
        "printed": printed(artefact.id),
        "kind": artefact.kind,
        "title": artefact.title or artefact.id,
        "missing": not (picture or rows),
        "lacks": [f"{artefact.id}.{s}" for s in FILES[artefact.kind] if s not in files],
        "methods": methods_of(rows, runs),
        "record": record,
        "runs": runs,
        "image": picture and href(picture, root),
        "size": size(files.get("png")),
        "alt": f"{artefact.title or artefact.id}. {' '.join(reading(cells))}".strip(),
        "rows": rows if table else [],
        "tables": comparison(rows, reference, same) if table else [],
        "caption": caption(cells),
        "reading": reading(cells),
        "links": [(text, href(path, root)) for text, path in named],
    }


def href(path: Path, root: Path) -> str:
    """A relative link from the page's folder."""
    return quote(Path(os.path.relpath(path, root)).as_posix())


def read_csv(path: Path) -> list[dict[str, str]]:
    """Column -> text per row; of a damaged file, what can be read."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        return [{c: text or "" for c, text in row.items() if c} for row in csv.DictReader(file)]


def provenance(paths: list[Path]) -> dict | None:
    """The record in the first file that has a whole one."""
    for path in paths:
        with contextlib.suppress(ValueError):
            if (found := read_provenance(path)).keys() >= RECORD:
                return found
    return None


def run_labels(record: dict | None, made: object) -> dict[str, str]:
    """Run key -> 'mmrlpp emoji/animals 16-shot seed 1', or "" where .state.json does not name the run."""
    parts = made.get("parts", {}) if isinstance(made, dict) else {}
    named = {
        value.split()[0]: name[len("run ") :].rpartition(" (")[0]
        for name, value in parts.items()
        if name.startswith("run ") and value
    }
    return {key: named.get(key, "") for key in (record or {}).get("run_keys", [])}


def methods_of(rows: list[dict], runs: dict[str, str]) -> list[str]:
    """The methods that an artefact shows: those its data name, else those of its runs."""
    named = [row["method"] for row in rows if row.get("method")]
    return list(dict.fromkeys(named or sorted(label.split()[0] for label in runs.values() if label)))


def size(png: Path | None) -> tuple[int, int] | None:
    """Width and height to show a picture at, so that text in all figures has one size."""
    data = png.read_bytes() if png else b""
    if not data.startswith(b"\x89PNG") or len(data) < 24:
        return None
    return tuple(round(int.from_bytes(data[i : i + 4]) * INCH / DPI) for i in (16, 20))


def caption(cells: list[dict]) -> str:
    """The text of a notebook's first cell, without its heading."""
    first = next((source(c) for c in cells if c.get("cell_type") == "markdown"), "")
    return re.sub(r"^#.*\n*", "", first).strip()


def reading(cells: list[dict]) -> list[str]:
    """The lines that an executed notebook printed below its last text cell, which says how to read them."""
    texts = [i for i, c in enumerate(cells) if c.get("cell_type") == "markdown"]
    outputs = (o for c in cells[texts[-1] + 1 :] for o in c.get("outputs", [])) if texts[1:] else ()
    printed = "".join("".join(o.get("text", "")) for o in outputs if o.get("name") == "stdout")
    return [line.strip() for line in printed.splitlines() if line.strip()]


def source(cell: dict) -> str:
    return "".join(cell.get("source", ""))


def claim(raw: dict, study: Study) -> dict:
    """A judged claim with its numbers as text; evidence that is an artefact becomes a link."""
    numbers = {title: short(raw[name]) for name, title in SHOWN.items() if raw[name] is not None}
    if "effect" in numbers and raw["unit"]:
        numbers["effect"] += f" {raw['unit']}"
    links = [
        (printed(name) or study.artefacts[name].title or name, f"{study.id}/{name}")
        if name in study.artefacts
        else (name, "")
        for name in raw["evidence"]
    ]
    return {**raw, "numbers": numbers, "evidence": links, "tone": TONES[raw["said"]]}


SHOWN = {  # of a claim's numbers
    "effect": "effect",
    "interval": "95 % interval",
    "detectable": "could be seen from",
    "seeds": "seeds",
    "concepts": "test concepts",
    "p": "p",
}


def short(value: object) -> str:
    """A number with three digits and a real minus sign; two of them are an interval."""
    if isinstance(value, list):
        return " to ".join(map(short, value))
    return minus(f"{value:.3g}") if isinstance(value, float) else str(value)
