"""Run every step of a callable, coroutine or generator inside a context manager of ours.

One implementation for the decorator forms of the scopes, for ``carry_tenant`` and for ``detached``.
Nothing here knows what a tenant is.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AbstractContextManager, suppress
from types import AsyncGeneratorType, CoroutineType, FunctionType, GeneratorType, MethodType, coroutine
from typing import Any, TypeAlias, TypeVar, cast

__all__ = ["CO_ASYNC_GENERATOR", "CO_GENERATOR", "bound_to", "bound_to_function"]

# Flags of code objects, as documented for the module `inspect`, which is too slow to import here.
CO_GENERATOR = 0x20
CO_COROUTINE = 0x80
CO_ITERABLE_COROUTINE = 0x100  # @types.coroutine: a generator by its flags, a coroutine by its use
CO_ASYNC_GENERATOR = 0x200

# CPython 3.11 has no ag_suspended; the frame of a generator that has not begun stands at this instruction.
_RETURN_GENERATOR = 75  # pragma: no mutate - of CPython 3.11

Step: TypeAlias = Callable[[], AbstractContextManager[object]]
_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., object])


def bound_to(target: _T, *, step: Step) -> _T:
    """Return the same kind of thing as ``target``, each step of which runs inside ``step()``."""
    held = _held(target, step, step, is_owned=True)
    if held is not None:
        return cast("_T", held)
    if isinstance(target, staticmethod | classmethod):
        return cast("_T", _bound_descriptor(target, step, step, _nothing))
    if callable(target):
        return cast("_T", _bound_callable(target, step, step, _nothing))
    raise TypeError(
        f"a callable, a coroutine or a generator was expected, not {type(target).__name__}; "
        "hand over the function itself, or the coroutine before it is made a task"
    )


def bound_to_function(
    function: _F, *, step: Step, final: Step, on_call: Callable[[], None] | None = None
) -> _F:
    """Return ``function`` with its calls and steps inside ``step()`` and its finalisers inside ``final()``.

    Raises:
        TypeError: ``function`` is a class or no callable at all.
    """
    if isinstance(function, staticmethod | classmethod):
        return cast("_F", _bound_descriptor(function, step, final, on_call or _nothing))
    if isinstance(function, type) or not callable(function):
        raise TypeError(
            f"this decorates functions and other callables, not {type(function).__name__} {function!r:.40}"
        )
    return cast("_F", _bound_callable(function, step, final, on_call or _nothing))


def _nothing() -> None:
    return None


def _code_flags(target: object) -> int:
    """Return the flags of the code that calling ``target`` runs, seen through methods and partials."""
    while True:
        if isinstance(target, functools.partial):
            target = target.func
        elif isinstance(target, MethodType | staticmethod):
            target = target.__func__
        elif isinstance(target, FunctionType):
            return target.__code__.co_flags
        else:
            target = getattr(type(target), "__call__", None)  # noqa: B004 - the function itself is wanted
            if not isinstance(target, FunctionType):
                return 0


def _held(target: Any, step: Step, final: Step, *, is_owned: bool = False) -> Any:
    """Return a coroutine or generator object bound to ``step``, or ``None`` for anything else.

    ``is_owned``: nobody else has ``target``, so that what ends before it began ends ``target`` as well.
    """
    held: Any
    if isinstance(target, CoroutineType):
        held = _coroutine(target, step, _Closing(target) if is_owned else None)
    elif isinstance(target, GeneratorType):
        held = _generator_function(lambda: target, step, final, _nothing, is_begun=is_owned)()
        if is_owned:
            next(held)
    elif isinstance(target, AsyncGeneratorType):
        # One that has not begun belongs to no event loop yet, and stays so.
        is_begun = is_owned and _is_suspended(target)
        held = _async_generator_function(lambda: target, step, final, _nothing, is_begun=is_begun)()
        if is_begun:
            with suppress(StopIteration):
                held.asend(None).send(None)
    else:
        return None
    held.__name__, held.__qualname__ = target.__name__, target.__qualname__
    return held


def _is_suspended(generator: AsyncGeneratorType[Any, Any]) -> bool:
    """Tell whether ``generator`` stands at a ``yield``: it has begun, does not run, and has not ended."""
    suspended: bool | None = getattr(generator, "ag_suspended", None)
    if suspended is not None:  # pragma: no mutate - the other way tells the same on 3.12
        return suspended
    return _is_suspended_on_3_11(generator)  # pragma: no cover, no mutate


def _is_suspended_on_3_11(generator: AsyncGeneratorType[Any, Any]) -> bool:  # pragma: no cover, no mutate
    frame = generator.ag_frame
    if frame is None or generator.ag_running:
        return False
    return bool(frame.f_code.co_code[frame.f_lasti] != _RETURN_GENERATOR)


def _bound_descriptor(descriptor: Any, step: Step, final: Step, on_call: Callable[[], None]) -> Any:
    """Return a ``staticmethod`` or ``classmethod`` whose function is bound, since it decides what is passed."""
    return type(descriptor)(_bound_callable(descriptor.__func__, step, final, on_call))


def _bound_callable(
    function: Callable[..., Any], step: Step, final: Step, on_call: Callable[[], None]
) -> Callable[..., Any]:
    flags = _code_flags(function)
    if flags & (CO_COROUTINE | CO_ITERABLE_COROUTINE):
        wrapper = _coroutine_function(function, step, on_call)
    elif flags & CO_GENERATOR:
        wrapper = _generator_function(function, step, final, on_call)
    elif flags & CO_ASYNC_GENERATOR:
        wrapper = _async_generator_function(function, step, final, on_call)
    else:
        wrapper = _plain_function(function, step, final, on_call)
    # The attributes of a callable object are its own affair; those of a function go along.
    updated = functools.WRAPPER_UPDATES if isinstance(function, FunctionType) else ()
    return functools.wraps(function, updated=updated)(wrapper)


class _Closing:
    """Closes a coroutine whose wrapper ended before it began, as a task does that is cancelled at once.

    Without it the interpreter would warn that the coroutine was never awaited.
    """

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine

    def __del__(self) -> None:
        self._coroutine.close()


async def _coroutine(coroutine: Coroutine[Any, Any, Any], step: Step, _closing: _Closing | None) -> Any:
    with step():
        return await coroutine


def _plain_function(
    function: Callable[..., Any], step: Step, final: Step, on_call: Callable[[], None]
) -> Callable[..., Any]:
    def plain_function(*args: Any, **kwargs: Any) -> Any:
        on_call()
        with step():
            result = function(*args, **kwargs)
        # A wrapper around a coroutine function is a plain function: what it returns has yet to run.
        held = _held(result, step, final)
        return result if held is None else held

    return plain_function


def _coroutine_function(
    function: Callable[..., Any], step: Step, on_call: Callable[[], None]
) -> Callable[..., Any]:
    async def coroutine_function(*args: Any, **kwargs: Any) -> Any:
        on_call()
        with step():
            return await function(*args, **kwargs)

    return coroutine_function


def _generator_function(
    function: Callable[..., Any],
    step: Step,
    final: Step,
    on_call: Callable[[], None],
    *,
    is_begun: bool = False,
) -> Callable[..., Any]:
    """Return a generator function. ``is_begun`` makes its generators stop once before the first step.

    What stops there is as far as the generator inside: it takes what that takes, its end included.
    """

    def generator_function(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        on_call()
        inner = function(*args, **kwargs)
        advance, argument, item = inner.send, None, None
        stands = is_begun
        try:
            while True:
                if not stands:
                    with step():
                        try:
                            item = advance(argument)
                        except StopIteration as stop:
                            return stop.value
                stands = False
                try:
                    argument = yield item
                    advance = inner.send
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 - what the consumer throws is the generator's
                    advance, argument = inner.throw, error
        finally:
            if inner.gi_frame is not None:
                with final():
                    inner.close()

    return generator_function


def _unseen(asend: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what takes the first step of an async generator so that the one around it alone ends it.

    Else the event loop would close both, side by side, when it shuts down, and outside the scope. With no
    finaliser at all, a garbage collection would close the inner one, under whatever tenant it runs in.
    """

    def first(argument: Any) -> Any:
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=None, finalizer=_leave_open)
        try:
            return asend(argument)
        finally:
            sys.set_asyncgen_hooks(*hooks)

    return first


def _leave_open(generator: AsyncGenerator[Any, Any]) -> None:
    """Finalise nothing: what is around ``generator`` closes it."""


@coroutine
def _closed(inner: AsyncGenerator[Any, Any], final: Step) -> Generator[Any, Any, None]:
    """Close ``inner``, each step of it inside ``final()``.

    The interpreter may close what no event loop knows, in whatever context it collects it, and drops it where
    it has to wait: nothing may be left entered there.
    """
    closing: Any = inner.aclose()
    advance, argument = closing.send, None
    while True:
        with final():
            try:
                signal = advance(argument)
            except StopIteration:
                return
        try:
            argument = yield signal
            advance = closing.send
        except BaseException as error:  # noqa: BLE001 - a cancellation is what is closed's to answer
            advance, argument = closing.throw, error


def _async_generator_function(
    function: Callable[..., Any],
    step: Step,
    final: Step,
    on_call: Callable[[], None],
    *,
    is_begun: bool = False,
) -> Callable[..., Any]:
    """Return an async generator function; ``is_begun`` as for :func:`_generator_function`."""

    async def async_generator_function(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        on_call()
        inner = function(*args, **kwargs)
        advance, argument, item = _unseen(inner.asend), None, None
        stands, is_left = is_begun, False
        try:
            while not is_left:
                if not stands:
                    with step():
                        try:
                            item = await advance(argument)
                        except StopAsyncIteration:
                            return
                stands = False
                try:
                    argument = yield item
                    advance = inner.asend
                except GeneratorExit:
                    is_left = True
                except BaseException as error:  # noqa: BLE001 - what the consumer throws is the generator's
                    advance, argument = inner.athrow, error
            # No longer in the handler: what is dropped there is in a cycle with its own traceback, and a garbage
            # collection would end the generator inside before what closes it.
            await _closed(inner, final)
            raise GeneratorExit
        finally:
            if inner.ag_frame is not None:
                await _closed(inner, final)

    return async_generator_function
