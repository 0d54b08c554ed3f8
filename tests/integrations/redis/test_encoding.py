"""Arguments to bytes: as the client's packer would, whatever an argument would rather be."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("redis")

from redis.exceptions import DataError

from tenantry.integrations.redis.encoding import encode_all, encoder, frozen, utf8


class Text(str):
    """Text that encodes itself as another."""

    __slots__ = ()

    def encode(self, *args: Any) -> bytes:
        return b"other"


class Raw(bytes):
    """Bytes of a type of their own."""


@pytest.mark.parametrize("name", ["utf-8", "UTF8", "utf_8"])
def test_encoder_of_utf8_is_the_one_that_needs_no_encoding_to_judge(name: str) -> None:
    """However it is spelled; the quick way asks for this very function."""
    assert encoder(name, "strict") is utf8


@pytest.mark.parametrize(
    ("encoding", "errors", "sent"),
    [
        ("utf-8", "replace", b"acme:\xc3\xa9"),
        ("latin-1", "strict", b"acme:\xe9"),
        ("utf-16-le", "strict", "acme:\xe9".encode("utf-16-le")),
        ("ascii", "replace", b"acme:?"),
    ],
)
def test_encoder_encodes_as_the_client_does(encoding: str, errors: str, sent: bytes) -> None:
    """With its errors too, and a subclass by its underlying value."""
    encode = encoder(encoding, errors)
    assert encode is not utf8
    assert encode("acme:\xe9") == encode(Text("acme:\xe9")) == sent


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("\xe9", b"\xc3\xa9"),
        (Text("x"), b"x"),
        (b"\xff", b"\xff"),
        (Raw(b"\xff"), b"\xff"),
        (bytearray(b"x"), b"x"),
        (memoryview(b"x"), b"x"),
        (memoryview(bytearray(b"abcd"))[::2], b"ac"),
        (7, b"7"),
        (-1.5, b"-1.5"),
        (1e300, b"1e+300"),
    ],
)
def test_arguments_become_the_bytes_that_are_sent(value: Any, sent: bytes) -> None:
    """Of exactly the type ``bytes``: what was judged cannot change."""
    name, found = encode_all(("SET", value), utf8)
    assert (name, found) == (b"SET", sent)
    assert type(found) is bytes


@pytest.mark.parametrize("value", [None, True, False, object(), ["x"], 1j])
def test_what_redis_py_does_not_send_is_its_own_error(value: object) -> None:
    """In any place."""
    for args in (("SET", value), (value, "x")):
        with pytest.raises(DataError, match=f"Invalid input of type: '{type(value).__name__}'"):
            encode_all(args, utf8)


@pytest.mark.parametrize(
    ("first", "words"),
    [
        ("GET", [b"GET"]),
        ("GET acme:1", [b"GET", b"acme:1"]),
        ("GET\tacme:1\n", [b"GET", b"acme:1"]),
        (b"GET\x0bacme:1", [b"GET", b"acme:1"]),
        (bytearray(b"GET acme:1"), [b"GET", b"acme:1"]),
        (Text("GET x"), [b"GET", b"x"]),
        (" ", []),
        ("", []),
    ],
)
def test_first_argument_is_split_as_the_packers_do(first: Any, words: list[bytes]) -> None:
    """At every white space; the others are not."""
    assert list(encode_all((first, "a b"), utf8)) == [*words, b"a b"]


def test_name_is_utf8_in_every_encoding() -> None:
    """Packers do not ask the client's encoding about it."""
    assert encode_all(("GET", "x"), encoder("utf-16-le", "strict")) == (b"GET", b"x\x00")
    assert encode_all((), utf8) == ()


def test_frozen_keeps_what_cannot_change_and_copies_the_rest() -> None:
    """None stays, for redis-py to refuse."""
    plain = ("SET", b"x", 1, 1.5)
    assert frozen(plain, utf8) is plain
    key = bytearray(b"acme:1")
    found = frozen(("SET", key, Text("x"), None, 1), utf8)
    key[:] = b"globex"
    assert found == ("SET", b"acme:1", b"x", None, 1)
    assert [type(value) for value in found] == [str, bytes, bytes, type(None), int]
