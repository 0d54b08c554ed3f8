"""Break the source in many small ways, one at a time, and count how many the tests notice.

    python scripts/mutate.py --tests tests/keys tests/test_ids.py -- src/tenantry/ids.py src/tenantry/keys

The tests are collected once and run once as they are, to learn which of them reach which line. A mutant
inside a function is then swapped into the functions of a forked child, which runs the tests until one
fails, first those that reach its line. What runs while modules are imported cannot be swapped: such a
mutant is served to a child that imports it anew, and so is one that its own tests let pass where the line
also ran during the collection. Needs CPython 3.12 (``sys.monitoring``). Exit status 0 if at least
``--least`` per cent were killed; the survivors are listed with their places.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import importlib
import importlib.abc
import importlib.util
import os
import pickle
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest
from mutants import mutants

SRC = Path("src")
PLUGINS = ("pytest_asyncio.plugin", "pytest_timeout", "anyio.pytest_plugin", "_hypothesis_pytestplugin")
OPTIONS = ["-q", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib", "-o", "timeout=60"]
#: Seconds that a mutant gets beyond five times what its tests take; then it counts as killed.
GRACE = 15.0
#: The tests' own exit status when all passed, one failed, or the harness did.
PASSED, KILLED, BROKEN = 0, 1, 3


@dataclass
class Seen:
    """What the run without a mutant showed: seconds of each test, and the lines of each file that it reached."""

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, set[tuple[str, int]]] = field(default_factory=dict)
    imported: set[tuple[str, int]] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)

    def reaching(self, places: set[tuple[str, int]]) -> list[str]:
        """The tests that reach one of these lines, the fastest first."""
        return sorted(
            (test for test, lines in self.lines.items() if places & lines), key=self.seconds.__getitem__
        )

    def limit(self, tests: Sequence[str]) -> float:
        return GRACE + 5 * sum(self.seconds[test] for test in tests)


class Recorder:
    """Notes which lines of the watched files run."""

    def __init__(self, watched: set[str]) -> None:
        self.watched = watched
        self.current: set[tuple[str, int]] = set()
        tool = sys.monitoring.COVERAGE_ID
        sys.monitoring.use_tool_id(tool, "mutate")
        sys.monitoring.register_callback(tool, sys.monitoring.events.LINE, self._line)
        sys.monitoring.set_events(tool, sys.monitoring.events.LINE)

    def _line(self, code: CodeType, line: int) -> object:
        if code.co_filename in self.watched:
            self.current.add((code.co_filename, line))
        return sys.monitoring.DISABLE

    def begin(self) -> set[tuple[str, int]]:
        self.current = set()
        sys.monitoring.restart_events()
        return self.current

    @staticmethod
    def stop() -> None:
        sys.monitoring.set_events(sys.monitoring.COVERAGE_ID, 0)
        sys.monitoring.free_tool_id(sys.monitoring.COVERAGE_ID)


class Served(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Serve one module from a changed tree."""

    def __init__(self, path: Path, tree: ast.Module) -> None:
        self.name, self.path, self.tree = module_name(path), path, tree

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        inner = [str(self.path.parent)] if self.path.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            fullname, self.path, loader=self, submodule_search_locations=inner
        )

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.tree, str(self.path), "exec"), vars(module))


def module_name(path: Path) -> str:
    parts = path.relative_to(SRC.resolve()).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# --- swapping ----------------------------------------------------------------------------------------

Key = tuple[str, str, int]


def codes(code: CodeType) -> Iterator[tuple[Key, CodeType]]:
    """Every code object in a module's, under its file, qualified name and first line."""
    yield (code.co_filename, code.co_qualname, code.co_firstlineno), code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def own(code: CodeType) -> tuple[Any, ...]:
    """What a code object does itself, whatever the ones inside it do."""
    constants = tuple(("code", c.co_qualname) if isinstance(c, CodeType) else c for c in code.co_consts)
    return code.co_code, repr(constants), code.co_names, code.co_varnames


def live(watched: set[str]) -> dict[Key, list[FunctionType]]:
    """Every function of the watched files that exists, under the key of its code."""
    found: dict[Key, list[FunctionType]] = defaultdict(list)
    for thing in gc.get_objects():
        if type(thing) is FunctionType and thing.__code__.co_filename in watched:
            code = thing.__code__
            found[code.co_filename, code.co_qualname, code.co_firstlineno].append(thing)
    return found


def swaps(
    original: CodeType, mutant: CodeType, functions: dict[Key, list[FunctionType]]
) -> list[tuple[FunctionType, CodeType]] | None:
    """The functions to change and their new code; ``None`` if importing the module does something else."""
    before, after = dict(codes(original)), dict(codes(mutant))
    if before.keys() != after.keys():
        return None
    found: list[tuple[FunctionType, CodeType]] = []
    for key, code in after.items():
        if code == before[key]:
            continue
        is_function = code.co_flags & 1  # CO_OPTIMIZED: neither a module nor the body of a class
        if not is_function:
            if own(code) != own(before[key]):
                return None
            continue
        for function in functions.get(key, ()):
            if function.__code__.co_freevars != code.co_freevars:
                return None
            found.append((function, code))
    return found or None


# --- judging -----------------------------------------------------------------------------------------


def in_child(work: Callable[[], int], seconds: float) -> int:
    """Fork, run, and return the status; a child that takes too long is killed, and so is what it left."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            status = work()
        except BaseException:  # noqa: BLE001 - whatever ends the tests kills the mutant
            status = KILLED
        os._exit(status)
    status, deadline = None, time.monotonic() + seconds
    while status is None and time.monotonic() < deadline:
        done, waited = os.waitpid(pid, os.WNOHANG)
        if done:
            status = waited
        else:
            time.sleep(0.002)
    with_children_of(pid)
    if status is None:
        os.waitpid(pid, 0)
        return KILLED
    return os.waitstatus_to_exitcode(status)


def with_children_of(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


class Session:
    """A pytest plugin that runs ``work`` in place of the tests once they are collected."""

    def __init__(self, work: Callable[[pytest.Session], int]) -> None:
        self.work = work
        self.status = BROKEN

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted("the tests cannot be collected")
        self.status = self.work(session)
        return True


def run(session: pytest.Session, items: Sequence[pytest.Item]) -> int:
    """Run these tests until the first failure."""
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed:
            session._setupstate.teardown_exact(None)
            return KILLED
    return PASSED


def collect(tests: Sequence[str], options: Sequence[str], work: Callable[[pytest.Session], int]) -> int:
    plugin = Session(work)
    loaded = [
        word for name in PLUGINS if importlib.util.find_spec(name.split(".")[0]) for word in ("-p", name)
    ]
    pytest.main([*OPTIONS, *loaded, *options, *tests], plugins=[plugin])
    return plugin.status


@dataclass
class Mutant:
    path: Path
    lines: range
    what: str
    tree: ast.Module

    @property
    def places(self) -> set[tuple[str, int]]:
        return {(str(self.path), line) for line in self.lines}

    def __str__(self) -> str:
        return f"{self.path.relative_to(Path.cwd())}:{self.lines[0]}: {self.what}"


class Warm:
    """The process that has everything imported: it watches the tests once, then swaps mutants."""

    def __init__(self, paths: Sequence[Path], every: int, tell: Callable[[object], None]) -> None:
        self.paths, self.every, self.tell = paths, every, tell
        self.watched = {str(path) for path in paths}
        self.recorder = Recorder(self.watched)
        for path in paths:
            importlib.import_module(module_name(path))

    def __call__(self, session: pytest.Session) -> int:
        seen = self._watch(session)
        self.recorder.stop()
        self.tell(seen)
        if seen.failed:
            return BROKEN
        items = {item.nodeid: item for item in session.items}
        functions = live(self.watched)
        for path in self.paths:
            original = compile(path.read_text(), str(path), "exec", dont_inherit=True)
            swappable = self._swaps_alone(session, original, functions)
            for number, (lines, what, tree) in enumerate(mutants(path)):
                if number % self.every == 0:
                    mutant = Mutant(path, lines, what, tree)
                    changed = swappable and self._swaps(original, mutant, functions)
                    self.tell((number, self._verdict(session, mutant, changed or None, seen, items)))
        return PASSED

    def _watch(self, session: pytest.Session) -> Seen:
        seen = Seen(imported=self.recorder.current)
        read, write = os.pipe()

        def watched() -> int:
            for item, following in zip(session.items, [*session.items[1:], None], strict=True):
                lines, failed, began = self.recorder.begin(), session.testsfailed, time.monotonic()
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                seen.seconds[item.nodeid] = time.monotonic() - began
                seen.lines[item.nodeid] = lines
                if session.testsfailed > failed:
                    seen.failed.append(item.nodeid)
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(seen, pipe)
            return PASSED

        pid = os.fork()
        if pid == 0:
            os.close(read)
            try:
                os._exit(watched())
            finally:
                sys.excepthook(*sys.exc_info())
                os._exit(BROKEN)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            seen = pickle.load(pipe)
        os.waitpid(pid, 0)
        return seen

    def _swaps_alone(self, session: pytest.Session, original: CodeType, functions: Any) -> bool:
        """Whether the tests pass with every function's code replaced by its like: some look at the code itself."""
        like = [(function, code) for key, code in codes(original) for function in functions.get(key, ())]

        def swapped() -> int:
            for function, code in like:
                function.__code__ = code.replace()
            return run(session, session.items)

        return in_child(swapped, 600) == PASSED

    @staticmethod
    def _swaps(original: CodeType, mutant: Mutant, functions: Any) -> Any:
        return swaps(original, compile(mutant.tree, str(mutant.path), "exec", dont_inherit=True), functions)

    @staticmethod
    def _verdict(session: pytest.Session, mutant: Mutant, changed: Any, seen: Seen, items: Any) -> str:
        """``killed``, ``survived``, or ``again``: to be judged by a child that imports it."""
        if changed is None:
            return "again"
        # The rest too: what a test does in a process that it forks was not watched.
        reaching = seen.reaching(mutant.places)
        order = [*reaching, *(test for test in seen.seconds if test not in set(reaching))]

        def swapped() -> int:
            for function, code in changed:
                function.__code__ = code
            return run(session, [items[test] for test in order])

        if in_child(swapped, seen.limit(order)) != PASSED:
            return "killed"
        return "again" if mutant.places & seen.imported else "survived"


class Judge:
    """The process that has imported nothing of the library: it keeps count, and serves what cannot be swapped."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.tests, self.options = arguments.tests, arguments.options.split()
        self.every = arguments.every
        self.paths = [path.resolve() for path in files(arguments.paths)]
        self.sound: set[Path] = set()

    def verdicts(self) -> Iterator[tuple[Mutant, bool]]:
        told = self._warm()
        seen = next(told, None)
        if not isinstance(seen, Seen) or seen.failed:
            why = seen.failed if isinstance(seen, Seen) else "they cannot be collected"
            sys.exit(f"the tests fail on the source as it is; a mutation run would prove nothing: {why}")
        for path in self.paths:
            for number, (lines, what, tree) in enumerate(mutants(path)):
                if number % self.every:
                    continue
                told_number, verdict = next(told)
                assert told_number == number
                mutant = Mutant(path, lines, what, tree)
                yield mutant, verdict == "killed" or (verdict == "again" and self._served(mutant, seen))

    def _warm(self) -> Iterator[Any]:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            pipe = os.fdopen(write, "wb", buffering=0)

            def tell(what: object) -> None:
                pipe.write(pickle.dumps(what))

            try:
                collect(
                    self.tests,
                    self.options,
                    Warm(self.paths, self.every, tell),
                )
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            try:
                while True:
                    yield pickle.load(pipe)
            except EOFError:
                pass
            finally:
                os.waitpid(pid, 0)

    def _served(self, mutant: Mutant, seen: Seen) -> bool:
        if mutant.path not in self.sound:
            if not self._passes(replace(mutant, tree=ast.parse(mutant.path.read_text())), seen):
                sys.exit(
                    f"the tests fail on {mutant.path} when it is served as it is; that would kill everything"
                )
            self.sound.add(mutant.path)
        return not self._passes(mutant, seen)

    def _passes(self, mutant: Mutant, seen: Seen) -> bool:
        reaching = set(seen.reaching(mutant.places))

        def served() -> int:
            sys.meta_path.insert(0, Served(mutant.path, mutant.tree))
            order = lambda item: (item.nodeid not in reaching, seen.seconds.get(item.nodeid, 0.0))  # noqa: E731
            return collect(
                self.tests, self.options, lambda session: run(session, sorted(session.items, key=order))
            )

        return in_child(served, seen.limit(list(seen.seconds))) == PASSED


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
    parser.add_argument("--every", type=int, default=1, help="judge every Nth mutant only: a sample")
    parser.add_argument("paths", nargs="+")
    arguments = parser.parse_args()
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(SRC.resolve()), os.environ.get("PYTHONPATH")])
    )
    sys.path[:0] = [str(Path.cwd()), str(SRC.resolve())]
    import hypothesis  # noqa: F401 - imported once here, not in every child

    total: dict[Path, int] = defaultdict(int)
    killed: dict[Path, int] = defaultdict(int)
    for mutant, was_killed in Judge(arguments).verdicts():
        total[mutant.path] += 1
        killed[mutant.path] += was_killed
        if not was_killed:
            print(f"survived: {mutant}", flush=True)
    for path in total:
        print(f"{path.relative_to(Path.cwd())}: {killed[path]} of {total[path]}")
    share = 100 * sum(killed.values()) / max(1, sum(total.values()))
    print(f"{sum(killed.values())} of {sum(total.values())} mutants killed, {share:.1f} %")
    return 0 if total and share >= arguments.least else 1


if __name__ == "__main__":
    sys.exit(main())
