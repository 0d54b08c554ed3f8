"""Publish, run and refuse, with a forking worker on a real Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tenantry import MissingTenantHeaderError, NoTenantError, tenant_scope
from tenantry.integrations.celery import quarantine

pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def rig(new_rig) -> Iterator:
    """A rig whose worker runs for the whole module."""
    rig = new_rig()
    with rig.worker() as worker:
        rig.running = worker
        yield rig


def test_task_runs_under_the_tenant_of_its_publisher(rig) -> None:
    """What was active at the publish is active in every phase."""
    with tenant_scope("acme"):
        result = rig.probe.tell.delay()
    assert result.get(timeout=20) == "acme"
    phases = rig.phases(
        result.id, "signal:task_received", "signal:task_postrun", "after_return", "on_success"
    )
    assert {item.partition("=")[2] for item in phases} == {"acme"}


def test_publish_without_a_tenant_is_refused(rig) -> None:
    """Nothing reaches the broker."""
    with pytest.raises(NoTenantError, match="tell needs an active tenant"):
        rig.probe.tell.delay()


def test_message_without_a_header_never_runs(rig) -> None:
    """Its result is our error, the message is kept, and the worker goes on."""
    bare = type(rig.app).send_task(rig.app, rig.probe.tell.name)
    with pytest.raises(MissingTenantHeaderError, match="no tenant header"):
        bare.get(timeout=20)
    assert rig.phases(bare.id) == []
    assert [entry.task_id for entry in quarantine(rig.app).list()] == [bare.id]
    assert "refused task" in rig.running.log()
    assert bare.id in rig.running.log()


def test_replayed_message_runs_under_the_named_tenant(rig) -> None:
    """The operator says whose it is, and whoever waits is served."""
    bare = type(rig.app).send_task(rig.app, rig.probe.tell.name)
    with pytest.raises(MissingTenantHeaderError):
        bare.get(timeout=20)
    kept = quarantine(rig.app)
    (entry,) = [entry for entry in kept.list() if entry.task_id == bare.id]
    kept.replay(entry.id, tenant_id="acme")
    rig.phases(bare.id, "after_return")
    assert rig.app.AsyncResult(bare.id).get(timeout=20) == "acme"
    assert bare.id not in [entry.task_id for entry in kept.list()]
