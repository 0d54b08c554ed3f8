"""PgBouncer in transaction mode: clients of two tenants take turns on one server connection."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tenantry import tenant_scope
from tenantry.integrations.sqlalchemy import install
from tests import services

from .conftest import Database
from .test_row_security import BODIES, INSERT, SETTING


def _user(database: Database) -> str:
    """Somebody who may reach the server: PgBouncer does not run as root."""
    if os.geteuid() != 0:
        return getpass.getuser()
    host = database.admin.query.get("host")
    return Path(host).owner() if host else "nobody"


def _settings(database: Database, port: int, directory: Path) -> str:
    server = database.admin
    host = server.host or server.query.get("host")
    return "\n".join(
        [
            "[databases]",
            f"* = host={host} port={server.port or 5432} dbname={server.database}",
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {port}",
            "unix_socket_dir =",
            "auth_type = trust",
            f"auth_file = {directory / 'users'}",
            "pool_mode = transaction",
            "default_pool_size = 1",
            "ignore_startup_parameters = extra_float_digits",
        ]
    )


@contextlib.contextmanager
def pgbouncer(database: Database) -> Iterator[URL]:
    """Run PgBouncer on a free port, as somebody other than root, over one server connection."""
    binary = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if binary is None:
        raise services.Missing("PgBouncer", "apt-get install pgbouncer")
    port = services.free_port()
    directory = Path(tempfile.mkdtemp(prefix="tenantry-pgbouncer-"))
    directory.chmod(0o755)
    (directory / "users").write_text(f'"{database.app}" ""\n')
    (directory / "pgbouncer.ini").write_text(_settings(database, port, directory))
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [binary, str(directory / "pgbouncer.ini")],
            stdout=log,
            stderr=log,
            user=_user(database),
        )
    try:
        services.wait_until(lambda: _listens(port), "PgBouncer to listen", seconds=10)
        yield database.url().set(host="127.0.0.1", port=port, query={})
    except TimeoutError as error:
        raise AssertionError((directory / "log").read_text()) from error
    finally:
        services.stop(process)
        shutil.rmtree(directory, ignore_errors=True)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.fixture(scope="module")
def pooled(database: Database) -> Iterator[URL]:
    """The URL of that PgBouncer, for the application's role."""
    with pgbouncer(database) as url:
        yield url


def test_clients_on_one_server_connection_see_their_own_rows_alone(pooled: URL):
    """Two engines, two tenants, transactions in turn: one server process, no row too many."""
    engines = {}
    for tenant in ("acme", "globex"):
        engines[tenant] = create_engine(pooled, connect_args={"prepare_threshold": None})
        install(engines[tenant])
    pids = set()
    for turn in range(3):
        for tenant, engine in engines.items():
            with tenant_scope(tenant), engine.begin() as conn:
                pids.add(conn.execute(text("SELECT pg_backend_pid()")).scalar())
                conn.execute(INSERT, {"id": str(turn), "body": f"{tenant} {turn}"})
                expected = [f"{tenant} {n}" for n in range(turn + 1)]
                assert conn.execute(BODIES).scalars().all() == expected
    assert len(pids) == 1
    for engine in engines.values():
        engine.dispose()


def test_client_without_tenantry_finds_no_setting_and_no_rows(pooled: URL):
    """What the previous client set has ended with its transaction."""
    guarded = create_engine(pooled, connect_args={"prepare_threshold": None})
    install(guarded)
    plain = create_engine(pooled, connect_args={"prepare_threshold": None})
    with tenant_scope("acme"), guarded.begin() as conn:
        conn.execute(INSERT, {"id": "1", "body": "of acme"})
        pid = conn.execute(text("SELECT pg_backend_pid()")).scalar()
    with plain.begin() as conn:
        assert conn.execute(text("SELECT pg_backend_pid()")).scalar() == pid
        assert conn.execute(SETTING).scalar() == ""
        assert conn.execute(BODIES).scalars().all() == []
    guarded.dispose()
    plain.dispose()


async def test_asyncpg_tasks_on_one_server_connection_see_their_own_rows_alone(pooled: URL):
    """Many tasks of two tenants at once, prepared statements named so that they do not meet."""
    engine = create_async_engine(
        pooled.set(drivername="postgresql+asyncpg"),
        poolclass=NullPool,
        connect_args={
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: f"s{uuid.uuid4().hex}",
        },
    )
    install(engine)

    async def work(tenant: str, number: int) -> list[str]:
        async with tenant_scope(tenant), engine.begin() as conn:
            await conn.execute(INSERT, {"id": str(number), "body": tenant})
            return list((await conn.execute(BODIES)).scalars())

    tenants = ["acme", "globex"] * 8
    found = await asyncio.gather(*(work(tenant, n) for n, tenant in enumerate(tenants)))
    assert all(set(rows) == {tenant} for tenant, rows in zip(tenants, found, strict=True))
    assert max(map(len, found)) == 8
    await engine.dispose()
