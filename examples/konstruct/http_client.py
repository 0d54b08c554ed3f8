"""The least of an HTTP client: what a channel's webhook would send."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, content type and decoded body."""

    status: int
    content_type: str
    body: Any


def call(url: str, body: object = None, *, tenant: str | None = None, token: str | None = None) -> Answer:
    """GET ``url``, or POST ``body`` as JSON, as a tenant with a token."""
    headers = {"Content-Type": "application/json"}
    if tenant is not None:
        headers["X-Tenant"] = tenant
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return _answer(answer)
    except urllib.error.HTTPError as error:
        with error:
            return _answer(error)


def _answer(response: Any) -> Answer:
    return Answer(
        response.status, response.headers.get_content_type(), json.loads(response.read() or b"null")
    )
