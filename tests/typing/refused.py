"""What type checkers must refuse: every line that is ignored here is an error to both of them.

Not run. mypy and pyright both report an ignore that is not needed, so a mistake that they no longer see
fails the test.
"""

from __future__ import annotations

from tenantry import add_scope_hook, bind_tenant, keys, reset_tenant, tenant_scope, without_tenant
from tenantry.keys import key, shared_key, use_layout


@key("typed:{cart_id}")
def cart(cart_id: str) -> str:  # type: ignore[empty-body]  # pyright: ignore[reportReturnType]
    """Hash: the shopping cart of one visitor."""


@tenant_scope("acme")
def function(a: int) -> float:
    return 1.0


def keys_have_their_declared_signature() -> None:
    cart()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    cart("1", "2")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    cart(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    cart(other="1")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    cart(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    keys.session()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    keys.memory_short("agent")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    keys.memory_short(None, "user")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    keys.no_such_key("x")  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


def decorated_functions_have_theirs() -> None:
    function("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    function()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def options_are_keywords_and_required_ones_are_required() -> None:
    tenant_scope("acme", True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    without_tenant()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    without_tenant("reason")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    shared_key("x:{a}")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    use_layout("other")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def tenant_ids_are_texts_or_uuids() -> None:
    tenant_scope(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    tenant_scope(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    bind_tenant(b"acme")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def tokens_and_hooks_are_what_they_are() -> None:
    reset_tenant("acme")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    add_scope_hook(lambda tenant_id: None)  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]


@key("bytes:{cart_id}")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
def returns_bytes(cart_id: str) -> bytes:  # type: ignore[empty-body]  # pyright: ignore[reportReturnType]
    """Wrong: a key is text."""
