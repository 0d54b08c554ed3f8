"""The active tenant on every OpenTelemetry span, as attribute ``tenant.id``.

Enters: nowhere. Baggage is never read: anybody who can send a request can write it.
Leaves: in attribute ``tenant.id`` of spans that start under a tenant; baggage only on request.
Runs bound: nothing.
Tested with: opentelemetry-api and -sdk 1.45.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from tenantry.context import add_scope_hook, current_tenant_or_none

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.context import Context

    from tenantry.ids import TenantId

try:
    from opentelemetry import baggage as otel_baggage
    from opentelemetry import propagate, trace
    from opentelemetry.propagators.textmap import (
        CarrierT,
        Getter,
        Setter,
        TextMapPropagator,
        default_getter,
        default_setter,
    )
    from opentelemetry.sdk.trace import SpanProcessor
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "opentelemetry":
        raise
    raise ImportError(
        "tenantry.integrations.opentelemetry needs the OpenTelemetry SDK: pip install tenantry[opentelemetry]"
    ) from error

__all__ = ["ATTRIBUTE", "TenantPropagator", "TenantSpanProcessor", "install"]

ATTRIBUTE = "tenant.id"
"""Name of the span attribute and of the baggage entry. The semantic conventions define none:
https://github.com/open-telemetry/semantic-conventions/issues/162"""

_log = logging.getLogger("tenantry")


class TenantSpanProcessor(SpanProcessor):
    """A span processor that writes the tenant which is active where a span starts.

    A span that is started with the attribute keeps it. Without a tenant nothing is written. Never
    raises. :func:`install` adds one to a provider.
    """

    enabled = True

    def on_start(self, span: trace.Span, parent_context: Context | None = None) -> None:
        """Write the attribute, unless the span has one."""
        if self.enabled:
            _mark(span, current_tenant_or_none())


class TenantPropagator(TextMapPropagator):
    """A propagator that hands the active tenant on as baggage, whatever the context's baggage says.

    What is in the baggage under ``tenant.id`` came from outside; it is replaced by the active
    tenant, and removed where there is none. Reading stays with ``inner``, and nothing of it
    becomes a tenant here.
    :func:`install` puts one around the global propagator when it is asked to.

    Args:
        inner: The propagator that writes headers; it has to include the baggage propagator.
    """

    enabled = True

    def __init__(self, inner: TextMapPropagator) -> None:
        self.inner = inner

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        """Write headers to ``carrier``, the active tenant among the baggage."""
        if self.enabled:
            context = _with_tenant(context)
        self.inner.inject(carrier, context, setter)

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = default_getter,
    ) -> Context:
        """Read headers as ``inner`` does."""
        return self.inner.extract(carrier, context, getter)

    @property
    def fields(self) -> set[str]:
        """Return the names of the headers that ``inner`` writes."""
        return self.inner.fields


def _with_tenant(context: Context | None) -> Context | None:
    with contextlib.suppress(Exception):
        tenant_id = current_tenant_or_none()
        if tenant_id is None:
            return otel_baggage.remove_baggage(ATTRIBUTE, context)
        return otel_baggage.set_baggage(ATTRIBUTE, tenant_id, context)
    return context


def _mark(span: trace.Span, tenant_id: TenantId | None) -> None:
    # A span may be of any implementation, and telemetry must not end the work that it describes.
    with contextlib.suppress(Exception):
        if tenant_id is None or not span.is_recording():
            return
        if ATTRIBUTE not in (getattr(span, "attributes", None) or {}):
            span.set_attribute(ATTRIBUTE, tenant_id)


@contextlib.contextmanager
def _mark_current(tenant_id: TenantId) -> Iterator[None]:
    with contextlib.suppress(Exception):
        _mark(trace.get_current_span(), tenant_id)
    yield


_processors: WeakKeyDictionary[Any, TenantSpanProcessor] = WeakKeyDictionary()


def install(
    tracer_provider: trace.TracerProvider | None = None,
    *,
    current_span: bool = False,
    baggage: bool = False,
) -> Callable[[], None]:
    """Write attribute ``tenant.id`` on every span that starts under a tenant.

    Args:
        tracer_provider: An SDK provider. Default: the global one, which must be set before this
        call;
            where it is not, a warning is logged and no span is marked.
        current_span: Mark also the span that is open when a tenant becomes active, if it has no
        tenant
            yet. For servers whose instrumentation opens the request's span before the tenant is
            resolved. Leave it off where one span covers work of several tenants: the first one
            would stay on it.
        baggage: Hand the active tenant to every service that instrumented clients call, third
        parties
            included, by the global propagator. Default: no.

    Returns:
        A function that undoes it. Calling it twice is fine.

    Raises:
        TypeError: ``tracer_provider`` takes no span processors.

    Never raises while spans are made. Installing twice on one provider marks once.
    """
    undo = contextlib.ExitStack()
    _add_processor(tracer_provider, undo)
    if current_span:
        undo.callback(add_scope_hook(_mark_current))
    if baggage:
        _wrap_propagator(undo)
    return undo.close


def _add_processor(given: trace.TracerProvider | None, undo: contextlib.ExitStack) -> None:
    provider = trace.get_tracer_provider() if given is None else given
    add = getattr(provider, "add_span_processor", None)
    if add is None and given is not None:
        raise TypeError(
            f"install takes a tracer provider of the OpenTelemetry SDK, not {type(given).__name__}"
        )
    if add is None:
        _log.warning(
            "no span will carry the tenant: no tracer provider of the OpenTelemetry SDK is set. "
            "Call install() after trace.set_tracer_provider(), or pass the provider"
        )
        return
    processor = _processors.get(provider)
    if processor is None:
        processor = _processors[provider] = TenantSpanProcessor()
        add(processor)
    # Providers cannot remove a processor, so it is switched off instead.
    processor.enabled = True
    undo.callback(_switch_off, processor)


def _switch_off(processor: TenantSpanProcessor) -> None:
    processor.enabled = False


def _wrap_propagator(undo: contextlib.ExitStack) -> None:
    current = propagate.get_global_textmap()
    if not isinstance(current, TenantPropagator):
        current = TenantPropagator(current)
        propagate.set_global_textmap(current)
    current.enabled = True
    undo.callback(_unwrap_propagator, current)


def _unwrap_propagator(propagator: TenantPropagator) -> None:
    propagator.enabled = False
    if propagate.get_global_textmap() is propagator:
        propagate.set_global_textmap(propagator.inner)
