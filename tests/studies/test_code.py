"""A record of code changes with what the code says and does, and with nothing else."""

import json
import sys

import pytest

from vlmlab import source_code
from vlmlab.paths import PACKAGE
from vlmlab.studies import code


def test_the_driver_is_no_part_of_a_record():
    """Of studies only the wing that notebooks write with counts."""
    counted = {p.relative_to(PACKAGE.parent).as_posix() for p in (PACKAGE / "studies").rglob("*.py")}
    counted = {name.split("/")[2] for name in counted if not code.is_driver(name)}
    assert counted == {"pages"}
    assert (
        code.Sources(PACKAGE.parent).record([str(PACKAGE / "studies/driver/runner.py"), json.__file__]) == {}
    )


@pytest.mark.parametrize(
    ("table", "new", "same"),
    [
        ("_HOME = {'a': '.a'}", "_HOME = {'a': '.a', 'b': '.b'}", True),  # nobody loaded b
        ("_HOME = {'a': '.a'}", "_HOME = {'a': '.a', 'c': '.c'}", False),  # there is no c
        ("_HOME = {'x': '.a'}", "_HOME = {'x': '.b'}", False),
        ("_ROOMS = ('a',)", "_ROOMS = ('a', 'b')", True),
        ("_MODULES = {'a': ('x', 'y')}", "_MODULES = {'a': ('x', 'y'), 'b': ('z',)}", True),
        ("_MODULES = {'a': ('x', 'y')}", "_MODULES = {'a': ('x', 'z')}", False),
        ("__all__ = ['x']", "__all__ = ['x', 'y']", True),
        ("limit = 1", "limit = 2", False),
    ],
)
def test_tables_of_a_package_count_as_far_as_they_are_used(tmp_path, table, new, same):
    for name in ("a", "b"):
        (tmp_path / f"lab/{name}.py").parent.mkdir(exist_ok=True)
        (tmp_path / f"lab/{name}.py").write_text("")
    package, sources = tmp_path / "lab/__init__.py", code.Sources(tmp_path)
    package.write_text(table)
    record = sources.record([str(package), str(tmp_path / "lab/a.py")])
    package.write_text(new + "\n")
    assert (sources.changed(record) == []) is same


def test_a_table_beside_a_module_belongs_to_it_and_a_lost_module_is_a_change(tmp_path):
    (tmp_path / "one.py").write_text("TABLE = 'presets.csv'\n")
    (tmp_path / "presets.csv").write_text("a\n1\n")
    sources = code.Sources(tmp_path)
    record = sources.record([str(tmp_path / "one.py")])
    (tmp_path / "one.py").write_text('"""Doc."""\nTABLE = "presets.csv"  # why\n')
    assert sources.changed(record) == []
    (tmp_path / "presets.csv").write_text("a\n2\n")
    assert sources.changed(record) == ["one.py"]
    (tmp_path / "one.py").unlink()
    assert sources.changed(record) == ["one.py"]


def test_what_is_forgotten_is_loaded_again_and_what_is_installed_stays(tmp_path, monkeypatch):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack/__init__.py").write_text("")
    (tmp_path / "pack/part.py").write_text("import json\n")
    monkeypatch.syspath_prepend(tmp_path)
    import pack.part

    before = pack.part
    others = {name for name in sys.modules if name.split(".")[0] != "pack"}
    code.Sources(tmp_path).forget(others | {"pack"})
    assert "pack.part" not in sys.modules and sys.modules["json"] is json
    from pack import part

    assert part is not before
    code.Sources(tmp_path).forget(others)
    assert others <= set(sys.modules) and "pack" not in sys.modules


@pytest.mark.parametrize(
    ("path", "installed"),
    [
        (json.__file__, True),
        (pytest.__file__, True),
        ("_ops.py", True),  # as torch calls a module that is no file
        ("/usr/lib/python3/dist-packages/x.py", True),
        (str(PACKAGE / "paths.py"), False),
    ],
)
def test_installed_modules(path, installed):
    assert code.is_installed(path) is installed


def test_vlmlab_counts_also_where_pip_has_put_it(tmp_path, monkeypatch):
    """Another version of it must make results stale."""
    site = tmp_path / "site-packages"
    package = site / "vlmlab"
    module = package / "measures/norms.py"
    module.parent.mkdir(parents=True)
    module.write_text("x = 1")
    (site / "other.py").touch()
    monkeypatch.setattr(code, "PACKAGE", package)
    monkeypatch.setattr(source_code, "OWN", f"{package}/")
    sources = code.Sources(tmp_path)
    record = sources.record([str(module), str(site / "other.py")])
    assert [*record] == ["vlmlab/measures/norms.py"] and not sources.changed(record)
    module.write_text("x = 2 + 1")
    assert sources.changed(record) == ["vlmlab/measures/norms.py"]
