"""The verdict: a pure function of a command, its arguments and a tenant.

It neither asks a server nor reads the context. What it gets are the bytes that will be sent, and it
answers with ``None`` for *pass* or with a refusal that holds no key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from tenantry.errors import CrossTenantError, UnknownCommandError
from tenantry.integrations.redis.rules import Argv, Claim, Rule, Unreadable, find_rule
from tenantry.keys import is_shared_key, owner_of, tenant_prefix

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Refusal", "binds", "refuse", "shown_name", "verdict"]

Reason: TypeAlias = Literal["no tenant", "foreign", "unknown"]

_KEYLESS: Final = (
    "it names no key of the tenant's, and may reach beyond it. Platform jobs use a client that was never "
    "guarded, inside without_tenant(reason=...)"
)
_CURE: Final = "build keys with a key function of tenantry.keys under the tenant that they belong to"
_NOTHING_DECLARED: Final[Mapping[str, Rule]] = {}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a command is refused: which command, which argument, and what to do. Never the argument."""

    reason: Reason
    command: str
    position: int | None = None
    detail: str = ""


def verdict(
    argv: Argv, tenant: str | None, declared: Mapping[str, Rule] = _NOTHING_DECLARED
) -> Refusal | None:
    """Judge one command.

    Args:
        argv: The arguments as they will be sent, the command's name first.
        tenant: The tenant for which it would run, or ``None``.
        declared: Rules of this client, which win over the known ones.

    Returns:
        ``None`` if it may be sent, else the refusal.
    """
    name, rule = find_rule(argv, declared)
    if rule is None:
        return _unknown(shown_name(name), tenant)
    if tenant is None:
        return _without_tenant(argv, rule)
    if rule.refused:
        return Refusal("foreign", name, None, rule.refused)
    try:
        claims = _claims(argv, rule)
    except Unreadable as unreadable:
        return Refusal("foreign", name, *unreadable.args)
    if not claims and not rule.passes:
        return Refusal("foreign", name, None, _KEYLESS)
    return _first_foreign(argv, name, claims, tenant_prefix(tenant).encode())


def _unknown(shown: str, tenant: str | None) -> Refusal:
    detail = "the first argument has to be the command's name alone" if shown == _NAMELESS else ""
    return Refusal("no tenant" if tenant is None else "unknown", shown, None, detail)


def _claims(argv: Argv, rule: Rule) -> tuple[Claim, ...]:
    return tuple(rule.claims(argv)) if rule.claims is not None else ()


def _without_tenant(argv: Argv, rule: Rule) -> Refusal | None:
    if rule.anytime:
        return None
    try:
        claims = _claims(argv, rule)
    except Unreadable:
        claims = ()
    shared_only = claims and all(_is_shared(argv, claim) for claim in claims)
    return None if shared_only else Refusal("no tenant", rule.name)


def _is_shared(argv: Argv, claim: Claim) -> bool:
    return claim.kind == "key" and is_shared_key(argv[claim.position])


def binds(argv: Argv, declared: Mapping[str, Rule] = _NOTHING_DECLARED) -> bool:
    """Whether a command that passed was passed for its tenant's sake, rather than in every state."""
    _, rule = find_rule(argv, declared)
    return rule is None or _without_tenant(argv, rule) is not None


def _first_foreign(argv: Argv, name: str, claims: Iterable[Claim], prefix: bytes) -> Refusal | None:
    for claim in claims:
        argument = argv[claim.position]
        if argument.startswith(prefix) or _is_shared(argv, claim):
            continue
        if claim.kind == "channel" and _is_own_keyspace(argument, prefix):
            continue
        return Refusal("foreign", name, claim.position, _foreign_detail(argument, claim))
    return None


_KEYSPACE = re.compile(rb"__keyspace@[0-9]+__:")


def _is_own_keyspace(channel: bytes, prefix: bytes) -> bool:
    found = _KEYSPACE.match(channel)
    return found is not None and channel.startswith(prefix, found.end())


_NOUNS: Final = {"key": "key", "pattern": "pattern", "channel": "channel"}


def _foreign_detail(argument: bytes, claim: Claim) -> str:
    noun = _NOUNS[claim.kind]
    if argument.startswith(b"%shared:"):
        return f"the {noun} there looks shared, but no @shared_key declares it; declare it where it is used"
    if owner_of(argument) is not None:
        return f"the {noun} there belongs to another tenant; {_CURE}"
    return f"the {noun} there has no tenant prefix; {_CURE}"


_NAMELESS: Final = "a command without a name"
_PLAIN_NAME = re.compile(r"[A-Z0-9][A-Z0-9._-]{0,39}( [A-Z0-9-]{1,24})?")


def shown_name(name: str) -> str:
    """The name of an unknown command as far as it is one: what follows may be a key."""
    found = _PLAIN_NAME.match(name)
    if found is None:
        return _NAMELESS
    return found[0] if found.end() == len(name) else found[0].partition(" ")[0]


def refuse(refusal: Refusal, tenant: str) -> None:
    """Raise the error of a refusal that was given for ``tenant``."""
    kind = UnknownCommandError if refusal.reason == "unknown" else CrossTenantError
    raise kind(refusal.command, refusal.position, tenant, refusal.detail)
