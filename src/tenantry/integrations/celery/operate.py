"""What operators do with quarantined messages: list, show, replay, discard."""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from typing import Any, Final, Protocol

from kombu.utils import json

from tenantry.errors import TenantConflictError
from tenantry.ids import TenantId, ensure_tenant_id
from tenantry.integrations.celery import keep
from tenantry.integrations.celery.edge import Edge, edge_of, real
from tenantry.integrations.celery.keep import QuarantinedMessage
from tenantry.propagation import HEADER, format_header

_log = logging.getLogger("tenantry.celery")
_PAGE: Final = 100  # pragma: no mutate - a page of any size would do

#: Properties that are arguments of a publish elsewhere, or would end the message before it runs.
_NOT_SENT_AGAIN: Final = frozenset(
    {"expiration", "content_type", "content_encoding", "mandatory", "timestamp"}
)
#: Headers that no longer hold, or that the broker adds itself.
_HEADERS_NOT_SENT_AGAIN: Final = frozenset({"compression", "redelivered", "x-death", "x-delivery-count"})


def quarantine(app: Any) -> Quarantine:
    """Return the quarantine of an application, for operators.

    Args:
        app: An application that tenantry is installed on; its broker holds the quarantine.

    Raises:
        ValueError: tenantry is not installed on ``app``, so where its quarantine is cannot be known.
    """
    app = real(app)
    edge = edge_of(app)
    if edge is None:
        raise ValueError(
            "tenantry is not installed on this app: call tenantry.integrations.celery.install(app) first"
        )
    return Quarantine(app, edge)


class Quarantine:
    """The messages that workers have refused. Everything here is asked for by name; no active tenant is read."""

    def __init__(self, app: Any, edge: Edge) -> None:
        self._app = app
        self._edge = edge
        self._open: list[_Shelf] = []

    def list(self, *, tenant_id: object = None) -> Listing:
        """Return the entries, oldest first: in bounded memory where they are iterated.

        Args:
            tenant_id: Only those that claim this tenant. Default: all.

        Returns:
            An iterator of entries, which can be counted, indexed and compared as well; that reads them all.

        Raises:
            InvalidTenantIdError: ``tenant_id`` cannot be one.

        On Redis nothing is moved. Elsewhere the messages are held until the iterator is exhausted or
        closed, so that others do not see them meanwhile; this object's other methods do.
        """
        wanted = None if tenant_id is None else ensure_tenant_id(tenant_id)
        return Listing(self._entries(wanted))

    def _entries(self, wanted: TenantId | None) -> Generator[QuarantinedMessage]:
        with self._shelf() as shelf:
            for _, entry in shelf.entries():
                if wanted is None or entry.tenant == wanted:
                    yield entry

    def show(self, id: str) -> QuarantinedMessage:  # noqa: A002 - an entry's own word for it
        """Return one entry.

        Raises:
            LookupError: There is none of that id.
        """
        with self._found(id) as (_, _, entry):
            return entry

    def replay(self, id: str, *, tenant_id: object, force: bool = False) -> QuarantinedMessage:  # noqa: A002 - an entry's own word for it
        """Send a message again under the named tenant, then remove it and its twins.

        The body's bytes, the task's id, exchange and routing key stay as they were, so that whoever waits
        for the result is served; the header is written anew, and signed where secret keys are set.

        Args:
            id: The entry's id.
            tenant_id: Whose task it is, as the operator knows it; the active tenant is never read.
            force: Send it although the message claims another tenant.

        Returns:
            The entry that was sent.

        Raises:
            InvalidTenantIdError: ``tenant_id`` cannot be one.
            LookupError: There is no entry of that id.
            TenantConflictError: The message claims another tenant, and ``force`` is not set.
            ValueError: The message has no task id, so that no worker could run it.
        """
        tenant = ensure_tenant_id(tenant_id)
        with self._found(id) as (shelf, handles, entry):
            if entry.tenant is not None and entry.tenant != tenant and not force:
                raise TenantConflictError(entry.tenant, tenant)
            if entry.task_id is None:
                raise ValueError(f"entry {id} has no task id, so no worker can run it: discard it")
            self._send(entry, tenant)
            shelf.remove(handles)
        _log.warning("replayed %s: task %s[%s] under tenant %s", id, entry.task, entry.task_id, tenant)
        return entry

    def discard(self, id: str, *, reason: str) -> QuarantinedMessage:  # noqa: A002 - an entry's own word for it
        """Remove an entry and its twins for good.

        Args:
            id: The entry's id.
            reason: Why it may be lost; logged. Not blank.

        Returns:
            The entry that was removed.

        Raises:
            LookupError: There is no entry of that id.
            TypeError: ``reason`` is not a text.
            ValueError: ``reason`` is blank.
        """
        if not isinstance(reason, str):
            raise TypeError(f"discard(reason=...) takes a text, not {type(reason).__name__}")
        if not reason.strip():
            raise ValueError(
                "discard(reason=...) needs a reason that is not blank: why may this message be lost?"
            )
        with self._found(id) as (shelf, handles, entry):
            shelf.remove(handles)
        _log.warning("discarded %s: task %s[%s]: %r", id, entry.task, entry.task_id, reason)
        return entry

    @contextlib.contextmanager
    def _shelf(self) -> Iterator[_Shelf]:
        with keep.connected(self._app) as connection:
            channel = connection.channel()
            keep.declared(self._edge.quarantine, channel)
            shelf = _shelf_of(connection, channel, self._edge.quarantine)
            self._open.append(shelf)
            try:
                yield shelf
            finally:
                self._open.remove(shelf)
                shelf.close()

    @contextlib.contextmanager
    def _found(self, entry_id: str) -> Iterator[tuple[_Shelf, Sequence[Any], QuarantinedMessage]]:
        """Find an entry and its twins, among what an open listing of ours holds, then in the queue."""
        if not isinstance(entry_id, str):
            raise TypeError(f"an entry's id is a text, not {type(entry_id).__name__}")
        for shelf in self._open:
            held = shelf.held(entry_id)
            if held is not None:
                yield shelf, *held
                return
        with self._shelf() as shelf:
            handles, entry = [], None
            for handle, candidate in shelf.entries():
                if candidate.id == entry_id:
                    handles.append(handle)
                    entry = candidate
            if entry is None:
                raise LookupError(f"the quarantine {self._edge.quarantine!r} has no entry {entry_id!r}")
            yield shelf, handles, entry

    def _send(self, entry: QuarantinedMessage, tenant_id: TenantId) -> None:
        properties = {k: v for k, v in entry.properties.items() if k not in _NOT_SENT_AGAIN}
        with keep.connected(self._app) as connection:
            keep.publish(
                connection.channel(),
                entry.body,
                entry.delivery_info.get("exchange", ""),
                entry.delivery_info.get("routing_key", ""),
                headers=_headers(self._edge, entry, tenant_id),
                content_type=entry.content_type,
                content_encoding=entry.content_encoding,
                **properties,
            )


class Listing(Iterator[QuarantinedMessage]):
    """Entries of a quarantine, read one by one; all at once where they are counted, indexed or compared."""

    def __init__(self, entries: Generator[QuarantinedMessage]) -> None:
        self._reading = entries
        self._all: list[QuarantinedMessage] | None = None
        self._left: Iterator[QuarantinedMessage] = entries

    def __iter__(self) -> Iterator[QuarantinedMessage]:  # noqa: PYI034 - a list of them can be read again
        return self if self._all is None else iter(self._all)

    def __next__(self) -> QuarantinedMessage:
        return next(self._left)

    def __len__(self) -> int:
        return len(self._read())

    def __getitem__(self, index: Any) -> Any:
        return self._read()[index]

    def __eq__(self, other: object) -> bool:
        return self._read() == other

    def close(self) -> None:
        """Read no further, and let others see again what was held."""
        self._reading.close()

    def _read(self) -> list[QuarantinedMessage]:
        if self._all is None:
            self._all = list(self._reading)
            self._left = iter(self._all)
        return self._all


def _headers(edge: Edge, entry: QuarantinedMessage, tenant_id: TenantId) -> dict[str, Any]:
    headers = {k: v for k, v in entry.headers.items() if k not in _HEADERS_NOT_SENT_AGAIN}
    text = format_header(tenant_id, secret_keys=edge.secret_keys, task_id=entry.task_id, task_name=entry.task)
    headers[HEADER] = text
    nested = headers.get("headers")
    if isinstance(nested, dict) and HEADER in nested:
        headers["headers"] = {**nested, HEADER: text}
    if "expires" in headers:
        # The operator wants it run, however long it lay here.
        headers["expires"] = None
    stamps = headers.get("stamps")
    if isinstance(stamps, dict) and HEADER in stamps:
        headers["stamps"] = {**stamps, HEADER: tenant_id}
    return headers


# --- reading the queue ---------------------------------------------------------------------------


class _Shelf(Protocol):
    """A way to read the quarantine's queue without emptying it."""

    def entries(self) -> Iterator[tuple[Any, QuarantinedMessage]]:
        """Yield a handle and an entry for each stored message, oldest first."""

    def held(self, entry_id: str) -> tuple[Sequence[Any], QuarantinedMessage] | None:
        """Return an entry, with its twins' handles, that nobody else can see now."""

    def remove(self, handles: Sequence[Any]) -> None:
        """Remove what the handles stand for."""

    def close(self) -> None:
        """Let others see again what was held."""


def _shelf_of(connection: Any, channel: Any, name: str) -> _Shelf:
    if connection.transport.driver_type == "redis":
        return _RedisShelf(channel, name)
    return _HoldingShelf(channel, name)


class _RedisShelf:
    """On Redis a queue is a list: read in pages from its end, and removed by value."""

    def __init__(self, channel: Any, name: str) -> None:
        from redis import Redis

        self._client = Redis(connection_pool=channel.pool)
        self._key = f"{getattr(channel, 'global_keyprefix', '')}{channel._q_for_pri(name, 0)}"
        self._channel = channel

    def entries(self) -> Iterator[tuple[Any, QuarantinedMessage]]:
        last = -1
        while page := self._client.lrange(self._key, last - _PAGE, last):
            for raw in reversed(page):
                entry = self._read(raw)
                if entry is not None:
                    yield raw, entry
            last -= len(page)

    def _read(self, raw: Any) -> QuarantinedMessage | None:
        try:
            stored = self._channel.Message(json.loads(raw), channel=self._channel).body
        except (AttributeError, KeyError, TypeError, ValueError):
            return None
        return keep.decode(stored)

    def held(self, entry_id: str) -> None:
        return None

    def remove(self, handles: Sequence[Any]) -> None:
        for raw in handles:
            self._client.lrem(self._key, 1, raw)

    def close(self) -> None:
        pass


class _HoldingShelf:
    """Elsewhere: take messages without acknowledging them, and give back what was not removed."""

    def __init__(self, channel: Any, name: str) -> None:
        self._channel = channel
        self._name = name
        self._tags: dict[Any, None] = {}
        self._recent: OrderedDict[Any, QuarantinedMessage] = OrderedDict()

    def entries(self) -> Iterator[tuple[Any, QuarantinedMessage]]:
        while (raw := self._channel.basic_get(self._name, no_ack=False)) is not None:
            message = self._channel.message_to_python(raw)
            tag = message.delivery_tag
            self._tags[tag] = None
            entry = keep.decode(message.body)
            if entry is not None:
                self._recent[tag] = entry
                if len(self._recent) > _PAGE:
                    self._recent.popitem(last=False)
                yield tag, entry

    def held(self, entry_id: str) -> tuple[Sequence[Any], QuarantinedMessage] | None:
        tags = [tag for tag, entry in self._recent.items() if entry.id == entry_id]
        return (tags, self._recent[tags[0]]) if tags else None

    def remove(self, handles: Sequence[Any]) -> None:
        for tag in handles:
            self._channel.basic_ack(tag)
            self._tags.pop(tag, None)
            self._recent.pop(tag, None)

    def close(self) -> None:
        for tag in self._tags:
            self._channel.basic_reject(tag, requeue=True)
