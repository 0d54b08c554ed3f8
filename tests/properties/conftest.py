"""Each property has a process's keys to itself, as the tests of the keys have."""

from __future__ import annotations

from tests.keys.conftest import fresh_process

__all__ = ["fresh_process"]
