"""Entering and leaving a scope against the least that a `with` on a ContextVar costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar

from benchmarks.measure import Row, calls, medians
from tenantry import current_tenant, tenant_scope
from tenantry.propagation import extract, inject

_VARIABLE: ContextVar[str] = ContextVar("baseline")


class Slotted:
    __slots__ = ("token", "value")

    def __init__(self, value: str) -> None:
        self.value = value

    def __enter__(self) -> None:
        self.token = _VARIABLE.set(self.value)

    def __exit__(self, *error: object) -> None:
        _VARIABLE.reset(self.token)


def _with(scope):
    def run(count: int) -> None:
        for _ in range(count):
            with scope("acme"):
                pass

    return run


def rows() -> Iterator[Row]:
    value, baseline = medians(_with(tenant_scope), _with(Slotted), count=50_000)
    yield Row("tenant_scope, enter and exit, no hooks", value, baseline, target=3, limit=1500)
    yield from _inside()


@tenant_scope("acme")
def _inside() -> Iterator[Row]:
    (value,) = medians(calls(current_tenant), count=100_000)
    yield Row("current_tenant", value)
    (value,) = medians(lambda count: _round_trips(count, None), count=20_000)
    yield Row("inject and extract, unsigned", value)
    (value,) = medians(lambda count: _round_trips(count, ("secret",)), count=5_000)
    yield Row("inject and extract, signed", value)


def _round_trips(count: int, secret_keys) -> None:
    for _ in range(count):
        carrier: dict[str, str] = {}
        inject(carrier, secret_keys=secret_keys, task_id="5f1c", task_name="app.reply")
        extract(carrier, secret_keys=secret_keys, task_id="5f1c", task_name="app.reply")
