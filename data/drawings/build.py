"""Rebuild data/drawings/*.parquet from npm and Debian packages: `python data/drawings/build.py`.

Two kinds of pictures, rasterised as data/emoji's are (`data/emoji/build.py`), none of them redrawn:

- icons of three more projects (npm), for pretraining. An icon named as an emoji is a further style of that
  concept; the others are things of their own, named by the icon. What names a novel concept, a word of the
  strict retrieval test or nothing but a number is left out.
- public-domain drawings of Open Clip Art Library (the Debian packages openclipart-png and -svg), for the
  downstream tasks, in the classes of `folders.csv`. Drawings of one name, or alike to a distance, are one
  concept, so that no twin crosses a split.

Needs npm, or the packages at hand (--modules, --clipart), and resvg-py.
"""

import argparse
import csv
import hashlib
import html
import importlib.util
import io
import json
import re
import subprocess
import tempfile
import unicodedata
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("emoji_build", HERE.parent / "emoji/build.py")
emoji = importlib.util.module_from_spec(spec)
spec.loader.exec_module(emoji)

STYLES = {  # style -> (npm package, version, keep what is no emoji)
    "streamline": ("@iconify-json/streamline-emojis", "1.2.4", True),
    "icon-park": ("@iconify-json/icon-park", "1.2.4", False),
    "game-icons": ("@iconify-json/game-icons", "1.2.4", True),
}
CLIPART = "openclipart"
ALIKE = 0.05  # mean absolute RGB difference on white at 32 pixels, of 1: the same drawing


def install(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text("{}", encoding="utf-8")
    wanted = [f"{p}@{v}" for p, v, _ in STYLES.values()] + [f"{p}@{v}" for p, v in emoji.NAMES.items()]
    subprocess.run(["npm", "install", "--ignore-scripts", "--silent", *wanted], cwd=folder, check=True)
    return folder / "node_modules"


def unpacked(folder: Path) -> Path:
    """The Debian packages' files, without installing them."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", "openclipart-png", "openclipart-svg"], cwd=folder, check=True)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    return folder / "usr/share/openclipart"


# ------------------------------------------------------------------------------------------ icons


def icons(modules: Path, concepts: pd.DataFrame) -> tuple[list[tuple[str, str, str]], pd.DataFrame]:
    """Jobs (style, key, svg) and the concepts that are no emoji (key, name)."""
    forbidden = Forbidden(concepts)
    jobs, things = [], {}
    for style, (package, _, rest) in STYLES.items():
        table = json.loads((modules / package / "icons.json").read_text(encoding="utf-8"))
        table["icons"] = {k: v for k, v in table["icons"].items() if not v.get("hidden")}
        matched = emoji.match_by_slug(table, concepts, modules)
        novel = set(concepts.hexcode[concepts.novel])
        jobs += [(style, h, emoji.svg_of(table, k)) for h, k in matched.items() if h not in novel]
        taken = {emoji.slug(k) for k in matched.values()}
        for key in table["icons"] if rest else ():
            if key in taken or (name := thing(key)) is None or name in forbidden:
                continue
            slot = f"thing-{emoji.slug(name)}"
            if (style, slot) in {(s, k) for s, k, _ in jobs[-3000:]}:
                continue  # the first of several drawings of one name
            things[slot] = name
            jobs.append((style, slot, emoji.svg_of(table, key)))
    return jobs, pd.DataFrame(sorted(things.items()), columns=["hexcode", "name"])


def thing(key: str) -> str | None:
    """The words of an icon's name, or None where they say nothing: 'thrown-spear' -> 'thrown spear'."""
    words = [w for w in key.split("-") if not w.isdigit()]
    return " ".join(words) if words and all(re.fullmatch("[a-z]{2,}|a", w) for w in words) else None


class Forbidden:
    """Names that pretraining must not read: with a novel concept's name in them, or a keyword of the strict test."""

    def __init__(self, concepts: pd.DataFrame):
        self.novel = [f" {plain(n)} " for n in concepts.name[concepts.novel]]
        self.exact = {plain(k) for words in concepts.keywords for k in words}
        self.exact |= {plain(n) for n in concepts.name}

    def __contains__(self, name: str) -> bool:
        return plain(name) in self.exact or any(n in f" {plain(name)} " for n in self.novel)


def plain(text: str) -> str:
    return emoji.slug(text).replace("-", " ")


# ---------------------------------------------------------------------------------------- clip art


def clipart(root: Path) -> pd.DataFrame:
    """One row a drawing that `folders.csv` gives a class: path, title, keywords, subgroup."""
    rules = list(csv.DictReader((HERE / "folders.csv").open(encoding="utf-8")))
    rows = []
    for path in sorted((root / "png").rglob("*.png")):
        where = path.relative_to(root / "png").with_suffix("").as_posix()
        about = metadata((root / "svg" / where).with_suffix(".svg"))
        text = plain(" ".join([where.split("/")[-1].replace("_", " "), about["title"], *about["keywords"]]))
        subgroup = next((r["subgroup"] for r in rules if applies(r, where, text)), "")
        if about["free"] and subgroup not in ("", "-"):
            rows.append({"path": path, "where": where, "subgroup": subgroup, **about})
    return pd.DataFrame(rows)


def applies(rule: dict, where: str, text: str) -> bool:
    """Whether a rule (folder, any of these words, none of those) speaks of a drawing."""
    words = set(text.split()) | {w.removesuffix("s") for w in text.split()}
    return (
        (where + "/").startswith(rule["folder"] + "/")
        and (not rule["any"] or bool(words & set(rule["any"].split())))
        and not words & set(rule["none"].split())
    )


def metadata(svg: Path) -> dict:
    """Title, keywords and whether the drawing says that it is in the public domain."""
    text = svg.read_text(encoding="utf-8", errors="replace") if svg.exists() else ""
    block = (re.findall("<metadata.*?</metadata>", text, re.S) or [""])[0]
    title = (re.findall("<dc:title[^>]*>(.*?)</dc:title>", block, re.S) or [""])[0]
    words = [html.unescape(w).strip().lower() for w in re.findall("<rdf:li[^>]*>(.*?)</rdf:li>", block, re.S)]
    licence = re.findall('cc:license[^>]*resource="([^"]+)"', block)
    free = bool(licence) and licence[0].lower().rstrip("/").endswith("publicdomain")
    return {
        "title": " ".join(html.unescape(title).split()),
        "keywords": [w for w in words if w],
        "free": free,
    }


def stem(where: str) -> str:
    """The drawing's name without numbers, author and colour: what is drawn several times is one concept."""
    name = unicodedata.normalize("NFKD", where.split("/")[-1]).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"_(francesco_rollandi?n?o?|architetto.*|[a-z]+_[a-z]+_\d\d|\d\d\.?)$", "", name)
    name = re.sub(
        r"(_|\b)(b_and_w|bw|b_w|black_and_white|color|colour|architetto|francesco\w*|rolla\w*)(?=_|$|\b)",
        "",
        name,
    )
    return re.sub("[^a-z]+", "-", name).strip("-") or name


def concepts_of(drawings: pd.DataFrame, pictures: dict[str, bytes]) -> pd.Series:
    """Concept of each drawing: same stem, or pictures alike, in one class; the first one's name is its key."""
    group = {}
    small = {w: looked(pictures[w]) for w in drawings["where"]}
    for _, rows in drawings.groupby("subgroup", sort=True):
        members = list(rows["where"])
        stack = np.stack([small[w] for w in members])
        parent = list(range(len(members)))

        def root(i, parent=parent):
            while parent[i] != i:
                i = parent[i]
            return i

        stems = [stem(w) for w in members]
        for i in range(len(members)):
            near = np.abs(stack[:i] - stack[i]).mean((1, 2, 3)) < ALIKE if i else np.zeros(0, bool)
            for j in range(i):
                if near[j] or (stems[i] == stems[j]):
                    parent[root(i)] = root(j)
        for i, where in enumerate(members):
            group[where] = f"clipart-{hashlib.md5(members[root(i)].encode()).hexdigest()[:8]}"
    return drawings["where"].map(group)


def looked(webp: bytes) -> np.ndarray:
    """(32, 32, 3) on white, in [0, 1]."""
    image = Image.open(io.BytesIO(webp)).convert("RGBA")
    white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(white.convert("RGB").resize((32, 32), Image.BOX), np.float32) / 255


def draw(job: tuple[str, str, str]) -> tuple[str, str, bytes | None]:
    """As the emoji are drawn; a clip-art PNG is a file."""
    style, key, source = job
    if source.startswith("<svg"):
        return emoji.encode(job)
    try:
        with Image.open(source) as file:
            image = file.convert("RGBA")
        image.thumbnail((emoji.RENDER, emoji.RENDER), Image.LANCZOS)
        canvas = Image.new("RGBA", (emoji.RENDER, emoji.RENDER))
        canvas.paste(image, [(emoji.RENDER - s) // 2 for s in image.size])
        image = emoji.fit(canvas)
    except (ValueError, OSError, Image.DecompressionBombError):
        return style, key, None
    out = io.BytesIO()
    image.save(out, "WEBP", quality=90, method=6, exact=False)
    return style, key, out.getvalue()


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--modules", type=Path, help="an existing node_modules folder (default: npm install)")
    ap.add_argument(
        "--clipart", type=Path, help="an existing usr/share/openclipart (default: apt-get download)"
    )
    ap.add_argument("--out", type=Path, default=HERE)
    args = ap.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        modules = args.modules or install(Path(tmp) / "npm")
        root = args.clipart or unpacked(Path(tmp) / "deb")
        known = pd.read_parquet(HERE.parent / "emoji/concepts.parquet")
        jobs, things = icons(modules, known)
        drawings = clipart(root)
        jobs += [(CLIPART, r.where, str(r.path)) for r in drawings.itertuples()]
        with ProcessPoolExecutor() as pool:
            made = list(
                tqdm(pool.map(draw, jobs, chunksize=64), total=len(jobs), desc="draw", unit="picture")
            )
    empty = [r[:2] for r in made if r[2] is None]
    pictures = {k: w for s, k, w in made if s == CLIPART and w}
    drawings = drawings[drawings["where"].isin(pictures)].reset_index(drop=True)
    drawings["key"] = concepts_of(drawings, pictures)
    drawings["drawing"] = drawings.groupby("key").cumcount()
    rows = [r for r in made if r[2] is not None and r[0] != CLIPART]
    rows += [(CLIPART, f"{r.key}-{r.drawing}", pictures[r.where]) for r in drawings.itertuples()]
    images = pd.DataFrame(rows, columns=["style", "hexcode", "image"])
    images["style"] = pd.Categorical(images["style"], categories=[*STYLES, CLIPART])
    first = drawings.drop_duplicates("key")
    table = pd.concat(
        [
            things.assign(subgroup=""),
            first[["key", "subgroup", "title"]].rename(columns={"key": "hexcode", "title": "name"}),
        ],
        ignore_index=True,
    )
    for name, frame in [("images", images), ("concepts", table)]:
        path = args.out / f"{name}.parquet"
        frame.to_parquet(path.with_suffix(".tmp"), index=False, compression="zstd")
        path.with_suffix(".tmp").replace(path)
    print(images["style"].value_counts(sort=False).to_string())
    print(first["subgroup"].value_counts().to_string())
    print(f"{len(images)} pictures, {len(table)} concepts, {len(empty)} drew nothing: {empty[:20]}")


if __name__ == "__main__":
    main()
