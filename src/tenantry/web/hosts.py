"""Reading the Host header. What it says is the client's word; whether it holds, the resolver checks."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final

from tenantry.web.problem import refusal

__all__ = ["domain_name", "host_of", "is_ip"]

_MAX_HOST: Final = 255
# RFC 3986 host and port: an IP literal in brackets or a name, then optionally digits. The names that DNS
# and its users write, underscores included; no user part, no percent-encoding, no comma.
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::[0-9]{0,5})?", re.ASCII)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
# IDNA 2003, which Python has, and IDNA 2008 disagree about these.
_DEVIATIONS: Final = frozenset("ßς\u200c\u200d")


def host_of(value: str, source: str) -> str:
    """Return the host of a ``Host`` header: lower case, port and one trailing dot stripped.

    Raises:
        ResolutionError: 400, it is not a host.
    """
    match = _HOST.fullmatch(value) if len(value) <= _MAX_HOST else None
    host = "" if match is None else match["host"].lower().removesuffix(".")
    if not (is_ip(host) or all(map(_LABEL.fullmatch, host.split(".")))):
        raise refusal(400, "The Host header is not a host.", (source,))
    return host


def is_ip(host: str) -> bool:
    """Tell whether a host is an address, in brackets or not; one that looks like an address counts."""
    if host.startswith("["):
        return True
    try:
        ip_address(host)
    except ValueError:
        # The URL standard reads a host whose last label is a number as an IPv4 address ("127.1", "0x7f.1").
        return _is_number(host.rpartition(".")[2])
    return True


def _is_number(label: str) -> bool:
    return label.isdigit() or re.fullmatch(r"0x[0-9a-f]*", label) is not None


def domain_name(value: object, what: str) -> str:
    """Return a configured domain name as hosts are compared: lower case, A-labels, no trailing dot.

    Raises:
        TypeError: It is no ``str``.
        ValueError: It is not a domain name; addresses, ports and wildcards are none.
    """
    if not isinstance(value, str):
        raise TypeError(f"{what} is a domain name as str, not {type(value).__name__}")
    name = _to_a_labels(value, what).lower().removesuffix(".")
    if len(name) > _MAX_HOST or is_ip(name) or not all(map(_LABEL.fullmatch, name.split("."))):
        raise ValueError(f"{what} is a domain name such as 'example.com', not {value!r}")
    return name


def _to_a_labels(value: str, what: str) -> str:
    if value.isascii():
        return value
    if _DEVIATIONS.isdisjoint(value):
        try:
            return value.encode("idna").decode("ascii")
        except UnicodeError:
            pass
    raise ValueError(f"{what} {value!r} cannot be converted safely; write its labels as xn--…")
