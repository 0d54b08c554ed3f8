"""What a worker's parent process does for a task, called back by pool, timer and event loop."""

from __future__ import annotations

import json
import logging

import pytest
from celery import Task, signals
from celery.utils.imports import symbol_by_name
from celery.worker.request import Request

from tenantry import add_scope_hook, current_tenant_or_none, tenant_scope
from tenantry.context import unit_of_work
from tenantry.integrations.celery import install, uninstall
from tests.integrations.celery.worker import Receiver, message

ACME = {"tenantry": "v1;acme"}
#: Methods that a class of the user's own may replace, with arguments to call them with.
OVERRIDDEN = {
    "on_timeout": (True, 1.0),
    "on_failure": (None,),
    "on_retry": (None,),
    "maybe_expire": (),
    "terminate": (None,),
    "cancel": (None,),
    "revoked": (),
    "on_accepted": (1, 2.0),
    "on_success": ((False, None, 0.0),),
    "execute": (),
    "execute_using_pool": (None,),
    "_announce_revoked": ("because", True, None, False),
    "_announce_cancelled": ("because",),
}


class Noting(Request):
    """A request class of the user's own, which does nothing but look."""

    seen: list = []


def _noting(name):
    def method(self, *args, **_):
        self.seen.append((name, args, current_tenant_or_none()))
        return name

    return method


for _name in OVERRIDDEN:
    setattr(Noting, _name, _noting(_name))


@pytest.fixture
def receive(wire) -> Receiver:
    """The strategies of an installed application."""
    install(wire.app, quarantine=f"kept-{wire.queue}")
    return Receiver(wire)


@pytest.fixture
def requested(wire, receive):
    """Receive a message and return its request: ``requested(headers, **attributes of the task)``."""

    def make(headers=ACME, tenancy="optional", **attributes):
        @wire.app.task(name="asked", tenancy=tenancy, shared=False, **attributes)
        def asked(): ...

        receive(message("asked", headers=headers), run=False)
        (request,) = receive.consumer.requests
        receive.consumer.requests.clear()
        return request

    return make


def own_strategy(task, app, consumer, **_):
    """A strategy of the user's own, which makes a class of its own of the task's request class."""
    base = symbol_by_name(task.Request)
    made = type(base.__name__, (base,), {"revoked": Noting.revoked})

    def handler(message, body, ack, reject, callbacks):
        consumer.on_task_request(made(message, app=app, task=task, on_ack=ack, on_reject=reject))

    return handler


@pytest.mark.parametrize("name", OVERRIDDEN)
@pytest.mark.parametrize(("tenancy", "tenant"), [("optional", "acme"), ("none", None)])
def test_method_of_the_users_own_request_runs_under_the_tenant(requested, name, tenancy, tenant) -> None:
    """Whoever calls it, and with what it was given."""
    request = requested(tenancy=tenancy, Request=Noting, Strategy=staticmethod(own_strategy))
    Noting.seen = []
    with tenant_scope("globex"):
        assert getattr(request, name)(*OVERRIDDEN[name]) == name
        assert current_tenant_or_none() == "globex"
    assert Noting.seen == [(name, OVERRIDDEN[name], tenant)]


def test_request_class_is_the_users_own_again_when_the_strategy_is_built(wire, requested) -> None:
    """Also where it is inherited; what was made of it keeps its name, and comes once."""
    request = requested(Request=Noting)
    task = wire.app.tasks["asked"]
    assert task.Request is Noting
    assert isinstance(request, Noting)
    assert type(request).__mro__[1].__name__ == "Noting"
    assert type(request).__mro__[1].__module__ == __name__
    receive = Receiver(wire)
    for own in (Noting, type(request).__mro__[1]):
        wire.maybe.Request = own
        receive(message("maybe", headers=ACME), run=False)
        assert wire.maybe.Request is own
        again = type(receive.consumer.requests.pop())
        assert sum("_tenantry_running" in vars(base) for base in again.__mro__) == 1
    del wire.maybe.Request
    receive(message("maybe", headers=ACME), run=False)
    assert "Request" not in vars(wire.maybe)


def test_request_class_of_the_users_own_hears_of_its_subclasses(requested) -> None:
    """Of ours, and of the one that Celery makes of that."""
    made = []

    class Hearing(Request):
        def __init_subclass__(cls, **options):
            super().__init_subclass__(**options)
            made.append(cls)

    request = requested(Request=Hearing)
    assert made == [*type(request).__mro__[1:0:-1], type(request)]


def test_signals_and_hooks_of_the_parent_process_see_the_tenant(wire, requested) -> None:
    """Of a task that is revoked, cancelled, timed out or lost."""
    seen = []

    class Hooked(Task):
        def on_failure(self, *_):
            seen.append(("on_failure", current_tenant_or_none()))

    def revoked(**_):
        seen.append(("task_revoked", current_tenant_or_none()))

    request = requested(base=Hooked)
    signals.task_revoked.connect(revoked)
    try:
        with tenant_scope("globex"):
            request._announce_revoked("because", False, None, False)
            request.on_timeout(False, 1.0)
    finally:
        signals.task_revoked.disconnect(revoked)
    assert ("task_revoked", "acme") in seen
    assert {tenant for _, tenant in seen} == {"acme"}


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize(
    ("headers", "sent"), [(ACME, "v1;acme"), ({"tenantry": "v1;acme;AAAA"}, "v1;acme"), ({}, None)]
)
def test_pool_process_gets_the_tenant_in_the_request(wire, receive, protocol, headers, sent) -> None:
    """Under its name at the top, whatever the protocol; the signature has been checked by then."""
    given = []
    receive.consumer.pool.apply_async = lambda *_, args, **__: given.append(args[2])
    if protocol == 1:
        absent = dict.fromkeys(["task", "id", "lang", "root_id", "retries"], ...)
        body = json.dumps({"task": "maybe", "id": "t1", "args": [], "kwargs": {}})
        receive(message(headers=absent | headers, body=body), run=False)
    else:
        receive(message("maybe", headers=headers), run=False)
    (request,) = receive.consumer.requests
    request.execute_using_pool(receive.consumer.pool)
    assert [request.get("tenantry") for request in given] == [sent]


def test_broker_is_answered_although_a_scope_hook_fails(requested, caplog) -> None:
    """Without the tenant, so that user code fails closed; and it is logged."""
    request = requested(Request=Noting)
    Noting.seen = []

    def hook(tenant_id):
        raise RuntimeError(f"no {tenant_id} today")

    remove = add_scope_hook(hook)
    try:
        with caplog.at_level(logging.ERROR, "tenantry.celery"):
            assert request.on_timeout(True, 1.0) == "on_timeout"
    finally:
        remove()
    assert Noting.seen == [("on_timeout", (True, 1.0), None)]
    assert "a scope hook failed; the worker goes on for task t1 without its tenant" in caplog.text


def test_request_of_a_message_that_nobody_judged_is_celerys(wire, receive) -> None:
    """Of an application that was uninstalled meanwhile."""
    handler = wire.maybe.start_strategy(wire.app, receive.consumer)
    uninstall(wire.app)
    handler(message("maybe", headers=ACME), None, lambda *_: None, lambda *_: None, [])
    (request,) = receive.consumer.requests
    with unit_of_work("globex", unit=object()):
        request.on_timeout(True, 1.0)
    assert request._request_dict["tenantry"] == "v1;acme"
