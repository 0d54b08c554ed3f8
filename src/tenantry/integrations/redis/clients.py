"""The upper layer: clients, pipelines, pub/subs and scripts judge where they are called.

The connection judges again what it packs. Here stands what cannot wait for it: no server should have to
be reached for a refusal, a pipeline must not be sent in part, and a pub/sub, a pipeline or a script
remembers its tenant.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final

import redis.asyncio.client
import redis.client

from tenantry.context import current_tenant_or_none, get_state, require_tenant, unit_of_work
from tenantry.integrations.redis.encoding import encode_all, frozen, utf8
from tenantry.integrations.redis.packing import enforce, is_connecting
from tenantry.integrations.redis.quick import never
from tenantry.integrations.redis.seats import Policy, Seat, acting_for, other_tenant
from tenantry.integrations.redis.verdict import binds, shown_name
from tenantry.keys import tenant_prefix

__all__ = [
    "AsyncPipelineMemory",
    "AsyncPipelineSeat",
    "AsyncPubSubSeat",
    "CallSite",
    "ClientSeat",
    "ModuleSeat",
    "PipelineMemory",
    "PipelineSeat",
    "PubSubSeat",
    "ScriptSeat",
]


_STOCK_PIPELINES: Final = (
    redis.client.Pipeline.execute_command,
    redis.asyncio.client.Pipeline.execute_command,
)


_MGET_OF_NONE: Final = ("MGET",)  # what ``mget([])`` sends


async def _later(reply: Any) -> Any:
    return reply


class CallSite(Seat):
    """Judges a call before redis-py does anything about it."""

    _tenantry_execute: Callable[..., Any]

    def _tenantry_judge(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments to go on with, or raise; those that could still change are frozen."""
        encode = self._tenantry.encode
        args = frozen(args, encode)
        enforce(encode_all(args, encode), self._tenantry.declared)
        return args


class ScriptMaker(CallSite):
    """What registers scripts: they remember their tenant."""

    def register_script(self, script: Any) -> Any:
        registered = self._tenantry.seat(self._tenantry_base().register_script(script), ScriptSeat)
        registered._tenantry_owner = current_tenant_or_none()
        return registered


class ClientSeat(ScriptMaker):
    """A client, sync or asyncio, on one server or a cluster."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        if self._tenantry.own_tenant(args) is None:
            if args == _MGET_OF_NONE and redis.client.EMPTY_RESPONSE in options:
                return self._tenantry_answer_none(options[redis.client.EMPTY_RESPONSE])
            args = self._tenantry_judge(args)
        return self._tenantry_execute(*args, **options)

    def _tenantry_answer_none(self, empty: Any) -> Any:
        """redis-py asks the server and puts this answer in the place of its error."""
        require_tenant("MGET")
        return _later(empty) if inspect.iscoroutinefunction(self._tenantry_execute) else empty

    def pipeline(self, *args: Any, **kwargs: Any) -> Any:
        return self._tenantry.adopt(self._tenantry_base().pipeline(*args, **kwargs))

    def pubsub(self, *args: Any, **kwargs: Any) -> Any:
        return self._tenantry.adopt(self._tenantry_base().pubsub(*args, **kwargs))

    def monitor(self, *args: Any, **kwargs: Any) -> Any:
        self._tenantry_judge(("MONITOR",))  # before it takes a connection that it would not give back
        return self._tenantry_base().monitor(*args, **kwargs)

    def json(self, *args: Any, **kwargs: Any) -> Any:
        return self._tenantry.seat(self._tenantry_base().json(*args, **kwargs), ModuleSeat)

    def ft(self, *args: Any, **kwargs: Any) -> Any:
        return self._tenantry.seat(self._tenantry_base().ft(*args, **kwargs), ModuleSeat)

    def ts(self, *args: Any, **kwargs: Any) -> Any:
        return self._tenantry.seat(self._tenantry_base().ts(*args, **kwargs), ModuleSeat)


class ModuleSeat(Seat):
    """The commands of a module; its pipelines are made past the client, straight on the pool."""

    def pipeline(self, *args: Any, **kwargs: Any) -> Any:
        return self._tenantry.adopt(self._tenantry_base().pipeline(*args, **kwargs))


class ScriptSeat(Seat):
    """A script belongs to the tenant under which it was registered; registered under none, to any."""

    _tenantry_owner: str | None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        active = current_tenant_or_none()
        if self._tenantry_owner is not None and active not in (None, self._tenantry_owner):
            raise other_tenant("EVALSHA", str(active), "script")
        return self._tenantry_base().__call__(*args, **kwargs)


# --- pipelines -----------------------------------------------------------------------------------


class PipelineTenant(ScriptMaker):
    """A pipeline belongs to the tenant of its first command until it is executed or reset."""

    _tenantry_owner: str | None = None
    _tenantry_prefix: str | tuple[()] = ()  # no text starts with any of none

    def _tenantry_claim(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if self._tenantry.own_tenant(args) is None:
            args = self._tenantry_judge(args)
            if not binds(encode_all(args, self._tenantry.encode), self._tenantry.declared):
                return args
        active = require_tenant("a pipeline")  # there is one, since the command has passed for its sake
        if self._tenantry_owner not in (None, active):
            raise other_tenant(_name(args), active, "pipeline")
        self._tenantry_owner, self._tenantry_prefix = active, tenant_prefix(active)
        return args

    def _tenantry_forget(self) -> None:
        self._tenantry_owner, self._tenantry_prefix = None, ()

    def _tenantry_check(self) -> None:
        owner = self._tenantry_owner
        if owner is not None and (active := require_tenant("EXEC")) != owner:
            raise other_tenant("EXEC", active, "pipeline")


def _queueing(policy: Policy, base: Any) -> Callable[..., Any]:
    """``execute_command`` of a pipeline on one server: a closure, since it runs for every command queued.

    One key of the pipeline's own tenant, in plain text, is the case that has to be quick.
    """
    execute, queue = base.execute_command, base.pipeline_execute_command
    is_stock = execute in _STOCK_PIPELINES
    only = {} if policy.own_tenant is never else policy.quick.only

    def execute_command(pipeline: Any, *args: Any, **options: Any) -> Any:
        at = only.get(args[0]) if args and type(args[0]) is str else None
        if (
            at is None
            or at >= len(args)
            or type(key := args[at]) is not str
            or not key.startswith(pipeline._tenantry_prefix)
            or get_state().tenant_id != pipeline._tenantry_owner
        ):
            args = pipeline._tenantry_claim(args)
        if is_stock and not pipeline.watching and args[0] != "WATCH":
            return queue(pipeline, *args, **options)  # what redis-py would find out too
        return execute(pipeline, *args, **options)

    return execute_command


def _name(args: tuple[Any, ...]) -> str:
    """The name of a command for an error; what follows it in the same argument may be a key."""
    words = encode_all(args[:1], utf8)
    return shown_name(words[0].decode("latin-1").upper() if words else "")


class PipelineMemory(PipelineTenant):
    """When a sync pipeline is done with its tenant."""

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        self._tenantry_check()
        replies = self._tenantry_base().execute(*args, **kwargs)
        self._tenantry_forget()  # with nothing queued there was no reset
        return replies

    def reset(self) -> Any:
        try:
            return self._tenantry_base().reset()
        finally:
            self._tenantry_forget()


class PipelineSeat(PipelineMemory):
    """A sync pipeline on one server."""

    @staticmethod
    def _tenantry_made_for(policy: Policy, base: Any) -> dict[str, Any]:
        return {"execute_command": _queueing(policy, base)}


class AsyncPipelineMemory(PipelineTenant):
    """When an asyncio pipeline is done with its tenant."""

    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        self._tenantry_check()
        replies = await self._tenantry_base().execute(*args, **kwargs)
        self._tenantry_forget()
        return replies

    async def reset(self) -> Any:
        try:
            return await self._tenantry_base().reset()
        finally:
            self._tenantry_forget()


class AsyncPipelineSeat(AsyncPipelineMemory):
    """An asyncio pipeline on one server."""

    @staticmethod
    def _tenantry_made_for(policy: Policy, base: Any) -> dict[str, Any]:
        return {"execute_command": _queueing(policy, base)}


# --- pub/sub -------------------------------------------------------------------------------------


class PubSubMemory(CallSite):
    """A pub/sub belongs to the tenant of its first subscription until it is closed.

    Reading checks before it reads, so that no message is taken off the connection and dropped.
    """

    _tenantry_owner: str | None = None
    connection: Any

    def _tenantry_claim(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        args = self._tenantry_judge(args)
        if binds(encode_all(args, self._tenantry.encode), self._tenantry.declared):
            self._tenantry_owner = current_tenant_or_none()
        return args

    def _tenantry_acting(self, command: str) -> Any:
        return acting_for(self._tenantry_owner, command, "pub/sub")


class PubSubSeat(PubSubMemory):
    """A sync pub/sub."""

    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        if is_connecting(self.connection):
            return self._tenantry_base().execute_command(*args, **kwargs)
        with self._tenantry_acting(_name(args)):
            return self._tenantry_base().execute_command(*self._tenantry_claim(args), **kwargs)

    def parse_response(self, *args: Any, **kwargs: Any) -> Any:
        with self._tenantry_acting("SUBSCRIBE"):
            return self._tenantry_base().parse_response(*args, **kwargs)

    def get_message(self, *args: Any, **kwargs: Any) -> Any:
        with self._tenantry_acting("SUBSCRIBE"):
            return self._tenantry_base().get_message(*args, **kwargs)

    def get_sharded_message(self, *args: Any, **kwargs: Any) -> Any:
        with self._tenantry_acting("SSUBSCRIBE"):
            return self._tenantry_base().get_sharded_message(*args, **kwargs)

    def handle_message(self, *args: Any, **kwargs: Any) -> Any:
        if self._tenantry_owner is None:
            return self._tenantry_base().handle_message(*args, **kwargs)
        with unit_of_work(self._tenantry_owner):
            return self._tenantry_base().handle_message(*args, **kwargs)

    def reset(self) -> Any:
        try:
            return self._tenantry_base().reset()
        finally:
            self._tenantry_owner = None


class AsyncPubSubSeat(PubSubMemory):
    """An asyncio pub/sub."""

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        if is_connecting(self.connection):
            return await self._tenantry_base().execute_command(*args, **kwargs)
        with self._tenantry_acting(_name(args)):
            return await self._tenantry_base().execute_command(*self._tenantry_claim(args), **kwargs)

    async def connect(self) -> Any:
        with self._tenantry_acting("SUBSCRIBE"):
            return await self._tenantry_base().connect()

    async def parse_response(self, *args: Any, **kwargs: Any) -> Any:
        with self._tenantry_acting("SUBSCRIBE"):
            return await self._tenantry_base().parse_response(*args, **kwargs)

    async def get_message(self, *args: Any, **kwargs: Any) -> Any:
        with self._tenantry_acting("SUBSCRIBE"):
            return await self._tenantry_base().get_message(*args, **kwargs)

    async def handle_message(self, *args: Any, **kwargs: Any) -> Any:
        if self._tenantry_owner is None:
            return await self._tenantry_base().handle_message(*args, **kwargs)
        with unit_of_work(self._tenantry_owner):
            return await self._tenantry_base().handle_message(*args, **kwargs)

    async def aclose(self) -> Any:
        try:
            return await self._tenantry_base().aclose()
        finally:
            self._tenantry_owner = None
