"""The example on fakeredis, and on the real servers that it needs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import services
from tests.examples.konstruct.fleet import EXAMPLE, TOKENS, Fleet, database, fleet

sys.path.insert(0, str(EXAMPLE))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example's client, on a fake server; returns an unguarded client of the same server."""
    fakeredis = pytest.importorskip("fakeredis")
    from konstruct import storage
    from tenantry.integrations.redis import guard

    server = fakeredis.FakeServer()
    client = guard(fakeredis.FakeRedis(server=server, decode_responses=True))
    monkeypatch.setattr(storage, "client", client)
    return fakeredis.FakeRedis(server=server, decode_responses=True)


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Change settings for one test."""
    import dataclasses

    from konstruct import settings as module

    def change(**values: Any) -> None:
        changed = dataclasses.replace(module.settings, **values)
        for name, loaded in list(sys.modules.items()):
            if name.startswith("konstruct.") and hasattr(loaded, "settings"):
                if loaded is not module:
                    monkeypatch.setattr(loaded, "settings", changed)

    return change


@pytest.fixture(scope="session")
def konstruct_database(pgvector_dsn: str) -> Iterator[dict[str, str]]:
    """A migrated database and the application's role, as the environment of the services."""
    with database(pgvector_dsn) as environment:
        yield environment


@pytest.fixture(scope="session")
def stage(konstruct_database: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A web process and a worker on a Valkey and a PostgreSQL of their own."""
    with services.valkey_server() as valkey:
        environment = {
            **konstruct_database,
            "REDIS_URL": valkey.url,
            "KONSTRUCT_PAGE": "1",
            "KONSTRUCT_CONFIRM_TTL": "1",
            "KONSTRUCT_RATE_CAPACITY": "1000",
        }
        folder = tmp_path_factory.mktemp("stage")
        with fleet(environment, folder, tokens=TOKENS) as made:
            yield made
