"""The grammar of tenant ids."""

from __future__ import annotations

import enum
import sys
import uuid

import pytest

from tenantry import InvalidTenantIdError, ids
from tenantry.ids import ensure_tenant_id


class Text(str):
    """A text whose every method lies."""

    __slots__ = ()

    def __str__(self):
        return "globex"

    def __format__(self, spec):
        return "globex"

    def __eq__(self, other):
        return True

    def __hash__(self):
        return hash("globex")


class Id(uuid.UUID):
    def __str__(self):
        return "globex"

    def __int__(self):
        return 1

    @property
    def hex(self):
        return "0" * 32


class Plan(str, enum.Enum):
    ACME = "acme"


class NotText:
    __class__ = str


@pytest.mark.parametrize(
    "value", ["a", "Z", "0", "acme", "a.b_c-d", "A" * 63, "a--b", "a..b", "nonesuch", "nulls"]
)
def test_id_of_the_grammar_is_returned_as_it_is(value):
    """What is legal is not touched."""
    assert ensure_tenant_id(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "", " ", "\t", " acme", "acme ", "acme\n", "\nacme", "acme\x00", "-a", "a-", ".a", "a.", "_a", "a_", ".", "a b",
        "a:b", "a/b", "a%b", "{a}", "a*", "a?", "[a]", "a\\b", "a,b", "a;b", "é", "ａｃｍｅ", "аcme", "a\u212a", "ſ", "²", "A" * 64,
        "a\ud800", "١",
    ],
    ids=ascii,
)  # fmt: skip
def test_text_outside_the_grammar_is_refused(value):
    """Everything that could mean something to a key, a glob, a header or a host is no id."""
    with pytest.raises(InvalidTenantIdError, match="is not a tenant id"):
        ensure_tenant_id(value)


@pytest.mark.parametrize("word", ["none", "None", "NULL", "nil", "Nil", "undefined", "UNDEFINED"])
def test_reserved_word_is_refused(word):
    """How a missing id reads as text is never an id, in any case."""
    with pytest.raises(InvalidTenantIdError, match="reserved"):
        ensure_tenant_id(word)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"acme",
        1,
        1.0,
        True,
        ["acme"],
        ("acme",),
        object(),
        NotText(),
        object.__new__(uuid.UUID),
        bytearray(b"a"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_type_is_refused(value):
    """Only text and UUIDs are ids; nothing is converted."""
    with pytest.raises(InvalidTenantIdError, match="str or uuid.UUID"):
        ensure_tenant_id(value)


def test_uuid_counts_as_its_canonical_text():
    """One UUID has one id."""
    value = uuid.uuid4()
    assert ensure_tenant_id(value) == str(value)
    assert type(ensure_tenant_id(value)) is str


@pytest.mark.parametrize("value", [Text("acme"), Plan.ACME])
def test_subclass_of_str_counts_by_its_underlying_value(value):
    """What a subclass overrides is never asked."""
    found = ensure_tenant_id(value)
    assert type(found) is str
    assert found == "acme"


def test_subclass_of_uuid_counts_by_its_underlying_value():
    """Not even the integer of a subclass is asked."""
    value = uuid.uuid4()
    assert ensure_tenant_id(Id(str(value))) == str(value)


def test_ids_are_judged_before_anybody_has_imported_uuid(monkeypatch):
    """The module is not imported for this: no value can be a UUID before."""
    monkeypatch.delitem(sys.modules, "uuid")
    assert ensure_tenant_id("acme-before-uuid") == "acme-before-uuid"
    with pytest.raises(InvalidTenantIdError, match="not int"):
        ensure_tenant_id(5)


def test_refusal_carries_value_and_rule():
    """The error's data tell what was refused, cut, and why."""
    with pytest.raises(InvalidTenantIdError, match="longer than 63") as caught:
        ensure_tenant_id("x" * 1_000_000)
    assert len(caught.value.value) == 40
    assert "63" in caught.value.rule


def test_memory_of_known_ids_is_bounded():
    """A flood of ids does not stay, and no id is kept beyond the 4096 that are."""
    sizes = set()
    for number in range(3 * 4096):
        ensure_tenant_id(f"t{number}")
        sizes.add(len(ids._known))
    assert max(sizes) == 4096
    assert min(sizes) >= 1


def test_known_id_is_one_object():
    """What was seen lately is remembered while other ids come by, so that a hot id costs one look-up."""
    first = ensure_tenant_id(f"hot-{1}")
    ensure_tenant_id("another-id")
    again = f"hot-{1}"
    assert again is not first
    assert ensure_tenant_id(again) is first
