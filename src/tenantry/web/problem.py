"""Refusals as RFC 9457 problem documents. They never repeat anything of the request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus

from tenantry.errors import ResolutionError

__all__ = ["Problem", "problem_of", "refusal"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A refusal as it goes to the client.

    Attributes:
        status: The HTTP status code.
        headers: Names and values, lower-case names, ``content-length`` included.
        body: The problem document; still to be left out in the answer to ``HEAD``.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def status_line(self) -> str:
        """The status as WSGI wants it, e.g. ``404 Not Found``."""
        return f"{self.status} {_phrase(self.status)}"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def refusal(status: int, detail: str, tried: tuple[str, ...] = ()) -> ResolutionError:
    """Return the error for a refusal; its title is the status' own, as RFC 9457 asks of ``about:blank``."""
    return ResolutionError(status, _phrase(status), tried, detail)


def problem_of(error: ResolutionError, challenge: str = "Bearer") -> Problem:
    """Return the answer to a refused request.

    Args:
        error: The refusal.
        challenge: What ``WWW-Authenticate`` says in a 401.
    """
    status = _status_of(error)
    document = {"type": "about:blank", "title": str(error.title) or _phrase(status), "status": status}
    if error.detail:
        document["detail"] = str(error.detail)
    body = json.dumps(document, separators=(",", ":")).encode("ascii")
    headers = [
        ("content-type", "application/problem+json"),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
    ]
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append(("www-authenticate", challenge))
    return Problem(status, tuple(headers), body)


def _status_of(error: ResolutionError) -> int:
    """A resolver of the application may raise its own refusal; what is no refusal's status becomes 400."""
    status = error.status
    if type(status) is int and 400 <= status <= 599:
        return status
    return 400
