"""The servers behind a client, spoken to beneath it.

An operator's tool works on keys of tenants that are not active, through the very client that an
application may have guarded. So commands are packed here and sent over connections of the client's
pool as bytes, which is the one way past a guard, and replies are read as bytes whatever
``decode_responses`` says, so that keys that are no text survive.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from redis import Redis, RedisCluster
from redis.client import Pipeline
from redis.cluster import ClusterNode, ClusterPipeline
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    ResponseError,
    TryAgainError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from redis.retry import Retry

__all__ = [
    "ELSEWHERE",
    "PAGE",
    "Command",
    "Node",
    "Store",
    "next_page",
    "open_store",
    "scan_command",
    "settled",
    "slots_moved",
    "unmoved",
]

# The knee of the curve: ten times fewer are fifteen times slower, ten times more hold the server
# twice as long in one call for a gain of a fifth.
PAGE = 1000

Command: TypeAlias = tuple[bytes, ...]

#: Replies that say a key is on another node, or on its way there.
ELSEWHERE = (MovedError, AskError, TryAgainError, ClusterDownError)


def _packed(commands: Sequence[Command]) -> bytes:
    parts = []
    for command in commands:
        parts.append(b"*%d\r\n" % len(command))
        parts.extend(b"$%d\r\n%b\r\n" % (len(word), word) for word in command)
    return b"".join(parts)


def scan_command(cursor: bytes, prefix: bytes | None) -> Command:
    """Return the ``SCAN`` for the next page; a prefix holds no character that a glob reads."""
    count = b"%d" % PAGE
    if prefix is None:
        return (b"SCAN", cursor, b"COUNT", count)
    return (b"SCAN", cursor, b"MATCH", prefix + b"*", b"COUNT", count)


def next_page(reply: Any, prefix: bytes | None) -> tuple[bytes | None, list[bytes]]:
    """Return where a ``SCAN`` goes on, ``None`` at its end, and the page of keys.

    Without repetitions, and without anything that the prefix does not own, whatever was matched.
    """
    ((cursor, keys),) = settled([reply])
    page = [key for key in dict.fromkeys(keys) if prefix is None or key.startswith(prefix)]
    return (None if cursor == b"0" else cursor), page


def settled(replies: Sequence[Any]) -> Sequence[Any]:
    """Return ``replies`` as they are, or raise the first that is an error."""
    failed = next((reply for reply in replies if isinstance(reply, Exception)), None)
    if failed is None:
        return replies
    if not isinstance(failed, ELSEWHERE):
        raise failed
    raise slots_moved() from failed


def slots_moved() -> RuntimeError:
    """The error of a run that cannot say that it has seen every key."""
    return RuntimeError(
        "slots of the cluster moved during this run, so it may have missed keys: wait until the "
        "cluster is stable and run it again"
    )


class Node:
    """One server that holds keys."""

    __slots__ = ("_held", "_pool")

    def __init__(self, client: Redis) -> None:
        self._pool = client.connection_pool
        self._held: Any = None

    @property
    def identity(self) -> object:
        """What is the same for two objects that stand for one server."""
        return self._pool

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Keep one connection for all that runs inside: asking the pool costs as much as a page."""
        self._held = connection = self._pool.get_connection()
        try:
            yield
        finally:
            self._held = None
            self._pool.release(connection)

    def run(self, commands: Sequence[Command], *, again: bool = True) -> list[Any]:
        """Send ``commands`` in one write and return their replies; errors of commands are replies.

        With ``again`` a lost connection is retried as the client is set up to, all commands anew.
        """
        if not commands:
            return []
        if self._held is None:
            with self.holding():
                return self.run(commands, again=again)
        connection = self._held
        packed = _packed(commands)

        def attempt() -> list[Any]:
            connection.send_packed_command([packed])
            return [_reply(connection) for _ in commands]

        try:
            if not again:
                return attempt()
            retry: Retry = connection.retry
            return retry.call_with_retry(attempt, lambda _: connection.disconnect())
        except BaseException:
            # Replies may still be on their way: nobody else may read them.
            connection.disconnect()
            raise

    def pages(self, prefix: bytes | None) -> Iterator[list[bytes]]:
        """Yield the keys that begin with ``prefix``, a list per reply, empty ones too."""
        cursor: bytes | None = b"0"
        while cursor is not None:
            cursor, keys = next_page(self.run([scan_command(cursor, prefix)])[0], prefix)
            yield keys


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response(disable_decoding=True)
    except ResponseError as error:
        return error


class Store(Protocol):
    """All the servers behind one client."""

    def nodes(self, prefix: bytes | None) -> list[Node]:
        """Return the nodes that may hold keys with this prefix."""

    def node_of(self, key: bytes) -> Node:
        """Return the node that holds ``key``."""

    def refresh(self) -> object:
        """Ask the servers again who holds what; return a value that differs from the last if that does.

        Also if a slot is on its way just now.
        """

    def together(self, prefix: bytes) -> bool:
        """Return whether one command may name many keys with this prefix."""


class _Single:
    """A standalone server, a sentinel's primary, or the only node of a cluster."""

    def __init__(self, client: Redis) -> None:
        self._node = Node(client)
        self._clustered = self._ask_clustered()

    def _ask_clustered(self) -> bool:
        (reply,) = self._node.run([(b"CLUSTER", b"INFO")])
        if not isinstance(reply, bytes):  # cluster support is off, or we may not ask
            return False
        if b"cluster_known_nodes:1\r" not in reply:
            raise ValueError(
                "this client speaks to one node of a cluster and would see a part of the keys: "
                "use redis.RedisCluster"
            )
        return True

    def nodes(self, prefix: bytes | None) -> list[Node]:
        return [self._node]

    def node_of(self, key: bytes) -> Node:
        return self._node

    def refresh(self) -> object:
        return None

    def together(self, prefix: bytes) -> bool:
        return not self._clustered or prefix.startswith(b"{")


class _Cluster:
    """A cluster: every primary, or the one that holds a tenant whose keys share a hash tag."""

    def __init__(self, client: RedisCluster) -> None:
        self._client = client

    def nodes(self, prefix: bytes | None) -> list[Node]:
        if prefix is not None and prefix.startswith(b"{"):
            return [self.node_of(prefix)]
        primaries: list[ClusterNode] = self._client.get_primaries()  # type: ignore[no-untyped-call]
        return [self._node(node) for node in primaries]

    def node_of(self, key: bytes) -> Node:
        return self._node(self._client.nodes_manager.get_node_from_slot(key_slot(key)))

    def _node(self, node: ClusterNode) -> Node:
        return Node(self._client.get_redis_connection(node))

    def refresh(self) -> object:
        self._client.nodes_manager.initialize()
        slots = self._client.nodes_manager.slots_cache
        # While a slot moves, its keys are on two nodes and the map names one: like no other map.
        return object() if self._is_moving() else {slot: nodes[0].name for slot, nodes in slots.items()}

    def _is_moving(self) -> bool:
        """Ask every primary: each tells of its own slots only, ``[93-<-…]`` or ``[93->-…]``."""
        return any(b" [" in settled(node.run([(b"CLUSTER", b"NODES")]))[0] for node in self.nodes(None))

    def together(self, prefix: bytes) -> bool:
        return prefix.startswith(b"{")


@contextlib.contextmanager
def unmoved(store: Store) -> Iterator[None]:
    """Ask first who holds what, and raise at the end if that has changed meanwhile.

    A client asks by itself only when a server sends it away, and a ``SCAN`` of a server that holds
    nothing any more is no reason to.

    Raises:
        RuntimeError: Slots moved.
    """
    before = store.refresh()
    yield
    if store.refresh() != before:
        raise slots_moved()


def open_store(client: object) -> Store:
    """Return the servers behind ``client``; ``TypeError`` for what is no synchronous client."""
    if isinstance(client, RedisCluster) and not isinstance(client, ClusterPipeline):
        return _Cluster(client)
    if isinstance(client, Redis) and not isinstance(client, Pipeline):
        return _Single(client)
    raise TypeError(
        f"the tenant operations need a redis.Redis or redis.RedisCluster, synchronous and no "
        f"pipeline, got {type(client).__module__}.{type(client).__qualname__}"
    )
