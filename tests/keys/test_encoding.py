"""Parts become segments, and segments parts."""

from __future__ import annotations

import enum
import sys
import unicodedata
import uuid

import pytest

from tenantry import InvalidKeyPartError
from tenantry.keys.encoding import decode_segment, encode_part, encode_text, is_ordinary


class Text(str):
    """A text whose every method lies."""

    __slots__ = ()

    def __str__(self):
        return "lie"

    def __format__(self, spec):
        return "lie"

    def encode(self, *args):
        return b"lie"

    def __len__(self):
        return 1

    def __eq__(self, other):
        return True

    def __hash__(self):
        return 0


class Number(int):
    def __str__(self):
        return "lie"

    __repr__ = __format__ = __str__


class Level(enum.IntEnum):
    HIGH = 3


class Colour(str, enum.Enum):
    RED = "red"


def part(value):
    return encode_part("cart", "cart_id", value)


@pytest.mark.parametrize(
    "text",
    [
        "3f2b8c1e-9d4a-4c57-8f0e-2b6a1d9c7e55",
        "U02ABCDEF",
        "C0123456789",
        "1712345678.123456",
        "+14155550123",
        "jane.doe+x@example.com",
        "-",
        "~!@#$^&()_=|;'\",.<>/`",
        "é",
        "日本語",
        "🙂",
        "0",
    ],
)
def test_ordinary_text_stands_as_it_is(text):
    """Ids of the field are byte-identical in the key."""
    assert part(text) == text
    assert decode_segment(text) == text


@pytest.mark.parametrize(
    ("text", "segment"),
    [
        ("a:b", "a%3Ab"),
        ("%", "%25"),
        ("%3A", "%253A"),
        ("*?[]\\{}", "%2A%3F%5B%5D%5C%7B%7D"),
        (" ", "%20"),
        ("\t\r\n", "%09%0D%0A"),
        ("\x00\x1f\x7f", "%00%1F%7F"),
        ("\x80\x9f", "%C2%80%C2%9F"),
        ("\u00a0", "%C2%A0"),
        ("\u2028\u3000", "%E2%80%A8%E3%80%80"),
        ("\u200b", "\u200b"),
    ],
)
def test_unsafe_text_is_percent_encoded(text, segment):
    """Upper case hex digits of UTF-8."""
    assert part(text) == segment
    assert decode_segment(segment) == text


def test_unsafe_is_exactly_what_is_declared_unsafe():
    """Over all characters: the listed signs, white space and category Cc."""
    for code in range(sys.maxunicode + 1):
        char = chr(code)
        expected = char in "%:*?[]\\{}" or char.isspace() or unicodedata.category(char) == "Cc"
        assert is_ordinary(char) is not expected, hex(code)


@pytest.mark.parametrize(
    ("value", "segment"),
    [
        (0, "0"),
        (-5, "-5"),
        (10**100, "1" + "0" * 100),
        (Level.HIGH, "3"),
        (Number(7), "7"),
        (Text("a:b"), "a%3Ab"),
        (Colour.RED, "red"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
    ids=ascii,
)
def test_other_types_count_by_their_underlying_value(value, segment):
    """What a subclass overrides is never asked."""
    assert part(value) == segment


@pytest.mark.parametrize("value", [None, True, False, 1.0, b"a", bytearray(b"a"), ["a"], object, ..., 1j])
def test_other_types_are_refused(value):
    """No text is made of what is no text."""
    with pytest.raises(InvalidKeyPartError, match="text, an int or a UUID") as caught:
        part(value)
    assert (caught.value.function, caught.value.part) == ("cart", "cart_id")


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("", "not empty"),
        (Text(""), "not empty"),
        ("x" * 513, "512 bytes"),
        ("é" * 257, "512 bytes"),
        (10**600, "512 bytes"),
        (10**5000, "512 bytes"),
        ("\ud800" * 513, "512 bytes"),
        ("\ud800", "surrogates"),
        ("a\udfffb", "surrogates"),
    ],
    ids=[
        "empty",
        "empty subclass",
        "long",
        "long in bytes",
        "long int",
        "very long int",
        "long surrogates",
        "surrogate",
        "inner surrogate",
    ],
)
def test_text_beyond_the_limits_is_refused(value, rule):
    """The error names the rule, and the value is cut."""
    with pytest.raises(InvalidKeyPartError, match=rule) as caught:
        part(value)
    assert len(caught.value.value) <= 40


@pytest.mark.parametrize("text", ["x" * 512, "é" * 256, "%" * 512])
def test_text_at_the_limit_is_accepted(text):
    """The limit counts before encoding."""
    assert decode_segment(part(text)) == text


@pytest.mark.parametrize(
    "segment",
    [
        "", "a:b", "a b", "%", "%2", "%zz", "%3a", "%41", "%C3", "%FF", "a%", "*", "{a}", "%C3%A9", "x" * 513, "%ED%A0%80",
        "\ud800", "%20%", "\x7f", "%3A\ud800",
    ],
    ids=ascii,
)  # fmt: skip
def test_segment_that_no_text_has_is_refused(segment):
    """Only the canonical encoding decodes."""
    assert decode_segment(segment) is None


def test_encoding_is_injective_on_look_alikes():
    """What looks encoded is encoded again."""
    texts = ["a:b", "a%3Ab", "a%253Ab", "a%3ab"]
    assert len({encode_text(text) for text in texts}) == len(texts)
