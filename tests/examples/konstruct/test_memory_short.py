"""The sliding window, on fakeredis."""

from __future__ import annotations

import pytest

pytest.importorskip("fakeredis")

from konstruct import memory_short
from tenantry import NoTenantError, tenant_scope


def texts(**options: int) -> list[str]:
    return [m["text"] for m in memory_short.get_recent_messages("concierge", "U1", **options)]


def append(*lines: str, **options: str) -> list[bool]:
    return [memory_short.append_message("concierge", "U1", "user", t, **options) for t in lines]


def test_window_keeps_order_and_slides(fake, configured):
    """The oldest leaves when the window is full."""
    configured(window_size=3)
    with tenant_scope("acme"):
        append("1", "2", "3", "4")
        assert texts() == ["2", "3", "4"]
        assert texts(limit=2) == ["3", "4"]
        assert texts(limit=0) == []
        assert texts(limit=-1) == []


def test_window_expires(fake, configured):
    """Each message renews the time to live."""
    configured(window_ttl=50)
    with tenant_scope("acme"):
        append("1")
    assert 0 < fake.ttl("acme:memory:short:concierge:U1") <= 50


def test_message_that_is_delivered_twice_is_in_the_window_once(fake):
    """Its id makes it so, per role: a message and its answer share an id."""
    with tenant_scope("acme"):
        assert append("hello", "hello", message_id="m1") == [True, False]
        assert memory_short.append_message("concierge", "U1", "assistant", "hi", message_id="m1")
        assert texts() == ["hello", "hi"]


def test_windows_of_tenants_agents_and_users_are_apart(fake):
    """Equal ids, and parts that would run into each other without encoding."""
    with tenant_scope("acme"):
        append("of acme")
        memory_short.append_message("a:b", "c", "user", "one")
        assert memory_short.get_recent_messages("a", "b:c") == []
    with tenant_scope("globex"):
        assert texts() == []
        append("of globex", message_id="m1")
    with tenant_scope("acme"):
        assert texts() == ["of acme"]
        assert append("mine", message_id="m1") == [True]


def test_window_can_be_cleared(fake):
    """For the tool that does so."""
    with tenant_scope("acme"):
        append("1")
        memory_short.clear("concierge", "U1")
        assert texts() == []


def test_no_tenant_raises_and_writes_nothing(fake):
    """The key function is asked first."""
    with pytest.raises(NoTenantError, match="memory_short"):
        append("1")
    assert fake.keys("*") == []
