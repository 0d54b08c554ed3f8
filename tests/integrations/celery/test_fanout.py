"""One publish per tenant, from a job that belongs to none."""

from __future__ import annotations

import uuid

import pytest

from tenantry import (
    InvalidTenantIdError,
    TenantConflictError,
    current_tenant_or_none,
    tenant_scope,
    without_tenant,
)
from tenantry.integrations.celery import fan_out


def test_publishes_once_per_tenant_in_order(wire) -> None:
    """Each with its own header, and the arguments of all."""

    @wire.app.task(name="takes", shared=False)
    def takes(*_, x): ...

    with without_tenant(reason="a test"):
        found = list(fan_out(takes, iter(["globex", "acme"]), args=[1], kwargs={"x": 2}))
    messages = wire.messages()
    assert [tenant for tenant, _ in found] == ["globex", "acme"]
    assert [result.id for _, result in found] == [message.headers["id"] for message in messages]
    assert [message.headers["tenantry"] for message in messages] == ["v1;globex", "v1;acme"]
    assert [message.payload[:2] for message in messages] == [[[1], {"x": 2}]] * 2
    assert current_tenant_or_none() is None


def test_publishes_nothing_before_it_is_asked_to(wire) -> None:
    """And no more than what was asked for."""
    going = fan_out(wire.needs, ["acme", "globex"])
    assert wire.messages() == []
    assert next(going)[0] == "acme"
    assert wire.headers() == ["v1;acme"]


def test_ids_of_a_named_run_come_again(wire) -> None:
    """They depend on task, run and tenant, and on nothing else."""

    def ids(task, tenants, **options):
        return [result.id for _, result in fan_out(task, tenants, **options)]

    first = ids(wire.needs, ["acme", "globex"], run_id="r1")
    assert (
        first[0] == "e721320a-b959-5910-a71a-777375d4568b"
    )  # a run that an older version began goes on with the same ids
    assert ids(wire.needs, ["globex"], run_id="r1", args=(1,)) == first[1:]
    others = ids(wire.needs, ["acme"], run_id="r2") + ids(wire.free, ["acme"], run_id="r1")
    others += ids(wire.needs, ["acme"]) + ids(wire.needs, ["acme"])
    assert len({*first, *others}) == 6
    assert [uuid.UUID(task_id).version for task_id in first] == [5, 5]


def test_names_of_task_and_run_do_not_run_into_each_other(wire) -> None:
    """Their border is part of what the id is made of."""
    tasks = []
    for name in ("a", 'a","b'):

        @wire.app.task(name=name, shared=False)
        def task(): ...

        tasks.append(task)
    ids = [
        next(fan_out(task, ["x"], run_id=run))[1].id for task, run in zip(tasks, ['b","c', "c"], strict=True)
    ]
    assert ids[0] != ids[1]


def test_goes_on_behind_a_tenant(wire) -> None:
    """The cursor itself is not published again."""
    found = fan_out(wire.needs, ["a", "no id", "b", "c", "b"], after="b")
    assert [tenant for tenant, _ in found] == ["c", "b"]
    assert list(fan_out(wire.needs, ["a"], after="a")) == []
    assert wire.headers() == ["v1;c", "v1;b"]


@pytest.mark.parametrize("tenants", [[], ["a", "b"]])
def test_cursor_that_never_comes_is_an_error(wire, tenants) -> None:
    """Rather than a run that did nothing and looks done."""
    with pytest.raises(ValueError, match="'z' is not among the tenants"):
        list(fan_out(wire.needs, tenants, after="z"))
    assert wire.messages() == []


def test_one_failure_does_not_stop_the_others(wire) -> None:
    """What is no tenant id, and what the publish says."""
    found = dict(fan_out(wire.needs, ["a", "b:c", "d"], headers={"tenantry": "v1;d"}))
    assert list(found) == ["a", "b:c", "d"]
    assert isinstance(found["a"], TenantConflictError)
    assert isinstance(found["b:c"], InvalidTenantIdError)
    assert wire.headers() == ["v1;d"]


def test_error_of_the_tenants_themselves_leaves(wire) -> None:
    """Their source is the caller's."""

    def tenants():
        yield "a"
        raise KeyError("the database")

    going = fan_out(wire.needs, tenants())
    next(going)
    with pytest.raises(KeyError, match="the database"):
        next(going)


def test_belongs_to_no_tenant(wire) -> None:
    """Neither at its start nor between two steps."""
    with tenant_scope("acme"), pytest.raises(TenantConflictError) as caught:
        fan_out(wire.needs, ["acme"])
    assert caught.value.active == "acme"
    going = fan_out(wire.needs, ["a", "b"])
    next(going)
    with tenant_scope("acme"), pytest.raises(TenantConflictError):
        next(going)
    assert wire.headers() == ["v1;a"]


def test_uuid_and_signature(wire) -> None:
    """A tenant comes back as its text, and a signature keeps what it holds."""
    number = uuid.UUID(int=5)
    ((tenant, _),) = fan_out(wire.needs.s(7), [number], countdown=60, run_id=3)
    (message,) = wire.messages()
    assert tenant == str(number)
    assert message.headers["tenantry"] == f"v1;{number}"
    assert message.payload[0] == [7]
    assert message.headers["eta"]


def test_leaves_no_trace_in_the_parent(wire) -> None:
    """Children of a running task are stored with its result, which would grow without bound."""

    @wire.app.task(name="job", shared=False, bind=True, tenancy="none")
    def job(self):
        found = len(list(fan_out(wire.needs, ["a", "b"])))
        return found, len(self.request.children)

    assert job.apply().get() == (2, 0)


def test_one_connection_serves_all(wire) -> None:
    """The pool's, or the caller's own producer, which stays open."""
    with wire.app.producer_or_acquire() as producer:
        seen = []
        wire.app.amqp.__dict__["send_task_message"] = lambda given, *_, **__: seen.append(given)
        list(fan_out(wire.needs, ["a", "b"], producer=producer))
        list(fan_out(wire.needs, ["a", "b"]))
        del wire.app.amqp.__dict__["send_task_message"]
    assert seen[:2] == [producer, producer]
    assert seen[2] is seen[3] is not producer


@pytest.mark.parametrize(
    ("task", "tenants", "options", "error", "match"),
    [
        ("needs", ["a"], {"tenant": "a"}, TypeError, "sets 'tenant' itself"),
        ("needs", ["a"], {"task_id": "x"}, TypeError, "sets 'task_id' itself"),
        ("needs", ["a"], {"run_id": " "}, ValueError, "run_id is blank"),
        ("needs", ["a"], {"after": "b:c"}, InvalidTenantIdError, "grammar"),
        ("needs", "acme", {}, TypeError, "a text is one"),
        ("needs", b"acme", {}, TypeError, "a text is one"),
        (None, ["a"], {}, TypeError, "a task or a signature, not str"),
    ],
)
def test_refuses_what_cannot_be_meant(wire, task, tenants, options, error, match) -> None:
    """At the call, before anything is published."""
    with pytest.raises(error, match=match):
        fan_out(getattr(wire, task) if task else "needs", tenants, **options)
    assert wire.messages() == []
