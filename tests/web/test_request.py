"""The request view, as the ASGI and the WSGI edge make it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tenantry import ResolutionError
from tenantry.web.request import AsgiRequest, WsgiRequest, single_header


def asgi(*headers: tuple[bytes, bytes], **scope: Any) -> AsgiRequest:
    return AsgiRequest({"type": "http", "method": "GET", "path": "/", "headers": list(headers), **scope})


def test_repeated_header_is_joined_as_its_kind_wants() -> None:
    """With commas, and cookies with semicolons (RFC 9110, RFC 6265)."""
    view = asgi((b"accept", b"a"), (b"Accept", b"b"), (b"cookie", b"c=1"), (b"cookie", b"d=2"))
    assert view.headers.get("Accept") == "a,b"
    assert view.headers.get("cookie") == "c=1; d=2"


@pytest.mark.parametrize(
    "view",
    [
        asgi((b"x-tenant", b"acme"), (b"content-type", b"text/plain")),
        WsgiRequest({"HTTP_X_TENANT": "acme", "CONTENT_TYPE": "text/plain"}),
    ],
)
def test_header_is_read_by_its_own_name_alone(view: Any) -> None:
    """In any case; an alias with underscores names nothing, and what is absent is the default."""
    assert view.headers.get("X-TENANT") == view.headers.get("x-tenant") == "acme"
    assert view.headers.get("Content-Type") == "text/plain"
    assert view.headers.get("X_Tenant") is None
    assert view.headers.get("X_Tenant", "default") == "default"
    assert view.headers.get("X-Other") is None
    assert view.headers.get("X-Other", "default") == "default"
    assert single_header(view, "X-Tenant") == "acme"
    assert single_header(view, "X-Other") is None


def test_alias_is_not_read_where_the_server_has_kept_it() -> None:
    """Neither by its own name nor by the other."""
    view = asgi((b"x_tenant", b"acme"))
    assert view.headers.get("X_Tenant") is view.headers.get("X-Tenant") is None


def test_headers_of_another_edge_may_be_any_mapping() -> None:
    """Whether a header was sent twice is then that edge's affair."""
    view: Any = SimpleNamespace(headers={"X-Tenant": "acme"})
    assert single_header(view, "X-Tenant") == "acme"
    assert single_header(view, "X-Other") is None


@pytest.mark.parametrize(
    "view",
    [
        asgi((b"x-tenant", b"acme"), (b"x-tenant", b"acme")),
        asgi((b"x_tenant", b"acme")),
        asgi((b"X_Tenant", b"acme"), (b"x-tenant", b"acme")),
        WsgiRequest({"HTTP_X_TENANT": "acme", "HTTP_X-TENANT": "acme"}),
        WsgiRequest({"http_x_tenant": "acme"}),
    ],
)
def test_doubled_header_and_its_alias_are_refused(view: Any) -> None:
    """Servers merge them differently."""
    with pytest.raises(ResolutionError, match="400 .*more than once"):
        single_header(view, "X-Tenant")


def test_method_is_upper_case_and_get_where_there_is_none() -> None:
    """A websocket has none."""
    assert asgi(method="post").method == WsgiRequest({"REQUEST_METHOD": "post"}).method == "POST"
    assert AsgiRequest({"type": "websocket"}).method == WsgiRequest({}).method == "GET"


def test_path_has_the_mount_point_and_is_decoded() -> None:
    """WSGI carries its bytes as latin-1; what is no UTF-8 never raises."""
    view = WsgiRequest({"SCRIPT_NAME": "/caf\xc3\xa9", "PATH_INFO": "/x\xff"})
    assert view.path == "/café/x\ufffd"
    assert WsgiRequest({"PATH_INFO": "/x"}).path == asgi(path="/x").path == "/x"
    assert WsgiRequest({}).path == AsgiRequest({"type": "http"}).path == ""


def test_peer_is_the_address_or_nothing() -> None:
    """A unix socket has none."""
    assert asgi(client=("10.0.0.1", 5000)).peer == WsgiRequest({"REMOTE_ADDR": "10.0.0.1"}).peer == "10.0.0.1"
    assert asgi(client=None).peer is asgi().peer is WsgiRequest({"REMOTE_ADDR": ""}).peer is None


def test_session_is_what_a_middleware_outside_has_left() -> None:
    """Of the two that are common on WSGI either counts."""
    session = {"tenant": "acme"}
    assert asgi(session=session).session is session
    assert WsgiRequest({"beaker.session": session}).session is session
    assert WsgiRequest({"werkzeug.session": session}).session is session
    assert asgi().session is WsgiRequest({}).session is None
