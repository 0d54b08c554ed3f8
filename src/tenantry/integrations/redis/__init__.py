"""Redis: a client that refuses every key that is not the tenant's.

Enters: nowhere; the tenant must be active already.
Leaves: nowhere; keys are built by ``tenantry.keys``, the guard only judges them.
Runs bound: message handlers of a ``PubSub``, in the tenant of its first subscription.
Tested with: redis-py 8.1 on CPython 3.11–3.13; Redis 7.0, Valkey 9.1, fakeredis 2.40.
"""

from __future__ import annotations

try:
    import redis as _redis  # noqa: F401  # the dependency of this edge
except ModuleNotFoundError as error:
    if error.name != "redis":
        raise
    raise ImportError("tenantry.integrations.redis needs redis-py: pip install tenantry[redis]") from error

from tenantry.integrations.redis import tenants
from tenantry.integrations.redis.acl import acl_rules, service_acl_rules
from tenantry.integrations.redis.guarding import guard

__all__ = ["acl_rules", "guard", "service_acl_rules", "tenants"]
