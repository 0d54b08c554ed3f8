"""The quick way to *yes*: commands spelled as redis-py spells them, whose keys are plain text.

Nearly every command is one of these, and for them the arguments need not be encoded to be judged: a
``str`` of exactly that type starts with the tenant's prefix if and only if its UTF-8 does. What is not
certain here is no refusal; it goes to the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from tenantry.context import get_state
from tenantry.integrations.redis.rules import PLAIN_SPECS, XREAD_OPTIONS, Rule
from tenantry.keys import tenant_prefix

__all__ = ["OwnTenant", "Quick", "never"]


def _slice(word: str) -> slice:
    """``1:-1:2`` of the table, where the last position counts, as a slice of the arguments."""
    numbers = [int(number) for number in word.split(":")]
    first, last = numbers[0], numbers[1] if len(numbers) > 1 else numbers[0]
    return slice(first, last + 1 or None, numbers[2] if len(numbers) > 2 else 1)


def _counted(spec: str) -> tuple[tuple[slice, ...], int, int]:
    before, _, counted = spec.partition("#")
    at, _, step = counted.partition(":")
    return tuple(map(_slice, before.split())), int(at), int(step or 1)


_ONLY: Final = {name: int(spec) for name, spec in PLAIN_SPECS.items() if spec.isdigit()}
_SPANS: Final = {
    name: tuple(map(_slice, spec.split())) for name, spec in PLAIN_SPECS.items() if "#" not in spec
}
_COUNTED: Final = {name: _counted(spec) for name, spec in PLAIN_SPECS.items() if "#" in spec}
# redis-py spells options as bytes in these two.
_STREAMS: Final = {
    name: XREAD_OPTIONS | {word.decode(): values for word, values in XREAD_OPTIONS.items()}
    for name in ("XREAD", "XREADGROUP")
}


OwnTenant: TypeAlias = Callable[[tuple[Any, ...]], str | None]


def never(_: tuple[Any, ...]) -> str | None:
    """The answer of a client whose text is not sent as UTF-8."""
    return None


class Quick:
    """What one policy can say *yes* to without encoding.

    Attributes:
        only: Commands with one key and nothing else to judge, to its position.
        own_tenant: From a command to the active tenant, if it certainly keeps to keys of that tenant.
    """

    __slots__ = ("_counted", "_spans", "_streams", "only", "own_tenant")

    def __init__(self) -> None:
        self.only: Final = dict(_ONLY)
        self._spans: Final = dict(_SPANS)
        self._counted: Final = dict(_COUNTED)
        self._streams: Final = dict(_STREAMS)
        self.own_tenant: Final = _own_tenant(self.only, self._spans, self._counted, self._streams)

    def declare(self, rules: Mapping[str, Rule]) -> None:
        """Leave to the verdict what was declared, unless that is a single key."""
        for name, rule in rules.items():
            for known in (self.only, self._spans, self._counted, self._streams):
                known.pop(name.split()[0], None)
            if rule.only and " " not in name:
                self.only[name] = rule.only


def _own_tenant(
    only: Mapping[str, int],
    spans: Mapping[str, tuple[slice, ...]],
    counted: Mapping[str, tuple[tuple[slice, ...], int, int]],
    streams: Mapping[str, Mapping[str | bytes, int]],
) -> OwnTenant:
    """A closure, since it is called twice for every command."""

    def own_tenant(args: tuple[Any, ...]) -> str | None:
        tenant = get_state().tenant_id
        if tenant is None or not args or type(name := args[0]) is not str:
            return None
        at = only.get(name)
        if at is not None:
            own = at < len(args) and type(key := args[at]) is str and key.startswith(tenant_prefix(tenant))
        elif name in spans:
            prefix = tenant_prefix(tenant)
            own = all(_owns(args[span], prefix) for span in spans[name])
        elif name in counted:
            own = _owns_counted(args, counted[name], tenant_prefix(tenant))
        else:
            own = name in streams and _owns_streams(args, streams[name], tenant_prefix(tenant))
        return tenant if own else None

    return own_tenant


def _owns(keys: Iterable[Any], prefix: str) -> bool:
    found = False
    for key in keys:
        if type(key) is not str or not key.startswith(prefix):
            return False
        found = True
    return found


def _owns_counted(args: tuple[Any, ...], counted: tuple[tuple[slice, ...], int, int], prefix: str) -> bool:
    spans, at, step = counted
    number = args[at] if at < len(args) else None
    if type(number) is not int or number < 1 or at + number * step >= len(args):
        return False
    return _owns(args[at + 1 : at + 1 + number * step : step], prefix) and all(
        _owns(args[span], prefix) for span in spans
    )


def _owns_streams(args: tuple[Any, ...], options: Mapping[str | bytes, int], prefix: str) -> bool:
    at = 1
    while at < len(args) and (type(word := args[at]) is bytes or type(word) is str):
        if word in options:
            at += 1 + options[word]
            continue
        keys, odd = divmod(len(args) - at - 1, 2)
        return word in (b"STREAMS", "STREAMS") and not odd and _owns(args[at + 1 : at + 1 + keys], prefix)
    return False
