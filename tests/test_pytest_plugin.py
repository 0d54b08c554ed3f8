"""The pytest plugin, run by pytest itself on small suites: sync, asyncio, anyio, unittest, xdist."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

from tenantry import context

pytest_plugins = ["pytester"]

INSTALLED = "tenantry.pytest_plugin" in entry_points(group="pytest11").names
STRICT = ["--strict-markers", "--strict-config", "-W", "error", "-p", "no:cacheprovider"]
ASYNCIO = [
    *("-p", "pytest_asyncio.plugin", "-o", "asyncio_mode=auto"),
    *("-o", "asyncio_default_fixture_loop_scope=function"),
]
ANYIO = ["-p", "anyio.pytest_plugin"]
HYPOTHESIS = ["-p", "_hypothesis_pytestplugin"]
XDIST = ["-p", "xdist.plugin", "-n", "2"]


@pytest.fixture(autouse=True)
def no_other_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load what a test names and nothing else: some plugins take a second to import."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess(*STRICT, "-p", "tenantry.pytest_plugin", *args)


def passes(pytester: pytest.Pytester, source: str, *args: str, **outcomes: int) -> pytest.RunResult:
    pytester.makepyfile(source)
    result = run(pytester, *args)
    result.assert_outcomes(**outcomes)
    return result


def test_fixture_activates_the_default_tenant(pytester: pytest.Pytester) -> None:
    """The fixture yields the id that is active; without it none is."""
    passes(
        pytester,
        """
        from tenantry import current_tenant, current_tenant_or_none

        def test_fixture(tenant):
            assert tenant == "acme" == current_tenant()
            assert type(tenant) is str

        def test_nothing():
            assert current_tenant_or_none() is None
        """,
        passed=2,
    )


def test_marker_activates_with_and_without_the_fixture(pytester: pytest.Pytester) -> None:
    """On a function, a class or a module; the closest one counts, and without an id the default."""
    passes(
        pytester,
        """
        import uuid
        import pytest
        from tenantry import current_tenant

        pytestmark = pytest.mark.tenant("module")

        @pytest.mark.tenant("globex")
        def test_with(tenant):
            assert tenant == "globex" == current_tenant()

        @pytest.mark.tenant("globex")
        def test_without():
            assert current_tenant() == "globex"

        @pytest.mark.tenant(tenant_id="named")
        def test_keyword():
            assert current_tenant() == "named"

        @pytest.mark.tenant
        def test_bare(tenant):
            assert tenant == "acme" == current_tenant()

        @pytest.mark.tenant("cls")
        class TestClass:
            def test_class(self):
                assert current_tenant() == "cls"

            @pytest.mark.tenant("method")
            def test_method(self, tenant):
                assert tenant == "method" == current_tenant()

        def test_module():
            assert current_tenant() == "module"

        @pytest.mark.tenant(uuid.UUID(int=5))
        def test_uuid(tenant):
            assert tenant == "00000000-0000-0000-0000-000000000005"

        @pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.tenant("param"))])
        def test_param(n):
            assert current_tenant() == "param"
        """,
        passed=9,
    )


def test_marker_covers_function_scoped_fixtures_and_no_wider_ones(pytester: pytest.Pytester) -> None:
    """Fixtures of the test run as its tenant, their teardown included; shared ones do not."""
    passes(
        pytester,
        """
        import pytest
        from tenantry import current_tenant_or_none

        seen = []

        @pytest.fixture(scope="session")
        def shared():
            return current_tenant_or_none()

        @pytest.fixture(autouse=True)
        def automatic():
            seen.append(current_tenant_or_none())

        @pytest.fixture
        def own():
            yield current_tenant_or_none()
            seen.append(current_tenant_or_none())

        @pytest.mark.tenant("globex")
        def test_one(own, shared):
            assert (own, shared) == ("globex", None)

        def test_two():
            assert seen == ["globex", "globex", None]
        """,
        passed=2,
    )


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ("tenant('a', 'b')", "*takes one tenant id*"),
        ("tenant(name='a')", "*takes one tenant id*"),
        ("tenant(None)", "*None is not a tenant id*"),
        ("tenant('a b')", "*'a b' is not a tenant id*"),
    ],
)
def test_marker_that_is_wrong_is_an_error(pytester: pytest.Pytester, mark: str, message: str) -> None:
    """A test with a marker that names no tenant does not run."""
    result = passes(
        pytester,
        f"""
        import pytest

        @pytest.mark.{mark}
        def test_one():
            raise SystemError("must not run")
        """,
        errors=1,
    )
    result.stdout.fnmatch_lines([message])
    result.stdout.no_fnmatch_line("*must not run*")


def test_own_parameter_or_fixture_wins_and_activates_nothing(pytester: pytest.Pytester) -> None:
    """The name ``tenant`` is common; who uses it for something else is not surprised."""
    passes(
        pytester,
        """
        import pytest
        from tenantry import current_tenant_or_none

        @pytest.mark.parametrize("tenant", ["x", object()])
        def test_parameter(tenant):
            assert current_tenant_or_none() is None

        class TestOwn:
            @pytest.fixture
            def tenant(self):
                return {"name": "their own"}

            def test_fixture(self, tenant):
                assert tenant == {"name": "their own"}
                assert current_tenant_or_none() is None

            @pytest.mark.tenant("globex")
            def test_marker_still_activates(self, tenant):
                assert tenant == {"name": "their own"}
                assert current_tenant_or_none() == "globex"

        class TestExtended:
            @pytest.fixture
            def tenant(self, tenant):
                return tenant.upper()

            def test_fixture(self, tenant):
                assert tenant == "ACME"
                assert current_tenant_or_none() == "acme"
        """,
        passed=5,
    )


def test_fixture_takes_an_indirect_parameter(pytester: pytest.Pytester) -> None:
    """The way to run one test under several tenants; the parameter is closer than the marker."""
    passes(
        pytester,
        """
        import pytest
        from tenantry import current_tenant

        @pytest.mark.parametrize("tenant", ["acme", "globex"], indirect=True)
        @pytest.mark.tenant("initech")
        def test_one(tenant, request):
            assert tenant == current_tenant() == request.node.callspec.params["tenant"]
        """,
        passed=2,
    )


def test_fixture_yields_the_tenant_that_another_fixture_activated(pytester: pytest.Pytester) -> None:
    """It is the active id that it yields, whoever made it active."""
    passes(
        pytester,
        """
        import pytest
        from tenantry import current_tenant, tenant_scope

        @pytest.fixture(autouse=True)
        def theirs():
            with tenant_scope("globex"):
                yield

        def test_one(tenant):
            assert tenant == "globex" == current_tenant()
        """,
        passed=1,
    )


def test_ini_option_names_the_default_tenant(pytester: pytest.Pytester) -> None:
    """The default can be chosen for a project."""
    passes(
        pytester,
        """
        import pytest

        def test_one(tenant):
            assert tenant == "initech"

        @pytest.mark.tenant
        def test_two(tenant):
            assert tenant == "initech"
        """,
        "-o",
        "tenantry_tenant=initech",
        passed=2,
    )


def test_ini_option_that_is_no_tenant_id_is_a_usage_error(pytester: pytest.Pytester) -> None:
    """A default that no test could use is said at once."""
    pytester.makepyfile("def test_one(): pass")
    result = run(pytester, "-o", "tenantry_tenant=a b")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*ini option tenantry_tenant: 'a b' is not a tenant id*"])


def test_marker_is_documented(pytester: pytest.Pytester) -> None:
    """``pytest --markers`` and ``--fixtures`` list what there is."""
    run(pytester, "--markers").stdout.fnmatch_lines(["@pytest.mark.tenant(tenant_id): run the test*"])
    run(pytester, "--fixtures").stdout.fnmatch_lines(["tenant -- *", "*Return the id of the active tenant*"])


def test_hypothesis_tests_run_under_the_marker(pytester: pytest.Pytester) -> None:
    """Every example sees the tenant, and the guard's own fixture is no health problem."""
    passes(
        pytester,
        """
        import pytest
        from hypothesis import given, settings, strategies as st
        from tenantry import current_tenant

        @pytest.mark.tenant("globex")
        @settings(database=None)
        @given(st.integers())
        def test_one(n):
            assert current_tenant() == "globex"

        @pytest.mark.tenant("globex")
        @settings(database=None)
        @given(st.integers())
        async def test_two(n):
            assert current_tenant() == "globex"
        """,
        *ASYNCIO,
        *HYPOTHESIS,
        passed=2,
    )


# --- asynchronous tests --------------------------------------------------------------------------


def test_asyncio_tests_and_fixtures_see_the_tenant(pytester: pytest.Pytester) -> None:
    """pytest-asyncio runs each in a copy of the context; loops of every scope."""
    passes(
        pytester,
        """
        import asyncio
        import pytest
        import pytest_asyncio
        from tenantry import current_tenant, current_tenant_or_none

        seen = []

        @pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
        async def shared():
            yield current_tenant_or_none()

        @pytest_asyncio.fixture(loop_scope="module")
        async def own():
            yield current_tenant()
            seen.append(current_tenant_or_none())

        @pytest_asyncio.fixture
        async def simple():
            return current_tenant()

        @pytest.mark.asyncio(loop_scope="module")
        @pytest.mark.tenant("globex")
        async def test_marker(own, simple, shared):
            assert (own, simple, shared, current_tenant()) == ("globex", "globex", None, "globex")
            assert await asyncio.create_task(asyncio.to_thread(current_tenant)) == "globex"

        async def test_fixture(tenant):
            await asyncio.sleep(0)
            assert tenant == "acme" == current_tenant()
            assert seen == ["globex"]

        async def test_nothing():
            assert current_tenant_or_none() is None

        class TestClass:
            @pytest_asyncio.fixture
            async def own(self):
                self.set_by_fixture = 1
                yield current_tenant()

            @pytest.mark.tenant("initech")
            async def test_method(self, own):
                assert self.set_by_fixture == 1
                assert own == current_tenant() == "initech"
        """,
        *ASYNCIO,
        passed=4,
    )


def test_async_fixtures_may_hold_a_tenant(pytester: pytest.Pytester) -> None:
    """A scope in an asynchronous generator fixture reaches the test and is no leftover."""
    passes(
        pytester,
        """
        import pytest
        import pytest_asyncio
        from tenantry import current_tenant, current_tenant_or_none, tenant_scope

        @pytest_asyncio.fixture
        async def held():
            async with tenant_scope("globex"):
                yield

        async def test_async(held):
            assert current_tenant() == "globex"

        def test_sync(held):
            assert current_tenant() == "globex"

        @pytest_asyncio.fixture
        async def switched():
            with tenant_scope("globex", switch=True):
                yield current_tenant()

        @pytest.mark.tenant("acme")
        async def test_marker_and_fixture(switched):
            assert switched == current_tenant() == "globex"

        async def test_nothing():
            assert current_tenant_or_none() is None
        """,
        *ASYNCIO,
        passed=4,
    )


ANYIO_SUITE = """
    import pytest
    from tenantry import bind_tenant, current_tenant, current_tenant_or_none, tenant_scope

    pytestmark = pytest.mark.anyio
    seen = []

    @pytest.fixture(scope="module", autouse=True)
    async def shared(anyio_backend):
        yield current_tenant_or_none()

    @pytest.fixture
    async def own():
        yield current_tenant()
        seen.append(current_tenant_or_none())

    @pytest.fixture
    async def simple():
        return current_tenant()

    @pytest.fixture
    async def held():
        async with tenant_scope("initech", switch=True):
            yield

    @pytest.mark.tenant("globex")
    async def test_marker(own, simple, shared):
        assert (own, simple, shared, current_tenant()) == ("globex", "globex", None, "globex")

    async def test_nothing():
        assert current_tenant_or_none() is None
        assert seen and set(seen) == {"globex"}

    async def test_fixture(tenant):
        assert tenant == "acme" == current_tenant()

    async def test_held(held):
        assert current_tenant() == "initech"

    @pytest.mark.tenant("globex")
    async def test_held_and_marked(held):
        assert current_tenant() == "initech"

    async def test_nothing_again():
        assert current_tenant_or_none() is None

    class TestClass:
        @pytest.fixture
        async def own(self):
            self.set_by_fixture = 1
            yield current_tenant()

        @pytest.mark.tenant("initech")
        async def test_method(self, own):
            assert self.set_by_fixture == 1
            assert own == current_tenant() == "initech"
"""


def test_anyio_tests_and_fixtures_see_the_tenant(pytester: pytest.Pytester) -> None:
    """Anyio runs all of a module in one task that began before; on asyncio and on trio."""
    passes(pytester, ANYIO_SUITE, *ANYIO, passed=14)


def test_async_fixture_that_yields_twice_is_told(pytester: pytest.Pytester) -> None:
    """As the plugins do that drive fixtures themselves."""
    result = passes(
        pytester,
        """
        import pytest

        pytestmark = pytest.mark.anyio

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.fixture
        async def twice():
            yield 1
            yield 2

        @pytest.mark.tenant("acme")
        async def test_one(twice):
            assert twice == 1
        """,
        *ANYIO,
        passed=1,
        errors=1,
    )
    result.stdout.fnmatch_lines(["*the fixture twice yields more than once*"])


def test_unittest_cases_run_under_the_marker(pytester: pytest.Pytester) -> None:
    """Both kinds of TestCase, set-up included."""
    passes(
        pytester,
        """
        import unittest
        import pytest
        from tenantry import bind_tenant, current_tenant, current_tenant_or_none, reset_tenant

        @pytest.mark.tenant("globex")
        class Plain(unittest.TestCase):
            def setUp(self):
                assert current_tenant() == "globex"

            def test_one(self):
                assert current_tenant() == "globex"

        @pytest.mark.tenant("globex")
        class Async(unittest.IsolatedAsyncioTestCase):
            async def asyncSetUp(self):
                assert current_tenant() == "globex"

            async def test_one(self):
                assert current_tenant() == "globex"

        class Binding(unittest.TestCase):
            def setUp(self):
                self.token = bind_tenant("acme")

            def tearDown(self):
                reset_tenant(self.token)

            def test_one(self):
                assert current_tenant() == "acme"

            def test_two(self):
                assert current_tenant() == "acme"

        class Nothing(unittest.TestCase):
            def test_one(self):
                assert current_tenant_or_none() is None
        """,
        passed=5,
    )


# --- the guard -----------------------------------------------------------------------------------


def test_guard_fails_a_test_that_leaves_a_tenant_and_says_where(pytester: pytest.Pytester) -> None:
    """The test fails, the place is named, and the next test starts clean."""
    result = passes(
        pytester,
        """
        from tenantry import bind_tenant, current_tenant_or_none

        def bind():
            return bind_tenant("acme")

        def test_leaves():
            bind()

        def test_next():
            assert current_tenant_or_none() is None
        """,
        failed=1,
        passed=1,
    )
    result.stdout.fnmatch_lines(["this test left tenant 'acme' set. It was set at *.py:4, in bind.*"])


def test_guard_names_scopes_that_an_exit_stack_left_open(pytester: pytest.Pytester) -> None:
    """The frames of contextlib and of tenantry itself are not the place."""
    result = passes(
        pytester,
        """
        from contextlib import ExitStack
        from tenantry import tenant_scope

        def test_leaves():
            ExitStack().enter_context(tenant_scope("acme"))
        """,
        failed=1,
    )
    result.stdout.fnmatch_lines(["*left tenant 'acme' set. It was set at *.py:5, in test_leaves.*"])


def test_guard_says_when_the_place_is_not_known(pytester: pytest.Pytester) -> None:
    """What was made before the plugin began has no place; the test fails all the same."""
    result = passes(
        pytester,
        """
        from tenantry import context

        def test_leaves():
            plain = context.State.__mro__[1]
            context._STATE.set(plain("acme", context.TENANT, object()))
        """,
        failed=1,
    )
    result.stdout.fnmatch_lines(["*left tenant 'acme' set. It was set at a place that is not known.*"])


def test_guard_notes_what_a_failing_test_left(pytester: pytest.Pytester) -> None:
    """The test's own error stays the error."""
    result = passes(
        pytester,
        """
        from tenantry import bind_tenant, current_tenant_or_none

        def test_leaves():
            bind_tenant("acme")
            raise ValueError("their own")

        def test_next():
            assert current_tenant_or_none() is None
        """,
        failed=1,
        passed=1,
    )
    result.stdout.fnmatch_lines(["*ValueError: their own*", "*this test left tenant 'acme' set.*"])


def test_guard_fails_a_leftover_under_a_tenant(pytester: pytest.Pytester) -> None:
    """Also where the marker or the fixture has one active: a scope inside was not closed."""
    passes(
        pytester,
        """
        import pytest
        from contextlib import ExitStack
        from tenantry import bind_tenant, current_tenant_or_none, tenant_scope

        @pytest.mark.tenant("acme")
        def test_marker():
            bind_tenant("acme")

        def test_fixture(tenant):
            ExitStack().enter_context(tenant_scope("globex", switch=True))

        def test_next():
            assert current_tenant_or_none() is None
        """,
        failed=2,
        passed=1,
    )


def test_guard_fails_an_async_test_that_leaves_a_tenant(pytester: pytest.Pytester) -> None:
    """Its context is a copy, so nobody is hit, but the scope was left open all the same."""
    result = passes(
        pytester,
        """
        from tenantry import bind_tenant, current_tenant_or_none

        async def test_leaves():
            bind_tenant("acme")

        async def test_next():
            assert current_tenant_or_none() is None
        """,
        *ASYNCIO,
        failed=1,
        passed=1,
    )
    result.stdout.fnmatch_lines(["this test left tenant 'acme' set. It was set at *.py:4, in test_leaves.*"])


def test_guard_cleans_the_task_that_anyio_tests_share(pytester: pytest.Pytester) -> None:
    """There the next test would be hit."""
    passes(
        pytester,
        """
        import pytest
        from tenantry import bind_tenant, current_tenant_or_none

        pytestmark = pytest.mark.anyio

        @pytest.fixture(scope="module")
        def anyio_backend():
            return "asyncio"

        @pytest.fixture(scope="module", autouse=True)
        async def shared(anyio_backend):
            yield

        async def test_leaves():
            bind_tenant("acme")

        async def test_next():
            assert current_tenant_or_none() is None
        """,
        *ANYIO,
        failed=1,
        passed=1,
    )


def test_guard_fails_a_fixture_that_leaves_a_tenant(pytester: pytest.Pytester) -> None:
    """The test passes, its teardown is the error; with a marker, too."""
    result = passes(
        pytester,
        """
        import pytest
        from tenantry import bind_tenant, current_tenant, current_tenant_or_none

        @pytest.fixture
        def leaving():
            bind_tenant("acme")

        def test_one(leaving):
            assert current_tenant() == "acme"

        def test_next():
            assert current_tenant_or_none() is None

        @pytest.mark.tenant("acme")
        def test_marked(leaving):
            pass

        def test_last():
            assert current_tenant_or_none() is None
        """,
        passed=4,
        errors=2,
    )
    result.stdout.fnmatch_lines(
        ["a fixture of this test left tenant 'acme' set. It was set at *.py:6, in leaving.*"]
    )


def test_guard_lets_fixtures_hold_a_tenant_while_they_live(pytester: pytest.Pytester) -> None:
    """Wider scopes, xunit methods and fixtures that a test asks for by name are no leftovers."""
    passes(
        pytester,
        """
        import pytest
        from tenantry import bind_tenant, current_tenant, current_tenant_or_none, reset_tenant, tenant_scope

        @pytest.fixture(scope="module")
        def module_tenant():
            with tenant_scope("module"):
                yield "module"

        @pytest.fixture
        def named():
            with tenant_scope("named"):
                yield

        def test_none():
            assert current_tenant_or_none() is None

        def test_by_name(request):
            request.getfixturevalue("named")
            assert current_tenant() == "named"
            request.getfixturevalue("tenant")

        class TestXunit:
            def setup_method(self):
                self.token = bind_tenant("xunit")

            def teardown_method(self):
                reset_tenant(self.token)

            def test_one(self):
                assert current_tenant() == "xunit"

        class TestXunitClass:
            @classmethod
            def setup_class(cls):
                cls.token = bind_tenant("xunit")

            @classmethod
            def teardown_class(cls):
                reset_tenant(cls.token)

            def test_one(self):
                assert current_tenant() == "xunit"

            def test_two(self, tenant):
                assert current_tenant() == tenant == "xunit"

        def test_module(module_tenant):
            assert current_tenant() == "module"

        @pytest.mark.tenant("globex")
        def test_marked(module_tenant):
            assert current_tenant() == "globex"

        def test_still_module():
            assert current_tenant() == "module"
        """,
        passed=8,
    )


def test_guard_fails_a_wide_fixture_that_leaves_a_tenant(pytester: pytest.Pytester) -> None:
    """It is the last test that used it that is told."""
    pytester.makepyfile(
        test_a="""
        import pytest
        from tenantry import bind_tenant

        @pytest.fixture(scope="module", autouse=True)
        def leaving():
            bind_tenant("acme")
            yield

        def test_one(): pass
        def test_two(): pass
        """,
        test_b="""
        from tenantry import current_tenant_or_none

        def test_three():
            assert current_tenant_or_none() is None
        """,
    )
    result = run(pytester)
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_two*"])


def test_guard_says_nothing_of_regions_without_a_tenant(pytester: pytest.Pytester) -> None:
    """A scope error that a test provokes ends in no tenant, which is no leftover."""
    passes(
        pytester,
        """
        import pytest
        from tenantry import ScopeOrderError, bind_tenant, current_tenant_or_none, reset_tenant, without_tenant

        def test_order():
            a, b = bind_tenant("acme"), bind_tenant("acme")
            with pytest.raises(ScopeOrderError):
                reset_tenant(a)
            reset_tenant(b)

        def test_open():
            without_tenant(reason="a test").__enter__()

        def test_next(tenant):
            assert tenant == "acme"
        """,
        passed=3,
    )


def test_skips_and_expected_failures_stay_what_they_are(pytester: pytest.Pytester) -> None:
    """The guard does not turn a skip into a failure, and a leftover counts as a failure that was expected."""
    passes(
        pytester,
        """
        import pytest
        from tenantry import bind_tenant, current_tenant_or_none

        def test_skip(tenant):
            pytest.skip("reason")

        @pytest.mark.xfail(strict=True, reason="leaves a tenant")
        def test_xfail():
            bind_tenant("acme")

        def test_next():
            assert current_tenant_or_none() is None
        """,
        skipped=1,
        xfailed=1,
        passed=1,
    )


def test_guard_works_under_xdist(pytester: pytest.Pytester) -> None:
    """In each worker, with the place in the report of the controller."""
    result = passes(
        pytester,
        """
        import pytest
        from tenantry import bind_tenant, current_tenant, current_tenant_or_none

        @pytest.mark.parametrize("n", range(6))
        def test_leaves(n):
            assert current_tenant_or_none() is None
            bind_tenant(f"t{n}")

        @pytest.mark.parametrize("n", range(6))
        @pytest.mark.tenant("globex")
        def test_marked(n):
            assert current_tenant() == "globex"
        """,
        *XDIST,
        failed=6,
        passed=6,
    )
    result.stdout.fnmatch_lines(["this test left tenant 't5' set. It was set at *.py:7, in test_leaves.*"])


def test_plugin_may_be_named_beside_its_entry_point(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``-p`` and ``pytest_plugins`` do not load it twice, and its entry point alone loads it."""
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    scope = ("-o", "asyncio_default_fixture_loop_scope=function")
    pytester.makepyfile("def test_one(tenant): assert tenant == 'acme'")
    if INSTALLED:
        pytester.runpytest_inprocess(*scope, "-p", "no:cacheprovider").assert_outcomes(passed=1)
    pytester.makeconftest("pytest_plugins = ['tenantry.pytest_plugin']")
    run(pytester, *scope).assert_outcomes(passed=1)


def test_plugin_takes_its_recording_back(pytester: pytest.Pytester) -> None:
    """A session inside a session leaves the outer one as it was."""
    before = context.State
    passes(
        pytester,
        """
        from tenantry import context

        def test_one(tenant):
            assert context.State.__module__ == "tenantry.pytest_plugin"
        """,
        passed=1,
    )
    assert context.State is before
