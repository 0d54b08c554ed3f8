"""Make it impossible for a multi-tenant service to touch another tenant's data by accident.

A tenant *enters* at an edge, *lives* in one context variable and *leaves* at an edge; nothing in between
guesses. See :mod:`tenantry.keys` for key functions and :mod:`tenantry.integrations` for the edges.
"""

from __future__ import annotations

from tenantry import keys
from tenantry.context import (
    add_scope_hook,
    bind_tenant,
    carry_tenant,
    current_tenant,
    current_tenant_or_none,
    detached,
    reset_tenant,
    tenant_scope,
    without_tenant,
)
from tenantry.errors import (
    BadTenantSignatureError,
    CrossTenantError,
    InvalidKeyPartError,
    InvalidTenantIdError,
    KeySchemaError,
    MalformedTenantHeaderError,
    MissingTenantHeaderError,
    NoTenantError,
    PropagationError,
    ResolutionError,
    ScopeOrderError,
    TenancyError,
    TenantConflictError,
    UnknownCommandError,
)
from tenantry.ids import TenantId

__all__ = [
    "BadTenantSignatureError",
    "CrossTenantError",
    "InvalidKeyPartError",
    "InvalidTenantIdError",
    "KeySchemaError",
    "MalformedTenantHeaderError",
    "MissingTenantHeaderError",
    "NoTenantError",
    "PropagationError",
    "ResolutionError",
    "ScopeOrderError",
    "TenancyError",
    "TenantConflictError",
    "TenantId",
    "UnknownCommandError",
    "add_scope_hook",
    "bind_tenant",
    "carry_tenant",
    "current_tenant",
    "current_tenant_or_none",
    "detached",
    "keys",
    "reset_tenant",
    "tenant_scope",
    "without_tenant",
]
