"""How a value becomes one segment of a key, and back.

``:`` separates segments, so a part never contains one: it is percent-encoded, together with every
character that means something to SCAN globs, ACL patterns, Cluster hash tags or a terminal. Everything
else stands as it is, so ordinary ids read as they are. ``%`` itself is encoded, so it is always
followed by two hex digits: distinct texts have distinct segments, and each segment decodes to one text.
"""

from __future__ import annotations

import re
from typing import Final

from tenantry.errors import InvalidKeyPartError, shown
from tenantry.ids import exact_text

__all__ = ["decode_segment", "encode_part", "encode_text"]

MAX_BYTES: Final = 512
"""The longest part, in bytes of UTF-8 before encoding."""

# White space as str.isspace has it (which is what \s means for text) and category Cc.
_UNSAFE: Final = re.compile(r"[%:*?\[\]\\{}\s\x00-\x1f\x7f-\x9f]")
_ESCAPE: Final = re.compile(rb"%([0-9A-F]{2})")


def is_ordinary(text: str) -> bool:
    """Tell whether ``text`` stands in a key as it is."""
    return _UNSAFE.search(text) is None


def encode_text(text: str) -> str:
    """Return ``text`` with its unsafe characters percent-encoded from UTF-8, hex digits upper case."""
    return _UNSAFE.sub(_encode_match, text)


def _encode_match(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match.group().encode())


def encode_part(function: str, part: str, value: object) -> str:
    """Return the segment for ``value``, the part named ``part`` of a call of ``function``.

    Raises:
        InvalidKeyPartError: ``value`` is no ``str``, ``int`` or ``uuid.UUID``, or is a ``bool``; or its
            text is empty, has a lone surrogate or is longer than 512 bytes as UTF-8.
    """
    text = _text_of(value)
    if text is None:
        rule = f"a part of a key is text, an int or a UUID, not {type(value).__name__}"
    elif not text:
        rule = "a part of a key is not empty"
    elif len(text) > MAX_BYTES:
        rule = f"a part of a key has at most {MAX_BYTES} bytes as UTF-8"
    else:
        try:
            if len(text.encode()) <= MAX_BYTES:
                return encode_text(text)
            rule = f"a part of a key has at most {MAX_BYTES} bytes as UTF-8"
        except UnicodeEncodeError:
            rule = "a part of a key has no lone surrogates"
    raise InvalidKeyPartError(function, part, shown(value), rule)


def _text_of(value: object) -> str | None:
    """Return the text of ``value`` by its underlying type, or ``None``; subclasses are not asked."""
    if issubclass(type(value), int) and type(value) is not bool:
        try:
            return int.__repr__(value)
        except ValueError:  # more digits than sys.get_int_max_str_digits allows, so longer than MAX_BYTES too
            return "0" * MAX_BYTES + "0"
    return exact_text(value)


def decode_segment(segment: str) -> str | None:
    """Return the text whose segment is ``segment``, or ``None`` if no text has that segment."""
    if "%" not in segment:
        text = segment
    else:
        try:
            text = _ESCAPE.sub(lambda match: bytes((int(match.group(1), 16),)), segment.encode()).decode()
        except UnicodeError:
            return None
    try:
        if not text or len(text.encode()) > MAX_BYTES:
            return None
    except UnicodeEncodeError:
        return None
    return text if encode_text(text) == segment else None
