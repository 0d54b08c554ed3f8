"""The ways to break a file of source: one syntax tree for each, with its lines and a name for what changed.

``# pragma: no mutate`` on a line takes it out, and on the line of a ``def`` the whole function.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator
from pathlib import Path

COMPARE = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
NO_MUTATE = re.compile("# pragma: .*no mutate")
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
            isinstance(value, ast.Constant) and value.value in (None, False)
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
        self.applied: tuple[range, str] | None = None

    def visit(self, node: ast.AST) -> ast.AST:
        if is_unseen(node):
            return node
        if isinstance(node, ast.AnnAssign):
            if node.value is not None:
                node.value = self.visit(node.value)  # type: ignore[assignment]
            return node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.lineno in self.skipped:
                return node
            node.args.defaults = [self.visit(default) for default in node.args.defaults]  # type: ignore[misc]
            node.body = [self.visit(statement) for statement in node.body]  # type: ignore[misc]
            return node
        if isinstance(node, ast.If) and ast.unparse(node.test) == "not TYPE_CHECKING":
            node.body = [self.visit(statement) for statement in node.body]  # type: ignore[misc]
            return node
        if getattr(node, "lineno", None) not in self.skipped:
            for what, replacement in variants(node):
                self.seen += 1
                if self.seen == self.target:
                    last = node.test if isinstance(node, ast.If | ast.While) else node
                    self.applied = range(node.lineno, last.end_lineno + 1), what  # type: ignore[attr-defined]
                    return ast.copy_location(replacement or ast.Pass(), node)
        return self.generic_visit(node)


def is_unseen(node: ast.AST) -> bool:
    """Tell whether no test of behaviour could notice a change: documentation, and what only tools read."""
    match node:
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__" | "__slots__")]):
            return True
        case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar" | "ParamSpec"))):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.keyword(arg="strict"):  # of zip: a claim, not a choice
            return True
    return False


def mutants(path: Path) -> Iterator[tuple[range, str, ast.Module]]:
    """Yield (lines, what, tree) for every mutant of a file."""
    source = path.read_text()
    skipped = {number for number, line in enumerate(source.splitlines(), 1) if NO_MUTATE.search(line)}
    target = 0
    while True:
        mutator = Mutator(target, skipped)
        tree = mutator.visit(ast.parse(source))
        if mutator.applied is None:
            return
        yield (*mutator.applied, ast.fix_missing_locations(tree))
        target += 1
