"""The same rules through asyncio, on asyncpg and psycopg."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from tenantry import NoTenantError, TenantConflictError, tenant_scope

from .test_row_security import BODIES, INSERT, SETTING, Note


async def write(engine: AsyncEngine, tenant: str, body: str) -> None:
    async with tenant_scope(tenant), engine.begin() as conn:
        await conn.execute(INSERT, {"id": "1", "body": body})


async def test_pooled_connection_never_shows_the_previous_tenants_rows(async_engine: AsyncEngine):
    """Tasks of two tenants, interleaved over one connection, see their own rows alone."""
    await write(async_engine, "acme", "of acme")
    await write(async_engine, "globex", "of globex")

    async def look(tenant: str) -> list[str]:
        async with tenant_scope(tenant), async_engine.connect() as conn:
            await asyncio.sleep(0)
            return list((await conn.execute(BODIES)).scalars())

    tenants = ["acme", "globex"] * 10
    assert await asyncio.gather(*map(look, tenants)) == [[f"of {t}"] for t in tenants]


async def test_no_tenant_raises_and_leaves_the_connection_usable(async_engine: AsyncEngine):
    """The context of the awaiting task is what counts inside SQLAlchemy's greenlet."""
    async with async_engine.connect() as conn:
        with pytest.raises(NoTenantError, match="a database transaction needs an active tenant"):
            await conn.execute(SETTING)
        async with tenant_scope("acme"):
            assert (await conn.execute(SETTING)).scalar() == "acme"


async def test_autocommit_raises(async_engine: AsyncEngine):
    """As with the synchronous engine."""
    async with tenant_scope("acme"), async_engine.connect() as conn:
        await conn.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(NoTenantError, match="outside a transaction"):
            await conn.execute(BODIES)


async def test_switch_inside_an_open_transaction_raises(async_engine: AsyncEngine):
    """Through an AsyncSession; after a rollback, the session serves the other tenant."""
    async with tenant_scope("acme"), AsyncSession(async_engine) as session:
        session.add(Note(id="1", body="of acme"))
        await session.flush()
        async with tenant_scope("globex", switch=True):
            with pytest.raises(TenantConflictError, match="acme"):
                await session.execute(BODIES)
            await session.rollback()
            assert (await session.execute(BODIES)).scalars().all() == []


async def test_savepoint_keeps_the_tenant(async_engine: AsyncEngine):
    """Rolled back or released."""
    async with tenant_scope("acme"), async_engine.begin() as conn:
        nested = await conn.begin_nested()
        with pytest.raises(DBAPIError, match="row-level security"):
            await conn.execute(text("INSERT INTO notes VALUES ('2', 'globex', 'smuggled')"))
        await nested.rollback()
        async with conn.begin_nested():
            assert (await conn.execute(SETTING)).scalar() == "acme"
        assert (await conn.execute(SETTING)).scalar() == "acme"
