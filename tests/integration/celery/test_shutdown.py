"""A worker that is ended while it works: warm, cold, or killed."""

from __future__ import annotations

import signal

import pytest

from tenantry import tenant_scope
from tests import services
from tests.contracts.celery_pool import tenants


@pytest.mark.parametrize(
    "broker", ["rabbitmq_url", pytest.param("redis_url", marks=pytest.mark.deep)]
)  # Redis delivers again after its visibility timeout only
@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=pytest.mark.deep)])
def test_killed_worker_leaves_the_task_to_the_next_under_the_same_tenant(
    request, new_rig, broker, pool
) -> None:
    """SIGKILL while an ``acks_late`` task runs."""
    rig = new_rig(broker=request.getfixturevalue(broker), PROBE_VISIBILITY="3", PROBE_SECRETS="key")
    with rig.worker(pool=pool) as first:
        with tenant_scope("acme"):
            result = rig.probe.wait_for.delay("go")
        rig.phases(result.id, "body")
        first.kill(signal.SIGKILL)
        first.process.wait(20)
    rig.notes.delete(f"phases:{result.id}")
    rig.notes.rpush("go", 1, 1)
    with rig.worker(pool=pool):
        assert result.get(timeout=60) == "acme"
        assert tenants(rig.phases(result.id, "after_return", "signal:task_postrun")) == {"acme"}
    rig.notes.delete("go")


@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=pytest.mark.deep)])
def test_warm_shutdown_ends_the_task_with_all_phases_bound(new_rig, pool) -> None:
    """SIGTERM while it runs."""
    rig = new_rig()
    with rig.worker(pool=pool) as worker:
        with tenant_scope("acme"):
            result = rig.probe.wait_for.delay("warm")
        rig.phases(result.id, "body")
        worker.kill(signal.SIGTERM)
        services.wait_until(lambda: "Warm shutdown" in worker.log(), "the warm shutdown")
        rig.notes.rpush("warm", 1)
        worker.process.wait(30)
    assert result.get(timeout=20) == "acme"
    assert tenants(rig.phases(result.id, "after_return", "signal:task_postrun")) == {"acme"}


@pytest.mark.deep
def test_cold_shutdown_gives_the_task_back_under_the_same_tenant(new_rig, rabbitmq_url) -> None:
    """SIGQUIT while it runs: the message goes back, and another worker runs it."""
    rig = new_rig(broker=rabbitmq_url)
    with rig.worker() as worker:
        with tenant_scope("acme"):
            result = rig.probe.wait_for.delay("cold")
        rig.phases(result.id, "body")
        worker.kill(signal.SIGQUIT)
        worker.process.wait(30)
    rig.notes.rpush("cold", 1, 1)
    with rig.worker():
        assert result.get(timeout=60) == "acme"


def test_revoked_task_is_told_under_its_tenant_and_by_its_stamp(new_rig) -> None:
    """By id, and by the stamp that every message carries."""
    rig = new_rig()
    with rig.worker() as worker:
        rig.app.control.revoke("revoked-by-id")
        rig.app.control.revoke_by_stamped_headers({"tenantry": ["globex"]})
        services.wait_until(lambda: rig.app.control.ping(timeout=1) != [], "an answer after the revocations")
        with tenant_scope("acme"):
            by_id = rig.probe.tell.apply_async(task_id="revoked-by-id")
            runs = rig.probe.tell.delay()
        with tenant_scope("globex"):
            by_stamp = rig.probe.tell.delay()
        assert runs.get(timeout=20) == "acme"
        assert tenants(rig.phases(by_id.id, "signal:task_revoked")) == {"acme"}
        assert tenants(rig.phases(by_stamp.id, "signal:task_revoked")) == {"globex"}
        assert "(tenant globex)" in worker.log()


def test_nothing_that_workers_tell_of_themselves_shows_a_secret_key(new_rig) -> None:
    """``inspect conf`` and ``report``."""
    rig = new_rig(PROBE_SECRETS="hunter2hunter2")
    with rig.worker():
        told = repr([rig.app.control.inspect(timeout=5).conf(), rig.app.control.inspect(timeout=5).report()])
    assert "probe" in told
    assert "hunter2" not in told


def test_unsigned_headers_pass_until_the_time_is_over(new_rig) -> None:
    """Counted and logged; what is signed wrongly never passes, nor what is unsigned later."""
    for until, accepted in (("2126-01-01T00:00:00+00:00", True), ("2020-01-01T00:00:00+00:00", False)):
        rig = new_rig(PROBE_SECRETS="key", PROBE_UNSIGNED_UNTIL=until)
        with rig.worker() as worker:
            send = type(rig.app).send_task
            unsigned = send(rig.app, rig.probe.tell.name, headers={"tenantry": "v1;acme"})
            forged = send(rig.app, rig.probe.tell.name, headers={"tenantry": "v1;acme;AAAA"})
            assert rig.entry(forged.id).tenant == "acme"
            if accepted:
                assert unsigned.get(timeout=20) == "acme"
                assert "is not signed; accepted until" in worker.log()
                assert "(1 so far)" in worker.log()
            else:
                assert "BadTenantSignatureError" in rig.entry(unsigned.id).reason
            assert rig.app.AsyncResult(forged.id).state == "PENDING"


def test_depth_from_which_every_refusal_is_critical(new_rig) -> None:
    """The new message is counted."""
    rig = new_rig(PROBE_ALARM="2")
    with rig.worker() as worker:
        send = type(rig.app).send_task
        for expected in (0, 1, 2):
            rig.entry(send(rig.app, rig.probe.tell.name).id)
            services.wait_until(lambda: worker.log().count("CRITICAL") == expected, f"{expected} alarms")
        assert "holds 3 messages" in worker.log()


def test_line_of_a_body_can_show_the_tenant(new_rig) -> None:
    """Every record that the worker's handlers write has it as an attribute."""
    rig = new_rig()
    rig_env = {"PROBE_LOG_FORMAT": "%(tenant)s says %(message)s"}
    with rig.worker(env=rig_env) as worker:
        with tenant_scope("acme"):
            rig.probe.speak.delay().get(timeout=20)
        services.wait_until(lambda: "acme says a line of a body" in worker.log(), "the line")
        assert "(tenant acme)" in worker.log()
