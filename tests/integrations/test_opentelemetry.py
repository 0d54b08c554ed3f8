"""The tenant on spans: written on start, never read from baggage, in baggage only where asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tenantry import carry_tenant, current_tenant_or_none, tenant_scope, without_tenant
from tenantry.context import unit_of_work
from tenantry.integrations.opentelemetry import ATTRIBUTE, TenantSpanProcessor, install


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> Iterator[TracerProvider]:
    made = TracerProvider()
    made.add_span_processor(SimpleSpanProcessor(exporter))
    yield made
    made.shutdown()


@pytest.fixture
def tracer(provider: TracerProvider) -> trace.Tracer:
    return provider.get_tracer("tests")


@pytest.fixture
def undone() -> Iterator[list[Callable[[], None]]]:
    """Collects what install returns and calls it afterwards."""
    removers: list[Callable[[], None]] = []
    yield removers
    for remove in removers:
        remove()


def marks(exporter: InMemorySpanExporter) -> dict[str, Any]:
    return {span.name: (span.attributes or {}).get("tenant.id") for span in exporter.get_finished_spans()}


def test_install_marks_spans_that_start_under_a_tenant(
    provider: TracerProvider, tracer: trace.Tracer, exporter: InMemorySpanExporter
) -> None:
    """The tenant where a span starts is the tenant on it; children have their own."""
    install(provider)
    with tracer.start_as_current_span("outside"), tenant_scope("acme"):
        with tracer.start_as_current_span("acme"):
            with tenant_scope("globex", switch=True), tracer.start_as_current_span("globex"):
                pass
        with without_tenant(reason="a test"), tracer.start_as_current_span("without"):
            pass
        with unit_of_work(None), tracer.start_as_current_span("none"):
            pass
    assert marks(exporter) == {
        "outside": None,
        "acme": "acme",
        "globex": "globex",
        "without": None,
        "none": None,
    }
    assert ATTRIBUTE == "tenant.id"


def test_install_keeps_an_attribute_that_the_span_has(
    provider: TracerProvider, tracer: trace.Tracer, exporter: InMemorySpanExporter
) -> None:
    """The application's own attribute wins."""
    install(provider)
    with tenant_scope("acme"):
        tracer.start_span("x", attributes={"tenant.id": "mine"}).end()
    assert marks(exporter) == {"x": "mine"}


def test_install_twice_marks_once_and_the_remover_stops_it(
    provider: TracerProvider, tracer: trace.Tracer, exporter: InMemorySpanExporter
) -> None:
    """Install, install, remove, install again: one processor throughout."""
    install(provider)
    remove = install(tracer_provider=provider)
    ours = [p for p in provider._active_span_processor._span_processors if isinstance(p, TenantSpanProcessor)]
    assert len(ours) == 1
    with tenant_scope("acme"):
        tracer.start_span("on").end()
        remove()
        remove()
        tracer.start_span("off").end()
        install(provider)
        tracer.start_span("again").end()
    assert marks(exporter) == {"on": "acme", "off": None, "again": "acme"}


def test_install_refuses_a_provider_without_processors() -> None:
    """Something else than a provider of the SDK is an error at the call."""
    with pytest.raises(TypeError, match="install takes a tracer provider of the OpenTelemetry SDK, not NoOp"):
        install(trace.NoOpTracerProvider())


def test_install_warns_where_no_provider_is_set(caplog: pytest.LogCaptureFixture) -> None:
    """The API's placeholder takes no processors; that is said, and nothing is raised."""
    with caplog.at_level(logging.WARNING, logger="tenantry"):
        install()()
    assert "no tracer provider of the OpenTelemetry SDK is set" in caplog.text


def test_install_uses_the_global_provider(
    monkeypatch: pytest.MonkeyPatch,
    provider: TracerProvider,
    tracer: trace.Tracer,
    exporter: InMemorySpanExporter,
) -> None:
    """Without an argument the global provider is meant."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    install()
    with tenant_scope("acme"):
        tracer.start_span("x").end()
    assert marks(exporter) == {"x": "acme"}


def test_a_span_that_breaks_does_not_end_the_work() -> None:
    """Telemetry never raises into what it describes."""

    class Broken(trace.NonRecordingSpan):
        def is_recording(self) -> bool:
            raise RuntimeError("broken")

    with tenant_scope("acme"):
        TenantSpanProcessor().on_start(Broken(trace.INVALID_SPAN_CONTEXT))


def test_current_span_marks_the_open_span(
    provider: TracerProvider,
    tracer: trace.Tracer,
    exporter: InMemorySpanExporter,
    undone: list[Callable[[], None]],
) -> None:
    """The server's span, opened before the tenant was resolved, is marked when one becomes active."""
    undone.append(install(provider, current_span=True))
    with tracer.start_as_current_span("request"), unit_of_work("acme"):
        pass
    with (
        tracer.start_as_current_span("set", attributes={"tenant.id": "mine"}),
        tenant_scope("acme"),
    ):
        pass
    with tenant_scope("acme"):
        pass
    undone.pop()()
    with tracer.start_as_current_span("removed"), tenant_scope("acme"):
        pass
    assert marks(exporter) == {"request": "acme", "set": "mine", "removed": None}


def test_baggage_is_never_read(
    provider: TracerProvider, tracer: trace.Tracer, exporter: InMemorySpanExporter
) -> None:
    """A tenant that a client wrote into its baggage is nobody's tenant and on no span."""
    install(provider)
    incoming = propagate.extract({"baggage": "tenant.id=evil,tenant=evil"})
    token = otel_context.attach(incoming)
    try:
        assert current_tenant_or_none() is None
        with tracer.start_as_current_span("none"):
            pass
        with tenant_scope("acme"), tracer.start_as_current_span("acme"):
            assert current_tenant_or_none() == "acme"
    finally:
        otel_context.detach(token)
    assert marks(exporter) == {"none": None, "acme": "acme"}


def test_baggage_is_not_written_unasked(provider: TracerProvider) -> None:
    """By default no other service is told."""
    install(provider)
    carrier: dict[str, str] = {}
    with tenant_scope("acme"):
        assert baggage.get_all() == {}
        propagate.inject(carrier)
    assert "baggage" not in carrier


def test_baggage_on_request_hands_the_active_tenant_on(
    provider: TracerProvider, undone: list[Callable[[], None]]
) -> None:
    """Each outgoing call names the tenant that is active then, whatever came in."""
    undone.append(install(provider, baggage=True))
    undone.append(install(provider, baggage=True))
    incoming = propagate.extract({"baggage": "tenant.id=evil,other=1"})
    inside: dict[str, str] = {}
    switched: dict[str, str] = {}
    outside: dict[str, str] = {}
    token = otel_context.attach(incoming)
    try:
        with tenant_scope("acme"):
            propagate.inject(inside)
            with tenant_scope("globex", switch=True):
                propagate.inject(switched)
        propagate.inject(outside)
    finally:
        otel_context.detach(token)
    assert set(inside["baggage"].split(",")) == {"tenant.id=acme", "other=1"}
    assert set(switched["baggage"].split(",")) == {"tenant.id=globex", "other=1"}
    assert outside["baggage"] == "other=1"
    assert "baggage" in propagate.get_global_textmap().fields


def test_baggage_remover_puts_the_propagator_back(provider: TracerProvider) -> None:
    """Afterwards the global propagator is the one from before."""
    before = propagate.get_global_textmap()
    remove = install(provider, baggage=True)
    assert propagate.get_global_textmap() is not before
    remove()
    remove()
    assert propagate.get_global_textmap() is before


def test_baggage_propagator_below_another_one_is_switched_off(
    monkeypatch: pytest.MonkeyPatch, provider: TracerProvider
) -> None:
    """Where somebody has wrapped ours since, it stays and writes nothing more."""
    before = propagate.get_global_textmap()
    remove = install(provider, baggage=True)
    from opentelemetry.propagators.composite import CompositePropagator

    outer = CompositePropagator([propagate.get_global_textmap()])
    propagate.set_global_textmap(outer)
    try:
        remove()
        assert propagate.get_global_textmap() is outer
        carrier: dict[str, str] = {}
        with tenant_scope("acme"):
            propagate.inject(carrier)
        assert carrier == {}
    finally:
        propagate.set_global_textmap(before)


def test_spans_of_a_carried_thread_are_marked(
    provider: TracerProvider, tracer: trace.Tracer, exporter: InMemorySpanExporter
) -> None:
    """The mark follows the tenant into a thread."""
    import threading

    install(provider)
    with tenant_scope("acme"):
        thread = threading.Thread(target=carry_tenant(lambda: tracer.start_span("carried").end()))
    thread.start()
    thread.join()
    assert marks(exporter) == {"carried": "acme"}
