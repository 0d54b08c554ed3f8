"""Declared key functions: formats, caches, signatures, refusals."""

from __future__ import annotations

import asyncio
import gc
import inspect
import pickle
import threading
import tracemalloc
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from tenantry import InvalidKeyPartError, KeySchemaError, NoTenantError, keys, tenant_scope, without_tenant
from tenantry.keys import ParsedKey, functions, key, konstruct, parse, shared_key


class Text(str):
    __slots__ = ()

    def __eq__(self, other):
        return True

    def __hash__(self):
        return hash("1")

    def __str__(self):
        return "lie"


def declare(template="pair:{a}:{b}"):
    @key(template)
    def pair(a, b="default"):
        """List: a pair."""

    return pair


def warm(call, *args):
    """Call until the key is remembered."""
    for _ in range(3 * functions._ONE_IN):
        result = call(*args)
    return result


# --- keys -------------------------------------------------------------------------------------------


def test_key_has_the_declared_form(prefix):
    """Tenant, literals, parts."""
    pair = declare()
    with tenant_scope("acme"):
        assert pair("x", "y") == prefix + "pair:x:y"
        assert pair("x") == prefix + "pair:x:default"
        assert pair(b="1", a="2") == prefix + "pair:2:1"
        assert pair(7, uuid.UUID(int=0)) == prefix + "pair:7:00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize("hot", [False, True])
def test_key_is_the_same_hot_and_cold(hot, prefix):
    """A remembered key is the built key, encoded parts included."""
    pair = declare()
    call = warm if hot else lambda f, *args: f(*args)
    with tenant_scope("acme"):
        assert call(pair, "a:b", "c") == prefix + "pair:a%3Ab:c"
        assert call(pair, "a", "b:c") == prefix + "pair:a:b%3Ac"
        assert call(pair, "é", "日") == prefix + "pair:é:日"
        assert call(pair, "x" * 512, "y" * 512) == prefix + f"pair:{'x' * 512}:{'y' * 512}"
        assert call(pair, "x", "y") == prefix + "pair:x:y"
        assert call(pair, "x" * 200, "y") == prefix + f"pair:{'x' * 200}:y"


def test_hot_keys_of_two_tenants_stay_apart():
    """The tenant is part of what is remembered."""
    pair = declare()
    for tenant in ("acme", "globex", "acme"):
        with tenant_scope(tenant):
            assert warm(pair, "x", "y") == f"{tenant}:pair:x:y"


def test_hot_key_without_a_tenant_still_raises():
    """No cache answers where no tenant is active."""
    pair = declare()
    with tenant_scope("acme"):
        warm(pair, "x", "y")
    with pytest.raises(NoTenantError, match="^pair needs an active tenant") as caught:
        pair("x", "y")
    assert caught.value.wanted == "pair"
    with without_tenant(reason="a test"), pytest.raises(NoTenantError, match="deliberate"):
        pair("x", "y")


@pytest.mark.parametrize("value", [True, 1.0, None, b"1", ""])
def test_hot_key_never_answers_for_what_compares_equal(value):
    """`1 == True == 1.0`, and caches compare by equality."""
    pair = declare()
    with tenant_scope("acme"):
        warm(pair, "1", "1")
        warm(pair, 1, 1)
        for args in ((value, "1"), ("1", value)):
            with pytest.raises(InvalidKeyPartError, match=r"pair\(") as caught:
                pair(*args)
        assert caught.value.part == "b"


def test_hot_key_never_answers_for_a_subclass_that_lies():
    """A subclass counts by its underlying value, hot or not."""
    pair = declare()
    with tenant_scope("acme"):
        warm(pair, "1", "1")
        assert pair(Text("2"), "1") == "acme:pair:2:1"
        warm(pair, Text("1"), Text("1"))
        assert pair("1", "1") == "acme:pair:1:1"


def test_key_without_placeholders():
    """One key per tenant."""

    @key("settings")
    def settings():
        """Hash."""

    with tenant_scope("acme"):
        assert warm(settings) == "acme:settings"
        assert settings.pattern() == "acme:settings"
    with pytest.raises(NoTenantError, match="settings needs"):
        settings()
    assert parse("acme:settings") == ("acme", "settings", {})


def test_placeholders_may_have_any_name():
    """Names of builtins and of our own code do not disturb."""

    @key("odd:{type}:{str}:{len}:{key}:{_tenant}:{build}")
    def odd(type, str, len, key, _tenant, build):
        """String."""

    with tenant_scope("acme"):
        assert warm(odd, "1", "2", "3", "4", "5", "6") == "acme:odd:1:2:3:4:5:6"


def test_pattern_takes_a_placeholder_of_any_name():
    """No parameter of our own stands in the way."""

    @key("any:{self}:{parts}")
    def named(self, parts):
        """String."""

    with tenant_scope("acme"):
        assert named.pattern(self="1", parts="2") == named("1", "2") == "acme:any:1:2"


def test_the_seven_are_found_by_pickle():
    """A process pool takes them by name."""
    for name in sorted(konstruct.NAMES):
        function = getattr(keys, name)
        assert pickle.loads(pickle.dumps(function)) is function


def test_parameters_keep_their_kinds_order_and_defaults():
    """Positional-only, keyword-only, defaults; any order in the template."""

    @key("kinds:{c}:{a}:{b}")
    def kinds(a, /, b="B", *, c="C"):
        """String."""

    with tenant_scope("acme"):
        assert kinds("x") == "acme:kinds:C:x:B"
        assert kinds("x", "y", c="z") == "acme:kinds:z:x:y"
        with pytest.raises(TypeError, match="kinds"):
            kinds(a="x")
        with pytest.raises(TypeError, match="kinds"):
            kinds("x", "y", "z")
        with pytest.raises(TypeError, match="kinds"):
            kinds()
    assert list(inspect.signature(kinds).parameters) == ["a", "b", "c"]
    assert (kinds.__name__, kinds.__doc__, kinds.template) == ("kinds", "String.", "kinds:{c}:{a}:{b}")


def test_default_that_is_no_part_is_refused_when_it_is_used():
    """A default is a value like any other."""

    @key("d:{a}")
    def with_default(a=None):
        """String."""

    with tenant_scope("acme"):
        assert with_default("x") == "acme:d:x"
        with pytest.raises(InvalidKeyPartError, match="NoneType"):
            with_default()


def test_lone_surrogate_is_refused_not_encoded():
    """It would surface deep in the client otherwise."""
    with tenant_scope("acme"), pytest.raises(InvalidKeyPartError, match="surrogates"):
        declare()("\ud800", "x")


def test_key_functions_are_safe_in_threads_and_tasks():
    """Concurrent tenants, hot and cold ids, never a foreign key."""
    pair = declare()
    barrier = threading.Barrier(8)

    def work(name):
        barrier.wait()
        with tenant_scope(name):
            return {pair(str(number % 50), str(number)) for number in range(2000)}

    async def main():
        async def task(name):
            async with tenant_scope(name):
                await asyncio.sleep(0)
                return pair("x", "y")

        return await asyncio.gather(*(task(f"t{number}") for number in range(50)))

    with ThreadPoolExecutor(8) as pool:
        for name, made in zip("abcdefgh", pool.map(work, "abcdefgh"), strict=True):
            assert all(each.startswith(f"{name}:pair:") for each in made)
            assert len(made) == 2000
    assert asyncio.run(main()) == [f"t{number}:pair:x:y" for number in range(50)]


def test_memory_stays_bounded_whatever_the_number_of_ids_and_tenants():
    """Finished keys are forgotten as a whole when they are many."""
    pair = declare()
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(60_000):
            with tenant_scope(f"t{number % 5000}"):
                pair(str(number), "x" * 100)
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert functions._memory._count <= functions._REMEMBERED_LIMIT
    assert used < 32 * 1024 * 1024


def test_memory_is_dropped_when_full(monkeypatch):
    """All tables of the process are emptied, and keys are still right."""
    monkeypatch.setattr(functions, "_REMEMBERED_LIMIT", 4)
    pair, other = declare(), declare("other:{a}:{b}")
    with tenant_scope("acme"):
        warm(other, "x", "y")
        for number in range(500):
            assert pair(str(number), "x") == f"acme:pair:{number}:x"
        assert sum(len(t) for table in functions._memory._tables for t in table.values()) <= 4
        assert other("x", "y") == "acme:other:x:y"


def test_memory_holds_what_was_remembered_until_it_is_full(monkeypatch):
    """Then everything goes, in every table, and it fills anew."""
    monkeypatch.setattr(functions, "_REMEMBERED_LIMIT", 2)
    memory = functions._Memory()
    table, other = memory.new_table(), memory.new_table()
    memory.remember(table, ("acme", "x"), "first")
    memory.remember(other, ("acme",), "second")
    assert (table, other) == ({"acme": {"x": "first"}}, {"acme": "second"})
    memory.remember(table, ("acme", "y"), "third")
    assert (table, other) == ({"acme": {"y": "third"}}, {})
    memory.remember(other, ("zeta",), "fourth")
    assert (table, other) == ({"acme": {"y": "third"}}, {"zeta": "fourth"})


def test_memory_holds_no_long_keys():
    """A bound on their number alone would not bound the bytes."""
    memory = functions._Memory()
    table = memory.new_table()
    memory.remember(table, ("acme",), "x" * (functions._REMEMBERED_LENGTH + 1))
    assert table == {}
    memory.remember(table, ("acme",), "x" * functions._REMEMBERED_LENGTH)
    assert list(table) == ["acme"]


@pytest.mark.parametrize("parts", [("x{}", "y"), ("x:{}", "y")], ids=["as they are", "encoded"])
def test_one_new_key_in_so_many_is_remembered(parts):
    """However a key is built, remembering it costs more than building it once."""
    pair = declare()
    with tenant_scope("acme"):
        pair("first", "built the long way")
        before = functions._memory._count
        for number in range(10 * functions._ONE_IN):
            pair(parts[0].format(number), parts[1])
    assert functions._memory._count - before == 10


def test_hot_key_is_given_from_memory():
    """Also when its parts are encoded."""
    pair = declare()
    with tenant_scope("acme"):
        for parts in (("x", "y"), ("x:1", "y*")):
            assert warm(pair, *parts) is pair(*parts)


def test_parts_that_are_not_text_are_not_remembered():
    """No look-up would ever find them."""
    pair = declare()
    with tenant_scope("acme"):
        warm(pair, 1, uuid.UUID(int=0))
    assert functions._memory._count == 0


def test_shared_key_is_remembered_once_for_all_tenants():
    """It belongs to none of them."""

    @shared_key("rates:{currency}", reason="the same for everybody")
    def rates(currency):
        """String: a rate."""

    hot = warm(rates, "eur")
    with tenant_scope("acme"):
        assert rates("eur") is hot


def test_ordinary_parts_are_never_encoded_one_by_one_after_the_first_key(prefix, monkeypatch):
    """The short way is there in every layout, and for shared keys."""
    pair = declare()

    @shared_key("rates:{currency}", reason="the same for everybody")
    def rates(currency):
        """String: a rate."""

    rates("eur")
    with tenant_scope("acme"):
        pair("x", "y")

    def refuse(*arguments):
        raise AssertionError(f"encoded one by one: {arguments}")

    for function in (pair, rates):
        monkeypatch.setitem(function.__globals__, "_tenantry_build", refuse)
    assert rates("usd") == "%shared:rates:usd"
    with tenant_scope("zeta"):
        assert pair("a-1_b", "u@d.example") == prefix.replace("acme", "zeta") + "pair:a-1_b:u@d.example"


def test_long_part_is_refused_on_the_short_way_too():
    """Its length counts in bytes, not in characters."""
    pair = declare()
    with tenant_scope("acme"):
        pair("x", "y")
        with pytest.raises(InvalidKeyPartError, match="at most 512 bytes"):
            pair("x", "é" * 300)


# --- patterns and parse -----------------------------------------------------------------------------


def test_pattern_matches_what_is_not_given(prefix):
    """Values are encoded, so none of them is a glob."""
    pair = declare()
    with tenant_scope("acme"):
        assert pair.pattern() == prefix + "pair:*:*"
        assert pair.pattern(b="x*") == prefix + "pair:*:x%2A"
        assert pair.pattern(a=1, b="y") == prefix + "pair:1:y"
        with pytest.raises(TypeError, match="no placeholder c, d"):
            pair.pattern(d=1, c=2)
        with pytest.raises(InvalidKeyPartError, match="NoneType"):
            pair.pattern(a=None)
    with pytest.raises(NoTenantError, match=r"pair\.pattern needs"):
        pair.pattern()


def test_parse_of_a_function_reads_its_own_keys_only(prefix):
    """It works with no tenant active, on text and bytes."""
    pair, other = declare(), declare("other:{a}:{b}")
    with tenant_scope("acme"):
        made, foreign = pair("a:b", "é"), other("x", "y")
    expected = ParsedKey("acme", "pair", {"a": "a:b", "b": "é"})
    assert pair.parse(made) == pair.parse(made.encode()) == parse(made) == expected
    assert list(pair.parse(made).parts) == ["a", "b"]
    for wrong in (foreign, "pair:x:y", "", "acme:pair:x", "%shared:pair:x:y", b"\xff"):
        with pytest.raises(KeySchemaError, match="does not yield this key"):
            pair.parse(wrong)


# --- shared keys --------------------------------------------------------------------------------------


def test_shared_key_belongs_to_no_tenant_in_every_state(prefix):
    """Its prefix is in no tenant's grammar."""

    @shared_key("flags:{name}", reason="one set of flags for the fleet")
    def flags(name):
        """String."""

    assert warm(flags, "a") == "%shared:flags:a"
    with tenant_scope("acme"):
        assert flags("a b") == "%shared:flags:a%20b"
    with without_tenant(reason="a test"):
        assert flags.pattern() == "%shared:flags:*"
        with pytest.raises(InvalidKeyPartError, match="empty"):
            flags("")
    assert parse("%shared:flags:a") == flags.parse("%shared:flags:a") == (None, "flags", {"name": "a"})
    assert keys.owner_of("%shared:flags:a") is None
    assert keys.is_shared_key(b"%shared:flags:a")
    assert not keys.is_shared_key("%shared:other:a")
    assert not keys.is_shared_key("acme:flags:a")
    with tenant_scope("acme"):
        owned = declare()("a", "b")
    assert parse(owned).schema == "pair"
    assert not keys.is_shared_key(owned)
    with pytest.raises(KeySchemaError, match="does not yield"):
        flags.parse("acme:flags:a")


def test_shared_key_does_not_settle_the_layout():
    """It reads the same in both."""

    @shared_key("flags:{name}", reason="a test")
    def flags(name):
        """String."""

    flags("x")
    keys.use_layout("tagged")
    assert flags("x") == "%shared:flags:x"


def test_shared_key_needs_a_reason():
    """As without_tenant does."""
    with pytest.raises(TypeError, match="reason"):
        shared_key("x")
    with pytest.raises(TypeError, match="takes a text"):
        shared_key("x", reason=None)
    with pytest.raises(KeySchemaError, match="a template is text"):
        shared_key(5, reason="a test")
    with pytest.raises(ValueError, match="belong to no tenant"):
        shared_key("x", reason=" ")


# --- refused declarations -------------------------------------------------------------------------------


async def coroutine_function(a):
    """Asynchronous."""


def generator(a):
    """Generator."""
    yield


async def async_generator(a):
    """Asynchronous generator."""
    yield


class Klass:
    """A class."""

    def __init__(self, a):
        """Take a part."""


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (coroutine_function, "neither async nor a generator"),
        (generator, "neither async nor a generator"),
        (async_generator, "neither async nor a generator"),
        (Klass, "plain `def`, not by type"),
        (staticmethod(generator), "plain `def`, not by staticmethod"),
        (len, "plain `def`, not by builtin"),
        (None, "plain `def`, not by NoneType"),
    ],
    ids=["coroutine", "generator", "async generator", "class", "staticmethod", "builtin", "None"],
)
@pytest.mark.parametrize("declare", [key, lambda t: shared_key(t, reason="r")], ids=["key", "shared"])
def test_declaration_by_other_than_a_plain_function_is_refused(target, message, declare):
    """A key function is a plain `def`."""
    with pytest.raises(KeySchemaError, match=message):
        declare("x:{a}")(target)


@pytest.mark.parametrize("template", [None, 5, b"x", generator])
def test_template_has_to_be_text(template):
    """Also where the decorator was used without its call."""
    with pytest.raises(KeySchemaError, match="a template is text"):
        key(template)


def test_placeholders_and_parameters_have_to_agree():
    """In both directions, without * and **."""
    for function in (
        lambda: "",
        lambda b: "",
        lambda a, b: "",
        lambda a, *rest: "",
        lambda a, **rest: "",
        lambda *a: "",
    ):
        with pytest.raises(KeySchemaError, match="same names"):
            key("x:{a}")(function)


def test_disagreement_names_both_sides():
    """Also where one of them has nothing."""
    with pytest.raises(KeySchemaError, match=r"placeholders \(a, b\) and the function's parameters \(a, c\)"):
        key("x:{a}:{b}")(lambda a, c: "")
    with pytest.raises(KeySchemaError, match=r"placeholders \(none\) and the function's parameters \(a\)"):
        key("x")(lambda a: "")
    with pytest.raises(KeySchemaError, match=r"placeholders \(a\) and the function's parameters \(none\)"):
        key("x:{a}")(lambda: "")


def test_private_names_are_taken():
    """The compiled code has names of its own."""
    with pytest.raises(KeySchemaError, match="are taken"):
        key("x:{_tenantry_key}")(lambda _tenantry_key: "")
