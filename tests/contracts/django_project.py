"""A Django project for the tests: settings, URLs and views in one module."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import django
from django.conf import settings

if not settings.configured:
    settings.configure(
        SECRET_KEY="a secret key",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        MIDDLEWARE=["tenantry.integrations.django.TenantMiddleware"],
        SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
        LOGGING_CONFIG=None,
        DEFAULT_CHARSET="utf-8",
        USE_TZ=True,
    )
    django.setup()

from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.urls import path, re_path

from tenantry import current_tenant_or_none
from tests.contracts.drivers import steps, tenant_text

SEEN: dict[str, object] = {}


def note(name: str) -> None:
    SEEN[name] = current_tenant_or_none()


def index(request: Any) -> HttpResponse:
    return HttpResponse(json.dumps(current_tenant_or_none()))


async def index_async(request: Any) -> HttpResponse:
    await asyncio.sleep(0)
    return HttpResponse(json.dumps(current_tenant_or_none()))


def boom(request: Any) -> HttpResponse:
    raise ZeroDivisionError


def stream(request: Any) -> StreamingHttpResponse:
    return StreamingHttpResponse(async_steps() if hasattr(request, "scope") else steps())


async def async_steps() -> AsyncIterator[bytes]:
    try:
        for _ in range(3):
            await asyncio.sleep(0)
            yield tenant_text()
    finally:
        note("async finally")


async def stream_async(request: Any) -> StreamingHttpResponse:
    return StreamingHttpResponse(async_steps())


class Closing:
    """An iterable body with a ``close``."""

    def __iter__(self) -> Any:
        return steps()

    def close(self) -> None:
        note("close")


def stream_closing(request: Any) -> StreamingHttpResponse:
    return StreamingHttpResponse(Closing())


def send_file(request: Any) -> FileResponse:
    return FileResponse(open(__file__, "rb"), content_type="text/plain")


def login(request: Any, tenant: str) -> HttpResponse:
    request.session["tenant"] = tenant
    return HttpResponse("in")


def handler500(request: Any) -> HttpResponse:
    note("handler500")
    return HttpResponse("sorry", status=500)


urlpatterns = [
    path("boom", boom),
    path("stream", stream),
    path("stream-async", stream_async),
    path("stream-closing", stream_closing),
    path("file", send_file),
    path("async", index_async),
    path("login/<str:tenant>", login),
    re_path(r"^", index),
]
