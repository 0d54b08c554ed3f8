"""The pytest plugin: fixture ``tenant``, marker ``tenant``, and a guard against tenants left behind.

Loaded by its entry point, so nothing has to be imported.

- Marker ``@pytest.mark.tenant("acme")`` runs a test and its function-scoped fixtures under a tenant.
- Fixture ``tenant`` is the id of the active tenant; where none is active it activates one.
- A test, or a fixture of it, that leaves a tenant set fails, and is told where it was set. The next
  test starts clean.

Fixtures of a wider scope may hold a tenant for as long as they live.
"""

from __future__ import annotations

import functools
import inspect
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any

import pytest

from tenantry import context
from tenantry.context import State, get_state, unit_of_work
from tenantry.errors import InvalidTenantIdError
from tenantry.ids import TenantId, ensure_tenant_id

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

_INI = "tenantry_tenant"
_set_state = context._STATE.set


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the ini option."""
    parser.addini(_INI, "id of the tenant that the fixture and the bare marker activate", default="acme")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker and check the ini option."""
    config.addinivalue_line(
        "markers", "tenant(tenant_id): run the test and its function-scoped fixtures as this tenant"
    )
    try:
        ensure_tenant_id(config.getini(_INI))
    except InvalidTenantIdError as error:
        raise pytest.UsageError(f"ini option {_INI}: {error}") from error
    config.stash[_guard] = _Guard()
    config.stash[_plain_state] = context.State
    setattr(context, "State", _TracedState)  # noqa: B010 - a type checker takes State for a type


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop recording where tenants are set."""
    plain = config.stash.get(_plain_state, None)
    if plain is not None:
        setattr(context, "State", plain)  # noqa: B010


# --- the tenant of a test ------------------------------------------------------------------------


def _default(request: pytest.FixtureRequest) -> TenantId:
    return ensure_tenant_id(request.config.getini(_INI))


@pytest.fixture(autouse=True)
def _tenantry_marker(request: pytest.FixtureRequest) -> Iterator[None]:
    """Activate the tenant of the test's marker, before its other function-scoped fixtures."""
    mark = request.node.get_closest_marker("tenant")
    if mark is None:
        yield
        return
    with _test_tenant(_marked(mark, request), request.config):
        yield


@pytest.fixture
def tenant(request: pytest.FixtureRequest) -> Iterator[TenantId]:
    """Return the id of the active tenant; where none is active, activate one.

    Which: the parameter, if parametrised with ``indirect=True``; else that of
    ``@pytest.mark.tenant``; else the ini option ``tenantry_tenant``, ``acme`` by default.
    """
    active = get_state().tenant_id or _default(request)
    wanted = ensure_tenant_id(getattr(request, "param", active))
    with _test_tenant(wanted, request.config):
        yield wanted


def _marked(mark: pytest.Mark, request: pytest.FixtureRequest) -> TenantId:
    given = (*mark.args, *mark.kwargs.values())
    if len(given) > 1 or mark.kwargs.keys() - {"tenant_id"}:
        raise pytest.UsageError(
            f"{request.node.nodeid}: the marker takes one tenant id, "
            f'@pytest.mark.tenant("acme"), not {mark.args!r} {mark.kwargs!r}'
        )
    return ensure_tenant_id(given[0]) if given else _default(request)


@contextmanager
def _test_tenant(tenant_id: TenantId, config: pytest.Config) -> Iterator[None]:
    with unit_of_work(tenant_id):
        begun = get_state()
        yield
        _refuse([config.stash[_guard].leftover(begun)], "a fixture of this test")


# --- the guard -----------------------------------------------------------------------------------


class _TracedState(State):
    """A state that knows which line of whose code made it."""

    __slots__ = ("where",)

    def __init__(self, tenant_id: TenantId | None, kind: str, epoch: object, unit: object = None) -> None:
        super().__init__(tenant_id, kind, epoch, unit)
        frame = sys._getframe(1) if tenant_id is not None else None
        while frame is not None and _is_machinery(frame.f_globals.get("__name__")):
            frame = frame.f_back
        # The code object and not the frame: a frame would keep everything alive that it can see.
        self.where = None if frame is None else (frame.f_code, frame.f_lineno)


def _is_machinery(module: object) -> bool:
    return isinstance(module, str) and module.startswith(("tenantry.", "contextlib"))


def _place(state: State) -> str:
    where = getattr(state, "where", None)
    if where is None:
        return "a place that is not known"
    code, line = where
    path = Path(code.co_filename)
    with suppress(OSError, ValueError):
        path = path.relative_to(Path.cwd())
    return f"{path}:{line}, in {code.co_qualname}"


class _Guard:
    """What is active when a test begins, and what its fixtures may change about that."""

    def __init__(self) -> None:
        self._base = get_state()
        self._held: dict[pytest.FixtureDef[Any], State] = {}

    def hold(self, fixture: pytest.FixtureDef[Any], before: State) -> None:
        """Note what a fixture changed: it may stay for as long as the fixture lives."""
        if get_state() is not before:
            self._held[fixture] = get_state()

    def release(self, fixture: pytest.FixtureDef[Any]) -> None:
        self._held.pop(fixture, None)

    def leftover(self, before: State | None = None) -> State | None:
        """Put back what was active before, and return the state of a tenant that was left."""
        after = get_state()
        if before is None:
            before = next(reversed(self._held.values()), self._base)
        if after is before or after in self._held.values():
            return None
        _set_state(before)
        return after if after.tenant_id is not None else None


_guard = pytest.StashKey[_Guard]()
_plain_state = pytest.StashKey[type[State]]()


def _message(left: State, who: str) -> str:
    return (
        f"{who} left tenant {str(left.tenant_id)!r} set. It was set at {_place(left)}. Enter tenants by "
        "`with tenant_scope(...)`, or call reset_tenant(token) in a `finally`. The next test starts "
        "without it."
    )


def _refuse(left: Iterable[State | None], who: str) -> None:
    for state in filter(None, left):
        pytest.fail(_message(state, who), pytrace=False)


def _note(error: BaseException, left: Iterable[State | None], who: str) -> None:
    for state in filter(None, left):
        error.add_note(_message(state, who))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test whose body leaves a tenant set."""
    guard = item.config.stash[_guard]
    before = get_state()
    left: list[State] = []
    try:
        with _watched(item, guard, left):
            result = yield
    except BaseException as error:
        _note(error, [*left, guard.leftover(before)], "this test")
        raise
    _refuse([*left, guard.leftover(before)], "this test")
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test whose fixtures leave a tenant set."""
    guard = item.config.stash[_guard]
    try:
        result = yield
    except BaseException as error:
        _note(error, [guard.leftover()], "a fixture of this test")
        raise
    _refuse([guard.leftover()], "a fixture of this test")
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    """Note which fixtures hold a tenant, and run asynchronous ones under the test's."""
    guard = request.config.stash[_guard]
    before = get_state()
    function = fixturedef.func
    if before.tenant_id is not None and _is_async(function):
        setattr(fixturedef, "func", _under(before, function))  # noqa: B010 - final for type checkers
    try:
        return (yield)
    finally:
        setattr(fixturedef, "func", function)  # noqa: B010
        guard.hold(fixturedef, before)


def pytest_fixture_post_finalizer(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
    """Forget what the fixture held."""
    request.config.stash[_guard].release(fixturedef)


# --- asynchronous tests and fixtures -------------------------------------------------------------
# Some plugins run them in a task that began before the tenant became active (anyio shares one among the
# tests of a module), and whatever they leave set in their own context is not seen from outside.


def _is_async(function: object) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


@contextmanager
def _imposed(outer: State) -> Iterator[State]:
    """Make the test's tenant active in another context than the test's, unless one is active there."""
    inner = get_state()
    imposed = outer if outer.tenant_id is not None and inner.tenant_id is None else inner
    if imposed is not inner:
        _set_state(imposed)
    try:
        yield imposed
    finally:
        if imposed is not inner and get_state() is imposed:
            _set_state(inner)


@contextmanager
def _watched(item: pytest.Item, guard: _Guard, left: list[State]) -> Iterator[None]:
    """Look also from inside of an asynchronous test at what it leaves, and put that in ``left``."""
    test = getattr(item, "obj", None)
    # A case of unittest has copied the context when it was made, before any fixture of its own.
    copied = getattr(getattr(item, "instance", None), "_asyncioTestContext", None)
    if copied is not None:
        outer = get_state()
        copied.run(_set_state, outer)
        try:
            yield
        finally:
            left.extend(filter(None, [copied.run(guard.leftover, outer)]))
    elif inspect.iscoroutinefunction(test):
        setattr(item, "obj", _watching(test, get_state(), guard, left))  # noqa: B010 - not declared
        try:
            yield
        finally:
            setattr(item, "obj", test)  # noqa: B010
    else:
        yield


def _watching(test: Callable[..., Any], outer: State, guard: _Guard, left: list[State]) -> Callable[..., Any]:
    @functools.wraps(test)
    async def watched(*args: Any, **kwargs: Any) -> Any:
        with _imposed(outer) as begun:
            try:
                return await test(*args, **kwargs)
            finally:
                left.extend(filter(None, [guard.leftover(begun)]))

    return watched


def _under(state: State, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return an asynchronous fixture function whose steps run under ``state``'s tenant."""
    if isinstance(function, MethodType):
        return MethodType(_under(state, function.__func__), function.__self__)
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def fixture(*args: Any, **kwargs: Any) -> Any:
            with _imposed(state):
                return await function(*args, **kwargs)

        return fixture

    @functools.wraps(function)
    async def generator_fixture(*args: Any, **kwargs: Any) -> Any:
        steps = function(*args, **kwargs)
        before = get_state()
        with _imposed(state):
            value = await anext(steps)
        yield value
        with _imposed(state):
            async for _ in steps:
                raise RuntimeError(f"the fixture {function.__qualname__} yields more than once")
        # A scope that the fixture held in between has come back to what was imposed on its entry.
        if get_state() is state:
            _set_state(before)

    return generator_fixture
