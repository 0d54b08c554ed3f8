"""What the Django tests name by dotted path."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse


def on_error(request: Any, error: Any) -> HttpResponse:
    return HttpResponse("dotted", status=error.status)
