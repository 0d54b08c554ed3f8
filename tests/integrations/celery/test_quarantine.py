"""What operators can do with messages that may not run, on a broker without workers."""

from __future__ import annotations

import base64
import itertools
import json
from contextlib import closing
from datetime import UTC, datetime

import pytest
from kombu import Exchange, Producer, Queue

from tenantry import InvalidTenantIdError, TenantConflictError, tenant_scope
from tenantry.integrations.celery import install, keep, quarantine
from tenantry.propagation import extract, format_header


def kept(wire, task_id="t1", tenant="acme", **changes) -> keep.QuarantinedMessage:
    """Put a message into the quarantine as a worker would."""
    headers = {"task": "needs", "id": task_id, "lang": "py", "tenantry": f"v1;{tenant}"}
    headers |= changes.pop("headers", {})
    body = changes.pop("body", b"[[], {}, {}]")
    values = {
        "task_id": task_id,
        "task": "needs",
        "tenant": tenant,
        "reason": "MissingTenantHeaderError: because",
        "worker": "w1@host",
        "time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "body": body,
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "headers": headers,
        "properties": {"correlation_id": task_id, "priority": 0, "expiration": "1000"},
        "delivery_info": {"exchange": "", "routing_key": wire.queue},
    } | changes
    entry = keep.QuarantinedMessage(id=keep._name_of(values["task_id"], body, headers), **values)
    with closing(keep.Line(wire.app)) as line:
        line.put(quarantine(wire.app)._edge.quarantine, entry)
    return entry


@pytest.fixture(params=["memory", "redis", "prefixed"])
def wire(request, new_wire):
    """An installed application with an empty quarantine, on either way of reading a queue."""
    wire = new_wire(quarantine=f"kept-{request.node.name}"[:60])
    if request.param == "prefixed":
        wire.app.conf.broker_transport_options = {"global_keyprefix": "service:"}
    if request.param != "memory":
        wire.app.conf.broker_url = request.getfixturevalue("redis_url")
        install(wire.app, quarantine=f"kept-{wire.queue}")
    return wire


def test_entry_comes_back_whole(wire) -> None:
    """Whatever its headers hold, its body's bytes above all."""
    odd = {"when": datetime(2026, 1, 1, tzinfo=UTC), "raw": "ü", "nested": {"a": [1, None, True]}}
    entry = kept(wire, body=bytes(range(256)), headers=odd)
    (found,) = quarantine(wire.app).list()
    assert found == entry
    assert quarantine(wire.app).show(entry.id) == entry
    text = json.dumps(found.as_json())
    assert base64.b64decode(json.loads(text)["body"]) == bytes(range(256))
    assert json.loads(text)["time"] == "2026-01-02T03:04:05+00:00"


def test_list_is_oldest_first_and_streams(wire) -> None:
    """More than a page, and nothing is taken away by looking."""
    names = [kept(wire, f"t{number}").id for number in range(120)]
    assert [entry.id for entry in quarantine(wire.app).list()] == names
    first = quarantine(wire.app).list()
    assert [entry.id for entry in itertools.islice(first, 3)] == names[:3]
    first.close()
    assert len(list(quarantine(wire.app).list())) == 120


def test_list_can_be_counted_and_indexed(wire) -> None:
    """And compared, and read again after that; what is not asked for is not read at once."""
    operator = quarantine(wire.app)
    assert operator.list() == []
    assert not operator.list()
    names = [kept(wire, f"t{number}").id for number in range(3)]
    found = operator.list()
    assert (len(found), found[0].id, found[-1].id) == (3, names[0], names[2])
    assert [entry.id for entry in found] == [entry.id for entry in found] == names
    assert next(found).id == names[0]
    assert found == operator.list()
    assert found != operator.list(tenant_id="globex")


def test_list_of_one_tenant(wire) -> None:
    """Those that claim it; what claims none is in no tenant's list."""
    kept(wire, "t1", "acme")
    kept(wire, "t2", "globex")
    kept(wire, "t3", None)
    found = [entry.task_id for entry in quarantine(wire.app).list(tenant_id="globex")]
    assert found == ["t2"]
    with pytest.raises(InvalidTenantIdError):
        quarantine(wire.app).list(tenant_id="a:b")


def test_replay_sends_the_same_bytes_under_the_named_tenant(wire) -> None:
    """Same id and route; no expiration, no compression, a new header, no twins left."""
    body = b'[["x"],   {}, {}]'
    headers = {"compression": "application/x-gzip", "expires": "2020-01-01T00:00:00+00:00"}
    headers |= {
        "headers": {"tenantry": "v1;globex"},
        "stamped_headers": ["tenantry"],
        "stamps": {"tenantry": "x"},
    }
    entry = kept(wire, tenant=None, body=body, headers=headers)
    kept(wire, tenant=None, body=body, headers={**headers, "redelivered": True})
    other = kept(wire, "t2")
    with tenant_scope("globex"):
        assert quarantine(wire.app).replay(entry.id, tenant_id="acme").id == entry.id
    (message,) = wire.messages()
    assert message.body == body
    assert message.headers["tenantry"] == message.headers["headers"]["tenantry"] == "v1;acme"
    assert message.headers["stamps"] == {"tenantry": "acme"}
    assert message.headers["expires"] is None
    assert "compression" not in message.headers
    assert "expiration" not in message.properties
    assert message.properties["correlation_id"] == "t1"
    assert [left.id for left in quarantine(wire.app).list()] == [other.id]


def test_replay_of_another_tenants_message_needs_force(wire) -> None:
    """Without it nothing is sent and nothing removed."""
    entry = kept(wire)
    operator = quarantine(wire.app)
    with pytest.raises(TenantConflictError) as caught:
        operator.replay(entry.id, tenant_id="globex")
    assert (caught.value.active, caught.value.requested) == ("acme", "globex")
    assert wire.messages() == []
    assert len(list(operator.list())) == 1
    operator.replay(entry.id, tenant_id="globex", force=True)
    assert wire.headers() == ["v1;globex"]
    assert list(operator.list()) == []


def test_replay_signs_for_this_message(wire) -> None:
    """With the newest key."""
    name = quarantine(wire.app)._edge.quarantine
    install(wire.app, secret_keys=["old", "new"], quarantine=name)
    entry = kept(wire)
    quarantine(wire.app).replay(entry.id, tenant_id="acme")
    (message,) = wire.messages()
    assert extract(message.headers, secret_keys="new", task_id="t1", task_name="needs") == "acme"
    assert message.headers["tenantry"] == format_header(
        "acme", secret_keys="new", task_id="t1", task_name="needs"
    )


def test_replay_needs_a_tenant_by_name(wire) -> None:
    """The active one is never read."""
    entry = kept(wire)
    with tenant_scope("acme"), pytest.raises(TypeError, match="tenant_id"):
        quarantine(wire.app).replay(entry.id)
    with pytest.raises(InvalidTenantIdError):
        quarantine(wire.app).replay(entry.id, tenant_id=None)


def test_replay_of_a_message_without_id_is_refused(wire) -> None:
    """No worker could run it."""
    entry = kept(wire, task_id=None)
    with pytest.raises(ValueError, match="no task id"):
        quarantine(wire.app).replay(entry.id, tenant_id="acme")
    assert len(list(quarantine(wire.app).list())) == 1


def test_discard_removes_twins_and_logs_why(wire, caplog) -> None:
    """And nothing else."""
    entry, other = kept(wire), kept(wire, "t2")
    kept(wire, headers={"x-delivery-count": 2})
    with caplog.at_level("WARNING", "tenantry.celery"):
        quarantine(wire.app).discard(entry.id, reason="test data")
    assert [left.id for left in quarantine(wire.app).list()] == [other.id]
    assert "'test data'" in caplog.text


@pytest.mark.parametrize("reason", ["", " ", "\n"])
def test_discard_needs_a_reason(wire, reason) -> None:
    """That is not blank."""
    entry = kept(wire)
    with pytest.raises(ValueError, match="reason"):
        quarantine(wire.app).discard(entry.id, reason=reason)
    with pytest.raises(TypeError, match="reason"):
        quarantine(wire.app).discard(entry.id)
    assert len(list(quarantine(wire.app).list())) == 1


def test_unknown_id_is_a_lookup_error(wire) -> None:
    """In all three."""
    kept(wire)
    operator = quarantine(wire.app)
    for call in (
        lambda: operator.show("nope"),
        lambda: operator.replay("nope", tenant_id="acme"),
        lambda: operator.discard("nope", reason="because"),
    ):
        with pytest.raises(LookupError, match="nope"):
            call()
    assert len(list(operator.list())) == 1


def test_entries_can_be_handled_while_listing(wire) -> None:
    """What an operator's loop does."""
    for number in range(5):
        kept(wire, f"t{number}")
    operator = quarantine(wire.app)
    for entry in operator.list():
        if entry.task_id in ("t1", "t3"):
            operator.discard(entry.id, reason="because")
        elif entry.task_id == "t2":
            operator.replay(entry.id, tenant_id="acme")
    assert [entry.task_id for entry in operator.list()] == ["t0", "t4"]
    assert len(wire.messages()) == 1


def test_foreign_messages_in_the_queue_are_left_alone(wire) -> None:
    """Somebody may have published something else there."""
    entry = kept(wire)
    with wire.app.connection_for_write() as connection:
        Producer(connection).publish(
            "text", exchange="", routing_key=quarantine(wire.app)._edge.quarantine, content_type="text/plain"
        )
    kept(wire, "t2")
    operator = quarantine(wire.app)
    assert [found.task_id for found in operator.list()] == ["t1", "t2"]
    operator.discard(entry.id, reason="because")
    assert [found.task_id for found in operator.list()] == ["t2"]


def test_twins_have_one_name_and_others_have_not() -> None:
    """Same id, body and headers, whatever the broker adds when it delivers again."""
    name = keep._name_of("t", b"body", {"a": 1})
    assert name == keep._name_of("t", b"body", {"a": 1, "redelivered": True, "x-death": [1]})
    others = [
        ("u", b"body", {"a": 1}),
        ("t", b"bodz", {"a": 1}),
        ("t", b"body", {"a": 2}),
        ("t", b"body", {}),
    ]
    assert name not in {keep._name_of(*other) for other in others}


def test_headers_that_json_cannot_hold_are_kept_as_text() -> None:
    """Keeping never fails for the sake of a header."""
    entry = keep.QuarantinedMessage(
        "i",
        "t",
        "n",
        None,
        "r",
        "w",
        datetime.now(UTC),
        b"b",
        None,
        None,
        {"odd": {1, 2}, "raw": b"\xff"},
        {},
        {},
    )
    found = keep.decode(keep.encode(entry))
    assert found.body == b"b"
    assert found.headers["odd"] in ("{1, 2}", [1, 2])


def test_wrong_types_are_said_at_once(wire) -> None:
    """An id or a reason that is no text."""
    entry, operator = kept(wire), quarantine(wire.app)
    for call in (
        lambda: operator.show(5),
        lambda: operator.replay(None, tenant_id="acme"),
        lambda: operator.discard(b"x", reason="because"),
    ):
        with pytest.raises(TypeError, match="an entry's id is a text"):
            call()
    with pytest.raises(TypeError, match="takes a text, not int"):
        operator.discard(entry.id, reason=5)
    assert operator.list()[0] == entry


def test_what_was_done_is_logged(wire, caplog) -> None:
    """With id, task, and tenant or reason."""
    first, second, operator = kept(wire), kept(wire, "t2"), quarantine(wire.app)
    with caplog.at_level("WARNING", "tenantry.celery"):
        assert operator.replay(first.id, tenant_id="acme") == first
        assert operator.discard(second.id, reason="test data") == second
    assert [record.getMessage() for record in caplog.records] == [
        f"replayed {first.id}: task needs[t1] under tenant acme",
        f"discarded {second.id}: task needs[t2]: 'test data'",
    ]


def test_entry_that_was_handled_while_listing_is_gone(wire) -> None:
    """For the operator who handled it, too; what was only looked at is not."""
    for number in range(3):
        kept(wire, f"t{number}")
    kept(wire, "t0", headers={"redelivered": True})
    operator = quarantine(wire.app)
    listing = operator.list()
    first, second, third, twin = next(listing), next(listing), next(listing), next(listing)
    assert twin.id == first.id
    assert operator.show(second.id) == second
    operator.discard(first.id, reason="because")
    for entry in (first, twin):
        with pytest.raises(LookupError, match=entry.id):
            operator.show(entry.id)
    listing.close()
    assert list(operator.list()) == [second, third]
    assert operator.show(third.id) == third


def test_listing_is_no_entry_of_another_list(wire) -> None:
    """It equals a list of the same entries, and has no hash."""
    entry, operator = kept(wire), quarantine(wire.app)
    assert operator.list() == [entry]
    assert operator.list() != []
    with pytest.raises(TypeError, match="unhashable"):
        hash(operator.list())
    assert list(operator.list(tenant_id="acme")) == [entry]


def test_replay_keeps_what_still_holds(wire) -> None:
    """Headers, properties and route of the message; nothing is added that was not there."""
    entry = kept(
        wire,
        headers={"x": 1, "headers": {"y": 2}, "stamps": {"mine": "1"}, "redelivered": True, "x-death": [1]},
        properties={
            "correlation_id": "t1",
            "reply_to": "r",
            "priority": 3,
            "timestamp": 5,
            "mandatory": True,
        },
    )
    operator = quarantine(wire.app)
    operator.replay(entry.id, tenant_id="acme")
    (message,) = wire.messages()
    assert message.headers == {
        "task": "needs", "id": "t1", "lang": "py", "tenantry": "v1;acme", "x": 1,
        "headers": {"y": 2}, "stamps": {"mine": "1"},
    }  # fmt: skip
    properties = message.properties
    assert (properties["reply_to"], properties["priority"], properties["delivery_mode"]) == ("r", 3, 2)
    assert "timestamp" not in properties
    assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")
    assert message.delivery_info["routing_key"] == wire.queue
    assert operator.list() == []


def test_replay_goes_through_the_exchange_that_it_came_from(new_wire) -> None:
    """To whatever is bound to it by that key."""
    wire = new_wire()
    install(wire.app, quarantine=f"kept-{wire.queue}")
    exchange = Exchange(f"x-{wire.queue}", type="direct")
    with wire.app.connection_for_write() as connection:
        Queue(wire.queue, exchange, routing_key="k")(connection.channel()).declare()
    entry = kept(wire, delivery_info={"exchange": exchange.name, "routing_key": "k"})
    quarantine(wire.app).replay(entry.id, tenant_id="acme")
    (message,) = wire.messages()
    assert message.delivery_info["exchange"] == exchange.name
    assert message.delivery_info["routing_key"] == "k"


def test_garbage_in_a_list_of_redis_is_left_alone(new_wire, redis_url) -> None:
    """Somebody may have pushed something into it that is no message at all."""
    from redis import Redis

    wire = new_wire()
    name = f"kept-{wire.queue}"
    wire.app.conf.broker_url = redis_url
    install(wire.app, quarantine=name)
    kept(wire)
    garbage = [b"\xff", b"5", b"null", b"[]", b"{}", b'{"body": 5, "properties": {}}']
    with Redis.from_url(redis_url) as client:
        client.rpush(name, *garbage)
        kept(wire, "t2")
        operator = quarantine(wire.app)
        assert [entry.task_id for entry in operator.list()] == ["t1", "t2"]
        operator.discard(operator.list()[0].id, reason="because")
        assert client.lrange(name, 1, -1) == garbage
        client.delete(name)


def test_long_listing_can_be_handled_to_its_end(new_wire) -> None:
    """Elsewhere than on Redis it holds what it has read, and remembers the last of them."""
    wire = new_wire()
    install(wire.app, quarantine=f"kept-{wire.queue}")
    for number in range(105):
        kept(wire, f"t{number}")
    operator = quarantine(wire.app)
    for entry in operator.list():
        if int(entry.task_id[1:]) > 100:
            operator.discard(entry.id, reason="because")
    assert len(operator.list()) == 101
