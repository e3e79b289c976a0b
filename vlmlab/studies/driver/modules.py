"""Which modules of vlmlab a piece of code depends on, found from the text alone.

Names are followed to where they are defined: `measures.norm_ratio` leads through the imports of
`vlmlab/measures/__init__.py` (or its table of lazy names) to `measures/norms.py`, from there on to what
that module imports, and not to its neighbours. Where the text does not tell (a package handed around as a
value, a computed module name), everything in that package counts. Nothing is imported.
"""

import ast
import copy
import functools
import hashlib
import re
from pathlib import Path

# The driver decides when something is made, not what; editing it leaves figures as they are.
DRIVER = {
    f"vlmlab.studies{name}"
    for name in (
        "",
        ".manifest",
        ".places",
        ".schema",
        ".driver",
        ".driver.modules",
        ".driver.notebook",
        ".driver.runner",
        ".driver.staleness",
        ".jobs",
        ".jobs.cluster",
        ".jobs.cluster_check",
        ".jobs.damage",
        ".jobs.pool",
        ".jobs.receipts",
        ".jobs.train",
        ".jobs.worker",
        ".pages",
        ".pages.gallery",
        ".pages.gallery_table",
    )
}


class Modules:
    """The modules below one package folder, with the dependencies between them.

    package: the folder of vlmlab. plugins: for a package that imports modules by a computed name, the only
    ones that count, e.g. {"vlmlab.methods": ["mmrlpp"]}; without an entry all its modules count.
    """

    def __init__(self, package: Path, plugins: dict[str, list[str]] | None = None):
        self.package, self.plugins = Path(package), plugins or {}
        self.tree, self.digest = functools.cache(self._tree), functools.cache(self._digest)

    def digests(self, text: str, module: str = "") -> dict[str, str]:
        """The modules that code reaches -> a digest of each: {'vlmlab/measures/norms.py': '9f86...'}.

        text: Python code, such as the code cells of a notebook; module: its dotted name, if it has one.
        """
        found, todo = set(), sorted(self.reached(ast.parse(text), module))
        while todo:
            name = todo.pop()
            if name not in found and name not in DRIVER:
                found.add(name)
                todo += sorted(self.needs(name))
        root = self.package.parent
        return {self.file(n).relative_to(root).as_posix(): self.digest(n) for n in sorted(found)}

    def file(self, name: str) -> Path | None:
        """The file of a dotted module name; None when there is no such module."""
        first, *rest = name.split(".")
        path = self.package.joinpath(*rest)
        files = (path / "__init__.py", path.with_suffix(".py")) if first == "vlmlab" else ()
        return next((p for p in files if p.is_file()), None)

    def is_package(self, name: str) -> bool:
        return (found := self.file(name)) is not None and found.name == "__init__.py"

    def _tree(self, name: str) -> ast.Module:
        """The parsed module without its docstrings."""
        tree = ast.parse(self.file(name).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                if ast.get_docstring(node, clean=False) is not None:
                    node.body = node.body[1:]
        return tree

    def _digest(self, name: str) -> str:
        """Of the code without comments, docstrings and layout, and of data files beside it that it names."""
        tree = self.tree(name)
        digest = hashlib.sha256(ast.dump(tree).encode())
        strings = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and type(n.value) is str}
        for value in sorted(v for v in strings if re.fullmatch(r"[\w-]+\.[\w.]+", v)):
            if (beside := self.file(name).with_name(value)).is_file():
                digest.update(beside.read_bytes())
        return digest.hexdigest()[:16]

    def needs(self, name: str) -> set[str]:
        """The modules that one module leads to directly."""
        tree = self.tree(name)
        wanted = self.reached(tree, name)
        if computes_imports(tree):
            package = name if self.is_package(name) else name.rpartition(".")[0]
            beside = [p.stem for p in self.file(package).parent.glob("*.py") if p.stem != "__init__"]
            names = (f"{package}.{p}" for p in self.plugins.get(package, beside))
            wanted |= {name for name in names if self.file(name)}  # whoever asks for another is told so
            for target in self.lazy_names(package).values():
                wanted |= self.resolve(target)
        return wanted - {name}

    def reached(self, tree: ast.Module, module: str) -> set[str]:
        """The modules in which the names that code uses are defined."""
        used = references(tree, module, self.is_package(module))
        return {m for dotted in used for m in self.resolve(dotted)}

    def resolve(self, dotted: str, depth: int = 0) -> set[str]:
        """The modules that define a name: 'vlmlab.measures.norm_ratio' -> {'vlmlab.measures.norms'}."""
        parts = dotted.split(".")
        if parts[0] != "vlmlab" or depth > 20:
            return set()
        known = next(i for i in range(len(parts), 0, -1) if self.file(".".join(parts[:i])))
        module, rest = ".".join(parts[:known]), parts[known:]
        # a lazy name may be called like a room: vlmlab.capture is a function and a package
        lazy = self.lookup("vlmlab", parts[1], depth) if known == 2 else set()
        if not rest:
            return lazy or {module}
        if not self.is_package(module):
            return {module}
        own = {module} if known > 1 else set()  # what vlmlab/__init__.py itself defines is its version
        return self.lookup(module, rest[0], depth) or lazy | own

    def lookup(self, package: str, name: str, depth: int) -> set[str]:
        """Where a package takes a name from: its imports, or its table of lazy names."""
        origin = imported_names(self.tree(package), package, True).get(name)
        if origin is None and (module := self.lazy_names(package).get(name)):
            origin = f"{module}.{name}"
        return set() if origin in (None, f"{package}.{name}") else self.resolve(origin, depth + 1)

    def lazy_names(self, package: str) -> dict[str, str]:
        """Name -> module from dictionaries at the top of a package, such as {'fit': 'vlmlab.train.fit'}.

        The module may also be written '.fit', or 'fit' where the package has a module of that name. A
        dictionary may also go from modules to their names, {'norms': ('token_norms', 'norm_ratio')}.
        """
        found = {}
        for node in self.tree(package).body:
            table = getattr(node, "value", None)
            for key, item in zip(table.keys, table.values) if isinstance(table, ast.Dict) else ():
                one = getattr(key, "value", None)
                others = [getattr(e, "value", None) for e in getattr(item, "elts", ())]
                pairs = [(other, one) for other in others] or [(one, getattr(item, "value", None))]
                for name, text in pairs:
                    if isinstance(name, str) and isinstance(text, str) and self.named(text, package):
                        found[name] = self.named(text, package)
        return found

    def named(self, text: str, package: str) -> str:
        """The module that a text in a package names, 'vlmlab.train.fit', '.fit' or 'fit'; "" for none."""
        whole = text if text.split(".")[0] == "vlmlab" else f"{package}.{text.removeprefix('.')}"
        return whole if self.file(whole) else ""

    def narrowed(self, plugins: dict[str, list[str]]) -> "Modules":
        """The same with other plugins; what was read is shared."""
        other = copy.copy(self)
        other.plugins = plugins
        return other


def python_of(cells: list[str]) -> str:
    """The code cells of a notebook as one Python text, without IPython's own lines (%magic, !command).

    Cells that are no Python are left out: they fail when they run, which is where that is reported.
    """
    kept = []
    for cell in cells:
        lines = [re.sub(r"^(\s*)[%!].*", r"\1pass", line) for line in cell.splitlines()]
        try:
            ast.parse(text := "\n".join(lines))
        except SyntaxError:
            continue
        kept.append(text)
    return "\n".join(kept)


def imported_names(tree: ast.Module, module: str, is_package: bool) -> dict[str, str]:
    """Local name -> dotted name of vlmlab that it stands for, from the import statements."""
    found = {}
    here = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for a in node.names:
                found[a.asname or a.name.split(".")[0]] = a.name if a.asname else a.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            for a in node.names:
                found[a.asname or a.name] = ".".join([*base, a.name])
    return {k: v for k, v in found.items() if v.split(".")[0] == "vlmlab"}


def references(tree: ast.Module, module: str, is_package: bool) -> set[str]:
    """Dotted names of vlmlab that the code uses: an import alone counts, its attributes narrow it down."""
    names = imported_names(tree, module, is_package)
    found, bases, inner = set(), set(), set()
    for node in ast.walk(tree):  # outer nodes come before the inner ones of a.b.c
        if isinstance(node, ast.Attribute):
            inner.add(id(node.value))
            if id(node) in inner:
                continue
            chain, base = [node.attr], node.value
            while isinstance(base, ast.Attribute):
                chain, base = [base.attr, *chain], base.value
            if isinstance(base, ast.Name) and base.id in names:
                found.add(".".join([names[base.id], *chain]))
                bases.add(id(base))
        elif isinstance(node, ast.Import):  # `import vlmlab.measures.norms` names the module itself
            found |= {a.name for a in node.names if a.name.startswith("vlmlab.")}
        elif isinstance(node, ast.Call) and is_import_call(node) and isinstance(node.args[0], ast.Constant):
            found.add(str(node.args[0].value))
    bare = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in bases}
    narrowed = {name.rsplit(".", 1)[0] for name in found}
    for local, dotted in names.items():
        if local in bare or not any(n == dotted or n.startswith(f"{dotted}.") for n in narrowed):
            found.add(dotted)
    return {n for n in found if n.split(".")[0] == "vlmlab"} - {"vlmlab"}


def is_import_call(node: ast.Call) -> bool:
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return called in ("import_module", "__import__") and bool(node.args)


def computes_imports(tree: ast.Module) -> bool:
    """Whether the code imports modules by a name that it computes."""
    return any(
        isinstance(n, ast.Call) and is_import_call(n) and not isinstance(n.args[0], ast.Constant)
        for n in ast.walk(tree)
    )
