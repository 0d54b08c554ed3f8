"""A process has one set of schemas and one layout; each test here has its own."""

from __future__ import annotations

import pytest

from tenantry import keys
from tenantry.keys import konstruct, layout
from tenantry.keys.functions import _memory
from tenantry.keys.schema import REGISTRY


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch):
    """Give the test a process in which nothing is declared, chosen or built."""
    monkeypatch.setattr(REGISTRY, "_schemas", ())
    monkeypatch.setattr(layout, "_layout", "plain")
    monkeypatch.setattr(layout, "_is_chosen", False)
    monkeypatch.setattr(layout, "_is_frozen", False)
    for name in konstruct.NAMES:
        monkeypatch.delitem(vars(keys), name, raising=False)
    yield
    for name in konstruct.NAMES:
        vars(keys).pop(name, None)
    for table in _memory._tables:
        table.clear()
    _memory._count = 0


@pytest.fixture(params=["plain", "tagged"])
def prefix(request):
    """Choose each layout in turn and give the prefix of tenant acme."""
    keys.use_layout(request.param)
    return "acme:" if request.param == "plain" else "{acme}:"
