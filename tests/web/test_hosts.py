"""Hosts as they are sent and domain names as they are configured."""

from __future__ import annotations

import pytest

from tenantry import ResolutionError
from tenantry.web.hosts import domain_name, host_of, is_ip

LABEL = "a" * 63
LONGEST = ".".join([LABEL] * 3 + ["a" * 61, "b"])
TOO_LONG = ".".join([LABEL] * 3 + ["a" * 62, "b"])


@pytest.mark.parametrize(
    ("value", "host"),
    [
        ("a.example", "a.example"),
        ("A.Example:8000", "a.example"),
        ("a.example.", "a.example"),
        ("a.example.:1", "a.example"),
        ("a.example:", "a.example"),
        ("a.example:65535", "a.example"),
        ("a_b.example", "a_b.example"),
        ("_a.example", "_a.example"),
        ("a", "a"),
        (f"{LABEL}.example", f"{LABEL}.example"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]:80", "[::1]"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
        (LONGEST, LONGEST),
    ],
)
def test_host_is_lower_case_without_port_and_one_trailing_dot(value: str, host: str) -> None:
    """Nothing else of it is changed."""
    assert host_of(value, "source") == host


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        ":80",
        "a.example..",
        ".a.example",
        "a..example",
        "a.example:80:80",
        "a.example:x",
        "a.example:123456",
        "user@a.example",
        "a.example,b.example",
        "a.example/",
        "a b.example",
        " a.example",
        "a.example\n",
        "%61.example",
        "-a.example",
        "a-.example",
        f"a{LABEL}.example",
        "é.example",
        "\u0131.example",
        "[::1",
        "[]",
        "[a.example]:80]",
        TOO_LONG,
    ],
)
def test_what_is_no_host_is_malformed(value: str) -> None:
    """And nothing of it is in the error."""
    with pytest.raises(ResolutionError, match=r"^400 Bad Request: The Host header is not a host\.") as caught:
        host_of(value, "source")
    assert caught.value.tried == ("source",)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("[::1]", True),
        ("127.1", True),
        ("2130706433", True),
        ("0x7f.1", True),
        ("0x7f000001", True),
        ("a.0x", True),
        ("a.b.0x1f", True),
        ("a.1", True),
        ("a.1b", False),
        ("a.0xg", False),
        ("0xa.example", False),
        ("1.example", False),
        ("example", False),
    ],
)
def test_address_is_told_from_a_name(host: str, address: bool) -> None:
    """As the URL standard does: by its last label."""
    assert is_ip(host) is address


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("example.com", "example.com"),
        ("Example.COM.", "example.com"),
        ("localhost", "localhost"),
        (LONGEST, LONGEST),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("xn--BCHER-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_domain_name_is_kept_as_hosts_are_compared(value: str, name: str) -> None:
    """Lower case, A-labels, no trailing dot."""
    assert domain_name(value, "the base") == name


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "a..b",
        ".a",
        "a..",
        "1.2.3.4",
        "[::1]",
        "::1",
        "a.1",
        "a:80",
        "*.a",
        "a/b",
        "a b",
        "-a.b",
        f"a{LABEL}.b",
        TOO_LONG,
    ],
)
def test_what_is_no_domain_name_is_refused(value: str) -> None:
    """The message shows one."""
    with pytest.raises(ValueError, match=r"^the base is a domain name such as 'example\.com', not "):
        domain_name(value, "the base")


@pytest.mark.parametrize(
    "value", ["straße.example", "a\u200c.example", "ς.example", "\ud800.example", f"{LABEL}é.example"]
)
def test_domain_name_whose_conversion_is_in_doubt_is_refused(value: str) -> None:
    """The cure is to write the labels as they are sent."""
    with pytest.raises(
        ValueError, match=r"^the base .* cannot be converted safely; write its labels as xn--"
    ):
        domain_name(value, "the base")


def test_domain_name_is_text() -> None:
    """Bytes are none."""
    with pytest.raises(TypeError, match="the base is a domain name as str, not bytes"):
        domain_name(b"example.com", "the base")
