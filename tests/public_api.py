"""The public names, and a check that stands on the standard library alone.

``python tests/public_api.py all`` imports every name; ``… none``, where no optional dependency is
installed, checks that each edge says which extra it wants. The package job of CI runs both against
the built wheel.
"""

from __future__ import annotations

import importlib
import sys

CORE = {
    "tenantry": (
        "TenantId tenant_scope without_tenant bind_tenant reset_tenant current_tenant "
        "current_tenant_or_none carry_tenant detached add_scope_hook keys "
        "TenancyError NoTenantError TenantConflictError ScopeOrderError InvalidTenantIdError "
        "ResolutionError PropagationError MissingTenantHeaderError MalformedTenantHeaderError "
        "BadTenantSignatureError KeySchemaError InvalidKeyPartError CrossTenantError "
        "UnknownCommandError"
    ),
    "tenantry.keys": (
        "key shared_key parse owner_of use_layout ParsedKey rate_limit idempotency session "
        "engaged_thread memory_short escalation_status pending_tool_confirm"
    ),
    "tenantry.propagation": "inject extract",
    "tenantry.resolvers": ("Resolver Header Subdomain Domain PathPrefix Claim Session FirstOf AllAgree"),
    "tenantry.lookup": "Lookup",
    "tenantry.integrations.asgi": "TenantMiddleware",
    "tenantry.integrations.wsgi": "TenantMiddleware",
    "tenantry.integrations.logging": "TenantFilter install",
}
TESTING = {
    "tenantry.testing": "untenanted assert_no_tenant assert_requires_tenant assert_isolated",
    "tenantry.pytest_plugin": "",
}
#: module: (extra, names)
EDGES = {
    "tenantry.integrations.flask": ("flask", "init_app"),
    "tenantry.integrations.django": ("django", "TenantMiddleware"),
    "tenantry.integrations.fastapi": ("fastapi", "ActiveTenant"),
    "tenantry.integrations.celery": ("celery", "install uninstall fan_out quarantine"),
    "tenantry.integrations.redis": ("redis", "guard acl_rules service_acl_rules tenants"),
    "tenantry.integrations.sqlalchemy": ("sqlalchemy", "install"),
    "tenantry.integrations.structlog": ("structlog", "add_tenant"),
    "tenantry.integrations.opentelemetry": ("opentelemetry", "install"),
    "tenantry.integrations.sentry": ("sentry", "install"),
    "tenantry.cli": ("cli", ""),
}


def check_names(module: str, names: str) -> int:
    """Import ``module`` and find ``names`` in it; how many there were."""
    found = importlib.import_module(module)
    missing = [name for name in names.split() if not hasattr(found, name)]
    if missing:
        raise AssertionError(f"{module} lacks {', '.join(missing)}")
    return len(names.split())


def check_refusal(module: str, extra: str) -> None:
    """Import ``module`` without its dependency: the error names the extra."""
    try:
        importlib.import_module(module)
    except ImportError as error:
        if f"tenantry[{extra}]" not in str(error):
            raise AssertionError(f"{module} does not name tenantry[{extra}]: {error}") from error
    else:
        raise AssertionError(f"{module} was imported although nothing optional is installed")


def main(installed: str) -> None:
    """Check the names for ``all`` or ``none`` of the extras."""
    count = sum(check_names(module, names) for module, names in CORE.items())
    for module, (extra, names) in EDGES.items():
        if installed == "all":
            count += check_names(module, names)
        else:
            check_refusal(module, extra)
    where = importlib.import_module("tenantry").__file__
    print(f"{count} public names, extras: {installed}, {sys.version.split()[0]}, {where}")


if __name__ == "__main__":
    main(sys.argv[1])
