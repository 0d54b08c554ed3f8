"""What each command claims, and what it may do without a key.

The generated table says where keys stand. Here stands what it cannot say: commands whose keys hide
behind options, commands that name no key, channels, and the commands that a server answers about
wrongly. Everything that is in neither is unknown, and what is unknown is refused.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, NamedTuple, TypeAlias

from tenantry.integrations.redis._commands import COMMANDS

__all__ = [
    "PLAIN_SPECS",
    "RULES",
    "XREAD_OPTIONS",
    "Argv",
    "Claim",
    "Declaration",
    "Rule",
    "Unreadable",
    "declare",
    "find_rule",
]

Argv: TypeAlias = Sequence[bytes]
Kind: TypeAlias = Literal["key", "pattern", "channel"]
Positions: TypeAlias = Callable[[Argv], Iterable[int]]
Declaration: TypeAlias = int | tuple[int, int, int] | Positions


class Claim(NamedTuple):
    """One argument that has to belong to the tenant.

    ``key`` may also be a shared key; ``pattern`` stands for keys and ``channel`` for what is published,
    which both have to start literally with the tenant's prefix.
    """

    position: int
    kind: Kind = "key"


class Unreadable(Exception):  # noqa: N818 - a message between rule and verdict, never seen outside
    """The arguments do not say where the keys stand; ``args``: the position, and why."""


Claims: TypeAlias = Callable[[Argv], Iterable[Claim]]


@dataclass(frozen=True, slots=True)
class Rule:
    """How a command is judged.

    Attributes:
        name: The command, a subcommand behind its container and a space.
        claims: Its claims, from the arguments; raises ``Unreadable``. ``None``: it can claim nothing.
        passes: Whether it passes, under a tenant, when it claims nothing.
        anytime: Whether it passes with no tenant too: what the client sends on its own.
        refused: Why it is never sent, or ``""``; a rule that says so claims nothing.
        only: The position of its only key where a declaration says that this is all there is to it, else 0.
    """

    name: str
    claims: Claims | None = None
    passes: bool = False
    anytime: bool = False
    refused: str = ""
    only: int = 0


# --- reading the table ---------------------------------------------------------------------------

_COUNT = re.compile(rb"0|[1-9][0-9]{0,17}")


def _range(first: int, last: int, step: int, argv: Argv) -> range:
    end = last if last > 0 else len(argv) + last
    if first > end or end >= len(argv):
        raise Unreadable(first, "its arguments end before its key")
    return range(first, end + 1, step)


def _counted(at: int, step: int, argv: Argv) -> range:
    if at >= len(argv) or not _COUNT.fullmatch(argv[at]):
        raise Unreadable(at, "the number of its keys is not a plain number")
    end = at + 1 + int(argv[at]) * step
    if end > len(argv):
        raise Unreadable(at, "it announces more keys than it has arguments")
    return range(at + 1, end, step)


def _positions(spec: str) -> Positions:
    """Read one word of the table: ``1``, ``1:-1``, ``1:-1:2``, ``#1``, ``#1:2``."""
    if spec.startswith("#"):
        at, _, every = spec[1:].partition(":")
        return partial(_counted, int(at), int(every or 1))
    first, *more = map(int, spec.split(":"))
    last, step = more[0] if more else first, more[1] if len(more) > 1 else 1
    return partial(_range, first, last, step)


def _claims(spec: str) -> Claims:
    readers = [_positions(word) for word in spec.split()]

    def claims(argv: Argv) -> Iterator[Claim]:
        for reader in readers:
            for position in reader(argv):
                yield Claim(position)

    return claims


_READABLE = re.compile(r"#?\d+(:-?\d+){0,2}")


def _from_table(name: str, spec: str) -> Rule | None:
    if not all(map(_READABLE.fullmatch, spec.split())):
        return None  # options move its keys, or it names channels: one of the rules below
    return Rule(name, _claims(spec))


# --- commands whose keys hide behind options -----------------------------------------------------


def _words(argv: Argv, start: int) -> Iterator[tuple[int, bytes]]:
    for position in range(start, len(argv)):
        yield position, argv[position].upper()


def _georadius(argv: Argv) -> Iterator[Claim]:
    """Every STORE and STOREDIST: the server obeys the last one, its key specs name the first.

    Source: redis/redis#15478, valkey-io/valkey#3971.
    """
    yield from _claims("1")(argv)
    for position, word in _words(argv, 5):
        if word in (b"STORE", b"STOREDIST"):
            if position + 1 == len(argv):
                raise Unreadable(position, "STORE names no key")
            yield Claim(position + 1)


def _sort(argv: Argv) -> Iterator[Claim]:
    """BY and GET name keys by pattern; the server's own reader is derailed by ``STORE GET STORE key``."""
    yield from _claims("1")(argv)
    position = 2
    while position < len(argv):
        word, left = argv[position].upper(), len(argv) - position - 1
        if word in (b"ASC", b"DESC", b"ALPHA"):
            position += 1
        elif word == b"LIMIT" and left >= 2:
            position += 3
        elif word == b"STORE" and left >= 1:
            yield Claim(position + 1)
            position += 2
        elif word in (b"BY", b"GET") and left >= 1:
            if not _is_no_pattern(word, argv[position + 1]):
                yield Claim(position + 1, "pattern")
            position += 2
        else:
            raise Unreadable(position, "it has an option that is not known")


def _is_no_pattern(word: bytes, pattern: bytes) -> bool:
    return pattern == b"#" if word == b"GET" else pattern.lower() == b"nosort"


XREAD_OPTIONS: Final = {b"BLOCK": 1, b"COUNT": 1, b"NOACK": 0, b"CLAIM": 1, b"GROUP": 2}


def _xread(argv: Argv) -> Iterator[Claim]:
    """Options first: a group or consumer may be named STREAMS, which misleads the server's key specs."""
    position = 1
    while position < len(argv) and (word := argv[position].upper()) != b"STREAMS":
        if word not in XREAD_OPTIONS:
            raise Unreadable(position, "it has an option that is not known")
        position += 1 + XREAD_OPTIONS[word]
    streams = len(argv) - position - 1
    if streams % 2:
        raise Unreadable(position, "STREAMS needs as many ids as keys")
    yield from map(Claim, range(position + 1, position + 1 + streams // 2))


def _copy(argv: Argv) -> Iterator[Claim]:
    yield from _claims("1 2")(argv)
    for position, word in _words(argv, 3):
        if word != b"REPLACE":
            raise Unreadable(position, "it may reach another database")


def _scan(argv: Argv) -> Iterator[Claim]:
    """The cursor, then pairs of option and value; every MATCH counts, though the server obeys the last."""
    matched = False
    for position in range(2, len(argv), 2):
        word = argv[position].upper()
        if word not in (b"MATCH", b"COUNT", b"TYPE") or position + 1 == len(argv):
            raise Unreadable(position, "it has an option that is not known")
        if word == b"MATCH":
            matched = True
            yield Claim(position + 1, "pattern")
    if not matched:
        raise Unreadable(
            len(argv) - 1,
            "it needs MATCH with a pattern of the tenant's own, as key_function.pattern() builds it",
        )


def _channels(argv: Argv, start: int = 1) -> Iterator[Claim]:
    for position in range(start, len(argv)):
        yield Claim(position, "channel")


def _channels_at_2(argv: Argv) -> Iterator[Claim]:
    return _channels(argv, 2)


def _first_channel(argv: Argv) -> Iterator[Claim]:
    return iter([Claim(1, "channel")]) if len(argv) > 1 else iter(())


# --- what passes, and what never does --------------------------------------------------------------

_ANYTIME: Final = (
    "PING MULTI EXEC DISCARD UNWATCH ASKING READONLY SCRIPT|LOAD SCRIPT|EXISTS CLUSTER|SLOTS CLUSTER|SHARDS"
)
_KEYLESS: Final = (
    "ECHO TIME WAIT WAITAOF LOLWUT CLIENT|ID CLIENT|GETNAME CLIENT|SETNAME CLIENT|SETINFO "
    "CLUSTER|KEYSLOT CLUSTER|NODES CLUSTER|MYID"
)
_DATABASES: Final = "it reaches another database, where the guard cannot follow"
_BY_HAND: Final = (
    Rule("GEORADIUS", _georadius),
    Rule("GEORADIUSBYMEMBER", _georadius),
    Rule("SORT", _sort),
    Rule("SORT_RO", _sort),
    Rule("XREAD", _xread),
    Rule("XREADGROUP", _xread),
    Rule("COPY", _copy),
    Rule("PFMERGE", _claims("1:-1")),  # legal without a source, which its key specs do not say
    Rule("SCAN", _scan),
    Rule("PUBLISH", _first_channel),
    Rule("SPUBLISH", _first_channel),
    Rule("SUBSCRIBE", _channels),
    Rule("PSUBSCRIBE", _channels),
    Rule("SSUBSCRIBE", _channels),
    Rule("UNSUBSCRIBE", _channels, passes=True),
    Rule("PUNSUBSCRIBE", _channels, passes=True),
    Rule("SUNSUBSCRIBE", _channels, passes=True),
    Rule("PUBSUB CHANNELS", _channels_at_2),
    Rule("PUBSUB SHARDCHANNELS", _channels_at_2),
    Rule("PUBSUB NUMSUB", _channels_at_2),
    Rule("PUBSUB SHARDNUMSUB", _channels_at_2),
    Rule("CLUSTERSCAN"),
    Rule("MOVE", refused=_DATABASES),
    Rule("MIGRATE", refused="it copies keys to another server"),
)
# A script or function may be called without a key. What it does inside is out of a client's sight.
_NO_KEY_NEEDED: Final = ("EVAL", "EVAL_RO", "EVALSHA", "EVALSHA_RO", "FCALL", "FCALL_RO")


def _rules() -> dict[str, Rule]:
    rules = {name: rule for name, spec in COMMANDS.items() if (rule := _from_table(name, spec))}
    rules |= {rule.name: rule for rule in _BY_HAND}
    passing = {name.replace("|", " ") for name in _KEYLESS.split()}
    anytime = {name.replace("|", " ") for name in _ANYTIME.split()}
    anytime |= {name for name in COMMANDS if name.split()[0] == "COMMAND"}
    rules |= {name: Rule(name, passes=True) for name in passing}
    rules |= {name: Rule(name, passes=True, anytime=True) for name in anytime}
    rules |= {name: Rule(name, rules[name].claims, passes=True) for name in _NO_KEY_NEEDED}
    return rules


RULES: Final[Mapping[str, Rule]] = _rules()
# Commands of one word for which the table says it all.
PLAIN_SPECS: Final[Mapping[str, str]] = {
    name: spec
    for name, spec in COMMANDS.items()
    if " " not in name
    and all(map(_READABLE.fullmatch, spec.split() or ["-"]))
    and name not in {rule.name for rule in _BY_HAND}
}
_CONTAINERS: Final = frozenset(name.split()[0] for name in RULES if " " in name)
_AS_SENT: Final = {name.encode(): rule for name, rule in RULES.items() if name.split()[0] not in _CONTAINERS}


def find_rule(argv: Argv, declared: Mapping[str, Rule]) -> tuple[str, Rule | None]:
    """Return the command's name and its rule, or ``None`` for a command that nobody knows.

    Names are matched as servers do, without regard to the case of ASCII letters. A first argument that
    still holds white space was not split by the packer, so no server would take it for a command.
    """
    if not declared and argv and (known := _AS_SENT.get(argv[0])) is not None:
        return known.name, known
    name = _upper(argv[0]) if argv else ""
    if name.split() != [name]:
        return name, None
    if len(argv) > 1:
        full = f"{name} {_upper(argv[1])}"
        rule = declared.get(full) or RULES.get(full)
        if rule is not None:
            return full, rule
        if name in _CONTAINERS and name not in declared:
            return full, None
    return name, declared.get(name) or RULES.get(name)


def _upper(word: bytes) -> str:
    return word.upper().decode("latin-1")  # bytes first: servers know no case beyond ASCII


# --- the option commands= --------------------------------------------------------------------------

_NAME = re.compile(r"[!-~]+( [!-~]+)?")


def declare(commands: Mapping[str, Declaration] | None) -> dict[str, Rule]:
    """Turn the option ``commands=`` into rules.

    Raises:
        TypeError: The option, a name or a value is of another kind than a mapping of names to an int,
            three ints or a function.
        ValueError: A name is not one or two words, or a position cannot be one.
    """
    if commands is None:
        return {}
    if not isinstance(commands, Mapping):
        raise TypeError(
            f"commands is a mapping of command names to key positions, not {type(commands).__name__}"
        )
    return dict(_declared(name, value) for name, value in commands.items())


def _declared(name: object, value: object) -> tuple[str, Rule]:
    if not isinstance(name, str):
        raise TypeError(f"a command name is a str, not {type(name).__name__}")
    spelled = " ".join(name.replace("|", " ").split()).upper()
    if not _NAME.fullmatch(spelled):
        raise ValueError(f"{name!r} is not a command: name it, or its container and subcommand")
    if inspect.iscoroutinefunction(value):
        raise TypeError(
            f"{spelled}: its positions are needed before it is sent, so the function cannot be async"
        )
    if callable(value):
        return spelled, Rule(spelled, _claims_of(value), passes=True)
    first, last, step = _numbers(spelled, value)
    if first == 0:
        return spelled, Rule(spelled, passes=True)
    only = first if (last, step) == (first, 1) else 0
    return spelled, Rule(spelled, _ranged(first, last, step), only=only)


def _numbers(name: str, value: object) -> tuple[int, int, int]:
    given = value if isinstance(value, tuple) else (value, value, 1)
    if not all(type(number) is int for number in given) or len(given) != 3:
        raise TypeError(f"{name}: say where its keys stand by a position, (first, last, step) or a function")
    first, last, step = given
    has_none = first == last == 0 <= step
    if not has_none and (first < 1 or step < 1 or 0 <= last < first):
        raise ValueError(
            f"{name}: {value!r} are no positions; they count as in COMMAND INFO, the command is 0"
        )
    return first, last, step


def _ranged(first: int, last: int, step: int) -> Claims:
    return lambda argv: map(Claim, _range(first, last, step, argv))


def _declared_positions(function: Callable[[Argv], object], argv: Argv) -> list[object]:
    try:
        found = function(argv)
        if isinstance(found, Iterable):
            return list(found)
    except Exception as error:  # noqa: BLE001 - fails closed; without its text, which may hold a key
        why = f"its declaration in commands= raised {type(error).__name__}"
        raise Unreadable(0, why) from None
    raise Unreadable(0, "its declaration in commands= gave no positions")


def _claims_of(function: Callable[[Argv], object]) -> Claims:
    def claims(argv: Argv) -> Iterator[Claim]:
        for position in _declared_positions(function, argv):
            if type(position) is not int or not 0 < position < len(argv):
                raise Unreadable(0, "its declaration in commands= gave a position that it does not have")
            yield Claim(position)

    return claims
