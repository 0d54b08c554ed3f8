"""One view of a request, the same on every edge."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, overload

from tenantry.web.problem import refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tenantry.errors import ResolutionError

__all__ = ["AsgiRequest", "Headers", "Request", "WsgiRequest", "single_header"]


class Headers(Protocol):
    """The request's headers, by name in any case."""

    def get(self, name: str, /) -> str | None:
        """Return the header's value, values of a repeated header joined by commas, or ``None``."""
        ...


class Request(Protocol):
    """What resolvers, ``exempt``, ``verify``, ``claims`` and ``on_error`` receive, on every edge."""

    @property
    def method(self) -> str:
        """The method, upper case; ``GET`` for a websocket."""
        ...

    @property
    def path(self) -> str:
        """The decoded path, mount point included, query excluded."""
        ...

    @property
    def headers(self) -> Headers:
        """The headers."""
        ...

    @property
    def peer(self) -> str | None:
        """The address that the server says the request came from, or ``None`` (a unix socket)."""
        ...

    @property
    def session(self) -> Any:
        """The framework's session, or ``None`` where there is none."""
        ...

    @property
    def raw(self) -> Any:
        """The host's own object: ASGI scope, WSGI environ, Django request."""
        ...


def _ambiguous(name: str) -> ResolutionError:
    return refusal(400, "A header was sent more than once, or under an alias of its name.", (name,))


def single_header(request: Request, name: str) -> str | None:
    """Return the one value of a header, or ``None``.

    Raises:
        ResolutionError: It was sent twice, or under an alias that some servers take for it.
    """
    single = getattr(request.headers, "single", None)
    if single is not None:
        value: str | None = single(name)
        return value
    return request.headers.get(name)


@lru_cache(maxsize=256)
def _wire_name(name: str) -> bytes:
    return name.lower().encode("latin-1", "replace")


@lru_cache(maxsize=256)
def _environ_key(name: str) -> str:
    key = name.upper().replace("-", "_")
    return key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"


class AsgiHeaders:
    """The headers of an ASGI scope."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._pairs = pairs

    @overload
    def get(self, name: str, default: None = None) -> str | None: ...

    @overload
    def get(self, name: str, default: str) -> str: ...

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the header's value, values of a repeated header joined by commas, or ``default``."""
        if "_" in name:
            return default
        wire = _wire_name(name)
        values = [value for key, value in self._pairs if key.lower() == wire]
        if not values:
            return default
        return (b"; " if wire == b"cookie" else b",").join(values).decode("latin-1")

    def single(self, name: str) -> str | None:
        """Return the one value of a header, or ``None``; refuse what servers would merge differently."""
        wire = _wire_name(name)
        size = len(wire)
        # An alias is as long as the name, so that one comparison of lengths passes most headers by.
        alike = [pair for pair in self._pairs if len(pair[0]) == size]
        named = [pair for pair in alike if pair[0].lower().replace(b"_", b"-") == wire]
        if len(named) > 1 or (named and b"_" in named[0][0]):
            raise _ambiguous(name)
        return named[0][1].decode("latin-1") if named else None


class AsgiRequest:
    """An ASGI connection scope, ``http`` or ``websocket``."""

    __slots__ = ("raw",)

    def __init__(self, scope: Any) -> None:
        self.raw = scope

    @property
    def method(self) -> str:
        """The method, upper case; ``GET`` for a websocket."""
        method: str = self.raw.get("method") or "GET"
        return method.upper()

    @property
    def path(self) -> str:
        """The decoded path, mount point included, query excluded."""
        path: str = self.raw.get("path", "")
        return path

    @property
    def headers(self) -> AsgiHeaders:
        """The headers."""
        return AsgiHeaders(self.raw.get("headers", ()))

    @property
    def peer(self) -> str | None:
        """The client address of the scope, or ``None``."""
        client = self.raw.get("client")
        return client[0] if client else None

    @property
    def session(self) -> Any:
        """The session that a middleware outside of this one has put into the scope, or ``None``."""
        return self.raw.get("session")


class WsgiHeaders:
    """The headers of a WSGI environ.

    Servers merge a repeated header with commas and some take ``X_Tenant`` for ``X-Tenant``; what they
    have merged arrives here as a comma list and is refused by the grammar of ids.
    """

    __slots__ = ("_environ",)

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._environ = environ

    @overload
    def get(self, name: str, default: None = None) -> str | None: ...

    @overload
    def get(self, name: str, default: str) -> str: ...

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the header's value, values of a repeated header joined by commas, or ``default``."""
        if "_" in name:
            return default
        value: str | None = self._environ.get(_environ_key(name))
        return default if value is None else value

    def single(self, name: str) -> str | None:
        """Return the one value of a header, or ``None``; refuse what servers would merge differently."""
        key = _environ_key(name)
        for other in self._environ:
            if other != key and len(other) == len(key) and other.upper().replace("-", "_") == key:
                raise _ambiguous(name)
        value: str | None = self._environ.get(key)
        return value


class WsgiRequest:
    """A WSGI environ."""

    __slots__ = ("raw",)

    def __init__(self, environ: dict[str, Any]) -> None:
        self.raw = environ

    @property
    def method(self) -> str:
        """The method, upper case."""
        method: str = self.raw.get("REQUEST_METHOD") or "GET"
        return method.upper()

    @property
    def path(self) -> str:
        """The decoded path, mount point included, query excluded."""
        path: str = self.raw.get("SCRIPT_NAME", "") + self.raw.get("PATH_INFO", "")
        # WSGI carries the bytes of the path as latin-1 (PEP 3333); they mean UTF-8.
        return path.encode("latin-1", "replace").decode("utf-8", "replace")

    @property
    def headers(self) -> WsgiHeaders:
        """The headers."""
        return WsgiHeaders(self.raw)

    @property
    def peer(self) -> str | None:
        """``REMOTE_ADDR``, or ``None`` where the server has none."""
        return self.raw.get("REMOTE_ADDR") or None

    @property
    def session(self) -> Any:
        """The session that a middleware outside has left in the environ, or ``None``."""
        return self.raw.get("beaker.session") or self.raw.get("werkzeug.session")
