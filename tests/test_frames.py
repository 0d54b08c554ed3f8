"""A plain `with` scope in the frame of a generator."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import contextvars
import queue
import textwrap
import types

import anyio.to_thread
import pytest

from tenantry import ScopeOrderError, current_tenant_or_none, tenant_scope, without_tenant


def active():
    return current_tenant_or_none()


def plain():
    with tenant_scope("acme"):
        yield active()


def plain_without():
    with without_tenant(reason="a test"):
        yield active()


async def plain_async():
    async with tenant_scope("acme"):
        yield active()


async def plain_async_without():
    async with without_tenant(reason="a test"):
        yield active()


@pytest.mark.parametrize("make", [plain, plain_without])
def test_scope_in_a_generator_frame_is_refused(make):
    """The message names the cures."""
    with pytest.raises(ScopeOrderError, match=r"carry_tenant.*in_generator=True.*generator 'plain"):
        next(make())
    assert active() is None


def test_scope_in_a_generator_that_nothing_in_python_drives_is_refused():
    """A bare thread whose only work is one step."""
    seen = queue.SimpleQueue()

    def steps():
        try:
            with tenant_scope("acme"):
                seen.put(active())
        except ScopeOrderError as error:
            seen.put(error)
        yield

    _thread.start_new_thread(next, (steps(),))
    assert isinstance(seen.get(timeout=10), ScopeOrderError)


def test_scope_in_a_function_is_let_in_whoever_calls_it():
    """It is entered and left in one call."""

    def in_tenant():
        with tenant_scope("acme"):
            return active()

    def in_none():
        with without_tenant(reason="a test"):
            return active()

    async def in_tenant_async():
        async with tenant_scope("acme"):
            return in_none(), active()

    async def in_none_async():
        async with without_tenant(reason="a test"):
            return active()

    async def main():
        return await in_tenant_async(), await in_none_async()

    assert (in_tenant(), in_none(), asyncio.run(main())) == ("acme", None, ((None, "acme"), None))


def driver(module):
    """Give a function that takes a step of a generator from within ``module``."""
    source = """
        def step(generator):
            if hasattr(generator, "__next__"):
                return next(generator)
            try:
                generator.__anext__().send(None)
            except StopIteration as stop:
                return stop.value
    """
    namespace = {"__name__": module}
    exec(textwrap.dedent(source), namespace)
    return namespace["step"]


@pytest.mark.parametrize(
    ("module", "makes"),
    [
        ("anyio._backends._asyncio", [plain_async]),
        ("tenantry.pytest_plugin", [plain_async]),
        ("_pytest.fixtures", [plain, plain_async]),
        ("pytest_asyncio.plugin", [plain, plain_async]),
        ("anyiox", []),
        ("tenantry", []),
        (None, []),
    ],
)
def test_scope_is_let_into_the_generators_of_known_drivers(module, makes):
    """Of fixtures, whose every step runs in one context; a synchronous one says nothing about that to anyio."""
    for make in (plain, plain_async):
        if make in makes:
            assert contextvars.copy_context().run(driver(module), make()) == "acme"
        else:
            with pytest.raises(ScopeOrderError):
                driver(module)(make())


@pytest.mark.parametrize("make", [plain_async, plain_async_without])
def test_scope_in_an_async_generator_frame_is_refused(make):
    """The asynchronous form too."""

    async def main():
        with pytest.raises(ScopeOrderError, match=rf"in_generator=True.*generator '{make.__name__}'"):
            await anext(make())

    asyncio.run(main())


def test_sync_with_in_an_async_generator_is_refused():
    """`with` and `async with` are one check."""

    async def steps():
        with tenant_scope("acme"):
            yield

    async def main():
        with pytest.raises(ScopeOrderError, match="generator 'steps'"):
            await anext(steps())

    asyncio.run(main())


def test_generator_expression_is_a_generator():
    """So is one without a name."""

    def enter():
        return (tenant_scope("acme").__enter__() for _ in range(1))

    with pytest.raises(ScopeOrderError, match="<genexpr>"):
        list(enter())


def test_in_generator_is_the_word_of_the_caller():
    """A driver that is known to keep the context."""

    def steps():
        with tenant_scope("acme", in_generator=True):
            yield active()

    def other():
        with without_tenant(reason="a test", in_generator=True):
            yield active()

    async def async_steps():
        async with tenant_scope("acme", in_generator=True):
            yield active()

    async def async_other():
        async with without_tenant(reason="a test", in_generator=True):
            yield active()

    async def main():
        for driven, expected in ((async_steps(), "acme"), (async_other(), None)):
            assert await anext(driven) == expected
            await driven.aclose()

    for driven, expected in ((steps(), "acme"), (other(), None)):
        assert next(driven) == expected
        driven.close()
    asyncio.run(main())
    assert active() is None


def test_coroutines_of_types_coroutine_are_coroutines():
    """They are generators by their flags alone."""

    @types.coroutine
    def work():
        with tenant_scope("acme"):
            return active()
        yield

    async def main():
        return await work()

    assert asyncio.run(main()) == "acme"


def test_contextlib_drives_in_one_context():
    """A context manager made from a generator enters here and leaves here."""

    @contextlib.contextmanager
    def manager():
        with tenant_scope("acme"):
            yield active()

    @contextlib.asynccontextmanager
    async def async_manager():
        with tenant_scope("acme"):
            yield active()

    async def main():
        async with async_manager() as seen:
            return seen, active()

    with manager() as seen, contextlib.ExitStack() as stack:
        assert seen == active() == "acme"
        stack.enter_context(manager())
    assert active() is None
    assert asyncio.run(main()) == ("acme", "acme")


def test_contextlib_driven_by_a_worker_thread_is_refused():
    """The block would run in another context than the entry: it would keep the old tenant."""

    @contextlib.contextmanager
    def manager():
        with tenant_scope("acme"):
            yield

    async def main():
        with pytest.raises(ScopeOrderError, match="in_generator"):
            await anyio.to_thread.run_sync(manager().__enter__)
        with pytest.raises(ScopeOrderError, match="in_generator"):
            await asyncio.to_thread(manager().__enter__)

        def whole():
            with manager():
                return active()

        return await asyncio.to_thread(whole), await asyncio.to_thread(manager()(active))

    assert asyncio.run(main()) == ("acme", "acme")


def test_generator_driven_by_a_worker_thread_is_refused():
    """Each step of a streamed body runs in a copy of the context."""

    async def main():
        with pytest.raises(ScopeOrderError, match="in_generator"):
            await anyio.to_thread.run_sync(next, plain())

    asyncio.run(main())


@pytest.fixture
def sync_fixture():
    with tenant_scope("acme"):
        yield active()


@pytest.fixture
async def async_fixture():
    async with tenant_scope("acme"):
        yield active()


def test_pytest_drives_fixtures_in_one_context(sync_fixture):
    """A fixture may hold a scope."""
    assert sync_fixture == active() == "acme"


async def test_pytest_asyncio_drives_fixtures(async_fixture):
    """An asynchronous fixture may too."""
    assert async_fixture == "acme"


def test_exit_stack_passes_the_net():
    """The check is a net, not a proof: what an ExitStack enters is not seen."""

    def steps():
        with contextlib.ExitStack() as stack:
            stack.enter_context(tenant_scope("acme"))
            yield active()

    driven = steps()
    assert next(driven) == "acme"
    driven.close()


def test_scope_without_a_caller_module_name_is_refused():
    """A driver that says nothing about itself is not known to be safe."""
    namespace = {"tenant_scope": tenant_scope, "next": next}
    exec(
        "def steps():\n    with tenant_scope('acme'):\n        yield\ndef drive():\n    next(steps())",
        namespace,
    )
    del namespace["__builtins__"]
    with pytest.raises(ScopeOrderError, match="in_generator"):
        namespace["drive"]()
