"""Locks remember their tenant.

redis-py's sync lock forgets its token before it asks the server to release, so a refusal has to come
first; and it keeps the lock scripts on its class, for every client of the process. Locks are made by
``client.lock()``, by hand and by subclasses, hence the methods of redis-py's own class are wrapped, once;
a lock on a client that is not guarded goes straight through.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import redis.asyncio.lock
import redis.lock

from tenantry.context import current_tenant_or_none
from tenantry.integrations.redis.encoding import encode_all
from tenantry.integrations.redis.packing import enforce
from tenantry.integrations.redis.seats import Policy, acting_for, policy_of
from tenantry.keys import is_shared_key

__all__ = ["wrap_locks"]

_COMMANDS: Final = {
    "acquire": "SET",
    "locked": "GET",
    "owned": "GET",
    "release": "EVALSHA",
    "extend": "EVALSHA",
    "reacquire": "EVALSHA",
}


def wrap_locks() -> None:
    """Teach redis-py's two lock classes to remember; doing it again changes nothing."""
    for kind, wrapped in ((redis.lock.Lock, _sync), (redis.asyncio.lock.Lock, _async)):
        if hasattr(kind.acquire, "_tenantry"):
            continue
        for name, command in _COMMANDS.items():
            _replace(kind, name, functools.partial(wrapped, command=command))
        _replace(kind, "__init__", _remembering)
        _replace(kind, "register_scripts", _unbound)


def _replace(kind: type, name: str, wrap: Callable[[Any], Any]) -> None:
    original = getattr(kind, name)
    wrapper: Any = functools.wraps(original)(wrap(original))
    wrapper._tenantry = True
    setattr(kind, name, wrapper)


def _sync(original: Any, command: str) -> Any:
    def call(lock: Any, *args: Any, **kwargs: Any) -> Any:
        policy = policy_of(lock.redis)
        if policy is None:
            return original(lock, *args, **kwargs)
        with _acting(lock, policy, command):
            result = original(lock, *args, **kwargs)
            return _noted(lock, policy, command, result)

    return call


def _async(original: Any, command: str) -> Any:
    async def call(lock: Any, *args: Any, **kwargs: Any) -> Any:
        policy = policy_of(lock.redis)
        if policy is None:
            return await original(lock, *args, **kwargs)
        with _acting(lock, policy, command):
            result = await original(lock, *args, **kwargs)
            return _noted(lock, policy, command, result)

    return call


@contextmanager
def _acting(lock: Any, policy: Policy, command: str) -> Iterator[None]:
    with acting_for(getattr(lock, "_tenantry_owner", None), command, "lock"):
        if command == "EVALSHA":
            enforce(encode_all((command, b"", 1, lock.name), policy.encode), policy.declared)
        yield


def _noted(lock: Any, policy: Policy, command: str, result: Any) -> Any:
    """A lock that was made under no tenant becomes that of the one that acquires it."""
    if command == "SET" and result:
        _remember(lock, policy)
    return result


def _remember(lock: Any, policy: Policy) -> None:
    shared = is_shared_key(encode_all(("SET", lock.name), policy.encode)[1])
    lock._tenantry_owner = None if shared else current_tenant_or_none()


def _remembering(original: Any) -> Any:
    def init(lock: Any, *args: Any, **kwargs: Any) -> None:
        original(lock, *args, **kwargs)
        policy = policy_of(lock.redis)
        if policy is not None:
            _remember(lock, policy)

    return init


def _unbound(original: Any) -> Any:
    """The scripts on the class serve every tenant and every client."""

    def register_scripts(lock: Any) -> None:
        original(lock)
        for name in ("lua_release", "lua_extend", "lua_reacquire"):
            script = getattr(lock, name, None)
            if policy_of(script) is not None:
                script._tenantry_owner = None  # type: ignore[union-attr]

    return register_scripts
