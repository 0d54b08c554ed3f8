"""``guard``: makes a client refuse what is not the tenant's, and proves that it does."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, Final, TypeVar

import redis
import redis.asyncio
import redis.asyncio.client
import redis.asyncio.cluster
import redis.client
import redis.cluster

from tenantry.integrations.redis.clients import (
    AsyncPipelineSeat,
    AsyncPubSubSeat,
    ClientSeat,
    PipelineSeat,
    PubSubSeat,
)
from tenantry.integrations.redis.clusters import (
    AsyncClusterPubSubSeat,
    ClusterPubSubSeat,
    guard_async_cluster,
    guard_sync_cluster,
    seat_async_pipeline,
    seat_sync_pipeline,
)
from tenantry.integrations.redis.connections import seat_connection, seat_pool
from tenantry.integrations.redis.locks import wrap_locks
from tenantry.integrations.redis.proof import prove
from tenantry.integrations.redis.rules import Declaration, declare
from tenantry.integrations.redis.seats import Policy, Seat, policy_of

__all__ = ["guard"]

_Client = TypeVar("_Client")
_CLIENTS: Final = (
    redis.client.Redis,
    redis.asyncio.client.Redis,
    redis.cluster.RedisCluster,
    redis.asyncio.cluster.RedisCluster,
)


def _seated_as(seat: type[Seat]) -> Callable[[Any, Policy], Any]:
    return lambda target, policy: policy.seat(target, seat)


def _if_any(
    module: ModuleType, name: str, seat: Callable[[Any, Policy], Any]
) -> Iterator[tuple[type, Callable[[Any, Policy], Any]]]:
    """A kind that not every supported redis-py has."""
    kind = getattr(module, name, None)
    if kind is not None:
        yield kind, seat


# The first kind that fits counts: a pipeline is a client too.
_KINDS: Final[tuple[tuple[type, Callable[[Any, Policy], Any]], ...]] = (
    (redis.cluster.ClusterPipeline, seat_sync_pipeline),
    (redis.asyncio.cluster.ClusterPipeline, seat_async_pipeline),
    (redis.client.Pipeline, _seated_as(PipelineSeat)),
    (redis.asyncio.client.Pipeline, _seated_as(AsyncPipelineSeat)),
    (redis.cluster.ClusterPubSub, _seated_as(ClusterPubSubSeat)),
    *_if_any(redis.asyncio.cluster, "ClusterPubSub", _seated_as(AsyncClusterPubSubSeat)),
    (redis.client.PubSub, _seated_as(PubSubSeat)),
    (redis.asyncio.client.PubSub, _seated_as(AsyncPubSubSeat)),
    *((kind, _seated_as(ClientSeat)) for kind in _CLIENTS),
)


def _adopt(target: Any, policy: Policy) -> Any:
    for kind, seat in _KINDS:
        if isinstance(target, kind):
            return seat(target, policy)
    return target


def guard(client: _Client, *, commands: Mapping[str, Declaration] | None = None) -> _Client:
    """Make ``client`` refuse every key, channel and command that is not the active tenant's.

    Args:
        client: A client of redis-py's: ``Redis`` or ``RedisCluster``, sync or asyncio, however it was made.
            It is changed in place, with its pools and nodes: pipelines, pub/subs, locks and copies, those
            made earlier included. Needs no running server.
        commands: Where the keys of commands stand that the guard does not know: a name (any case;
            ``"NAME SUB"`` for a container) to the position of the first key, ``(first, last, step)``, or a
            function from the arguments (``bytes``, the command first) to positions. They count as in
            ``COMMAND INFO``; 0 means that it has no keys. For this client only.

    Returns:
        The same client. Guarding it again adds ``commands``, and guards a pool that it was given meanwhile.

    Raises:
        TypeError: ``client`` is no client of redis-py's, or ``commands`` is not of that form.
        ValueError: A name or position in ``commands`` cannot be one.
        RuntimeError: The guard cannot be put in place; the client must not be used.

    From then on every command raises ``NoTenantError`` with no tenant active, ``CrossTenantError`` for
    what is not the tenant's, ``UnknownCommandError`` for a command that nobody knows; always before a
    byte is written, and the connection stays usable. Thread-safe and task-safe as the client is. It
    walks the objects of the process once, so call it where the client is made.
    """
    rules = declare(commands)
    kind = type(client)
    if not issubclass(kind, _CLIENTS):
        raise TypeError(f"guard takes a client of redis-py's, not {kind.__name__}")
    policy = policy_of(client) or _policy_of_pool(client) or Policy(_adopt)
    policy.declare(rules)
    if policy_of(client) is None or _policy_of_pool(client) is None:
        _put_in_place(client, policy)
    return client


def _policy_of_pool(client: Any) -> Policy | None:
    """A pool or a node table that another client shares is guarded already."""
    return policy_of(getattr(client, "connection_pool", None)) or policy_of(
        getattr(client, "nodes_manager", None)
    )


def _put_in_place(client: Any, policy: Policy) -> None:
    wrap_locks()
    shared: object
    if isinstance(client, redis.cluster.RedisCluster):
        makers, shared = guard_sync_cluster(client, policy), client.nodes_manager
    elif isinstance(client, redis.asyncio.cluster.RedisCluster):
        makers, shared = guard_async_cluster(client, policy), client
    else:
        makers, shared = [seat_pool(client.connection_pool, policy)], client.connection_pool
        if client.connection is not None:
            seat_connection(client.connection, policy)
    for maker in makers:
        policy.encodes_with(prove(maker))
    policy.adopt(client)
    for earlier in _holders(shared):
        policy.adopt(earlier)


def _holders(shared: Any) -> Iterator[Any]:
    """Clients, pipelines and pub/subs that hold ``shared``: made earlier, they share it with this client."""
    for referrer in gc.get_referrers(shared):
        holders = gc.get_referrers(referrer) if isinstance(referrer, dict) else [referrer]
        for holder in holders:
            if isinstance(holder, tuple(kind for kind, _ in _KINDS)) and _holds(holder, shared):
                yield holder


def _holds(holder: Any, shared: Any) -> bool:
    names = ("connection_pool", "nodes_manager", "cluster_client", "cluster")
    return any(vars(holder).get(name, getattr(holder, name, None)) is shared for name in names)
