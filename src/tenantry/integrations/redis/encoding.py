"""Arguments to bytes, once: what is judged is what is sent.

redis-py's two packers encode differently. hiredis' one always writes UTF-8; the other one uses the
client's encoding and asks a ``str`` subclass to encode itself. Here the underlying value counts, and
what comes out is handed to either packer as ``bytes``, which both send unchanged.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from redis.exceptions import DataError

__all__ = ["Encode", "encode_all", "encoder", "frozen", "utf8"]

Encode: TypeAlias = Callable[[str], bytes]

_EXACT = frozenset((str, bytes, int, float))


def utf8(text: str) -> bytes:
    """Encode as hiredis does."""
    return str.encode(text)


def encoder(encoding: str, errors: str) -> Encode:
    """Encode as a client with that encoding does, whatever a subclass of ``str`` would rather do."""
    if codecs.lookup(encoding).name == "utf-8" and errors == "strict":
        return utf8
    return lambda text: str.encode(text, encoding, errors)


def _encode(value: object, encode: Encode) -> bytes:
    if isinstance(value, str):
        return encode(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(memoryview(value))
    if isinstance(value, int | float) and type(value) is not bool:
        return repr(value).encode()
    raise DataError(
        f"Invalid input of type: {type(value).__name__!r}. Convert to a bytes, string, int or float first."
    )


def encode_all(args: Sequence[Any], encode: Encode) -> tuple[bytes, ...]:
    """Return the arguments as they will be sent.

    The packers split a first argument at white space, which makes one argument into several
    (``"GET globex:1"``), or into none. So does this, at every white space, for ``bytes`` too.

    Raises:
        redis.exceptions.DataError: An argument is of a type that redis-py does not send.
    """
    rest = [
        value if type(value) is bytes else encode(value) if type(value) is str else _encode(value, encode)
        for value in args[1:]
    ]
    if not args:
        return ()
    first = args[0]
    if isinstance(first, str):
        return (*str.encode(first).split(), *rest)
    return (*_encode(first, encode).split(), *rest)


def frozen(args: tuple[Any, ...], encode: Encode) -> tuple[Any, ...]:
    """Return ``args`` with everything that could change, or lie about itself, as bytes."""
    if all(type(value) in _EXACT for value in args):
        return args
    return tuple(
        value if type(value) in _EXACT or value is None else _encode(value, encode) for value in args
    )
