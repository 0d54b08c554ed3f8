"""The upper layer: clients, pipelines, pub/subs and scripts judge where they are called.

The connection judges again what it packs. Here stands what cannot wait for it: no server should have to
be reached for a refusal, a pipeline must not be sent in part, and a pub/sub, a pipeline or a script
remembers its tenant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tenantry.context import current_tenant_or_none, require_tenant, unit_of_work
from tenantry.integrations.redis.encoding import encode_all, frozen
from tenantry.integrations.redis.packing import enforce, is_connecting
from tenantry.integrations.redis.seats import Seat, acting_for, other_tenant
from tenantry.integrations.redis.verdict import binds

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


class CallSite(Seat):
    """Judges a call before redis-py does anything about it."""

    _tenantry_execute: Callable[..., Any]

    def _tenantry_judge(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments to go on with, or raise; those that could still change are frozen."""
        if self._tenantry.quick.is_own(args) and self._tenantry.is_utf8:
            return args
        encode = self._tenantry.encode
        args = frozen(args, encode)
        enforce(encode_all(args, encode), self._tenantry.declared)
        return args


class ClientSeat(CallSite):
    """A client, sync or asyncio, on one server or a cluster."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        return self._tenantry_execute(*self._tenantry_judge(args), **options)

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

    def register_script(self, script: Any) -> Any:
        registered = self._tenantry.seat(self._tenantry_base().register_script(script), ScriptSeat)
        registered._tenantry_owner = current_tenant_or_none()
        return registered


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


class PipelineTenant(CallSite):
    """A pipeline belongs to the tenant of its first command until it is executed or reset."""

    _tenantry_owner: str | None = None

    def _tenantry_claim(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        active = current_tenant_or_none()
        if active is None:
            return self._tenantry_judge(args)
        if not (self._tenantry.is_utf8 and self._tenantry.quick.is_own(args)):
            args = self._tenantry_judge(args)
            if not binds(encode_all(args, self._tenantry.encode), self._tenantry.declared):
                return args
        if self._tenantry_owner not in (None, active):
            raise other_tenant(_name(args), active, "pipeline")
        self._tenantry_owner = active
        return args

    def _tenantry_check(self) -> None:
        owner = self._tenantry_owner
        if owner is not None and (active := require_tenant("EXEC")) != owner:
            raise other_tenant("EXEC", active, "pipeline")


def _name(args: tuple[Any, ...]) -> str:
    """The name of a command that was judged, so it holds no key."""
    first = args[0] if isinstance(args[0], str) else bytes(args[0]).decode("latin-1")
    return str(first).split()[0].upper()


class PipelineMemory(PipelineTenant):
    """When a sync pipeline is done with its tenant."""

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        self._tenantry_check()
        return self._tenantry_base().execute(*args, **kwargs)

    def reset(self) -> Any:
        try:
            return self._tenantry_base().reset()
        finally:
            self._tenantry_owner = None


class PipelineSeat(PipelineMemory):
    """A sync pipeline on one server."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        return self._tenantry_execute(*self._tenantry_claim(args), **options)


class AsyncPipelineMemory(PipelineTenant):
    """When an asyncio pipeline is done with its tenant."""

    async def execute(self, *args: Any, **kwargs: Any) -> Any:
        self._tenantry_check()
        return await self._tenantry_base().execute(*args, **kwargs)

    async def reset(self) -> Any:
        try:
            return await self._tenantry_base().reset()
        finally:
            self._tenantry_owner = None


class AsyncPipelineSeat(AsyncPipelineMemory):
    """An asyncio pipeline on one server."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        return self._tenantry_execute(*self._tenantry_claim(args), **options)


# --- pub/sub -------------------------------------------------------------------------------------


class PubSubMemory(CallSite):
    """A pub/sub belongs to the tenant of its first subscription until it is closed.

    Reading checks before it reads, so that no message is taken off the connection and dropped.
    """

    _tenantry_owner: str | None = None
    connection: Any

    def _tenantry_claim(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        args = self._tenantry_judge(args)
        if self._tenantry_owner is None and binds(
            encode_all(args, self._tenantry.encode), self._tenantry.declared
        ):
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
