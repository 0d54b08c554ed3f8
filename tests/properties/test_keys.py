"""What holds for the keys of all text: they are distinct, they read back, they stay with their tenant."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from tenantry import InvalidKeyPartError, KeySchemaError, keys, tenant_scope
from tenantry.keys import ParsedKey, key, owner_of, parse, shared_key, tenant_prefix

MAX_BYTES = 512


def is_part(text: str) -> bool:
    try:
        return 0 < len(text.encode()) <= MAX_BYTES
    except UnicodeEncodeError:
        return False


ALNUM = "abcABC019"
TENANTS = st.one_of(
    st.sampled_from(["a", "ab", "a-b", "acme", "acm", "acme1", "Acme", "shared", "A.b", "a" * 63]),
    st.from_regex(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", fullmatch=True),
).filter(lambda text: text.lower() not in {"none", "null", "nil", "undefined"})
# Dense in what separates, escapes, matches and tags, so that near-collisions are found.
TRICKY = st.text("ab:%{}*?[]\\2A3aC5\n \x00\x7f\x85é\u2028", min_size=1, max_size=12)
PARTS = st.one_of(TRICKY, st.text(min_size=1), st.text(ALNUM, min_size=1)).filter(is_part)
ANY_TEXT = st.one_of(TRICKY, st.text(), st.text(st.characters(codec=None)))

TEMPLATES = [
    "one:{a}",
    "one:{a}:{b}",
    "two:{a}:{b}",
    "{a}:mid:{b}:x:y:z",
    "memory:short:{a}:{b}",
    "one:{a}:{b}:{c}",
    "plain",
    "{c}:{a}:{b}:tail:x",
]


class Function(NamedTuple):
    call: Any
    names: tuple[str, ...]


def declare(template: str) -> Function:
    names = tuple(re.findall(r"{(\w)}", template))
    namespace: dict[str, Any] = {}
    exec(f"def function({', '.join(names)}): pass", namespace)
    function = namespace["function"]
    function.__name__ = re.sub(r"\W", "_", template)
    function.__qualname__ = f"<locals>.{function.__name__}"
    return Function(key(template)(function), names)


@pytest.fixture(params=["plain", "tagged"])
def functions(request: pytest.FixtureRequest, fresh_process: None) -> list[Function]:
    keys.use_layout(request.param)
    return [declare(template) for template in TEMPLATES]


@pytest.fixture
def flag(functions: list[Function]) -> Any:
    """A shared key beside the others."""

    def flag(name: str) -> None:
        """String: a flag of everybody's."""

    return shared_key("flags:{name}", reason="a property")(flag)


PROPERTY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, int, tuple[str, ...]]:
    """A tenant, the number of a schema, and its parts."""
    number = draw(st.integers(0, len(TEMPLATES) - 1))
    count = len(re.findall("{", TEMPLATES[number]))
    return draw(TENANTS), number, tuple(draw(st.lists(PARTS, min_size=count, max_size=count)))


def build(functions: list[Function], call: tuple[str, int, tuple[str, ...]]) -> str:
    tenant, number, parts = call
    with tenant_scope(tenant):
        return functions[number].call(*parts)


@PROPERTY
@given(one=calls(), other=calls())
@example(one=("acme", 1, ("a:b", "c")), other=("acme", 1, ("a", "b:c")))
@example(one=("acme", 1, ("a", "b")), other=("acme", 2, ("a", "b")))
@example(one=("acme", 0, ("%3A",)), other=("acme", 0, (":",)))
@example(one=("acme", 0, ("x",)), other=("acm", 0, ("x",)))
def test_distinct_calls_give_distinct_keys(functions: list[Function], one: Any, other: Any) -> None:
    """Injective in tenant, schema and parts, and the same call gives the same key."""
    assert (build(functions, one) == build(functions, other)) == (one == other)


@PROPERTY
@given(call=calls())
def test_key_reads_back(functions: list[Function], call: Any) -> None:
    """``parse`` inverts the key function, from text and from bytes, hot and cold, with no tenant active."""
    tenant, number, parts = call
    built = {build(functions, call) for _ in range(18)}
    assert len(built) == 1
    text = built.pop()
    expected = ParsedKey(
        tenant, functions[number].call.__name__, dict(zip(names_of(number), parts, strict=True))
    )
    assert parse(text) == parse(text.encode()) == functions[number].call.parse(text) == expected
    assert list(parse(text).parts) == list(names_of(number))


def names_of(number: int) -> list[str]:
    """Placeholders in template order."""
    return re.findall(r"{(\w)}", TEMPLATES[number])


@PROPERTY
@given(call=calls(), other=TENANTS)
def test_key_belongs_to_its_tenant_alone(functions: list[Function], call: Any, other: str) -> None:
    """It begins with its tenant's prefix and with nobody else's."""
    text = build(functions, call)
    assert text.startswith(tenant_prefix(call[0]))
    assert owner_of(text) == owner_of(text.encode()) == call[0]
    assert text.startswith(tenant_prefix(other)) == (other == call[0])
    assert tenant_prefix(other).startswith(tenant_prefix(call[0])) == (other == call[0])


def hash_tag(text: str) -> str:
    """What Redis Cluster hashes.

    https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
    """
    start = text.find("{")
    end = text.find("}", start + 1)
    return text[start + 1 : end] if start >= 0 and end > start + 1 else text


@PROPERTY
@given(call=calls())
def test_key_means_nothing_but_itself(functions: list[Function], call: Any) -> None:
    """No glob, no escape, no white space or control character, and no hash tag but the layout's own."""
    text = build(functions, call)
    rest = text.removeprefix(tenant_prefix(call[0]))
    assert not set(rest) & set("*?[]\\{}")
    assert not any(char.isspace() or unicodedata.category(char) == "Cc" for char in text)
    assert not re.sub("%[0-9A-F]{2}", "", rest).count("%")
    assert hash_tag(text) == (call[0] if text.startswith("{") else text)


@PROPERTY
@given(call=calls())
def test_ordinary_text_stands_as_it_is(functions: list[Function], call: Any) -> None:
    """The key is the f-string that one would have written, wherever that is safe."""
    tenant, number, parts = call
    assume(all(re.fullmatch(r"[\w.@+-]+", part) for part in parts))
    named = dict(zip(functions[number].names, parts, strict=True))
    assert build(functions, call) == tenant_prefix(tenant) + TEMPLATES[number].format(**named)


@PROPERTY
@given(
    call=calls(),
    change=st.tuples(st.integers(0, 700), st.sampled_from(["", ":", "%", "a", "A", "{", "\n", "%3A", "%3a"])),
)
def test_only_the_canonical_key_parses(functions: list[Function], call: Any, change: tuple[int, str]) -> None:
    """A key that parses is exactly the one that its function builds; everything else is refused."""
    text = build(functions, call)
    place, new = change[0] % (len(text) + 1), change[1]
    for changed in (text[:place] + new + text[place + 1 :], text[:place] + new + text[place:]):
        check_canonical(functions, changed)


@PROPERTY
@given(text=ANY_TEXT)
def test_any_text_parses_canonically_or_not_at_all(functions: list[Function], text: str) -> None:
    """Also text that no key function had a part in."""
    check_canonical(functions, text)
    check_canonical(functions, tenant_prefix("acme") + text)
    check_canonical(functions, tenant_prefix("acme") + "one:" + text)


def check_canonical(functions: list[Function], text: str) -> None:
    try:
        found = parse(text)
    except KeySchemaError:
        return
    by_name = {function.call.__name__: function.call for function in functions}
    function = by_name.get(found.schema)
    if function is None:  # one of the seven, which parse until an application takes their place
        return
    assert found.tenant is not None
    with tenant_scope(found.tenant):
        assert function(**found.parts) == text


@PROPERTY
@given(data=st.data(), call=calls())
def test_pattern_matches_its_keys_and_no_other_tenant_s(
    functions: list[Function], data: st.DataObject, call: Any
) -> None:
    """Whatever parts are given, SCAN finds the key; under another tenant it does not."""
    tenant, number, parts = call
    function = functions[number]
    named = dict(zip(function.names, parts, strict=True))
    given_parts = data.draw(st.sets(st.sampled_from(sorted(named)))) if named else set()
    with tenant_scope(tenant):
        pattern = function.call.pattern(**{name: named[name] for name in given_parts})
    glob = re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
    assert not set(pattern.removeprefix(tenant_prefix(tenant))) & set("?[]\\{}")
    assert glob.fullmatch(build(functions, call))
    other = data.draw(TENANTS)
    assert bool(glob.fullmatch(build(functions, (other, number, parts)))) == (other == tenant)


@PROPERTY
@given(number=st.one_of(st.integers(), st.integers(-(10**30), 10**30)), uuid=st.uuids())
def test_numbers_and_uuids_are_their_text(functions: list[Function], number: int, uuid: UUID) -> None:
    """In every order, so that no cache answers one for the other with something else."""
    one = functions[0].call
    with tenant_scope("acme"):
        for _ in range(10):
            assert one(number) == one(str(number))
            assert one(uuid) == one(str(uuid))


BAD_PARTS = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    st.binary(),
    st.just(""),
    st.text("a", min_size=MAX_BYTES + 1, max_size=MAX_BYTES + 9),
    st.text("é\u4e00", min_size=257, max_size=300),
    st.text(st.characters(categories=["Cs"]), min_size=1),
    st.lists(st.integers()),
    st.tuples(st.text()),
    st.complex_numbers(),
    st.dictionaries(st.text(), st.text()),
)


@PROPERTY
@given(value=BAD_PARTS, good=PARTS)
def test_what_is_no_part_is_refused_in_every_place(
    functions: list[Function], value: object, good: str
) -> None:
    """Hot caches included: 1 is not True, and not 1.0."""
    with tenant_scope("acme"):
        for _ in range(10):
            functions[1].call(1, good)
            functions[1].call("1", good)
        for parts in ((value, good), (good, value)):
            with pytest.raises(InvalidKeyPartError, match=r"function|one__a___b_"):
                functions[1].call(*parts)


@PROPERTY
@given(texts=st.lists(st.tuples(TENANTS, PARTS), min_size=2, max_size=40))
def test_calls_in_any_order_never_answer_for_one_another(functions: list[Function], texts: Any) -> None:
    """A history of calls changes no answer."""
    one = functions[0].call
    expected = {}
    for tenant, part in texts * 10:
        with tenant_scope(tenant):
            assert expected.setdefault((tenant, part), one(part)) == one(part)
    assert len(set(expected.values())) == len(expected)


@PROPERTY
@given(name=PARTS, call=calls())
def test_shared_keys_are_nobody_s(functions: list[Function], flag: Any, name: str, call: Any) -> None:
    """They read back, belong to no tenant and equal no tenant's key."""
    text = flag(name)
    assert text.startswith("%shared:flags:")
    assert parse(text) == ParsedKey(None, "flag", {"name": name})
    assert owner_of(text) is None
    assert text != build(functions, call)


@given(value=st.one_of(st.text(), TRICKY, st.text(st.characters(codec=None)), st.binary()))
def test_owner_of_never_raises(value: str | bytes) -> None:
    """On no text and no bytes, and what it says is a tenant id whose prefix the value has."""
    owner = owner_of(value)
    if owner is not None:
        prefix = tenant_prefix(owner)
        assert value.startswith(prefix if isinstance(value, str) else prefix.encode())


# --- declarations --------------------------------------------------------------------------------

SEGMENT = st.sampled_from(["{a}", "{b}", "{c}", "x", "y", "z"])


@st.composite
def templates(draw: st.DrawFn) -> str:
    segments = draw(st.lists(SEGMENT, min_size=1, max_size=4))
    assume(all(segments.count(s) == 1 for s in segments if s.startswith("{")))
    return ":".join(segments)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much])
@given(one=templates(), other=templates(), data=st.data())
def test_schemas_that_stand_side_by_side_never_meet(
    monkeypatch: pytest.MonkeyPatch, one: str, other: str, data: st.DataObject
) -> None:
    """Two schemas are refused exactly when some parts give both the same key."""
    from tenantry.keys.schema import REGISTRY

    monkeypatch.setattr(REGISTRY, "_schemas", ())
    first = declare(one)
    meet = len(one.split(":")) == len(other.split(":")) and all(
        x == y or "{" in x + y for x, y in zip(one.split(":"), other.split(":"), strict=True)
    )
    if meet:
        with pytest.raises(KeySchemaError, match="the same key"):
            declare(other)
        return
    second = declare(other)
    values = st.sampled_from(["x", "y", "z", "x:y", "w"])
    with tenant_scope("acme"):
        built = [f.call(*(data.draw(values) for _ in f.names)) for f in (first, second)]
    assert built[0] != built[1]
