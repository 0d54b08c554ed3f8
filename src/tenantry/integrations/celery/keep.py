"""The quarantine's format and its way to the broker: a refused message is kept whole, in a durable queue.

One text per message, which no worker can take for a task: the message's own headers and properties stand
inside it, so none of them, least of all an expiration, acts on the copy.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final

from kombu import Exchange, Producer, Queue
from kombu.exceptions import OperationalError
from kombu.utils import json

from tenantry.ids import TenantId, ensure_tenant_id

CONTENT_TYPE: Final = "application/x-tenantry-quarantine"
_VERSION: Final = 1
_SECONDS_PER_STEP: Final = 4.0
_IDLE_AT_MOST: Final = 30.0

#: What brokers and transports add when they deliver a message again; twins differ in these.
_ADDED_ON_DELIVERY: Final = frozenset({
    "redelivered", "x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason",
    "x-last-death-exchange", "x-last-death-queue", "x-last-death-reason", "x-delivery-count", "x-acquired-count",
})  # fmt: skip
#: What a transport keeps in the properties for itself.
_NOT_PROPERTIES: Final = frozenset({"application_headers", "delivery_info", "delivery_tag", "body_encoding"})


@dataclass(frozen=True, slots=True)
class QuarantinedMessage:
    """One message that may not run, kept whole.

    Attributes:
        id: Name of the entry, for ``show``, ``replay`` and ``discard``. Twins (same task id, body and
            headers, kept twice since keeping is at least once) share it.
        task_id: Id of the task, or ``None`` if the message has none that can be read.
        task: Registered name of the task.
        tenant: The tenant that the message claims; ``None`` if it claims none, or if that is illegible
            or disputed.
        reason: Why it may not run.
        worker: Name of the worker that refused it.
        time: When, aware, in UTC.
        body: The body's bytes, decompressed if they were compressed.
        content_type: The body's content type.
        content_encoding: The body's content encoding.
        headers: The message's headers.
        properties: The message's properties.
        delivery_info: Where it came from: exchange, routing key, whether it was redelivered.
    """

    id: str
    task_id: str | None
    task: str
    tenant: TenantId | None
    reason: str
    worker: str
    time: datetime
    body: bytes = field(repr=False)
    content_type: str | None
    content_encoding: str | None
    headers: Mapping[str, Any] = field(repr=False)
    properties: Mapping[str, Any] = field(repr=False)
    delivery_info: Mapping[str, Any] = field(repr=False)

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it: the body in base64, the time as ISO 8601 text."""
        plain = {item.name: getattr(self, item.name) for item in fields(self)}
        plain["body"] = b64encode(self.body).decode("ascii")
        return {name: _plain(value) for name, value in plain.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


def entry_of(
    message: Any, task_id: str | None, task: str, tenant: TenantId | None, reason: str, worker: str
) -> QuarantinedMessage:
    """Return the entry for a received message."""
    body = _body_bytes(message)
    headers = dict(message.headers or {})
    return QuarantinedMessage(
        id=_name_of(task_id, body, headers),
        task_id=task_id,
        task=task,
        tenant=tenant,
        reason=reason,
        worker=worker,
        time=datetime.now(UTC),
        body=body,
        content_type=message.content_type,
        content_encoding=message.content_encoding,
        headers=headers,
        properties={k: v for k, v in (message.properties or {}).items() if k not in _NOT_PROPERTIES},
        delivery_info=dict(message.delivery_info or {}),
    )


def _body_bytes(message: Any) -> bytes:
    body = message.body
    if isinstance(body, str):
        encoding = message.content_encoding
        return body.encode("utf-8" if encoding in (None, "", "binary", "us-ascii") else encoding)
    return bytes(body or b"")


def _name_of(task_id: str | None, body: bytes, headers: Mapping[str, Any]) -> str:
    own = {name: value for name, value in headers.items() if name not in _ADDED_ON_DELIVERY}
    text = repr((task_id, sorted((str(name), repr(value)) for name, value in own.items())))
    return hashlib.sha256(text.encode("utf-8", "backslashreplace") + b"\0" + body).hexdigest()[:32]


def encode(entry: QuarantinedMessage) -> bytes:
    """Return what is stored for an entry. Values that JSON cannot hold are kept as text."""
    stored = {item.name: getattr(entry, item.name) for item in fields(entry)}
    stored |= {"v": _VERSION, "body": b64encode(entry.body).decode("ascii"), "time": entry.time.isoformat()}
    text: str
    try:
        text = json.dumps(stored)
    except (TypeError, ValueError):
        text = json.dumps({name: _plain(value) for name, value in stored.items()})
    return text.encode("utf-8", "surrogatepass")


def decode(stored: bytes | str) -> QuarantinedMessage | None:
    """Return the entry that was stored, or ``None`` for what is not one."""
    try:
        found = json.loads(stored)
        tenant = found["tenant"]
        return QuarantinedMessage(
            **{name: found[name] for name in _AS_STORED},
            tenant=None if tenant is None else ensure_tenant_id(tenant),
            time=datetime.fromisoformat(found["time"]),
            body=b64decode(found["body"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


_AS_STORED: Final = tuple(
    item.name for item in fields(QuarantinedMessage) if item.name not in ("tenant", "time", "body")
)


# --- the broker ----------------------------------------------------------------------------------


def opened(app: Any) -> Any:
    """Open a connection of our own, with a few seconds of patience, whose publishes are confirmed.

    Raises:
        OperationalError: The broker does not answer.
    """
    connection = app.connection_for_write(
        connect_timeout=_SECONDS_PER_STEP, heartbeat=0, transport_options=_options(app)
    )
    try:
        # Not .connect(), which sleeps for two seconds in between, nor without limits, which is for minutes.
        connection.ensure_connection(max_retries=1, interval_start=0)
    except BaseException as error:
        connection.release()
        if isinstance(error, OperationalError):
            raise OperationalError(f"the broker does not answer: {error}") from error
        raise
    return connection


@contextmanager
def connected(app: Any) -> Iterator[Any]:
    """Hold a connection as :func:`opened` returns it while the block runs."""
    connection = opened(app)
    try:
        yield connection
    finally:
        connection.release()


def _options(app: Any) -> dict[str, Any]:
    driver = app.connection_for_write().transport.driver_type
    if driver == "amqp":
        return {"confirm_publish": True}
    if driver == "redis":
        return {"socket_timeout": _SECONDS_PER_STEP, "socket_connect_timeout": _SECONDS_PER_STEP}
    return {}


def declared(name: str, channel: Any) -> Any:
    """Declare the quarantine's queue, each time: a publish to a queue that is gone is lost in silence."""
    queue = Queue(name, Exchange(""), routing_key=name, durable=True, auto_delete=False)(channel)
    queue.queue_declare()
    return queue


class Line:
    """A worker's connection to the quarantine. Kept open while messages are refused in quick succession."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._lock = threading.Lock()
        # No suspended context manager: the garbage collector would end it, at a moment of its own choosing.
        self._connection: Any = None
        self._channel: Any = None
        self._used = -math.inf

    def put(self, name: str, entry: QuarantinedMessage) -> int | None:
        """Store an entry and return the queue's depth with it, or ``None`` where the broker does not say.

        Tried once more on a new connection where the old one has died meanwhile.

        Raises:
            Exception: Whatever the broker's client raises; the entry is not known to be stored then.
        """
        with self._lock:
            if time.monotonic() - self._used <= _IDLE_AT_MOST:
                with suppress(Exception):
                    return self._put(name, entry)
            self.close()
            return self._put(name, entry)

    def _put(self, name: str, entry: QuarantinedMessage) -> int | None:
        if self._connection is None:
            self._connection = opened(self._app)
            self._channel = self._connection.channel()
        queue = declared(name, self._channel)
        publish(self._channel, encode(entry), "", name, content_type=CONTENT_TYPE, content_encoding="utf-8")
        depth = _depth(queue)
        self._used = time.monotonic()
        return depth

    def close(self) -> None:
        """Close the connection; the next entry opens another."""
        connection, self._connection, self._channel = self._connection, None, None
        self._used = -math.inf
        if connection is not None:
            with suppress(Exception):
                connection.release()


def publish(channel: Any, body: bytes, exchange: str, routing_key: str, **properties: Any) -> None:
    """Publish bytes as they are, durable; a broker that confirms has confirmed when this returns."""
    Producer(channel).publish(
        body,
        exchange=exchange,
        routing_key=routing_key,
        mandatory=True,
        timeout=_SECONDS_PER_STEP,
        confirm_timeout=_SECONDS_PER_STEP,
        **{"delivery_mode": 2, **properties},
    )


def _depth(queue: Any) -> int | None:
    try:
        return int(queue.queue_declare(passive=True).message_count)
    except Exception:  # noqa: BLE001 - the entry is stored; its depth is for the alarm alone
        return None


def reachable(app: Any, name: str) -> bool:
    """Whether the quarantine can be declared and asked for its depth now."""
    try:
        with connected(app) as connection:
            declared(name, connection.channel())
    except Exception:  # noqa: BLE001 - any failure is the answer
        return False
    return True
