"""The file that an export writes and an import reads: one JSON object a line.

The first line says whose keys these are, each further line holds one key with its type, its time to
live in milliseconds (-1: none) and its value as ``DUMP`` gives it, in base64, and the last line
counts the keys and carries the SHA-256 of every byte before it. A file that was cut, joined or
edited is found out before anything of it is used.

    {"tenantry": "export", "version": 1, "tenant": "acme", "prefix": "acme:"}
    {"key": "acme:session:42", "type": "string", "pttl": -1, "dump": "AAVoZWxsbws…"}
    {"end": true, "keys": 1, "sha256": "…"}

A key that is no UTF-8 stands as ``"key_base64"`` instead.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeAlias

from tenantry.errors import InvalidTenantIdError, TenancyError, shown
from tenantry.ids import TenantId, ensure_tenant_id

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Entry", "ExportFileError", "Source", "Target", "Writer", "opened", "read", "written"]

VERSION = 1
# A time to live that a server can add to its clock without leaving its 64 bits, until the year 2109.
_LONGEST = (1 << 63) - (1 << 42)
_CHUNK = 1 << 20


class _Readable(Protocol):
    def read(self, size: int, /) -> str | bytes: ...


class _Writable(Protocol):
    def write(self, data: Any, /) -> object: ...


Source: TypeAlias = str | os.PathLike[str] | _Readable
Target: TypeAlias = str | os.PathLike[str] | _Writable


class ExportFileError(TenancyError, ValueError):
    """A file is not a whole, unchanged export, or holds what may not be imported from it.

    Attributes:
        line: Number of the line, from 1.
        reason: What is wrong with it.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(line, reason)
        self.line = line
        self.reason = reason

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of an export; ``line`` is where it stood."""

    key: bytes
    type: str
    pttl: int
    dump: bytes
    line: int = 0


# --- writing ------------------------------------------------------------------------------------


class Writer:
    """Writes an export, line by line."""

    def __init__(self, target: _Writable) -> None:
        self._target = target
        self._text = _takes_text(target)
        self._digest = hashlib.sha256()
        self._keys = 0

    def header(self, tenant_id: str, prefix: bytes) -> None:
        """Write the first line."""
        self._line(
            {
                "tenantry": "export",
                "version": VERSION,
                "tenant": tenant_id,
                "prefix": prefix.decode("ascii"),
            }
        )

    def entry(self, entry: Entry) -> None:
        """Write one key."""
        self._keys += 1
        self._line(
            {
                **_named(entry.key),
                "type": entry.type,
                "pttl": entry.pttl,
                "dump": base64.b64encode(entry.dump).decode("ascii"),
            }
        )

    def trailer(self) -> None:
        """Write the last line."""
        self._line({"end": True, "keys": self._keys, "sha256": self._digest.hexdigest()})

    def _line(self, content: dict[str, object]) -> None:
        line = json.dumps(content) + "\n"
        encoded = line.encode("ascii")
        self._digest.update(encoded)
        self._target.write(line if self._text else encoded)


def _takes_text(target: _Writable) -> bool:
    try:
        target.write(b"")
    except TypeError:
        return True
    return False


def _named(key: bytes) -> dict[str, object]:
    try:
        return {"key": key.decode("utf-8")}
    except UnicodeDecodeError:
        return {"key_base64": base64.b64encode(key).decode("ascii")}


@contextlib.contextmanager
def written(target: Target) -> Iterator[_Writable]:
    """Open ``target`` for writing: a path appears under its name only when it is whole.

    The file holds a tenant's data: only its owner may read it.
    """
    if not isinstance(target, str | os.PathLike):
        yield target
        return
    path = Path(target)
    if path.exists() and not path.is_file():  # a pipe, /dev/stdout
        with path.open("wb") as file:
            yield file
        return
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)  # of a run that was killed; O_EXCL follows no link of others
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, for the mode
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


# --- reading ------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(source: Source) -> Iterator[IO[bytes]]:
    """Open ``source`` so that it can be read twice; what is no path is copied to disk first."""
    if isinstance(source, str | os.PathLike) and Path(source).is_file():
        with Path(source).open("rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as file:
        _copy(source, file)
        file.seek(0)
        yield file


def _copy(source: Source, file: IO[bytes]) -> None:
    if isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as pipe:
            shutil.copyfileobj(pipe, file, _CHUNK)
        return
    while chunk := source.read(_CHUNK):
        file.write(chunk.encode("utf-8") if isinstance(chunk, str) else chunk)


def read(file: IO[bytes]) -> tuple[TenantId, bytes, Iterator[Entry]]:
    """Return whose keys a file holds, their prefix, and its entries.

    The iterator ends only at a sound last line.

    Raises:
        ExportFileError: At once for a bad first line, else from the iterator.
    """
    digest = hashlib.sha256()
    first = file.readline()
    digest.update(first)
    tenant, prefix = _header(_object(first, 1))
    return tenant, prefix, _entries(file, digest, prefix)


def _entries(file: IO[bytes], digest: Any, prefix: bytes) -> Iterator[Entry]:
    number = 1
    while line := file.readline():
        number += 1
        content = _object(line, number)
        if "end" in content:
            _check_end(content, number, number - 2, digest.hexdigest())
            if file.read(1):
                raise ExportFileError(number + 1, "there is more after the last line of the export")
            return
        digest.update(line)
        yield _entry(content, number, prefix)
    raise ExportFileError(number + 1, "the file is cut: it has no last line; export again")


def _object(line: bytes, number: int) -> dict[str, Any]:
    if not line:
        raise ExportFileError(number, "the file is empty")
    if not line.endswith(b"\n"):
        raise ExportFileError(number, "the file is cut: the line does not end; export again")
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ExportFileError(number, "this is not JSON: it is no export, or damaged") from error
    if not isinstance(content, dict):
        raise ExportFileError(number, "this is no JSON object")
    return content


def _header(content: dict[str, Any]) -> tuple[TenantId, bytes]:
    if content.get("tenantry") != "export":
        raise ExportFileError(1, "this is no first line of a tenant export")
    if content.get("version") != VERSION or isinstance(content["version"], bool):
        raise ExportFileError(1, f"unknown version {shown(content.get('version'))} of the format")
    try:
        tenant = ensure_tenant_id(content.get("tenant"))
    except InvalidTenantIdError as error:
        raise ExportFileError(1, f"the export names no tenant: {error}") from error
    prefix = content.get("prefix")
    if prefix not in (f"{tenant}:", f"{{{tenant}}}:"):
        raise ExportFileError(1, f"the prefix {shown(prefix)} is not that of the tenant {tenant!r}")
    return tenant, str(prefix).encode("ascii")


def _entry(content: dict[str, Any], number: int, prefix: bytes) -> Entry:
    key = _key(content, number)
    if not key.startswith(prefix):
        raise ExportFileError(number, "the key does not belong to the tenant that was exported")
    pttl, kind = content.get("pttl"), content.get("type")
    if type(pttl) is not int or not -1 <= pttl <= _LONGEST:
        raise ExportFileError(number, f"pttl is milliseconds or -1, not {shown(pttl)}")
    if not isinstance(kind, str):
        raise ExportFileError(number, f"type is text, not {shown(kind)}")
    dump = _decoded(content, "dump", number)
    if not dump:
        raise ExportFileError(number, "dump is empty: no value is")
    return Entry(key, kind, pttl, dump, number)


def _key(content: dict[str, Any], number: int) -> bytes:
    if "key_base64" in content:
        return _decoded(content, "key_base64", number)
    key = content.get("key")
    try:
        if isinstance(key, str):
            return key.encode("utf-8")
    except UnicodeEncodeError:
        pass
    raise ExportFileError(number, "key is not text that UTF-8 can say")


def _decoded(content: dict[str, Any], field: str, number: int) -> bytes:
    try:
        return base64.b64decode(content.get(field, ""), validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise ExportFileError(number, f"{field} is not base64") from error


def _check_end(content: dict[str, Any], number: int, keys: int, digest: str) -> None:
    if content.get("keys") != keys:
        said = shown(content.get("keys"))
        raise ExportFileError(number, f"the export says {said} keys and the file holds {keys}")
    if content != {"end": True, "keys": keys, "sha256": digest}:
        raise ExportFileError(number, "the file was changed since the export: its sum disagrees")
