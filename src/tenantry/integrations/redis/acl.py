"""Rules for Redis ACL users: the server's own refusal, where a client's guard cannot reach.

A guard in the client judges what the client sends. It cannot see the keys that a Lua script makes
up, nor what another client sends. Redis can: a user made with these rules is refused by the server
itself, keys inside scripts and functions included.

The rules grant by name and by type of data, never "everything except", so a command that a newer
server adds stays denied until it is a data command with keys. They name only what every supported
server knows (Redis 7.0, 7.4, 8.x, Valkey 8, 9), because one unknown name makes ``ACL SETUSER``
refuse the whole list: ``CLIENT SETINFO`` and ``WAITAOF``, which Redis 7.0 lacks, come by category.
"""

from __future__ import annotations

from tenantry.ids import ensure_tenant_id
from tenantry.keys import tenant_prefix

__all__ = ["acl_rules", "service_acl_rules"]

SHARED_KEYS = "~%shared:*"

# Categories whose every command is about keys of that type, on every server; commands of modules
# are in none of them.
_TYPES = ("hash", "string", "list", "set", "sortedset", "stream", "bitmap", "hyperloglog", "geo")

# BLPOP and its like are granted by type already: @blocking adds WAIT and WAITAOF.
_CATEGORIES = (*_TYPES, "blocking", "connection", "transaction")

_DENIED = (
    "@admin",
    "@dangerous",  # SORT and SORT_RO among them: BY and GET read keys by pattern
    # The last of several STORE options wins, and some servers check the first one alone.
    "georadius",
    "georadiusbymember",
    "select",
    "client|caching",
    "client|getredir",
    "client|info",
    "client|reply",
    "client|tracking",  # BCAST PREFIX tells the names of anybody's keys
    "client|trackinginfo",
)

# Not here: COPY and MOVE reach into other databases, RESTORE is @dangerous, SCAN, RANDOMKEY,
# DBSIZE and PUBSUB tell names and numbers of everybody's.
_KEYSPACE = (
    "del",
    "unlink",
    "exists",
    "touch",
    "type",
    "rename",
    "renamenx",
    "dump",
    "persist",
    "ttl",
    "pttl",
    "expire",
    "expireat",
    "pexpire",
    "pexpireat",
    "expiretime",
    "pexpiretime",
    "object|encoding",
    "object|freq",
    "object|idletime",
    "object|refcount",
    "memory|usage",
)

_SCRIPTING = (
    "eval",
    "eval_ro",
    "evalsha",
    "evalsha_ro",
    "fcall",
    "fcall_ro",
    "script|load",
    "script|exists",
)

_CHANNELS = (
    "publish",
    "spublish",
    "subscribe",
    "psubscribe",
    "ssubscribe",
    "unsubscribe",
    "punsubscribe",
    "sunsubscribe",
)

# CLUSTER GETKEYSINSLOT and COUNTKEYSINSLOT are in no dangerous category: they stay out by not
# being named here.
_SERVER = (
    "time",
    "lolwut",
    "cluster|keyslot",
    "cluster|slots",
    "cluster|shards",
    "cluster|nodes",
    "cluster|myid",
)

_GRANTED = (*_KEYSPACE, *_SCRIPTING, *_CHANNELS, *_SERVER)

# Globs cannot express the grammar of a tenant id: this asks for its first character and a colon.
_ANY_TENANT = "[A-Za-z0-9]*"


def acl_rules(tenant_id: str) -> list[str]:
    """Return the rules of a Redis user who may touch one tenant's keys and nothing else.

    For processes that serve one tenant. The user reads and writes the tenant's keys (prefix of the
    key layout in use) and ``%shared:*``, publishes and subscribes to the tenant's channels and to
    its keyspace notifications in database 0, and runs scripts and functions, inside which the same
    holds. It cannot list keys, leave its database, change its identity by name, or see anybody
    else's numbers. Apply them to every node of a cluster, and switch the user ``default`` off:
    ``RESET`` returns a connection to it and no rule can deny ``RESET``.

    Args:
        tenant_id: The tenant (text by the grammar of tenant ids, or a ``uuid.UUID``).

    Returns:
        Tokens for ``ACL SETUSER <name> reset *rules on >password``; the same list is valid on Redis
        7.0, 7.4 and 8, and on Valkey 8 and 9. It sets neither a password nor ``on``. Applying a
        newer list to an existing user replaces its permissions.

    Raises:
        InvalidTenantIdError: ``tenant_id`` is not a tenant id.
    """
    return _rules(tenant_prefix(ensure_tenant_id(tenant_id)))


def service_acl_rules() -> list[str]:
    """Return the rules of a Redis user for processes that serve every tenant: the fleet's user.

    Like :func:`acl_rules`, for the keys and channels of any tenant. Patterns of an ACL cannot
    express the grammar of a tenant id, so more passes than tenants' keys: in the plain layout every
    name that begins with a letter or digit and has a colon later (``a b:c``, ``user:1``); in the
    tagged one every name of the form ``{a…}:…``. Names without a tenant's prefix do not
    (``counter``, ``_kombu.binding.celery``, ``%other:x``). The guard in the client is what tells
    tenants apart; this user keeps a mistake away from the rest of the server. It has no
    ``PSUBSCRIBE`` that is of any use, since a pattern must equal a granted one letter by letter.

    Returns:
        Tokens for ``ACL SETUSER <name> reset *rules on >password``.
    """
    tagged = tenant_prefix("a").startswith("{")
    return _rules(f"{{{_ANY_TENANT}}}:" if tagged else f"{_ANY_TENANT}:")


def _rules(prefix: str) -> list[str]:
    return [
        "clearselectors",
        "resetkeys",
        "resetchannels",
        "-@all",
        f"~{prefix}*",
        SHARED_KEYS,
        f"&{prefix}*",
        # Database 0 alone: with a glob for the number, a key of another tenant that contains
        # "__:acme:" would match.
        f"&__keyspace@0__:{prefix}*",
        *(f"+@{name}" for name in _CATEGORIES),
        *(f"-{name}" for name in _DENIED),
        *(f"+{name}" for name in _GRANTED),
    ]
