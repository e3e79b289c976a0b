"""Rebuild data/emoji/*.parquet from npm packages: `python data/emoji/build.py`.

Needs npm (art and names come from the npm registry at pinned versions) and resvg-py.
Every icon is rendered at 192 px, cropped to its alpha box, fitted into 64 x 64 with a
3 % margin (small glyphs grow at most twofold) and stored as RGBA WebP. The result is
the same on every run of the same library versions.
"""

import argparse
import hashlib
import io
import json
import re
import subprocess
import tempfile
import unicodedata
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
import resvg_py
from PIL import Image
from tqdm import tqdm

HERE = Path(__file__).parent
SIZE, RENDER, MARGIN = 64, 192, 0.03

# style -> (npm package, version, how icons are matched to code points)
STYLES = {
    "twemoji": ("@iconify-json/twemoji", "1.2.5", "chars"),
    "noto-v1": ("@iconify-json/noto-v1", "1.2.5", "slug"),
    "emojione-v2": ("@iconify-json/emojione", "1.2.3", "slug"),
    "fxemoji": ("@iconify-json/fxemoji", "1.2.2", "slug"),
    "emojione-mono": ("@iconify-json/emojione-monotone", "1.2.1", "slug"),
    "noto": ("@iconify-json/noto", "1.2.9", "chars"),
    "fluent-flat": ("@iconify-json/fluent-emoji-flat", "1.2.6", "chars"),
    "fluent-3d": ("@lobehub/fluent-emoji-3d", "1.1.0", "webp"),
    "fluent-hc": ("@iconify-json/fluent-emoji-high-contrast", "1.2.6", "chars"),
}
NAMES = {"emojibase-data": "17.0.0", "emojilib": "4.0.3", "emoji-datasource": "16.0.0"}


def install(folder: Path) -> Path:
    """Fetch the pinned packages into `folder`; returns its node_modules."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text("{}", encoding="utf-8")
    wanted = [f"{p}@{v}" for p, v, _ in STYLES.values()] + [f"{p}@{v}" for p, v in NAMES.items()]
    subprocess.run(["npm", "install", "--ignore-scripts", "--silent", *wanted], cwd=folder, check=True)
    return folder / "node_modules"


def bare(hexcode: str) -> str:
    """Code points without the variation selector, lower case: '2764-FE0F' -> '2764'."""
    return "-".join(p for p in hexcode.lower().split("-") if p != "fe0f")


def load_concepts(modules: Path) -> pd.DataFrame:
    """One row per emoji: no components, no skin tones, no gender variants."""
    data = json.loads((modules / "emojibase-data/en/data.json").read_text(encoding="utf-8"))
    meta = json.loads((modules / "emojibase-data/meta/groups.json").read_text(encoding="utf-8"))
    extra = json.loads((modules / "emojilib/dist/emoji-en-US.json").read_text(encoding="utf-8"))
    extra = {k.replace("\ufe0f", ""): v for k, v in extra.items()}
    rows = []
    for e in data:
        if "group" not in e or e["group"] == 2 or re.search("200D-26(40|42)", e["hexcode"]):
            continue
        name = e["label"].replace("\u2019", "'").lower()
        tags = [t.lower() for t in e.get("tags", []) if t.lower() != name]
        known = set(tags) | {name}
        words = [w.replace("_", " ").lower() for w in extra.get(e["emoji"].replace("\ufe0f", ""), [])]
        rows.append(
            {
                "hexcode": bare(e["hexcode"]),
                "emoji": e["emoji"],
                "name": name,
                "tags": tags,
                "keywords": [w for w in dict.fromkeys(words) if w not in known and re.search("[a-z]", w)],
                "group": meta["groups"][str(e["group"])],
                "subgroup": meta["subgroups"][str(e["subgroup"])],
                "order": e["order"],
            }
        )
    frame = pd.DataFrame(rows).sort_values("order", ignore_index=True)
    frame["novel"] = novel(frame)
    return frame.drop(columns="order")


def novel(frame: pd.DataFrame) -> pd.Series:
    """A tenth of the concepts by md5, from subgroups of six or more, no flags: never pretrained on."""
    size = frame.groupby("subgroup")["hexcode"].transform("size")
    digest = frame["hexcode"].map(lambda h: int(hashlib.md5(h.encode()).hexdigest(), 16) % 10)
    return (digest == 0) & (size >= 6) & (frame["group"] != "flags")


def slug(text: str) -> str:
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z0-9]+", "-", text.replace("&", "and").replace("'", "")).strip("-")


def match(style: str, modules: Path, concepts: pd.DataFrame) -> dict[str, str]:
    """hexcode -> icon key (a file name for the 3-D renders)."""
    package, _, how = STYLES[style]
    root = modules / package
    if how == "webp":
        files = {bare(p.stem): str(p) for p in (root / "assets").glob("*.webp")}
        return {h: files[h] for h in concepts.hexcode if h in files}
    icons = json.loads((root / "icons.json").read_text(encoding="utf-8"))
    if how == "chars":
        chars = {bare(k): v for k, v in json.loads((root / "chars.json").read_text(encoding="utf-8")).items()}
        known = set(icons["icons"]) | set(icons.get("aliases", {}))
        return {h: chars[h] for h in concepts.hexcode if chars.get(h) in known}
    return match_by_slug(icons, concepts, modules)


def match_by_slug(icons: dict, concepts: pd.DataFrame, modules: Path) -> dict[str, str]:
    """Match by CLDR name first, then Unicode name, then short names; no icon serves two concepts."""
    short = {}
    for e in json.loads((modules / "emoji-datasource/emoji.json").read_text(encoding="utf-8")):
        short[bare(e["unified"])] = [slug(s) for s in e["short_names"]]
    plain = {k.replace("-", ""): k for k in [*icons.get("aliases", {}), *icons["icons"]]}
    parent = {k: v["parent"] for k, v in icons.get("aliases", {}).items()}
    found, used = {}, set()
    for level in range(3):
        for c in concepts.itertuples():
            if c.hexcode in found:
                continue
            unicode_name = slug(unicodedata.name(chr(int(c.hexcode, 16)), "")) if "-" not in c.hexcode else ""
            names = ([slug(c.name)], [unicode_name], short.get(c.hexcode, []))[level]
            for key in (plain.get(n.replace("-", "")) for n in names if n):
                if key and parent.get(key, key) not in used:
                    found[c.hexcode] = key
                    used.add(parent.get(key, key))
                    break
    return found


def svg_of(icons: dict, key: str) -> str:
    """The complete SVG of one iconify icon, aliases resolved."""
    alias = icons.get("aliases", {}).get(key)
    icon = icons["icons"][alias["parent"]] if alias else icons["icons"][key]
    w, h = icon.get("width", icons.get("width", 16)), icon.get("height", icons.get("height", 16))
    box = f"{icon.get('left', 0)} {icon.get('top', 0)} {w} {h}"
    body = icon["body"].replace("currentColor", "#000")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}" width="{w}" height="{h}">{body}</svg>'
    )


def fit(image: Image.Image) -> Image.Image:
    """Crop to the alpha box and centre in SIZE x SIZE with a margin; no glyph grows more than twofold."""
    box = image.getchannel("A").point(lambda a: 255 if a > 8 else 0).getbbox()
    if box is None:
        raise ValueError("the icon is empty")
    image = image.crop(box)
    room = SIZE * (1 - 2 * MARGIN)
    scale = min(room / max(image.size), 2 * SIZE / RENDER)
    size = [max(1, round(s * scale)) for s in image.size]
    canvas = Image.new("RGBA", (SIZE, SIZE))
    canvas.paste(image.resize(size, Image.LANCZOS), [(SIZE - s) // 2 for s in size])
    return canvas


def encode(job: tuple[str, str, str]) -> tuple[str, str, bytes | None]:
    """(style, hexcode, svg text or file) -> WebP bytes, or None for an icon that draws nothing."""
    style, hexcode, source = job
    if source.startswith("<svg"):
        source = io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=source, width=RENDER, height=RENDER)))
    try:
        image = fit(Image.open(source).convert("RGBA").resize((RENDER, RENDER), Image.LANCZOS))
    except ValueError:
        return style, hexcode, None
    out = io.BytesIO()
    image.save(out, "WEBP", quality=90, method=6, exact=False)
    return style, hexcode, out.getvalue()


def jobs_of(modules: Path, concepts: pd.DataFrame) -> list[tuple[str, str, str]]:
    jobs = []
    fluent = set(match("fluent-flat", modules, concepts))
    for style, (package, _, how) in STYLES.items():
        icons = (
            json.loads((modules / package / "icons.json").read_text(encoding="utf-8"))
            if how != "webp"
            else {}
        )
        for hexcode, key in match(style, modules, concepts).items():
            # the 3-D package adds country flags that are not Microsoft's art
            if style == "fluent-3d" and hexcode not in fluent:
                continue
            jobs.append((style, hexcode, key if how == "webp" else svg_of(icons, key)))
    return jobs


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--modules", type=Path, help="an existing node_modules folder (default: npm install)")
    ap.add_argument("--out", type=Path, default=HERE)
    args = ap.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        modules = args.modules or install(Path(tmp))
        concepts = load_concepts(modules)
        jobs = jobs_of(modules, concepts)
        with ProcessPoolExecutor() as pool:
            made = pool.map(encode, jobs, chunksize=64)
            rows = list(tqdm(made, total=len(jobs), desc="render", unit="icon"))
    empty = [r[:2] for r in rows if r[2] is None]
    frame = pd.DataFrame([r for r in rows if r[2] is not None], columns=["style", "hexcode", "image"])
    frame["style"] = pd.Categorical(frame["style"], categories=list(STYLES))
    for name, table in [("images", frame), ("concepts", concepts)]:
        path = args.out / f"{name}.parquet"
        table.to_parquet(path.with_suffix(".tmp"), index=False, compression="zstd")
        path.with_suffix(".tmp").replace(path)
    print(frame["style"].value_counts(sort=False).to_string())
    print(f"{len(frame)} images, {len(concepts)} concepts, {len(empty)} icons drew nothing: {empty}")


if __name__ == "__main__":
    main()
