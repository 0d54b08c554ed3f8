"""Prefixes, owners, and the one choice of a layout."""

from __future__ import annotations

import importlib.util

import pytest

from tenantry import KeySchemaError, keys, tenant_scope
from tenantry.keys import key, owner_of, parse, tenant_prefix, use_layout


@key("cart:{cart_id}")
def cart(cart_id: str) -> str:
    """Hash."""


def declare():
    @key("basket:{basket_id}")
    def basket(basket_id):
        """Hash."""

    return basket


def test_process_begins_with_no_layout_chosen_and_none_settled():
    """The module as it is imported, which the other tests here have put back by hand."""
    spec = importlib.util.find_spec("tenantry.keys.layout")
    first, second = (importlib.util.module_from_spec(spec) for _ in range(2))
    spec.loader.exec_module(first)
    spec.loader.exec_module(second)
    first.use_layout("tagged")
    assert first.tenant_prefix("acme") == "{acme}:"
    second.use_layout("plain")
    with pytest.raises(KeySchemaError, match="chosen before"):
        second.use_layout("tagged")


def test_plain_is_the_default():
    """The formats of before are the formats of now."""
    with tenant_scope("acme"):
        assert declare()("42") == "acme:basket:42"
    assert tenant_prefix("acme") == "acme:"


def test_tagged_makes_the_tenant_the_hash_tag():
    """All keys of a tenant are in one slot, in scopes that are open already too."""
    basket = declare()
    with tenant_scope("acme"):
        use_layout("tagged")
        assert basket("42") == "{acme}:basket:42"
        assert basket("{x}") == "{acme}:basket:%7Bx%7D"
        assert basket.pattern() == "{acme}:basket:*"
    assert tenant_prefix("acme") == "{acme}:"
    assert parse("{acme}:basket:42").tenant == "acme"
    with pytest.raises(KeySchemaError, match="no declared schema yields it"):
        parse("acme:basket:42")


def test_layout_cannot_change_once_a_key_was_built():
    """Two layouts in one process would hide a tenant's keys from it."""
    basket = declare()
    with tenant_scope("acme"):
        basket("42")
    with pytest.raises(KeySchemaError, match="already built"):
        use_layout("tagged")
    with pytest.raises(KeySchemaError, match="already built"):
        use_layout("plain")
    assert tenant_prefix("acme") == "acme:"


def test_pattern_counts_as_a_key():
    """A pattern was given away, so the layout is settled."""
    with tenant_scope("acme"):
        declare().pattern()
    with pytest.raises(KeySchemaError, match="already built"):
        use_layout("tagged")


def test_layout_is_chosen_once():
    """Who chooses again, be it the same, does not know who else chooses, or when."""
    use_layout("tagged")
    for layout in ("plain", "tagged"):
        with pytest.raises(KeySchemaError, match="chosen before"):
            use_layout(layout)
    assert tenant_prefix("acme") == "{acme}:"


@pytest.mark.parametrize("layout", ["", "Tagged", None, 1, ["plain"]])
def test_layout_has_two_names(layout):
    """Anything else is refused by name."""
    with pytest.raises(KeySchemaError, match='"plain" and "tagged"'):
        use_layout(layout)


@pytest.mark.parametrize(
    ("value", "owner"),
    [
        ("acme:cart:1", "acme"),
        (b"acme:cart:1", "acme"),
        ("acme:", "acme"),
        ("acme:anything at all \x00", "acme"),
        ("acme", None),
        ("", None),
        (b"", None),
        (":x", None),
        ("{acme}:x", None),
        ("%shared:flags:x", None),
        ("a b:x", None),
        ("None:x", None),
        (b"\xff:x", None),
        (b"acme:\xff", "acme"),
        (bytearray(b"acme:\xff"), "acme"),
        ("\ud800:x", None),
        ("a" * 64 + ":x", None),
    ],
    ids=ascii,
)
def test_owner_of_reads_the_prefix_only(value, owner):
    """It never raises on text or bytes."""
    assert owner_of(value) == owner


@pytest.mark.parametrize(
    ("value", "owner"),
    [("{acme}:x", "acme"), (b"{acme}:x", "acme"), ("acme:x", None), ("{acme}x", None), ("{}:x", None), ("{a{b}:x", None), ("{acme}", None), ("xacme}:x", None)],
)  # fmt: skip
def test_owner_of_reads_tagged_prefixes_in_the_tagged_layout(value, owner):
    """Own is the prefix of the layout in use and no other."""
    use_layout("tagged")
    assert owner_of(value) == owner


def test_owner_of_takes_text_and_bytes():
    """Anything else is no key."""
    with pytest.raises(TypeError, match="not NoneType"):
        owner_of(None)
    for kind in (bytes, bytearray, memoryview):
        assert owner_of(kind(b"acme:\xff")) == "acme"


def test_module_lists_the_seven():
    """They are found by completion before they are declared."""
    assert {"memory_short", "key", "parse"} <= set(dir(keys))
