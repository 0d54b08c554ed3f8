"""Publishing a task message to a real Redis, with the edge and without; the OpenTelemetry instrumentor beside it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from celery import Celery

from benchmarks.measure import Row, against_first, calls
from tenantry import tenant_scope
from tenantry.integrations.celery import install
from tests import services

COUNT = 40
ROUNDS = 120


def rows() -> Iterator[Row]:
    """Unsigned, signed, and what another propagator costs."""
    with services.redis_server() as server:
        yield from _rows(server.url)


@tenant_scope("acme")
def _rows(url: str) -> Iterator[Row]:
    tasks = {name: _task(url, name, **options) for name, options in VARIANTS.items()}
    batches = [calls(task.delay) for task in tasks.values()]
    for batch in batches:
        batch(20)
    bare, unsigned, signed = against_first(*batches, count=COUNT, rounds=ROUNDS)
    yield Row("Celery publish, unsigned", unsigned / 1e3, bare / 1e3, unit="µs", target=1.03)
    yield Row("Celery publish, signed", signed / 1e3, bare / 1e3, unit="µs", target=1.08)
    yield from _instrumented(tasks["bare"])


VARIANTS: dict[str, dict[str, Any]] = {
    "bare": {},
    "unsigned": {"on": True},
    "signed": {"secret_keys": "k" * 32},
}


def _task(url: str, name: str, **options: Any) -> Any:
    app = Celery(name, broker=url, set_as_current=False)
    app.conf.update(task_default_queue=name, task_ignore_result=True)
    if options:
        options.pop("on", None)
        install(app, **options)

    @app.task(name="empty", shared=False)
    def empty() -> None:
        """Nothing."""

    return empty


def _instrumented(task: Any) -> Iterator[Row]:
    try:
        from opentelemetry.instrumentation.celery import CeleryInstrumentor
        from opentelemetry.sdk.trace import TracerProvider
    except ImportError:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (bare,) = against_first(calls(task.delay), count=COUNT, rounds=ROUNDS)
        CeleryInstrumentor().instrument(tracer_provider=TracerProvider())
        try:
            (traced,) = against_first(calls(task.delay), count=COUNT, rounds=ROUNDS)
        finally:
            CeleryInstrumentor().uninstrument()
    yield Row("  beside it: OpenTelemetry's Celery instrumentor", traced / 1e3, bare / 1e3, unit="µs")
