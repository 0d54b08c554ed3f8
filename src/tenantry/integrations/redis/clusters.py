"""Guarded clusters: every node, now and later, and what goes out node by node."""

from __future__ import annotations

from typing import Any

import redis.asyncio.cluster
import redis.asyncio.connection
import redis.cluster

from tenantry.context import current_tenant_or_none, unit_of_work
from tenantry.integrations.redis.clients import (
    AsyncPipelineMemory,
    AsyncPubSubSeat,
    ClientSeat,
    PipelineMemory,
    PubSubSeat,
)
from tenantry.integrations.redis.connections import async_connection_seat, seat_connection, seat_pool
from tenantry.integrations.redis.seats import Policy, Seat, policy_of

__all__ = [
    "AsyncClusterPubSubSeat",
    "ClusterPubSubSeat",
    "guard_async_cluster",
    "guard_sync_cluster",
    "seat_async_pipeline",
    "seat_sync_pipeline",
]


# --- nodes ---------------------------------------------------------------------------------------


class NodesSeat(Seat):
    """Makes the client of every node that a sync cluster finds later a guarded one."""

    def create_redis_node(self, *args: Any, **kwargs: Any) -> Any:
        node = self._tenantry_base().create_redis_node(*args, **kwargs)
        return _seat_node_client(node, self._tenantry)


def _seat_node_client(client: Any, policy: Policy) -> Any:
    seat_pool(client.connection_pool, policy)
    return client if policy_of(client) is not None else policy.seat(client, ClientSeat)


def guard_sync_cluster(client: Any, policy: Policy) -> list[Any]:
    """Guard a sync cluster's nodes; return them, and one as it would make them from now on."""
    manager = client.nodes_manager
    if policy_of(manager) is None:
        policy.seat(manager, NodesSeat)
    nodes = [*manager.nodes_cache.values(), *manager.startup_nodes.values()]
    clients = [node.redis_connection for node in nodes if node.redis_connection is not None]
    for node in clients:
        _seat_node_client(node, policy)
    later = manager.create_redis_node(host="127.0.0.1", port=1, **manager.connection_kwargs)
    return [*{id(node.connection_pool): node.connection_pool for node in [*clients, later]}.values()]


class AsyncNodeSeat(Seat):
    """A node of an asyncio cluster that makes guarded connections only."""

    def acquire_connection(self) -> Any:
        return seat_connection(self._tenantry_base().acquire_connection(), self._tenantry)


def guard_async_cluster(client: Any, policy: Policy) -> list[Any]:
    """Guard an asyncio cluster's nodes; return them, and one as it would make them from now on.

    Nodes that it finds later are made of the manager's own arguments, the connection class among them.
    """
    manager = client.nodes_manager
    for kwargs in (manager.connection_kwargs, client.connection_kwargs):
        kind = kwargs.get("connection_class", redis.asyncio.connection.Connection)
        kwargs["connection_class"] = _guarded_class(kind, policy)
    nodes = [*manager.nodes_cache.values(), *manager.startup_nodes.values(), *client.startup_nodes]
    for node in nodes:
        _seat_async_node(node, policy)
    later = redis.asyncio.cluster.ClusterNode("127.0.0.1", 1, **manager.connection_kwargs)
    return [*{id(node): node for node in nodes}.values(), later]


def _guarded_class(kind: type, policy: Policy) -> type:
    return kind if hasattr(kind, "_tenantry") else policy.class_of(kind, async_connection_seat(kind))


def _seat_async_node(node: Any, policy: Policy) -> None:
    node.connection_class = _guarded_class(node.connection_class, policy)
    for connection in node._connections:
        seat_connection(connection, policy)
    if policy_of(node) is None:
        policy.seat(node, AsyncNodeSeat)


# --- pipelines -----------------------------------------------------------------------------------


class StrategySeat(Seat):
    """What queues for a cluster pipeline: WATCH, DEL, UNLINK and EXISTS reach it past the pipeline.

    An asyncio transaction queues in a helper thread with an empty context, so this is where the
    tenant is known for the last time.
    """

    _pipe: Any

    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        return self._tenantry_base().execute_command(*self._pipe._tenantry_claim(args), **kwargs)


def seat_sync_pipeline(pipeline: Any, policy: Policy) -> Any:
    """Guard a sync cluster's pipeline."""
    policy.seat(pipeline._execution_strategy, StrategySeat)
    return policy.seat(pipeline, PipelineMemory)


def seat_async_pipeline(pipeline: Any, policy: Policy) -> Any:
    """Guard an asyncio cluster's pipeline."""
    policy.seat(pipeline._execution_strategy, StrategySeat)
    return policy.seat(pipeline, AsyncPipelineMemory)


# --- pub/sub -------------------------------------------------------------------------------------


class ClusterPubSubSeat(PubSubSeat):
    """A sync cluster's pub/sub; the one of each node belongs to the same tenant.

    Slots move, and then a thread with no tenant subscribes on another node.
    """

    def _get_node_pubsub(self, node: Any) -> Any:
        return _same_owner(self, self._tenantry_base()._get_node_pubsub(node))

    def ssubscribe(self, *args: Any, **kwargs: Any) -> Any:
        with self._tenantry_acting("SSUBSCRIBE"):
            subscribed = self._tenantry_base().ssubscribe(*args, **kwargs)
            self._tenantry_owner = self._tenantry_owner or current_tenant_or_none()
            return subscribed


class AsyncClusterPubSubSeat(AsyncPubSubSeat):
    """The same for asyncio."""

    def _get_node_pubsub(self, node: Any) -> Any:
        return _same_owner(self, self._tenantry_base()._get_node_pubsub(node))

    async def ssubscribe(self, *args: Any, **kwargs: Any) -> Any:
        with self._tenantry_acting("SSUBSCRIBE"):
            subscribed = await self._tenantry_base().ssubscribe(*args, **kwargs)
            self._tenantry_owner = self._tenantry_owner or current_tenant_or_none()
            return subscribed

    async def reinitialize_shard_subscriptions(self) -> Any:
        """Run in a task of whoever learned first that slots have moved, perhaps another tenant."""
        with unit_of_work(self._tenantry_owner):
            return await self._tenantry_base().reinitialize_shard_subscriptions()


def _same_owner(whole: Any, part: Any) -> Any:
    whole._tenantry.adopt(part)
    if part._tenantry_owner is None:
        part._tenantry_owner = whole._tenantry_owner
    return part
