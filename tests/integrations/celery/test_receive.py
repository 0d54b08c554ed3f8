"""Which messages may run, and under whom; judged before anything else of the worker sees them."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import UUID

import pytest
from celery import Celery, Task, chain, chord, group, signals
from celery.app.trace import trace_task
from celery.backends.base import Backend
from celery.exceptions import Ignore

from tenantry import (
    MalformedTenantHeaderError,
    MissingTenantHeaderError,
    add_scope_hook,
    bind_tenant,
    current_tenant_or_none,
    tenant_scope,
    without_tenant,
)
from tenantry.integrations.celery import install, quarantine, uninstall
from tenantry.integrations.celery.message import payload_of, read, split
from tenantry.propagation import format_header
from tests.integrations.celery.worker import Receiver, message

ACME = {"tenantry": "v1;acme"}


@pytest.fixture
def seen(wire) -> list:
    """(task, tenant) of each body that ran."""
    ran = []
    for task, tenancy in (("tells", "required"), ("tells_maybe", "optional"), ("tells_free", "none")):

        @wire.app.task(name=task, tenancy=tenancy, shared=False, bind=True, ignore_result=True)
        def tell(self, *_, **__):
            ran.append((self.name, current_tenant_or_none()))

    return ran


@pytest.fixture
def receive(wire, seen) -> Receiver:
    """The strategies of an installed application."""
    install(wire.app, quarantine=f"kept-{wire.queue}")
    return Receiver(wire)


def reasons(receive) -> list:
    """Name of the error of everything that was kept."""
    return [entry.reason.partition(":")[0] for entry in quarantine(receive.app).list()]


@pytest.mark.parametrize(
    ("task", "headers", "tenant"),
    [
        ("tells", ACME, "acme"),
        ("tells_maybe", ACME, "acme"),
        ("tells_maybe", {}, None),
        ("tells_free", ACME, None),
        ("tells_free", {}, None),
        ("tells", {**ACME, "headers": {"tenantry": "v1;acme", "x": 1}}, "acme"),
        ("tells", {**ACME, "headers": {"x": 1}}, "acme"),
        ("tells", {**ACME, "headers": 7}, "acme"),
        ("tells", {"tenantry": "v1;acme;AAAA"}, "acme"),
    ],
)
def test_message_runs_under_its_tenant(receive, seen, task, headers, tenant) -> None:
    """Whoever is active where the message is received."""
    with tenant_scope("globex"):
        receive(message(task, headers=headers))
        assert current_tenant_or_none() == "globex"
    assert seen == [(task, tenant)]
    assert receive.consumer.answers == ["ack"]
    assert quarantine(receive.app).list() == []


@pytest.mark.parametrize("task", ["tells", "tells_maybe", "tells_free"])
@pytest.mark.parametrize(
    ("headers", "claimed"),
    [
        ({"tenantry": "v2;acme"}, None),
        ({"tenantry": "v1;"}, None),
        ({"tenantry": None}, None),
        ({"tenantry": 5}, None),
        ({"tenantry": ["v1;acme"]}, None),
        ({**ACME, "Tenantry": "v1;acme"}, None),
        ({**ACME, "headers": {"tenantry": "v1;globex"}}, None),
        ({**ACME, "headers": {"tenantry": 5}}, None),
        ({"headers": {"tenantry": "v1;acme"}}, None),
    ],
)
def test_malformed_header_never_runs(receive, seen, task, headers, claimed) -> None:
    """Whatever the task declares; kept once, then acknowledged, with a failure for whoever waits."""
    receive(message(task, headers=headers))
    (entry,) = quarantine(receive.app).list()
    assert entry.reason.startswith("MalformedTenantHeaderError: message")
    assert f"{task}['t1']" in entry.reason
    assert (entry.task_id, entry.task, entry.tenant, entry.worker) == ("t1", task, claimed, "w1@host")
    assert seen == []
    assert receive.consumer.answers == ["ack"]
    assert receive.app.AsyncResult("t1").state == "PENDING"  # they ignore their results


def test_missing_header_never_runs_where_one_is_needed(receive, seen) -> None:
    """Nor does a worker's own ambient tenant stand in."""
    with tenant_scope("acme"):
        receive(message("tells"))
    assert seen == []
    assert reasons(receive) == ["MissingTenantHeaderError"]


def test_one_spelling_that_is_not_ours_is_no_header(receive, seen) -> None:
    """Nobody reads it."""
    receive(message("tells_maybe", headers={"TENANTRY": "v1;acme"}))
    assert seen == [("tells_maybe", None)]


@pytest.mark.parametrize("task_id", [..., None, "", ["x"], {"a": 1}, 1.5])
def test_message_without_an_id_never_runs(receive, seen, task_id) -> None:
    """There is nothing that a signature or a result could be bound to."""
    receive(message("tells_maybe", headers={"id": task_id}))
    (entry,) = quarantine(receive.app).list()
    assert entry.reason.startswith("PropagationError: message")
    assert "it has no task id" in entry.reason
    assert entry.task_id is None
    assert seen == []


@pytest.mark.parametrize("task_id", [7, UUID(int=1)])
def test_id_that_is_no_text_counts_as_its_text(wire, task_id) -> None:
    """As everywhere in Celery."""
    parts = read(wire.needs, message(headers={"id": task_id}), None)
    assert (parts.task_id, parts.name) == (str(task_id), "needs")


@pytest.mark.parametrize(
    "body", [5, "x", [], [1, 2], [[], {}, {}, {}], {}, [[], {}, 5], {"a": 1}, [[], {}, []]], ids=repr
)
def test_body_of_another_shape_never_runs(receive, seen, body) -> None:
    """And ends no worker."""
    receive(
        message(
            "tells_maybe",
            headers=ACME,
            body=body if isinstance(body, list) else json.dumps(body),
        )
    )
    assert seen == []
    (entry,) = quarantine(receive.app).list()
    assert "its body is not that of a task" in entry.reason
    assert entry.tenant == "acme"


def test_bodies_of_both_protocols_are_read() -> None:
    """Args, kwargs and what is embedded."""
    assert split([[1], {"x": 2}, None]) == ([1], {"x": 2}, {})
    assert split(((1,), {}, {"chain": 3})) == ((1,), {}, {"chain": 3})
    assert split({"task": "a", "id": "b"}) == ((), {}, {"task": "a", "id": "b"})
    assert split({"args": [1], "kwargs": {"x": 2}}) == ([1], {"x": 2}, {"args": [1], "kwargs": {"x": 2}})


def test_protocol_1_names_task_and_id_in_the_body(receive, seen) -> None:
    """And its header is among the message's own."""
    body = {"task": "tells", "id": "t9", "args": [], "kwargs": {}}
    for headers in (ACME, {}):
        receive(
            message(
                headers=dict.fromkeys(["task", "id", "lang", "root_id", "retries"], ...) | headers,
                body=json.dumps(body),
            )
        )
    assert seen == [("tells", "acme")]
    (entry,) = quarantine(receive.app).list()
    assert (entry.task_id, entry.task) == ("t9", "tells")


def test_signature_is_for_this_message(new_wire) -> None:
    """Of this id and this name, with any of the keys; an agreeing inner header changes nothing."""
    wire = new_wire(secret_keys=["old", "new"])
    install(wire.app, secret_keys=["old", "new"], quarantine=f"kept-{wire.queue}")
    receive = Receiver(wire)

    def signed(keys, task_id="t1", name="needs"):
        return format_header("acme", secret_keys=keys, task_id=task_id, task_name=name)

    good = [signed("old"), signed("new")]
    for value in good:
        receive(message(headers={"tenantry": value}))
    assert receive.consumer.answers == ["ack", "ack"]
    assert reasons(receive) == []
    bad = [
        "v1;acme",
        signed("other"),
        signed("new", task_id="t2"),
        signed("new", name="free"),
        "v1;acme;AAAA",
    ]
    for value in bad:
        receive(message(headers={"tenantry": value}))
    assert reasons(receive) == ["BadTenantSignatureError"] * len(bad)
    receive(message("free", headers={"tenantry": "v1;acme"}))
    assert reasons(receive) == ["BadTenantSignatureError"] * (len(bad) + 1)
    assert wire.app.AsyncResult("t1").state == "SUCCESS"


def test_unsigned_headers_pass_until_then(new_wire, caplog) -> None:
    """Counted and logged; a wrong signature never passes."""
    wire = new_wire()
    until = datetime.now(UTC) + timedelta(hours=1)
    options = {"secret_keys": "k", "quarantine": f"kept-{wire.queue}"}
    install(wire.app, accept_unsigned_until=until, **options)
    receive = Receiver(wire)
    caplog.set_level(logging.WARNING, "tenantry.celery")
    for _ in range(2):
        receive(message(headers=ACME))
    lines = [r.getMessage() for r in caplog.records if "is not signed" in r.getMessage()]
    assert all(
        line.startswith(f"message message needs['t1'] is not signed; accepted until {until}")
        for line in lines
    )
    first, second = (int(line.rpartition("(")[2].split()[0]) for line in lines)
    assert second == first + 1
    receive(message(headers={"tenantry": "v1;acme;AAAA"}))
    assert reasons(receive) == ["BadTenantSignatureError"]
    install(wire.app, accept_unsigned_until=datetime.now(UTC) - timedelta(seconds=1), **options)
    receive(message(headers=ACME))
    assert reasons(receive) == ["BadTenantSignatureError"] * 2


def inner(name: str, **options) -> dict:
    """A signature as it travels."""
    return {"task": name, "args": [], "kwargs": {}, "options": options}


@pytest.mark.parametrize(
    ("task", "body", "runs"),
    [
        ("celery.map", [[inner("tells"), [1]], {}, {}], None),
        ("celery.map", [[], {"task": inner("tells"), "it": [1]}, {}], None),
        ("celery.map", [["tells", [1]], {}, {}], None),
        ("celery.map", [[inner("celery.map", x=1), [1]], {}, {}], None),
        ("celery.map", [[7, [1]], {}, {}], None),
        ("celery.map", [[], {}, {}], None),
        ("celery.map", [[inner("nobody.knows"), [1]], {}, {}], None),
        ("celery.starmap", [[{"task": 5}, [[1]]], {}, {}], None),
        ("celery.chord_unlock", [["g", inner("tells")], {}, {}], None),
        ("celery.chord_unlock", [["g", inner("tells_free", link=[inner("tells")])], {}, {}], None),
        ("celery.chord_unlock", [["g"], {}, {}], None),
        ("celery.chain", [[[inner("tells_free"), inner("tells")]], {}, {}], None),
        ("celery.map", [[inner("tells_free"), [1]], {}, {}], [("tells_free", None)]),
        ("celery.map", [[inner("tells_maybe"), [1]], {}, {}], [("tells_maybe", None)]),
        ("celery.map", [[inner("celery.map"), [1]], {}, {}], None),
        ("celery.map", [["tells_free", [1]], {}, {}], [("tells_free", None)]),
        ("celery.backend_cleanup", [[], {}, {}], []),
        ("celery.starmap", [[], {"task": inner("tells_free"), "it": [[1]]}, {}], [("tells_free", None)]),
    ],
)
def test_builtin_needs_what_is_inside(receive, seen, task, body, runs) -> None:
    """By position or by name; what cannot be read counts as needy, whatever the worker's own context is."""
    with without_tenant(reason="a test"):
        receive(message(task, body=body))
    if runs is None:
        assert reasons(receive) == ["MissingTenantHeaderError"]
        assert seen == []
    else:
        assert reasons(receive) == []
        assert [name for name, _ in seen] == [name for name, _ in runs] or seen == []


@pytest.mark.parametrize(
    ("name", "tenant"), [("tells", "acme"), ("tells_maybe", "acme"), ("tells_free", None)]
)
def test_map_under_a_tenant_runs_as_its_task_declares(wire, receive, name, tenant) -> None:
    """It is called in the process of ``celery.map``."""

    @wire.app.task(
        name=f"value_{name}",
        tenancy=wire.app.tasks[name].tenancy if name != "tells" else "required",
        shared=False,
    )
    def value(_):
        return current_tenant_or_none()

    receive(message("celery.map", headers=ACME, body=[[inner(f"value_{name}"), [1, 2]], {}, {}]))
    assert wire.app.AsyncResult("t1").get() == [tenant, tenant]


def test_unlock_of_a_chord_publishes_its_body_under_the_tenant(new_wire, tmp_path) -> None:
    """Whatever the body declares, since it travels with every message."""
    wire = new_wire({"backend": f"file://{tmp_path}"})
    receive = Receiver(wire)
    for body in (wire.free, wire.maybe, wire.needs):
        with tenant_scope("acme"):
            chord([wire.maybe.s(), wire.free.s()], body.s()).delay()
        unlock, *members = wire.messages()
        for sent in members:
            sent.accept = {"application/json"}
            receive(sent)
        args, kwargs, _ = json.loads(unlock.body)
        request = {**unlock.headers, "delivery_info": {}}
        trace_task(wire.app.tasks["celery.chord_unlock"], request["id"], args, kwargs, request, app=wire.app)
        assert [(m.headers["task"], m.headers["tenantry"]) for m in wire.messages()] == [
            (body.name, "v1;acme")
        ]


def test_undecodable_body_is_celerys(receive, seen) -> None:
    """It rejects it, as without us."""
    from tenantry.integrations.celery.message import UndecodableError

    odd = message("tells_maybe", body="{", headers=ACME)
    with pytest.raises(UndecodableError):
        payload_of(odd)
    with pytest.raises(Exception, match="Expecting"):
        receive(odd)
    assert seen == []
    assert quarantine(receive.app).list() == []


def test_forged_body_is_not_decoded(new_wire) -> None:
    """Decoding may be dangerous in itself."""
    wire = new_wire()
    install(wire.app, secret_keys="k", quarantine=f"kept-{wire.queue}")
    receive = Receiver(wire)
    receive(message(body="{", headers=ACME), run=False)
    assert reasons(receive) == ["BadTenantSignatureError"]


def test_failing_scope_hook_refuses_the_message(receive, seen) -> None:
    """A tenant that cannot be made active is no reason to run without one."""

    def hook(tenant_id):
        raise RuntimeError(f"no {tenant_id} today")

    remove = add_scope_hook(hook)
    try:
        receive(message("tells", headers=ACME))
    finally:
        remove()
    (entry,) = quarantine(receive.app).list()
    assert entry.reason == "RuntimeError: no acme today"
    assert seen == []
    assert receive.consumer.answers == ["ack"]


def test_task_with_a_broken_tenancy_refuses_its_messages(receive, seen) -> None:
    """Whoever broke it after it was registered."""
    receive.app.tasks["tells_maybe"].tenancy = "nope"
    receive(message("tells_maybe", headers=ACME))
    (entry,) = quarantine(receive.app).list()
    assert entry.reason.startswith("ValueError: task tells_maybe: tenancy='nope'")


def test_uninstalled_application_receives_as_celery_does(wire, receive, seen) -> None:
    """Also through a strategy that was built before."""
    receive(message("tells_maybe", headers=ACME))
    handler = receive.app.tasks["tells_maybe"].start_strategy(receive.app, receive.consumer)
    uninstall(wire.app)
    handler(message("tells_maybe", headers={"tenantry": 5}), None, lambda *_: None, lambda *_: None, [])
    receive(message("tells_maybe", headers={"tenantry": 5}))
    assert seen == [("tells_maybe", "acme"), ("tells_maybe", None), ("tells_maybe", None)]
    receive(message("tells_maybe"), run=False)
    (request,) = receive.consumer.requests
    assert not hasattr(request, "_tenantry_running")


def test_every_phase_sees_the_tenant_and_leaves_nothing(wire, receive) -> None:
    """Signals and hooks, whatever the body leaves open."""
    phases = []

    def note(name):
        def receiver(*_, **__):
            phases.append((name, current_tenant_or_none()))

        return receiver

    connected = []
    for name in (
        "task_received",
        "task_prerun",
        "task_postrun",
        "task_success",
        "task_failure",
        "task_retry",
    ):
        connected.append((getattr(signals, name), note(name)))
        connected[-1][0].connect(connected[-1][1], weak=False)
    hooks = {
        name: lambda self, *_, name=name: note(name)()
        for name in ("before_start", "on_success", "on_failure", "on_retry", "after_return")
    }
    phased = type("Phased", (Task,), hooks)

    @wire.app.task(name="phased", base=phased, bind=True, shared=False, max_retries=1)
    def body(self, how):
        note("body")()
        tenant_scope("globex", switch=True).__enter__()
        if how == "fails":
            raise ValueError(how)
        if how == "retries":
            raise self.retry(countdown=0)

    try:
        for how in ("succeeds", "fails", "retries"):
            here = {"exchange": "", "routing_key": wire.queue}
            receive(message("phased", headers=ACME, body=[[how], {}, {}], delivery_info=here))
            assert current_tenant_or_none() is None
    finally:
        for signal, receiver in connected:
            signal.disconnect(receiver)
    names = {name for name, _ in phases}
    told = {f"task_{what}" for what in ("received", "prerun", "postrun", "success", "failure", "retry")}
    assert names == {*hooks, *told, "body"}
    assert {tenant for _, tenant in phases} == {"acme"}
    assert wire.headers() == ["v1;acme"]


#: What follows a task that runs without its tenant, be it ``needs`` or ``errback``.
FOLLOWING = {
    "chain": lambda goes, _, needs, __: chain(goes, needs),
    "chain_of_group": lambda goes, _, needs, __: chain(goes, group(needs, needs)),
    "chain_of_chord": lambda goes, _, needs, __: chain(goes, chord([needs] * 2, needs)),
    "link": lambda goes, _, needs, __: goes.set(link=[needs]),
    "link_of_group": lambda goes, _, needs, __: goes.set(link=[group(needs, needs)]),
    "chord": lambda goes, _, needs, __: chord([goes, goes], needs),
    "chord_of_chain": lambda goes, _, needs, __: chord([goes, goes], needs | needs),
    "chord_of_group": lambda goes, _, needs, __: chord([goes, goes], group(needs, needs)),
    "chord_of_chord": lambda goes, _, needs, __: chord([goes, goes], chord([needs, needs], needs)),
    "errback": lambda _, fails, __, errback: fails.on_error(errback),
    "errback_in_group": lambda goes, fails, _, errback: group(goes, fails.on_error(errback)),
    "errback_of_body": lambda goes, fails, needs, errback: chord([goes, fails], needs.on_error(errback)),
}
if hasattr(Backend, "_handle_group_chord_error"):  # before, Celery asked for no errbacks inside such a body
    FOLLOWING["errback_in_body"] = lambda goes, fails, needs, errback: chord(
        [goes, fails], group(needs.on_error(errback), needs)
    )


@pytest.mark.parametrize("called", [False, True], ids=["published", "called"])
@pytest.mark.parametrize("shape", FOLLOWING)
def test_continuation_of_a_none_task_gets_the_tenant_back(wire, receive, shape, called) -> None:
    """Celery publishes it, or calls it; what the body publishes itself belongs to nobody."""
    ran = []

    @wire.app.task(name="goes", tenancy="none", bind=True, shared=False)
    def goes(self, *_, fail=False):
        parent = {"parent_id": self.request.id}
        wire.app.send_task("free", **parent)
        group(wire.free.s()).apply_async(**parent)
        bind_tenant("globex")
        if fail:
            raise ValueError("as asked")

    if called:

        @wire.app.task(name="errback", shared=False)
        def errback(*_):
            ran.append(current_tenant_or_none())
    else:

        @wire.app.task(name="errback", shared=False)
        def errback(task_id): ...

    canvas = FOLLOWING[shape](goes.s(), goes.s(fail=True), wire.needs.s(), errback.s())
    with tenant_scope("acme"):
        canvas.apply_async()
    for sent in wire.messages():
        sent.accept = {"application/json"}
        receive(sent)
    published = {(m.headers["task"], m.headers.get("tenantry")) for m in wire.messages()}
    assert ("free", None) in published
    if not shape.startswith("errback"):
        followed = {("needs", "v1;acme")}
    else:
        followed = set() if called else {("errback", "v1;acme")}
        assert set(ran) == ({"acme"} if called else set())
    assert published - {("free", None)} == followed


@pytest.mark.parametrize("tenant", ["acme", None])
def test_message_with_the_id_of_the_running_task_is_that_task_again(wire, receive, tenant) -> None:
    """Whatever is active, and whatever its headers and stamps say; the caller's stay as they were."""
    given = {"tenantry": "v1;globex", "headers": {"tenantry": "v1;globex", "x": 1}, "mine": 2}
    stamps = {"stamped_headers": ["tenantry", "own"], "tenantry": "globex", "own": "1"}

    @wire.app.task(name="again", tenancy="optional", bind=True, shared=False)
    def again(self):
        with tenant_scope("globex", switch=True):
            self.apply_async(task_id=self.request.id, headers=given, **stamps)

    receive(message("again", headers=ACME if tenant else {}))
    (sent,) = wire.messages()
    named = {"tenantry": "v1;acme"} if tenant else {}
    assert sent.headers.get("tenantry") == named.get("tenantry")
    assert sent.headers["headers"] == {"x": 1} | named
    assert "tenantry" not in sent.properties
    assert sent.headers["stamps"] == {"own": "1"} | ({"tenantry": "acme"} if tenant else {})
    assert sorted(sent.headers["stamped_headers"]) == (["own", "tenantry"] if tenant else ["own"])
    assert given["headers"] == {"tenantry": "v1;globex", "x": 1}
    assert (sent.headers["mine"], len(given)) == (2, 3)


@pytest.mark.parametrize("tenant", ["acme", None])
@pytest.mark.parametrize("how", ["replace", "replace_by_group", "add_to_chord"])
@pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning")  # Celery's backend, of redis-py
def test_what_a_task_publishes_in_its_place_is_its_own(new_wire, request, how, tenant) -> None:
    """Whatever is active meanwhile, none included."""
    wire = new_wire({"backend": request.getfixturevalue("redis_url")} if how == "add_to_chord" else {})
    receive = Receiver(wire)

    @wire.app.task(name="gives", tenancy="optional", bind=True, shared=False)
    def gives(self, *_):
        with tenant_scope("globex", switch=True):
            if how == "add_to_chord":
                self.add_to_chord(wire.maybe.s())
            else:
                self.replace(wire.maybe.s() if how == "replace" else group(wire.maybe.s(), wire.maybe.s()))

    sent = chord([gives.s(), wire.maybe.s()], wire.maybe.s()) if how == "add_to_chord" else gives.s()
    sent.apply_async(tenant=tenant)
    first, *_ = wire.messages()
    first.accept = {"application/json"}
    receive(first)
    assert set(wire.headers()) == {f"v1;{tenant}" if tenant else None}


def test_replace_of_no_running_task_is_an_ordinary_publish(wire) -> None:
    """Under whoever is active; and so is that of another application's task inside one of ours."""
    with tenant_scope("acme"), pytest.raises(Ignore):
        wire.maybe.replace(wire.maybe.s())
    assert wire.headers() == ["v1;acme"]
    other = Celery("other", broker="memory://", set_as_current=False)

    @other.task(name="seen", shared=False)
    def seen():
        return current_tenant_or_none()

    @other.task(name="replaced", bind=True, shared=False)
    def replaced(self):
        return self.replace(seen.s())

    @wire.app.task(name="calls", shared=False)
    def calls():
        with tenant_scope("globex", switch=True):
            return replaced.apply().get(disable_sync_subtasks=False)

    with tenant_scope("acme"):
        assert calls.apply().get() == "globex"
    other.close()


# --- in a pool process ---------------------------------------------------------------------------


def traced(task, headers=None, args=()):
    """Run a task as a pool process does, which has the request and nothing else."""
    request = {"id": "t1", "task": task.name, "delivery_info": {}, "errbacks": None, **(headers or {})}
    return trace_task(task, "t1", list(args), {}, request, app=task.app)


@pytest.mark.parametrize("headers", [ACME, {"headers": {"tenantry": "v1;acme"}}])
@pytest.mark.parametrize(
    ("task", "tenant"), [("tells", "acme"), ("tells_maybe", "acme"), ("tells_free", None)]
)
def test_pool_process_runs_a_task_under_its_tenant(wire, receive, seen, task, tenant, headers) -> None:
    """By the header that came through the pipe, in a context that is its own."""
    with tenant_scope("globex"):
        traced(wire.app.tasks[task], headers)
        assert current_tenant_or_none() == "globex"
    assert seen == [(task, tenant)]


def test_pool_process_runs_a_task_under_nobody(wire, receive, seen) -> None:
    """Where none is needed, with whatever inner headers, or with no request at all."""
    with tenant_scope("globex"):
        traced(wire.app.tasks["tells_maybe"], {"headers": {"x": 1}})
        wire.app.tasks["tells_maybe"].__trace__("t1", [], {})
    assert seen == [("tells_maybe", None)] * 2
    assert Task.__trace__ is None


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({}, MissingTenantHeaderError),
        ({"tenantry": 5}, MalformedTenantHeaderError),
        ({"headers": {"tenantry": "v2;acme"}}, MalformedTenantHeaderError),
        (None, MissingTenantHeaderError),
    ],
)
def test_pool_process_fails_what_no_guard_has_judged(wire, receive, seen, headers, error) -> None:
    """Somebody has replaced the strategy. Waiters are told; the errbacks have no tenant to run under."""
    ran = []

    @wire.app.task(name="errback", shared=False, tenancy="optional")
    def errback(*_):
        ran.append(1)

    @wire.app.task(name="fails", shared=False)
    def fails(*_):
        ran.append(2)

    request = None if headers is None else {"errbacks": [errback.s()], "correlation_id": "c1", **headers}
    if request is None:
        traced(fails, ACME)
        assert ran.pop() == 2
        wire.app.AsyncResult("t1").forget()
        found = fails.__trace__("t1", [], {})
    else:
        found = traced(fails, request)
    assert isinstance(found.info.retval, error)
    assert found.info.state == "FAILURE"
    assert found.retval.type is error
    assert ran == []
    result = wire.app.AsyncResult("t1")
    assert result.state == "FAILURE"
    assert isinstance(result.result, error)
    if error is MissingTenantHeaderError:
        assert "message of task fails" in str(result.result)


def test_pool_process_fails_what_it_cannot_bind_or_understand(wire, receive, seen) -> None:
    """A scope hook that fails, a tenancy that there is not."""

    @wire.app.task(name="fails", shared=False)
    def fails(): ...

    def hook(tenant_id):
        raise RuntimeError(f"no {tenant_id} today")

    remove = add_scope_hook(hook)
    try:
        assert repr(traced(fails, ACME).info.retval) == "RuntimeError('no acme today')"
    finally:
        remove()
    fails.tenancy = "nope"
    assert "tenancy='nope'" in str(traced(fails, ACME).info.retval)


def test_failure_in_a_pool_process_ends_a_chord(new_wire) -> None:
    """Rather than let it hang."""
    wire = new_wire()
    body = wire.needs.s()
    body_id = chord([wire.needs.s(), wire.needs.s()], body).apply_async(tenant="acme").id
    for member in wire.messages():
        _, _, embedded = json.loads(member.body)
        request = {**member.headers, **embedded, "delivery_info": {}}
        del request["tenantry"]
        trace_task(wire.needs, request["id"], [], {}, request, app=wire.app)
    assert wire.app.AsyncResult(body_id).state == "FAILURE"


# --- bodies --------------------------------------------------------------------------------------


def test_instances_of_one_class_are_tasks_of_their_own(wire, receive) -> None:
    """With a name and a tenancy that no class has."""
    ran = []

    class Numbered(Task):
        def __init__(self, number, tenancy):
            self.name, self.tenancy = f"numbered_{number}", tenancy

        def run(self):
            ran.append((self.name, current_tenant_or_none()))

    for number, tenancy in enumerate(("optional", "none", "required")):
        wire.app.register_task(Numbered(number, tenancy))
    for name in ("numbered_0", "numbered_1", "numbered_2"):
        receive(message(name))
        receive(message(name, headers=ACME))
    assert ran == [
        ("numbered_0", None),
        ("numbered_0", "acme"),
        ("numbered_1", None),
        ("numbered_1", None),
        ("numbered_2", "acme"),
    ]


def test_class_that_inherits_a_static_body_is_a_task_of_its_own(wire, receive) -> None:
    """With a name and a tenancy of its own, though nothing of it is handed to the body."""
    ran = []

    class Static(Task):
        name = "static"
        run = staticmethod(lambda: ran.append(current_tenant_or_none()))

    class Heir(Static):
        name = "heir"
        tenancy = "optional"

    for task in (Static, Heir):
        wire.app.register_task(task())
    receive(message("heir"))
    receive(message("heir", headers=ACME))
    receive(message("static", headers=ACME))
    assert ran == [None, "acme", "acme"]


def test_scope_hook_is_entered_once_for_what_a_task_does_in_its_process(wire, receive) -> None:
    """Its body is a part of that, and not another time."""
    entered = []

    @contextmanager
    def hook(tenant_id):
        entered.append(tenant_id)
        yield

    @wire.app.task(name="sees", shared=False)
    def sees():
        entered.append("body")

    remove = add_scope_hook(hook)
    try:
        traced(sees, ACME)
    finally:
        remove()
    assert entered == ["acme", "body"]


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_scope_hook_is_left_when_a_task_has_ended(wire, receive, caplog, ends) -> None:
    """With the error that ended the body; one that fails then is logged, and changes no result."""
    left = []

    @contextmanager
    def hook(tenant_id):
        try:
            yield
        except ValueError as error:
            left.append(str(error))
            raise
        left.append(tenant_id)
        raise RuntimeError(f"no way out of {tenant_id}")

    @wire.app.task(name="ends", shared=False, throws=(ValueError,))
    def end():
        if ends == "badly":
            with tenant_scope("acme"):
                raise ValueError("as asked")

    remove = add_scope_hook(hook)
    try:
        traced(end, ACME)
    finally:
        remove()
    assert left == ["acme"]
    assert wire.app.AsyncResult("t1").state == ("SUCCESS" if ends == "well" else "FAILURE")
    (line,) = [r for r in caplog.records if r.name == "tenantry.celery"]
    assert line.getMessage() == "a scope hook failed while a task was left"
    assert str(line.exc_info[1]) == "no way out of acme"


@pytest.mark.parametrize("headers", [ACME, {}])
def test_errback_that_is_called_runs_as_it_declares(wire, receive, headers) -> None:
    """In the process of the failed task and under its tenant; not at all where it needs one and there is none."""
    ran = []

    def declare(tenancy):
        @wire.app.task(name=f"errback_{tenancy}", tenancy=tenancy, shared=False)
        def errback(*_):
            ran.append((tenancy, current_tenant_or_none()))

        return errback.s()

    @wire.app.task(name="fails_maybe", tenancy="optional", shared=False)
    def fails_maybe():
        raise ValueError("as asked")

    errbacks = [declare(tenancy) for tenancy in ("none", "optional", "required")]
    receive(message("fails_maybe", headers=headers, body=[[], {}, {"errbacks": errbacks}]))
    if headers:
        assert ran == [("none", None), ("optional", "acme"), ("required", "acme")]
    else:
        # Celery 5.4 calls the others once more after one that fails.
        assert list(dict.fromkeys(ran)) == [("none", None), ("optional", None)]


@pytest.mark.parametrize("headers", [None, ["task"], 5])
def test_headers_that_are_none_are_read_as_none(wire, headers) -> None:
    """What the body says counts then, as under protocol 1."""
    odd = SimpleNamespace(headers=headers)
    assert read(wire.needs, odd, {"id": "b1"}) == ("b1", "needs", {})
    assert read(wire.needs, odd, [1]) == (None, "needs", {})
    assert read(wire.needs, message(), {"id": "b1"}).task_id == "t1"
