"""Helpers for the tests of applications; the pytest plugin is :mod:`tenantry.pytest_plugin`.

A test that enters a tenant and then calls the application hides a missing middleware: the
application finds the test's own tenant. :func:`untenanted` keeps it out. The ``assert_*`` functions
check what an application promises of its own functions. None of this needs pytest.
"""

from __future__ import annotations

from tenantry.testing.applications import untenanted
from tenantry.testing.assertions import assert_isolated, assert_no_tenant, assert_requires_tenant

__all__ = ["assert_isolated", "assert_no_tenant", "assert_requires_tenant", "untenanted"]
