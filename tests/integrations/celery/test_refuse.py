"""What becomes of a message that may not run: kept, its waiters told, acknowledged; or held, given back, resumed."""

from __future__ import annotations

import json
import logging
import time

import pytest
from celery import chord, states
from kombu import Exchange, Queue
from kombu.transport.memory import Channel

from tenantry import MissingTenantHeaderError, current_tenant_or_none
from tenantry.integrations.celery import install, quarantine, refuse
from tests.integrations.celery.worker import Consumer, Receiver, message

NOWHERE = "amqp://guest:guest@127.0.0.1:1//"


@pytest.fixture
def receive(wire) -> Receiver:
    """The strategies of an installed application."""
    install(wire.app, quarantine=f"kept-{wire.queue}")
    return Receiver(wire)


@pytest.fixture
def lines(caplog):
    """The texts of the edge's log, of a level."""
    caplog.set_level(logging.INFO, "tenantry.celery")
    return lambda level: [r.getMessage() for r in caplog.records if r.levelno == level]


def out_of_reach(receive) -> None:
    """Let the quarantine's broker be one that does not answer."""
    receive.app.conf.broker_write_url = NOWHERE


def back(receive) -> None:
    """Let it answer again."""
    receive.app.conf.broker_write_url = "memory://"


def entries(receive) -> list:
    """What was kept."""
    return list(quarantine(receive.app).list())


def test_kept_told_and_acknowledged(receive, lines) -> None:
    """In this order; the failure is our error, with its data."""
    receive(message())
    (entry,) = entries(receive)
    result = receive.app.AsyncResult("t1")
    assert result.state == states.FAILURE
    assert isinstance(result.result, MissingTenantHeaderError)
    assert receive.consumer.answers == ["ack"]
    assert lines(logging.WARNING) == [f"refused task needs[t1], kept as {entry.id}: {entry.reason}"]
    assert lines(logging.CRITICAL) == lines(logging.ERROR) == []
    assert entry.delivery_info == {"exchange": "", "routing_key": "a-queue"}
    assert (entry.content_type, entry.content_encoding) == ("application/json", "utf-8")
    assert (entry.body, entry.properties) == (b"[[], {}, {}]", {"correlation_id": "t1"})
    assert entry.headers["lang"] == "py"


@pytest.mark.parametrize(("alarm", "loud"), [(2, [False, True, True]), (3, [False, False, True])])
def test_depth_from_which_every_refusal_is_critical(receive, lines, alarm, loud) -> None:
    """The new message counts."""
    install(receive.app, quarantine=f"alarm-{receive.app.conf.task_default_queue}", quarantine_alarm=alarm)
    for number, expected in enumerate(loud, 1):
        before = len(lines(logging.CRITICAL))
        receive(message(headers={"id": f"t{number}"}))
        new = lines(logging.CRITICAL)[before:]
        assert len(new) == expected
        assert all(f"holds {number} messages" in line for line in new)


def test_no_result_where_secret_keys_are_set(receive) -> None:
    """Whoever wrote an unauthenticated message may not end another's task."""
    install(receive.app, secret_keys="k", quarantine=f"kept-{receive.app.conf.task_default_queue}")
    receive(message())
    assert len(entries(receive)) == 1
    assert receive.app.AsyncResult("t1").state == states.PENDING
    assert receive.consumer.answers == ["ack"]


@pytest.mark.parametrize(
    ("declared", "sent", "stored"),
    [
        ({}, {}, True),
        ({}, {"ignore_result": True}, False),
        ({"ignore_result": True}, {}, False),
        ({"ignore_result": True}, {"ignore_result": False}, True),
        ({"ignore_result": True, "store_errors_even_if_ignored": True}, {}, True),
    ],
)
def test_result_is_stored_as_celery_would(wire, receive, declared, sent, stored) -> None:
    """What nobody waits for is not written."""

    @wire.app.task(name="declares", shared=False, **declared)
    def declares(): ...

    receive(message("declares", headers=sent))
    assert receive.app.AsyncResult("t1").state == (states.FAILURE if stored else states.PENDING)


@pytest.mark.parametrize("protocol", [1, 2])
def test_chord_with_a_refused_member_fails(new_wire, protocol) -> None:
    """Rather than hang; its errbacks need a tenant, and there is none."""
    wire = new_wire({"task_protocol": protocol})
    install(wire.app, quarantine=f"kept-{wire.queue}")
    receive = Receiver(wire)
    body = wire.needs.s().on_error(wire.free.s())
    result = chord([wire.needs.s(), wire.needs.s()], body).apply_async(tenant="acme")
    for member in wire.messages():
        del member.headers["tenantry"]
        member.accept = {"application/json"}
        receive(member)
    assert len(entries(receive)) == 2
    assert wire.app.AsyncResult(result.id).state == states.FAILURE
    assert wire.messages() == []


def test_errback_of_a_chord_with_a_refused_member_is_published_under_nobody(new_wire) -> None:
    """Where it needs nobody; one that needs a tenant is not."""
    wire = new_wire()
    install(wire.app, quarantine=f"kept-{wire.queue}")
    receive = Receiver(wire)

    @wire.app.task(name="by_id", tenancy="none", shared=False)
    def by_id(task_id): ...

    for errback, expected in ((by_id, ["by_id"]), (wire.needs, [])):
        body = wire.needs.s().on_error(errback.s())
        chord([wire.needs.s(), wire.needs.s()], body).apply_async(tenant="acme")
        for member in wire.messages():
            del member.headers["tenantry"]
            member.accept = {"application/json"}
            receive(member)
        assert [(m.headers["task"], m.headers.get("tenantry")) for m in wire.messages()] == [
            (name, None) for name in expected
        ]


def test_result_that_cannot_be_stored_is_no_reason_to_keep_it_twice(receive, lines, monkeypatch) -> None:
    """The message is kept, and acknowledged all the same."""
    monkeypatch.setattr(type(receive.app.backend), "mark_as_failure", lambda *_, **__: 1 / 0)
    receive(message())
    assert lines(logging.ERROR) == ["the result of refused task t1 could not be stored"]
    assert len(entries(receive)) == 1
    assert receive.consumer.answers == ["ack"]


def test_broker_that_takes_no_answer_ends_nothing(receive, lines, caplog) -> None:
    """It will deliver the message again, and a twin is kept then."""
    handler = receive.app.tasks["needs"].start_strategy(receive.app, receive.consumer)

    def gone(*_):
        raise ConnectionResetError

    handler(message(), None, gone, gone, [])
    assert "could not answer the broker for a refused message" in lines(logging.WARNING)
    assert caplog.records[-1].exc_info[0] is ConnectionResetError
    assert len(entries(receive)) == 1


def test_message_that_cannot_even_be_described_stays_unacknowledged(receive, lines, caplog) -> None:
    """No exception leaves the strategy: it would end the worker."""
    receive(message(content_encoding="no-such-encoding", body="{}", headers={"tenantry": 5}))
    assert receive.consumer.answers == []
    assert lines(logging.CRITICAL) == [
        "a message that may not run could not be kept; it stays unacknowledged"
    ]
    assert caplog.records[-1].exc_info[0] is LookupError


def test_held_message_is_kept_once_when_the_quarantine_is_back(receive, lines) -> None:
    """Meanwhile it stays unacknowledged; others wait behind it without an attempt of their own."""
    out_of_reach(receive)
    receive(message())
    receive(message(headers={"id": "t2"}))
    held = lines(logging.ERROR)
    assert len(held) == 1
    assert "is out of reach" in held[0]
    assert receive.consumer.answers == []
    assert [delay for delay, *_ in receive.consumer.later] == [0.5, 0.5]
    assert receive.consumer.tick() == 0.5
    assert receive.consumer.later[-1][0] == 1.0
    back(receive)
    receive.consumer.tick()
    receive.consumer.tick()
    assert receive.consumer.later == []
    assert sorted(entry.task_id for entry in entries(receive)) == ["t1", "t2"]
    assert receive.consumer.answers == ["ack", "ack"]
    receive(message(headers={"id": "t9"}))
    assert len(entries(receive)) == 3


def test_message_that_was_not_kept_is_held_whatever_else_is_kept_meanwhile(receive, monkeypatch) -> None:
    """Where the timer has a thread of its own, another message may find the quarantine while a log line is written."""
    out_of_reach(receive)
    receive(message())
    receive(message(headers={"id": "t2"}))

    def meanwhile(*_: object) -> None:
        back(receive)
        receive.consumer.tick()

    monkeypatch.setattr(refuse._log, "error", meanwhile)
    receive.consumer.tick()
    assert [entry.task_id for entry in entries(receive)] == ["t2"]
    assert receive.consumer.answers == ["ack"]
    assert len(receive.consumer.later) == 1
    receive.consumer.tick()
    assert sorted(entry.task_id for entry in entries(receive)) == ["t1", "t2"]
    assert receive.consumer.answers == ["ack", "ack"]


def test_delays_grow_and_end_below_a_minute(receive) -> None:
    """Brokers end consumers that hold a message too long."""
    out_of_reach(receive)
    receive(message())
    delays = []
    while receive.consumer.later and len(delays) < 20:
        delays.append(receive.consumer.later[0][0])
        (refused,) = receive.consumer.later[0][2]
        refused.since = time.monotonic() - sum(delays)
        receive.consumer.tick()
        if receive.consumer.cancelled:
            break
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 12.0]
    assert receive.consumer.answers == ["requeue"]


def given_up(receive, **changes) -> None:
    """Refuse a message and let its time run out."""
    receive(message(**changes))
    _, _, (refused,) = receive.consumer.later[-1]
    refused.since = time.monotonic() - refuse.HOLD_AT_MOST
    receive.consumer.later.insert(0, receive.consumer.later.pop())
    receive.consumer.tick()


def test_message_goes_back_and_its_queue_rests_until_the_quarantine_answers(receive, lines) -> None:
    """That queue alone, told once, and probed for."""
    a, b = Queue("a-queue"), Queue("b-queue")
    receive.consumer.task_consumer.queues = [a, b]
    out_of_reach(receive)
    given_up(receive)
    given_up(receive, headers={"id": "t2"})
    assert receive.consumer.cancelled == ["a-queue"]
    assert receive.consumer.answers == ["requeue", "requeue"]
    assert [line.partition(",")[0] for line in lines(logging.CRITICAL)] == [
        "the quarantine is out of reach: no longer taking messages from queue 'a-queue'"
    ]
    assert [delay for delay, *_ in receive.consumer.later] == [refuse.PROBE_EVERY]
    given_up(receive, headers={"id": "t9"}, delivery_info={"exchange": "", "routing_key": "b-queue"})
    assert receive.consumer.cancelled == ["a-queue", "b-queue"]
    receive.consumer.tick()
    assert receive.consumer.added == []
    assert len(receive.consumer.later) == 1
    back(receive)
    receive.consumer.tick()
    assert receive.consumer.added == ["a-queue", "b-queue"]
    assert receive.consumer.later == []
    assert sum("answers again" in line for line in lines(logging.WARNING)) == 2
    receive(message(headers={"id": "t3"}))
    assert [entry.task_id for entry in entries(receive)] == ["t3"]
    out_of_reach(receive)
    receive.app.conf.broker_write_url = NOWHERE
    receive.consumer._tenantry_keeper._line.close()
    given_up(receive)
    assert receive.consumer.cancelled == ["a-queue", "b-queue", "a-queue"]


def test_queue_that_cannot_be_taken_up_again_is_tried_later(receive, lines) -> None:
    """The worker may be between two connections."""
    receive.consumer.task_consumer.queues = [Queue("a-queue")]
    out_of_reach(receive)
    given_up(receive)
    back(receive)
    take_up, receive.consumer.add_task_queue = receive.consumer.add_task_queue, lambda _: 1 / 0
    receive.consumer.tick()
    assert lines(logging.ERROR)[-1].startswith("a step of refusing a message failed")
    receive.consumer.add_task_queue = take_up
    assert receive.consumer.tick() == refuse.PROBE_EVERY
    assert receive.consumer.added == ["a-queue"]
    assert receive.consumer.later == []


@pytest.mark.parametrize(
    ("info", "tags", "paused"),
    [
        ({"exchange": "", "routing_key": "a"}, {}, ["a"]),
        ({"exchange": None, "routing_key": "a"}, {}, ["a"]),
        ({"exchange": "x", "routing_key": "k"}, {}, ["b"]),
        ({"exchange": "x", "routing_key": "other"}, {}, ["a", "b", "c"]),
        ({"exchange": "y", "routing_key": "a"}, {}, ["a", "b", "c"]),
        ({"exchange": "y", "routing_key": "k"}, {}, ["a", "b", "c"]),
        ({}, {}, ["a", "b", "c"]),
        ({"exchange": "", "routing_key": "a", "consumer_tag": "7"}, {"c": "7", "a": "8"}, ["c"]),
        ({"exchange": "", "routing_key": "a", "consumer_tag": "9"}, {"c": "7"}, ["a"]),
        ({"exchange": "", "routing_key": "a", "consumer_tag": None}, {"c": None}, ["a"]),
    ],
)
def test_queue_that_a_message_came_from(receive, info, tags, paused) -> None:
    """By its consumer's tag, else by its route; all queues where that cannot be told."""
    queues = [
        Queue("a"),
        Queue("b", Exchange("x"), routing_key="k"),
        Queue("c", Exchange("x"), routing_key="l"),
    ]
    receive.consumer.task_consumer.queues = queues
    receive.consumer.task_consumer._active_tags = tags
    out_of_reach(receive)
    given_up(receive, delivery_info=info)
    assert receive.consumer.cancelled == paused


def test_copy_from_an_old_connection_is_left_to_the_broker(receive) -> None:
    """It delivers it again on the new one; this copy can no longer be acknowledged."""
    out_of_reach(receive)
    receive(message())
    receive.consumer.connection = object()
    back(receive)
    receive.consumer.tick()
    assert entries(receive) == []
    assert receive.consumer.answers == receive.consumer.later == []


def test_answers_are_given_in_the_consumers_thread(receive) -> None:
    """Where a worker has no event loop its timer has a thread of its own."""
    receive.consumer.hub = None
    out_of_reach(receive)
    receive(message())
    back(receive)
    receive.consumer.tick()
    assert len(entries(receive)) == 1
    assert receive.consumer.answers == []
    ((function, args),) = receive.consumer.soon
    function(*args)
    assert receive.consumer.answers == ["ack"]


def test_waiters_are_told_under_nobody(wire, receive, monkeypatch) -> None:
    """What Celery then calls belongs to no tenant."""
    seen = []
    backend = type(wire.app.backend)
    original = backend.mark_as_failure

    def mark(self, task_id, error, **options):
        seen.append(
            (task_id, current_tenant_or_none(), options["call_errbacks"], options["request"].errbacks)
        )
        return original(self, task_id, error, **options)

    monkeypatch.setattr(backend, "mark_as_failure", mark)
    receive(message(body=[[], {}, {"errbacks": [dict(wire.free.s())]}]))
    assert seen == [("t1", None, False, None)]


def test_result_of_a_message_with_a_reply_queue_goes_there(wire, receive, monkeypatch) -> None:
    """What a waiter gave with it is handed to the backend."""
    seen = []
    monkeypatch.setattr(
        type(wire.app.backend), "mark_as_failure", lambda _, *__, request, **___: seen.append(request)
    )
    receive(message(properties={"reply_to": "r", "correlation_id": "c"}, headers={"group": "g"}))
    (request,) = seen
    assert (request.id, request.task, request.reply_to, request.correlation_id) == ("t1", "needs", "r", "c")
    assert (request.group, request.delivery_info["routing_key"], request.chord) == ("g", "a-queue", None)


def test_result_of_a_message_of_protocol_1_goes_to_its_group(wire, receive, monkeypatch) -> None:
    """Its body names group and chord, by an older word too; what cannot be read there is left out."""
    seen = []
    monkeypatch.setattr(
        type(wire.app.backend), "mark_as_failure", lambda _, *__, request, **___: seen.append(request)
    )
    absent = dict.fromkeys(["task", "id", "lang", "root_id", "retries"], ...)
    body = {"task": "needs", "id": "t9", "args": [], "kwargs": {}, "chord": {"task": "free"}, "retries": 2}
    for group in ({"group": "g"}, {"taskset": "g"}, {"group": "g", "taskset": "h"}, {}):
        receive(message(headers=absent, body=json.dumps({**body, **group})))
    assert [request.group for request in seen] == ["g", "g", "g", None]
    assert {(request.id, request.task, request.retries) for request in seen} == {("t9", "needs", 2)}
    assert seen[0].chord == {"task": "free"}
    receive(message(headers={"tenantry": 5}, body="[1]"))
    assert (seen[-1].id, seen[-1].chord, seen[-1].chain) == ("t1", None, None)


def test_message_without_an_id_has_no_waiters(receive, lines, monkeypatch) -> None:
    """Nothing is stored for nobody."""
    stored = []
    monkeypatch.setattr(type(receive.app.backend), "mark_as_failure", lambda *_, **__: stored.append(1))
    receive(message(headers={"id": None}))
    receive(message(headers={"id": ""}))
    assert stored == []
    assert receive.consumer.answers == ["ack", "ack"]
    receive(message())
    assert stored == [1]


def test_next_message_is_kept_at_once_when_the_quarantine_has_answered(receive, lines) -> None:
    """Whoever found out, a held message or the probe."""
    receive.consumer.task_consumer.queues = [Queue("a-queue")]
    out_of_reach(receive)
    receive(message())
    back(receive)
    receive.consumer.tick()
    receive(message(headers={"id": "t2"}))
    assert receive.consumer.later == []
    out_of_reach(receive)
    receive.consumer._tenantry_keeper._line.close()
    given_up(receive, headers={"id": "t3"})
    back(receive)
    receive.consumer.tick()
    receive(message(headers={"id": "t4"}))
    assert receive.consumer.later == []
    assert sorted(entry.task_id for entry in entries(receive)) == ["t1", "t2", "t4"]


def test_queue_is_resumed_in_the_consumers_thread(receive) -> None:
    """As messages are answered and given back there."""
    receive.consumer.hub = None
    receive.consumer.task_consumer.queues = [Queue("a-queue")]
    out_of_reach(receive)
    given_up(receive)
    assert receive.consumer.cancelled == receive.consumer.answers == []
    for _ in range(2):
        ((function, args),) = receive.consumer.soon
        receive.consumer.soon.clear()
        function(*args)
        if not receive.consumer.added:
            assert (receive.consumer.cancelled, receive.consumer.answers) == (["a-queue"], ["requeue"])
            back(receive)
            receive.consumer.tick()
    assert receive.consumer.added == ["a-queue"]


def test_worker_has_one_keeper(receive) -> None:
    """And another worker of the same process another."""
    keeper = refuse.keeper_of(receive.app, receive.consumer)
    assert refuse.keeper_of(receive.app, receive.consumer) is keeper
    receive(message())
    assert receive.consumer._tenantry_keeper is keeper
    assert refuse.keeper_of(receive.app, Consumer(receive.app)) is not keeper


def test_depth_that_the_broker_does_not_say_raises_no_alarm(receive, lines, monkeypatch) -> None:
    """The message is kept, and that is what counts."""
    declare = Channel.queue_declare

    def silent(self, queue=None, passive=False, **options):
        if passive:
            raise OSError("as asked")
        return declare(self, queue, **options)

    monkeypatch.setattr(Channel, "queue_declare", silent)
    receive(message())
    monkeypatch.undo()
    assert len(entries(receive)) == 1
    assert receive.consumer.answers == ["ack"]
    assert lines(logging.CRITICAL) == lines(logging.ERROR) == []
