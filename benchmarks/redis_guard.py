"""What the guard costs, beside the same client without it: packing alone, and on loopback.

``python -m benchmarks redis_guard``. Packing is what the guard adds to; the round trips and the pipeline
show what is left of it in CPU time of the client, server not counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import redis
import redis.asyncio
from redis.connection import Encoder, PythonRespSerializer

from benchmarks.measure import Batch, Row, calls, medians
from tenantry import tenant_scope
from tenantry.integrations.redis import guard
from tests import services

COMMANDS: dict[str, tuple[Any, ...]] = {
    "SET": ("SET", "acme:session:42", "some value"),
    "GET": ("GET", "acme:session:42"),
    "MGET of 10": ("MGET", *(f"acme:session:{n}" for n in range(10))),
    "EVALSHA": ("EVALSHA", "a" * 40, 1, "acme:lock:1", "token", 5000),
    "ZUNIONSTORE": ("ZUNIONSTORE", "acme:d", 2, "acme:a", "acme:b"),
    "XREADGROUP": ("XREADGROUP", "GROUP", "g", "c", "COUNT", 10, "STREAMS", "acme:s", ">"),
}
ONE_KEY = ("SET", "GET")


@tenant_scope("acme")
def rows() -> Iterator[Row]:
    yield from _packing("hiredis", redis.ConnectionPool, target=1.0)
    yield from _packing("Python packer", _python_pool, target=1.25)
    yield from _packing("asyncio", redis.asyncio.ConnectionPool, target=1.25)
    with services.redis_server() as server:
        yield from _loopback(server.port)
        yield from _async_loopback(server.port)


def _python_pool() -> redis.ConnectionPool:
    encode = Encoder("utf-8", "strict", False).encode
    return redis.ConnectionPool(command_packer=PythonRespSerializer(6000, encode))


def _packing(name: str, pool: Callable[[], Any], *, target: float) -> Iterator[Row]:
    kind = redis.asyncio.Redis if name == "asyncio" else redis.Redis
    plain, guarded = (
        made.connection_pool.make_connection()
        for made in (kind.from_pool(pool()), guard(kind.from_pool(pool())))
    )
    for command, args in COMMANDS.items():
        # What send_command calls: the packer of a sync connection, pack_command of an asyncio one.
        ours, theirs = (
            calls(connection.pack_command if name == "asyncio" else connection._command_packer.pack, *args)
            for connection in (guarded, plain)
        )
        value, baseline = medians(ours, theirs, count=5_000)
        aim = target if command in ONE_KEY else None
        note = "" if aim else f"{(value - baseline) / 1000:+.2f} µs, of 3 allowed"
        yield Row(f"pack {command}, {name}", value, baseline, target=aim, note=note)


def _loopback(port: int) -> Iterator[Row]:
    plain, guarded = redis.Redis(port=port), guard(redis.Redis(port=port))
    for command in ONE_KEY:
        batches = [calls(client.execute_command, *COMMANDS[command]) for client in (guarded, plain)]
        value, baseline = medians(*batches, count=300, rounds=61)
        yield Row(f"{command} on loopback", value, baseline, target=1.01 if command == "SET" else 1.03)
    value, baseline = medians(_pipelines(guarded), _pipelines(plain), count=10, rounds=61)
    yield Row("pipeline of 100 on loopback", value, baseline, target=1.0)
    plain.close()
    guarded.close()


def _pipelines(client: redis.Redis) -> Batch:
    def batch(count: int) -> None:
        for _ in range(count):
            pipe = client.pipeline(transaction=False)
            for n in range(100):
                pipe.set(f"acme:p:{n}", n)
            pipe.execute()

    return batch


def _async_loopback(port: int) -> Iterator[Row]:
    with asyncio.Runner() as runner:
        plain, guarded = redis.asyncio.Redis(port=port), guard(redis.asyncio.Redis(port=port))

        def gets(client: redis.asyncio.Redis) -> Batch:
            async def several(count: int) -> None:
                for _ in range(count):
                    await client.get("acme:session:42")

            return lambda count: runner.run(several(count))

        value, baseline = medians(gets(guarded), gets(plain), count=200, rounds=61)
        yield Row("GET on loopback, asyncio", value, baseline, target=1.03)
        runner.run(plain.aclose())
        runner.run(guarded.aclose())
