"""Break the source in many small ways, one at a time, and count how many the tests notice.

    python scripts/mutate.py --tests tests/keys tests/test_ids.py -- src/tenantry/ids.py src/tenantry/keys

Each mutant is served from memory to a forked child that runs the tests until the first failure, so a
run costs no start-up. Exit status 0 if at least ``--least`` per cent were killed. The survivors are
listed with their place; ``# pragma: no mutate`` on a line takes it out.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

SRC = Path("src")
COMPARE = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


def variants(node: ast.AST) -> Iterator[tuple[str, ast.AST | None]]:  # noqa: C901 - one case a kind of node
    """Yield (what, replacement) for each way to break ``node``; ``None`` deletes a statement."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in COMPARE:
            new = copy.deepcopy(node)
            new.ops = [COMPARE[type(op)]()]
            yield f"{type(op).__name__} -> {type(new.ops[0]).__name__}", new
        case ast.BoolOp(op=op, values=values):
            new = copy.deepcopy(node)
            new.op = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield "and <-> or", new
            for index in range(len(values)):
                rest = [copy.deepcopy(value) for at, value in enumerate(values) if at != index]
                yield (
                    f"operand {index} dropped",
                    rest[0] if len(rest) == 1 else ast.BoolOp(copy.deepcopy(op), rest),
                )
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "not dropped", copy.deepcopy(operand)
        case ast.BinOp(op=op) if type(op) in ARITHMETIC:
            new = copy.deepcopy(node)
            new.op = ARITHMETIC[type(op)]()
            yield f"{type(op).__name__} -> {type(new.op).__name__}", new
        case ast.Constant(value=bool(value)):
            yield f"{value} -> {not value}", ast.Constant(not value)
        case ast.Constant(value=int(value)):
            yield f"{value} -> {value + 1}", ast.Constant(value + 1)
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            for value in (True, False):
                if isinstance(node, ast.While) and value:
                    continue
                new = copy.copy(node)
                new.test = ast.copy_location(ast.Constant(value), test)
                yield f"condition -> {value}", new
        case ast.Return(value=value) if value is not None and not (
            isinstance(value, ast.Constant) and value.value is None
        ):
            yield "return None", ast.Return(ast.Constant(None))
        case ast.Raise() | ast.Assign() | ast.AugAssign() | ast.Delete():
            yield f"{type(node).__name__} deleted", None
        case ast.Expr(value=ast.Call() | ast.Await()):
            yield "call deleted", None


class Mutator(ast.NodeTransformer):
    """Apply the mutation with the number ``target``, counting in the order of the walk."""

    def __init__(self, target: int, skipped: set[int]) -> None:
        self.target, self.skipped = target, skipped
        self.seen = -1
        self.applied: tuple[int, str] | None = None

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return node
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id == "__all__"
        ):
            return node
        if isinstance(node, ast.AnnAssign):
            if node.value is not None:
                node.value = self.visit(node.value)  # type: ignore[assignment]
            return node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.args.defaults = [self.visit(default) for default in node.args.defaults]  # type: ignore[misc]
            node.body = [self.visit(statement) for statement in node.body]  # type: ignore[misc]
            return node
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return node
        if getattr(node, "lineno", None) not in self.skipped:
            for what, replacement in variants(node):
                self.seen += 1
                if self.seen == self.target:
                    self.applied = (getattr(node, "lineno", 0), what)
                    return ast.copy_location(replacement or ast.Pass(), node)
        return self.generic_visit(node)


def mutants(path: Path) -> Iterator[tuple[int, str, ast.Module]]:
    """Yield (line, what, tree) for every mutant of a file."""
    source = path.read_text()
    skipped = {number for number, line in enumerate(source.splitlines(), 1) if "pragma: no mutate" in line}
    target = 0
    while True:
        mutator = Mutator(target, skipped)
        tree = mutator.visit(ast.parse(source))
        if mutator.applied is None:
            return
        yield (*mutator.applied, ast.fix_missing_locations(tree))
        target += 1


class Served(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Serve one module from a changed tree."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self.name, self.path, self.tree = name, path, tree

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        is_package = self.path.name == "__init__.py"
        return importlib.util.spec_from_file_location(
            fullname,
            self.path,
            loader=self,
            submodule_search_locations=[str(self.path.parent)] if is_package else None,
        )

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.tree, str(self.path), "exec"), vars(module))


def module_name(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def run_tests(tests: Sequence[str], options: Sequence[str]) -> int:
    import pytest

    sys.path.insert(0, str(SRC))
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *options, *tests]))


def child(path: Path, tree: ast.Module, tests: Sequence[str], options: Sequence[str]) -> None:
    os.setsid()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    sys.meta_path.insert(0, Served(module_name(path), path, tree))
    try:
        code = run_tests(tests, options)
    except BaseException:  # noqa: BLE001 - whatever ends the tests kills the mutant
        code = 1
    os._exit(min(code, 100))


def is_killed(
    path: Path, tree: ast.Module, tests: Sequence[str], options: Sequence[str], timeout: float
) -> bool:
    pid = os.fork()
    if pid == 0:
        child(path, tree, tests, options)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status != 0
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def files(paths: Sequence[str]) -> Iterator[Path]:
    for path in map(Path, paths):
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tests", nargs="+", required=True)
    parser.add_argument("--options", default="", help="further options of pytest, in one text")
    parser.add_argument("--least", type=float, default=95.0, help="per cent that have to be killed")
    parser.add_argument(
        "--timeout", type=float, default=120.0, help="seconds after which a mutant counts as killed"
    )
    parser.add_argument("--every", type=int, default=1, help="judge every Nth mutant only: a sample")
    parser.add_argument("paths", nargs="+")
    arguments = parser.parse_args()
    options = arguments.options.split()
    import hypothesis  # noqa: F401 - imported once here, not in every child
    import pytest  # noqa: F401

    for path in files(arguments.paths):
        if is_killed(path, ast.parse(path.read_text()), arguments.tests, options, arguments.timeout):
            print(f"the tests fail on {path} as it is; a mutation run would prove nothing", file=sys.stderr)
            return 2
    total = killed = seen = 0
    survivors: list[str] = []
    for path in files(arguments.paths):
        for line, what, tree in mutants(path):
            seen += 1
            if seen % arguments.every:
                continue
            total += 1
            if is_killed(path, tree, arguments.tests, options, arguments.timeout):
                killed += 1
                continue
            survivors.append(f"{path}:{line}: {what}")
            print(f"survived: {survivors[-1]}", flush=True)
        print(f"{path}: {killed} of {total} killed so far", flush=True)
    share = 100 * killed / total if total else 0.0
    print(f"{killed} of {total} mutants killed, {share:.1f} %; {len(survivors)} survived")
    return 0 if share >= arguments.least else 1


if __name__ == "__main__":
    sys.exit(main())
