"""Where a tenant lives: one :class:`~contextvars.ContextVar`, and the scopes that set it.

The variable holds a :class:`State` that is never changed, only replaced. A state is one of four kinds:
never set, explicitly none, tenant, ``without_tenant``. Everything fails closed: a scope that is left
out of order ends in *never set*, never in a tenant that was active before.

A state does not know the state before it. What was active before stays with the scope that replaced
it, so a chain of tasks of which each enters a tenant and starts the next keeps no history alive.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias, TypeVar

from tenantry.errors import NoTenantError, ScopeOrderError, TenantConflictError
from tenantry.frames import GENERATOR, get_frame, refuse_generator_frame
from tenantry.ids import TenantId, ensure_tenant_id
from tenantry.steps import bound_to, bound_to_function

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from logging import Logger
    from types import TracebackType
    from uuid import UUID

__all__ = [
    "add_scope_hook",
    "bind_tenant",
    "carry_tenant",
    "current_tenant",
    "current_tenant_or_none",
    "detached",
    "reset_tenant",
    "tenant_scope",
    "without_tenant",
]

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., object])
ScopeHook: TypeAlias = Callable[[TenantId], "AbstractContextManager[object]"]

NEVER_SET: Final = "never set"
EXPLICITLY_NONE: Final = "explicitly none"
TENANT: Final = "tenant"
WITHOUT_TENANT: Final = "without_tenant"


class State:
    """What is active in a context. Never changed after it was made; compared by identity.

    ``epoch`` is shared by the scopes that nest in one another. Where a mistake in their order is found a
    new epoch begins, which is how the scopes of the old one know that they are dead. ``unit`` belongs to
    the edge that began the unit of work; nested scopes inherit it. The one exception to "never changed":
    a state that was left out of order loses its epoch, so that nothing brings it back.
    """

    __slots__ = ("epoch", "kind", "tenant_id", "unit")

    def __init__(self, tenant_id: TenantId | None, kind: str, epoch: object, unit: object = None) -> None:
        self.tenant_id = tenant_id
        self.kind = kind
        self.epoch = epoch
        self.unit = unit


_STATE: Final[ContextVar[State]] = ContextVar("tenantry", default=State(None, NEVER_SET, object()))  # noqa: B039 - a State is never changed
get_state = _STATE.get


def _logger() -> Logger:
    import logging  # not at the top: it is the slowest import of all, and may not be needed

    return logging.getLogger("tenantry")


# The epoch of a state whose scope was left while a unit of work that began inside it was still open.
_LEFT: Final = object()


def _never_set() -> State:
    return State(None, NEVER_SET, object())


def _forget_in_child() -> None:
    """Start a forked child clean. The new epoch lets it unwind its parent's scopes in silence."""
    _STATE.set(_never_set())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


def current_tenant() -> TenantId:
    """Return the active tenant.

    Raises:
        NoTenantError: None is active; the error says why and what to do.

    Cost: about 50 ns. Safe in every thread and task.
    """
    return require_tenant("current_tenant")


def current_tenant_or_none() -> TenantId | None:
    """Return the active tenant, or ``None``. Never raises; meant for logs and metrics, not for decisions."""
    return get_state().tenant_id


def require_tenant(wanted: str) -> TenantId:
    """Return the active tenant for ``wanted``, what needs it, or raise ``NoTenantError``."""
    state = get_state()
    if state.tenant_id is None:
        raise NoTenantError(wanted, state.kind)
    return state.tenant_id


def current_unit() -> object | None:
    """Return what the edge that began this unit of work left for itself, or ``None``."""
    return get_state().unit


# --- scope hooks ---------------------------------------------------------------------------------

_hooks: tuple[tuple[object, ScopeHook], ...] = ()
_hooks_lock = threading.Lock()


def add_scope_hook(factory: ScopeHook) -> Callable[[], None]:
    """Call ``factory`` whenever a tenant becomes active, and enter what it returns for as long as it is.

    Args:
        factory: ``factory(tenant_id)`` returns a context manager. It is entered with the tenant active,
            in the order in which hooks were added, and left in reverse before the tenant is restored.
            Nesting the same tenant does not call it; under ``switch=True`` and inside ``without_tenant``
            the hooks of the outer tenant stay entered. What its ``__exit__`` returns is ignored: a hook
            cannot swallow an error of the scope's body.

    Returns:
        A function that removes the hook again; scopes that are open keep theirs. Calling it twice is fine.

    Raises:
        TypeError: ``factory`` is not callable.

    An error while entering means that the scope is not entered; hooks entered before are left. On exit
    all hooks run and the tenant is restored, then the last error leaves with the others as its context.
    Without hooks a scope pays nothing for them. Thread-safe.
    """
    if not callable(factory):
        raise TypeError(f"a scope hook is a callable that takes the tenant id, not {type(factory).__name__}")
    global _hooks
    registration = (object(), factory)
    with _hooks_lock:
        _hooks = (*_hooks, registration)

    def remove() -> None:
        global _hooks
        with _hooks_lock:
            _hooks = tuple(hook for hook in _hooks if hook is not registration)

    return remove


def _enter_hooks(tenant_id: TenantId) -> Sequence[AbstractContextManager[object]]:
    entered: list[AbstractContextManager[object]] = []
    try:
        for _, factory in _hooks:
            manager = factory(tenant_id)
            manager.__enter__()
            entered.append(manager)
    except BaseException as error:
        later = _leave_hooks(entered, error)
        if later is not None:
            raise later from error
        raise
    return entered


def _leave_hooks(
    entered: Sequence[AbstractContextManager[object]], error: BaseException | None
) -> BaseException | None:
    """Leave all hooks, last first, and return the last error that one of them raised."""
    raised: BaseException | None = None
    kind = None if error is None else type(error)
    trace = None if error is None else error.__traceback__
    for manager in reversed(entered):
        try:
            manager.__exit__(kind, error, trace)
        except BaseException as failure:  # noqa: BLE001 - every hook must be left; the error leaves afterwards
            if raised is not None:
                _chain(failure, raised, error)
            raised = failure
    return raised


def _chain(failure: BaseException, earlier: BaseException, error: BaseException | None) -> None:
    """Put ``earlier`` among the contexts of ``failure``, above the ``error`` of the scope's body."""
    last: BaseException | None = earlier
    while last is not None:
        if last is failure:  # a hook that raises one object again, say; a chain has no circles
            return
        last = last.__context__
    last = failure
    while last.__context__ is not None and last.__context__ is not error:
        last = last.__context__
    last.__context__ = earlier


# --- entries: one state that replaced another ----------------------------------------------------

_FOREIGN: Final = "foreign"  # the entry was made in another context; nothing was changed in this one
_USED: Final = "used"  # it was left before; nothing was changed
_MISMATCH: Final = "mismatch"  # a later entry is still open; the context is now in the never-set state


# The state that was entered, the token that takes it back, and the hooks that were entered with it.
_Entry: TypeAlias = "tuple[State, Token[State], Sequence[AbstractContextManager[object]]]"


def _replace(state: State, *, hooks_for: TenantId | None) -> _Entry:
    """Make ``state`` the state of this context, and enter the hooks for a tenant that becomes active by it."""
    token = _STATE.set(state)
    if hooks_for is None or not _hooks:
        return state, token, ()
    try:
        return state, token, _enter_hooks(hooks_for)
    except BaseException:
        _STATE.reset(token)
        raise


def _take_back(
    entry: _Entry, error: BaseException | None, *, in_order: bool = True, hooks_elsewhere: bool = True
) -> str | None:
    """Restore what ``entry`` replaced, leave its hooks, and return what kept it from that, if anything.

    ``in_order=False`` restores whatever was left open inside. ``hooks_elsewhere=False`` keeps the hooks for
    a later try if this is another context. The token alone can tell whether it is, so it is asked first.
    """
    state, token, hooks = entry
    current = get_state()
    try:
        _STATE.reset(token)
    except ValueError:
        if hooks_elsewhere:
            _report(_leave_hooks(hooks, error))
        return _FOREIGN
    except RuntimeError:
        return _USED
    if hooks:
        return _take_back_hooked(state, current, hooks, error, in_order=in_order)
    if in_order and current is not state:
        return _settle(state, current)
    if get_state().epoch is _LEFT:
        _STATE.set(_never_set())
    return None


def _take_back_hooked(
    state: State,
    current: State,
    hooks: Sequence[AbstractContextManager[object]],
    error: BaseException | None,
    *,
    in_order: bool,
) -> str | None:
    """Leave the hooks as if the state were still there, and judge the order once what they hold is gone."""
    before = get_state()
    _STATE.set(current)
    failure = _leave_hooks(hooks, error)
    current = get_state()
    if in_order and current is not state:
        _report(failure)
        return _settle(state, current)
    _STATE.set(_never_set() if before.epoch is _LEFT else before)
    if failure is not None:
        _raise(failure)
    return None


def _raise(failure: BaseException) -> NoReturn:
    """Raise ``failure`` with the contexts that it has; a plain ``raise`` puts the body's error over them."""
    context = failure.__context__
    try:
        raise failure  # noqa: TRY301 - it is raised here so that it leaves by the `raise` below
    except BaseException:
        failure.__context__ = context
        raise


def _settle(state: State, current: State) -> str | None:
    """Decide what is active after ``state`` was left while ``current`` was."""
    if current.epoch is not state.epoch:  # an earlier mistake in the order has ended it
        # A unit of work that began inside may be what is open: its end must not bring this state back.
        state.epoch = _LEFT
        _STATE.set(current)
        return None
    _STATE.set(_never_set())
    return _MISMATCH


def _report(failure: BaseException | None) -> None:
    if failure is not None:
        _logger().warning(
            "a scope hook failed while its scope was left out of order or elsewhere", exc_info=failure
        )


def _order_error(state: State) -> ScopeOrderError:
    return ScopeOrderError(
        f"the scope of {_named(state)} to be the innermost one when it was left",
        "another scope still open inside it. No tenant is active here any more: leave scopes in the reverse "
        "order of entering them, with `with` blocks or an ExitStack",
    )


def _named(state: State) -> str:
    return state.kind if state.tenant_id is None else f"tenant {state.tenant_id!r}"


# --- scopes --------------------------------------------------------------------------------------


class _Scope:
    """``with``, ``async with`` and decorator. One object may be entered many times, by many threads."""

    __slots__ = ("_entries", "_in_generator")

    def __init__(self, *, in_generator: bool) -> None:
        self._in_generator = in_generator
        self._entries: list[_Entry] = []

    def _leave(self, error: BaseException | None) -> None:
        entries = self._entries
        try:
            entry = entries[0]
        except IndexError:
            raise ScopeOrderError(
                "a scope that is open", "one that was never entered, or was left before"
            ) from None
        if entry[0] is get_state():
            del entries[0]  # never the last one, unseen: another thread may have added its own meanwhile
        else:
            entry = self._choose(error)
            entries.remove(entry)
        if _take_back(entry, error) is _MISMATCH:
            raise _order_error(entry[0])

    def _choose(self, error: BaseException | None) -> _Entry:
        """Return the entry that is active here, else the last, where other threads' may stand as well.

        An entry of this context that is not active is left here, out of order.
        """
        current = get_state()
        made = self._entries[::-1]
        for entry in made:
            if entry[0] is current:
                return entry
        for entry in made:
            outcome = _take_back(entry, error, hooks_elsewhere=False)
            if outcome is _MISMATCH:
                self._entries.remove(entry)
                raise _order_error(entry[0])
            if outcome is not _FOREIGN:
                return entry  # dead: taking it back again changes nothing
        return made[0]


class tenant_scope(_Scope):  # noqa: N801 - used as a verb: with tenant_scope(...)
    """Run a block, a call or a generator's steps under a tenant.

    Use it as ``with``, ``async with``, or as a decorator of functions, coroutine functions, generator
    functions and async generator functions. As a decorator it is re-entrant, recursive and thread-safe;
    a decorated generator holds its tenant step by step, so that its consumer never sees it.

    Args:
        tenant_id: ``str`` or ``uuid.UUID``; see :func:`tenantry.ids.ensure_tenant_id`.
        switch: Enter even though a different tenant is active. Default: that is a conflict.
        in_generator: Enter in the frame of a generator, on the word of the caller that whatever drives it
            keeps the context from step to step. Default: refused, unless the driver is known to.

    Returns:
        ``with … as tenant_id`` gives the validated id.

    Raises:
        InvalidTenantIdError: When it is made, if ``tenant_id`` cannot be one.
        TenantConflictError: On entry, if a different tenant is active and ``switch`` is not set.
        ScopeOrderError: On entry in the frame of a generator; on exit, if a scope that was entered later
            is still open. The context is then in the *never set* state, and the other scope's exit is silent.

    An exit in another context than the entry's (a generator that is finalised elsewhere) changes
    nothing there and raises nothing. That a plain ``with`` in a generator is refused is a net, not a
    proof: an ``ExitStack`` passes it.

    Cost: about 1 µs for entry and exit. Hooks come on top (:func:`add_scope_hook`).
    """

    __slots__ = ("_switch", "tenant_id")

    def __init__(self, tenant_id: str | UUID, *, switch: bool = False, in_generator: bool = False) -> None:
        self.tenant_id: Final = ensure_tenant_id(tenant_id)
        self._switch = switch
        self._in_generator = in_generator
        self._entries = []

    def __enter__(self) -> TenantId:
        if get_frame(1).f_code.co_flags & GENERATOR and not self._in_generator:
            refuse_generator_frame(get_frame(1), "tenant_scope")
        self._entries.append(_enter_tenant(self.tenant_id, self._switch))
        return self.tenant_id

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    async def __aenter__(self) -> TenantId:
        if get_frame(1).f_code.co_flags & GENERATOR and not self._in_generator:
            refuse_generator_frame(get_frame(1), "tenant_scope")
        self._entries.append(_enter_tenant(self.tenant_id, self._switch))
        return self.tenant_id

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    def __call__(self, function: _F) -> _F:
        """Return ``function`` bound to the tenant."""
        tenant_id, switch = self.tenant_id, self._switch
        return bound_to_function(
            function,
            step=lambda: tenant_scope(tenant_id, switch=switch, in_generator=True),
            final=lambda: unit_of_work(tenant_id, unit=current_unit()),
        )


def _enter_tenant(tenant_id: TenantId, switch: bool) -> _Entry:  # noqa: FBT001 - by position, for speed
    current = get_state()
    active = current.tenant_id
    if active is not None and active != tenant_id and not switch:
        raise TenantConflictError(active, tenant_id)
    state = State(tenant_id, TENANT, current.epoch, current.unit)
    if _hooks and active != tenant_id:
        return _replace(state, hooks_for=tenant_id)
    return state, _STATE.set(state), ()


class without_tenant(_Scope):  # noqa: N801 - used as a verb: with without_tenant(reason=...)
    """Run a block, a call or a generator's steps deliberately with no tenant, and log why.

    For platform jobs and migrations. Key functions still raise inside it; ``tenant_scope`` may be entered
    inside it without ``switch``. Use it as ``with``, ``async with`` or decorator, like ``tenant_scope``.

    Args:
        reason: Why this work belongs to no tenant; logged on each entry at level INFO by logger
            ``tenantry``. Not blank.
        in_generator: As for :class:`tenant_scope`.

    Raises:
        TypeError: ``reason`` is missing or not a ``str``.
        ValueError: ``reason`` is blank.
        ScopeOrderError: As for :class:`tenant_scope`.
    """

    __slots__ = ("reason",)

    def __init__(self, *, reason: str, in_generator: bool = False) -> None:
        if not isinstance(reason, str):
            raise TypeError(f"without_tenant(reason=...) takes a text, not {type(reason).__name__}")
        if not reason.strip():
            raise ValueError("without_tenant(reason=...) needs a reason: why does this belong to no tenant?")
        super().__init__(in_generator=in_generator)
        self.reason: Final = reason

    def __enter__(self) -> None:
        if get_frame(1).f_code.co_flags & GENERATOR and not self._in_generator:
            refuse_generator_frame(get_frame(1), "without_tenant")
        self._log()
        self._entries.append(_replace(_without_tenant_state(), hooks_for=None))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    async def __aenter__(self) -> None:
        if get_frame(1).f_code.co_flags & GENERATOR and not self._in_generator:
            refuse_generator_frame(get_frame(1), "without_tenant")
        self._log()
        self._entries.append(_replace(_without_tenant_state(), hooks_for=None))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    def __call__(self, function: _F) -> _F:
        """Return ``function`` bound to no tenant."""
        return bound_to_function(
            function,
            step=lambda: _Overwriting(_without_tenant_state()),
            final=lambda: _Overwriting(_without_tenant_state()),
            on_call=self._log,
        )

    def _log(self) -> None:
        _logger().info("running without a tenant: %r", self.reason)


def _without_tenant_state() -> State:
    current = get_state()
    return State(None, WITHOUT_TENANT, current.epoch, current.unit)


# --- the imperative pair -------------------------------------------------------------------------


class BoundTenant:
    """The token that :func:`bind_tenant` returns. Opaque; for :func:`reset_tenant`, once."""

    __slots__ = ("entry",)

    def __init__(self, entry: _Entry) -> None:
        self.entry = entry


def bind_tenant(tenant_id: str | UUID) -> BoundTenant:
    """Make a tenant active until :func:`reset_tenant`, for hosts that call a hook before and one after.

    Where the work is one block prefer :class:`tenant_scope`, which cannot be left open.

    Args:
        tenant_id: ``str`` or ``uuid.UUID``.

    Returns:
        A token for :func:`reset_tenant`.

    Raises:
        InvalidTenantIdError: ``tenant_id`` cannot be one.
        TenantConflictError: A different tenant is active.
    """
    return BoundTenant(_enter_tenant(ensure_tenant_id(tenant_id), False))


def reset_tenant(token: BoundTenant) -> None:
    """Restore what was active before :func:`bind_tenant` returned ``token``.

    Raises:
        ScopeOrderError: The token was used before, or belongs to another context (nothing is changed
            then); or a scope that was entered later is still open (no tenant is active then).
        TypeError: ``token`` is not what ``bind_tenant`` returned.
    """
    if not isinstance(token, BoundTenant):
        raise TypeError(f"reset_tenant takes the token that bind_tenant returned, not {type(token).__name__}")
    entry = token.entry
    outcome = _take_back(entry, None, hooks_elsewhere=False)
    if outcome is _USED:
        raise ScopeOrderError("a token that was not used yet", "one that reset_tenant has already taken")
    if outcome is _FOREIGN:
        raise ScopeOrderError("a token of this context", "one that bind_tenant returned in another context")
    if outcome is _MISMATCH:
        raise _order_error(entry[0])


# --- units of work -------------------------------------------------------------------------------


class _Overwriting:
    """Replace the state whatever it is, and restore exactly that on exit, whatever was left open inside.

    For what begins anew: a request, a task, a carried call, the step of a generator. Not re-entrant.
    """

    __slots__ = ("_entry", "_hooks_for", "_state")

    def __init__(self, state: State, *, hooks_for: TenantId | None = None) -> None:
        self._state = state
        self._hooks_for = hooks_for

    def __enter__(self) -> None:
        self._entry = _replace(self._state, hooks_for=self._hooks_for)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _take_back(self._entry, error, in_order=False)


def unit_of_work(tenant_id: object, *, unit: object = None) -> AbstractContextManager[None]:
    """Begin a unit of work: an edge's request, task or message.

    Whatever is active is overwritten, since servers hand edges stale contexts, and it is restored on exit.

    Args:
        tenant_id: The tenant to make active; ``None`` makes *explicitly none* active.
        unit: Opaque object that :func:`current_unit` returns inside.

    Raises:
        InvalidTenantIdError: ``tenant_id`` is neither ``None`` nor a tenant id.
    """
    if tenant_id is None:
        return _Overwriting(State(None, EXPLICITLY_NONE, object(), unit))
    checked = ensure_tenant_id(tenant_id)
    return _Overwriting(State(checked, TENANT, object(), unit), hooks_for=checked)


def begin_unit(tenant_id: TenantId | None, unit: object = None, *, part: bool = False) -> _Entry:
    """Begin a unit of work as :func:`unit_of_work` does, without an object between, for edges that count.

    Args:
        tenant_id: The tenant to make active, not validated again; ``None`` makes *explicitly none* active.
        unit: Opaque object that :func:`current_unit` returns inside.
        part: This is a part of the unit that runs here: hooks of the tenant that is active stay entered.

    Returns:
        What :func:`end_unit` takes.
    """
    if tenant_id is None:
        return _replace(State(None, EXPLICITLY_NONE, object(), unit), hooks_for=None)
    state = State(tenant_id, TENANT, object(), unit)
    if _hooks:
        return _replace(state, hooks_for=None if part and get_state().tenant_id == tenant_id else tenant_id)
    return state, _STATE.set(state), ()


def end_unit(begun: _Entry, error: BaseException | None = None) -> None:
    """End what :func:`begin_unit` began: restore what was active, whatever was left open inside."""
    if begun[2]:
        _take_back(begun, error, in_order=False)
        return
    try:
        _STATE.reset(begun[1])
    except (ValueError, RuntimeError):  # another context's, or ended before: nothing to restore here
        return
    if get_state().epoch is _LEFT:
        _STATE.set(_never_set())


def _carried(tenant_id: TenantId) -> _Overwriting:
    becomes_active = get_state().tenant_id != tenant_id
    return _Overwriting(State(tenant_id, TENANT, object()), hooks_for=tenant_id if becomes_active else None)


def carry_tenant(target: _T) -> _T:
    """Bind ``target`` to the tenant that is active now, for threads, executors and callbacks.

    Threads and executors inherit no context, so what runs there has no tenant until it is carried.

    Args:
        target: A function, coroutine function, method, partial or other callable; a generator function
            or async generator function; or a generator, async generator or coroutine object.

    Returns:
        The same kind of thing. Each call, or each step of a generator, runs under the tenant that is
        active now, overwrites what is active where it runs, and restores that afterwards, even if the
        call left a scope open. The consumer of a carried generator never sees its tenant.

    Raises:
        NoTenantError: No tenant is active at this call.
        TypeError: ``target`` is none of these things.

    Safe to call from several threads at once.
    """
    tenant_id = require_tenant("carry_tenant")
    return bound_to(target, step=lambda: _carried(tenant_id))


def detached(target: _T) -> _T:
    """Make ``target`` run with no tenant, whoever starts it.

    For what outlives the request that happens to start it: consumers, timers, lazily created clients.
    A task keeps the context in which it was created for as long as it lives.

    Args:
        target: A coroutine, a generator or async generator, or a callable of any kind.

    Returns:
        The same kind of thing, which runs in the *never set* state and restores afterwards what was
        active where it ran.

    Raises:
        TypeError: ``target`` is none of these things.
    """
    return bound_to(target, step=lambda: _Overwriting(_never_set()))
