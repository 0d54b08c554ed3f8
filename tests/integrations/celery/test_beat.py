"""Which entries of a schedule end beat at its start; beat itself runs in ``tests/integration``."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from celery import signals
from celery.beat import ScheduleEntry, Scheduler, Service

from tenantry import tenant_scope, without_tenant
from tenantry.integrations.celery import uninstall
from tenantry.integrations.celery.beat import refused_entries

GOOD = {
    "named": {"task": "needs", "options": {"tenant": "acme"}},
    "free": {"task": "free"},
    "maybe": {"task": "maybe", "args": (), "kwargs": None, "options": None},
    "linked": {"task": "free", "options": {"tenant": "acme", "link": {"task": "needs"}}},
    "map": {"task": "celery.map", "args": ({"task": "free"}, [1])},
}
BAD = {
    "nameless": ({"task": "needs"}, "needs an active tenant"),
    "unknown": ({"task": "somewhere.else"}, "needs an active tenant"),
    "malformed": ({"task": "free", "options": {"tenant": "a:b"}}, "a:b"),
    "by_header": ({"task": "needs", "options": {"headers": {"tenantry": "v1;acme"}}}, "acme"),
    "map": ({"task": "celery.map", "args": ({"task": "needs"}, [1])}, "needs an active tenant"),
    "map_by_name": (
        {"task": "celery.map", "kwargs": {"task": {"task": "needs"}, "it": []}},
        "needs an active",
    ),
    "linked": ({"task": "free", "options": {"link": {"task": "needs"}}}, "needs an active tenant"),
}


def entry(app, name: str, spec: dict) -> ScheduleEntry:
    """An entry as a scheduler holds it."""
    return ScheduleEntry(name=name, app=app, schedule=60.0, **spec)


def test_entries_that_can_be_published_are_not_refused(wire) -> None:
    """As settings name them, and as a scheduler holds them."""
    assert list(refused_entries(wire.app, GOOD)) == []
    held = {name: entry(wire.app, name, spec) for name, spec in GOOD.items()}
    assert list(refused_entries(wire.app, held)) == []


@pytest.mark.parametrize("name", BAD)
def test_entry_that_cannot_be_published_is_refused(wire, name) -> None:
    """Whatever is active where beat starts, and whatever it may publish by an unknown name."""
    spec, problem = BAD[name]
    for shape in (spec, entry(wire.app, name, spec)):
        for scope in (tenant_scope("acme"), without_tenant(reason="a test")):
            with scope:
                ((refused, why),) = refused_entries(wire.app, {**GOOD, name: shape})
            assert refused == name
            assert problem in why


def starts(wire, kind: str, schedule: dict) -> None:
    """What Celery says when beat, or a worker with or without one, starts."""
    if kind == "beat":
        wire.app.conf.beat_schedule = {name: {**spec, "schedule": 60.0} for name, spec in schedule.items()}
        signals.beat_init.send(sender=Service(wire.app, scheduler_cls=Scheduler))
    else:
        wire.app.conf.beat_schedule = schedule
        worker = SimpleNamespace(app=wire.app, beat=True if kind == "worker with beat" else None)
        signals.celeryd_after_setup.send(sender="w1@host", instance=worker, conf=wire.app.conf)


@pytest.mark.parametrize("kind", ["beat", "worker with beat"])
def test_start_ends_with_status_1_and_names_them_all(wire, caplog, kind) -> None:
    """One line each, and one with the cure."""
    with pytest.raises(SystemExit) as ended:
        starts(wire, kind, {**GOOD, "nameless": BAD["nameless"][0], "unknown": BAD["unknown"][0]})
    assert ended.value.code == 1
    critical = [r.getMessage() for r in caplog.records if r.levelno == logging.CRITICAL]
    assert len(critical) == 3
    assert "'nameless' cannot be published: " in critical[0]
    assert critical[2].endswith("fan out from there: 'nameless', 'unknown'")


@pytest.mark.parametrize("kind", ["beat", "worker with beat", "worker without"])
def test_start_goes_on(wire, kind) -> None:
    """With a good schedule; without beat whatever the schedule; without us whatever the kind."""
    starts(wire, kind, GOOD)
    if kind != "worker without":
        uninstall(wire.app)
    starts(wire, kind, {"nameless": BAD["nameless"][0]})
