"""The shape of the package: what the tree promises at first sight."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import public_api

SOURCE = Path(__file__).parent.parent / "src" / "tenantry"
MODULES = sorted(SOURCE.rglob("*.py"))
EDGE_SIDE = ("integrations", "testing", "pytest_plugin", "cli", "__main__")
CORE = [path for path in MODULES if path.relative_to(SOURCE).parts[0].removesuffix(".py") not in EDGE_SIDE]
EDGES = [path for path in MODULES if path.relative_to(SOURCE).parts[0] == "integrations"]


def _names(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def _imports(path: Path) -> Iterator[str]:
    package = ("tenantry", *path.relative_to(SOURCE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield stem
            yield from (f"{stem}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", CORE, ids=_names)
def test_core_imports_no_edge(path: Path) -> None:
    """The core knows nothing of the edges, the test tools or the command line."""
    forbidden = tuple(f"tenantry.{name}" for name in EDGE_SIDE)
    assert not [name for name in _imports(path) if name.startswith(forbidden)]


@pytest.mark.parametrize("path", EDGES, ids=_names)
def test_edge_imports_no_other_edge(path: Path) -> None:
    """An edge imports itself and the core; private files that edges share begin with ``_``."""
    own = path.relative_to(SOURCE / "integrations").parts[0].removesuffix(".py")
    prefix = "tenantry.integrations."
    named = {name.removeprefix(prefix).split(".")[0] for name in _imports(path) if name.startswith(prefix)}
    assert not {name for name in named if name != own and not name.startswith("_")}


def test_one_context_variable() -> None:
    """The tenant lives in one place."""
    holders = [
        _names(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "ContextVar"
    ]
    assert holders == ["context.py"]


def test_no_file_without_a_subject() -> None:
    """No utils, common or helpers, and no empty placeholder."""
    vague = {"utils.py", "util.py", "common.py", "helpers.py", "misc.py", "manager.py"}
    assert not [path for path in MODULES if path.name in vague]
    assert not [p for p in MODULES if p.name != "__init__.py" and not p.read_text().strip()]


def test_import_loads_the_standard_library_alone() -> None:
    """``import tenantry`` brings nothing that is not in the standard library."""
    program = (
        "import sys, tenantry;"
        "tops = {name.split('.')[0] for name in sys.modules} - set(sys.stdlib_module_names);"
        "print(sorted(n for n in tops if n not in before and not n.startswith('__')))"
    )
    program = "import sys; before = {n.split('.')[0] for n in sys.modules};" + program
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['tenantry']"


@pytest.mark.parametrize("module", [*public_api.CORE, *public_api.TESTING])
def test_public_names_of_the_core_exist(module: str) -> None:
    """Every name that the documentation promises can be imported."""
    public_api.check_names(module, {**public_api.CORE, **public_api.TESTING}[module])


@pytest.mark.parametrize("module", public_api.EDGES)
def test_public_names_of_the_edges_exist(module: str) -> None:
    """So can those of the edges, where their dependencies are installed."""
    public_api.check_names(module, public_api.EDGES[module][1])


@pytest.mark.parametrize(("module", "extra"), [(m, e) for m, (e, _) in public_api.EDGES.items()])
def test_edge_names_its_extra(module: str, extra: str) -> None:
    """Without its dependency an edge says what to install; nothing optional is importable here."""
    program = (
        "import sys, pathlib; sys.path[:] = [p for p in sys.path if 'site-packages' not in p];"
        f"sys.path[:0] = [{str(SOURCE.parent)!r}, {str(Path(__file__).parent)!r}];"
        f"import public_api; public_api.check_refusal({module!r}, {extra!r})"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("module", [m for m in public_api.EDGES if ".integrations." in m])
def test_edge_opens_with_four_facts(module: str) -> None:
    """The docstring of each public edge says where the tenant enters and leaves."""
    stem = SOURCE.parent.joinpath(*module.split("."))
    path = stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    missing = [f for f in ("Enters", "Leaves", "Runs bound", "Tested with") if f not in docstring]
    assert not missing


@pytest.mark.parametrize(
    ("edge", "dependency"),
    [
        ("celery", "celery"),
        ("django", "django"),
        ("fastapi", "fastapi"),
        ("flask", "flask"),
        ("opentelemetry", "opentelemetry"),
        ("redis", "redis"),
        ("sentry", "sentry_sdk"),
        ("sqlalchemy", "sqlalchemy"),
        ("structlog", "structlog"),
    ],
)
@pytest.mark.parametrize("how", ["finder", "entry"])
def test_edge_without_its_dependency_names_the_extra(edge, dependency, how):
    """Whatever makes the import fail: nothing that finds the module, or an entry that forbids it."""
    script = """
import sys
edge, dependency, how = sys.argv[1:]
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == dependency:
            raise ModuleNotFoundError("no " + name, name=name)
if how == "finder":
    sys.meta_path.insert(0, Blocker())
else:
    sys.modules[dependency] = None
try:
    __import__("tenantry.integrations." + edge)
except ImportError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, edge, dependency, how], capture_output=True, text=True, check=True
    )
    assert f"pip install tenantry[{edge}]" in done.stdout
