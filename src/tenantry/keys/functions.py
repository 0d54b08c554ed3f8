"""Turn a declaration into a key function that costs about as much as the f-string it replaces.

A declared function is compiled for its own signature, as named tuples are. The compiled code has one
shape: a finished key is looked up; a new key of ordinary ASCII parts is formatted and screened in one
pass; everything else, every error included, is the business of :meth:`_Builder.build`.
"""

from __future__ import annotations

from functools import update_wrapper
from itertools import cycle
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeAlias, cast

from tenantry.context import get_state
from tenantry.errors import KeySchemaError, NoTenantError, shown
from tenantry.keys.encoding import MAX_BYTES, encode_part, is_ordinary
from tenantry.keys.layout import SHARED_PREFIX, freeze_layout, tenant_prefix
from tenantry.keys.schema import REGISTRY, ParsedKey, Placeholder, Schema, parse_as, schema_of
from tenantry.steps import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KeyFunction", "key", "shared_key"]

_P = ParamSpec("_P")

_CO_VARARGS = 0x04
_CO_VARKEYWORDS = 0x08

# Every byte that does not stand for itself in a key becomes ":", so that one count tells whether a
# finished key has separators where its template has them and nowhere else.
_SEPARATOR = ord(":")
_SCREEN: Final = bytes(
    ord(character) if character.isascii() and is_ordinary(character) else _SEPARATOR
    for character in map(chr, range(256))
)

# Finished keys are remembered up to these bounds, then all are forgotten: about 4 MiB at the most,
# however many ids and tenants there are. Only one new key in eight is remembered, since remembering
# costs more than building: ids that are hot come by often enough, and ids that are not never pay.
_REMEMBERED_LIMIT: Final = 8192  # pragma: no mutate - measured, one more would do as well
_REMEMBERED_LENGTH: Final = 160  # pragma: no mutate - likewise
_ONE_IN: Final = 8  # pragma: no mutate - likewise


class KeyFunction(Protocol[_P]):
    """A declared key function: call it with the declared signature.

    Attributes:
        template: The declared template.
    """

    template: str

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> str:
        """Return the key."""

    def pattern(self, /, **parts: object) -> str:
        """Return a glob for SCAN that matches every key of the active tenant with these parts."""

    def parse(self, key: str | bytes) -> ParsedKey:
        """Read a key of this schema back."""


_Table: TypeAlias = dict[Any, Any]


class _Memory:
    """All finished keys of a process: schema → tenant → part → … → key, bounded as a whole."""

    def __init__(self) -> None:
        self._count = 0
        self._tables: list[_Table] = []

    def new_table(self) -> _Table:
        table: _Table = {}
        self._tables.append(table)
        return table

    def remember(self, table: _Table, path: tuple[str | None, ...], key: str) -> None:
        """Put ``key`` at the end of ``path``, which is the tenant and the parts."""
        if len(key) > _REMEMBERED_LENGTH:
            return
        if self._count >= _REMEMBERED_LIMIT:
            for each in self._tables:
                each.clear()
            self._count = 0
        for step in path[:-1]:
            table = table.setdefault(step, {})
        table[path[-1]] = key
        self._count += 1


_memory = _Memory()


class _Builder:
    """What a compiled key function falls back on."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.finished = _memory.new_table()
        self.is_turn = cycle((False,) * (_ONE_IN - 1) + (True,)).__next__
        self.namespace: dict[str, Any] = {
            "_tenantry_KeyError": KeyError,
            "_tenantry_UnicodeEncodeError": UnicodeEncodeError,
            "_tenantry_after": "",
            "_tenantry_before": "",
            "_tenantry_build": self.build,
            "_tenantry_finished": self.finished,
            "_tenantry_is_turn": self.is_turn,
            "_tenantry_len": len,
            "_tenantry_longest": MAX_BYTES,
            "_tenantry_marks": None,
            "_tenantry_remember": _memory.remember,
            "_tenantry_screen": _SCREEN,
            "_tenantry_state": get_state,
            "_tenantry_str": str,
            "_tenantry_type": type,
        }

    def build(self, tenant: str | None, values: tuple[object, ...]) -> str:
        """Build a key from parts of any kind; the only place that raises."""
        prefix = self._prefix(self.schema.name)
        encoded = [
            self._encode(name, value) for name, value in zip(self.schema.placeholders, values, strict=True)
        ]
        parts = iter(encoded)
        key = prefix + ":".join(
            next(parts) if isinstance(segment, Placeholder) else segment for segment in self.schema.segments
        )
        if self.is_turn() and all(type(value) is str for value in values):
            _memory.remember(self.finished, (tenant, *values), key)  # type: ignore[arg-type]
        return key

    def pattern(self, /, **parts: object) -> str:
        """Return a glob for SCAN that matches every key with these parts.

        Args:
            parts: Values of some placeholders; those that are not given match anything. The pattern may
                match keys of longer schemas that start alike: filter what SCAN returns with ``parse``.

        Raises:
            NoTenantError: No tenant is active (not for shared keys).
            InvalidKeyPartError: A value cannot be a part.
            TypeError: There is no such placeholder.
        """
        unknown = parts.keys() - set(self.schema.placeholders)
        if unknown:
            raise TypeError(f"{self.schema.name}.pattern() has no placeholder {', '.join(sorted(unknown))}")
        prefix = self._prefix(f"{self.schema.name}.pattern")
        segments = []
        for segment in self.schema.segments:
            if isinstance(segment, str):
                segments.append(segment)
            elif segment.name in parts:
                segments.append(self._encode(segment.name, parts[segment.name]))
            else:
                segments.append("*")
        return prefix + ":".join(segments)

    def parse(self, key: str | bytes) -> ParsedKey:
        """Read a key of this schema back.

        Raises:
            KeySchemaError: This schema does not yield exactly this key in the layout in use.
            TypeError: ``key`` is neither ``str`` nor ``bytes``.
        """
        return parse_as(self.schema, key)

    def _encode(self, name: str, value: object) -> str:
        return encode_part(self.schema.name, name, value)

    def _prefix(self, wanted: str) -> str:
        """Return what stands before the template, and let the compiled code build keys from now on."""
        if self.schema.shared:
            self.namespace["_tenantry_marks"] = self._marks(SHARED_PREFIX)
            return SHARED_PREFIX
        state = get_state()
        if state.tenant_id is None:
            raise NoTenantError(wanted, state.kind)
        before, after = freeze_layout()
        self.namespace["_tenantry_before"], self.namespace["_tenantry_after"] = before, after
        self.namespace["_tenantry_marks"] = self._marks(before + after)
        return tenant_prefix(state.tenant_id)

    def _marks(self, prefix: str) -> int:
        return prefix.encode().translate(_SCREEN).count(_SEPARATOR) + len(self.schema.segments) - 1


# The names of the code's own are out of reach of any placeholder (_PRIVATE is refused in templates).
_PRIVATE: Final = "_tenantry_"
_SOURCE: Final = """\
def key_function({parameters}):
    _tenantry_tenant = {tenant}
    if {parts_are_text}:
        try:
            _tenantry_key = _tenantry_finished{first}
{further}
            if _tenantry_key is not None:
                return _tenantry_key
        except _tenantry_KeyError:
            pass
        if {may_build}:
            _tenantry_key = f"{key}"
            try:
                if (
                    _tenantry_len(_tenantry_key) <= _tenantry_longest
                    and _tenantry_key.encode().translate(_tenantry_screen).count(58) == _tenantry_marks
                ):
                    if _tenantry_is_turn():
                        _tenantry_remember(_tenantry_finished, (_tenantry_tenant, {parts}), _tenantry_key)
                    return _tenantry_key
            except _tenantry_UnicodeEncodeError:
                pass
    return _tenantry_build(_tenantry_tenant, ({parts}))
"""
_FURTHER: Final = """\
            if _tenantry_key is not None:
                _tenantry_key = _tenantry_key.get({part})
"""


def _compiled(schema: Schema, function: FunctionType) -> FunctionType:
    """Return the key function of ``schema``, with the signature of ``function``."""
    builder = _Builder(schema)
    names = schema.placeholders
    template = ":".join(
        f"{{{part.name}}}" if isinstance(part, Placeholder) else part for part in schema.segments
    )
    owned = "{_tenantry_before}{_tenantry_tenant}{_tenantry_after}" + template
    namespace = builder.namespace
    source = _SOURCE.format(
        parameters=_parameters(schema, function, namespace),
        parts_are_text=" and ".join(f"_tenantry_type({name}) is _tenantry_str" for name in names) or "True",
        tenant="None" if schema.shared else "_tenantry_state().tenant_id",
        first=f"[_tenantry_tenant].get({names[0]})" if names else ".get(_tenantry_tenant)",
        further="".join(_FURTHER.format(part=name) for name in names[1:]),
        parts="".join(f"{name}, " for name in names),
        may_build=" and ".join([*(() if schema.shared else ("_tenantry_tenant is not None",)), *names])
        or "True",
        key=SHARED_PREFIX + template if schema.shared else owned,
    )
    exec(compile(source, f"<key function {schema.label}>", "exec"), namespace)  # noqa: S102 - source of our own making
    made = cast("FunctionType", update_wrapper(namespace["key_function"], function))
    made.__dict__.update(template=schema.template, pattern=builder.pattern, parse=builder.parse)
    return made


def _parameters(schema: Schema, function: FunctionType, namespace: dict[str, Any]) -> str:
    """Return the parameter list of ``function``, which has to name exactly the placeholders."""
    code = function.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    if code.co_flags & (_CO_VARARGS | _CO_VARKEYWORDS) or set(names) != set(schema.placeholders):
        raise KeySchemaError(
            schema.label,
            None,
            f"the placeholders ({', '.join(schema.placeholders) or 'none'}) and the function's parameters "
            f"({', '.join(names) or 'none'}) have to be the same names, without * and **",
        )
    positional = names[: code.co_argcount]
    values = function.__defaults__ or ()
    defaults = dict(zip(positional[len(positional) - len(values) :], values, strict=True))
    defaults |= function.__kwdefaults__ or {}
    texts = []
    for name in names:
        if name in defaults:
            namespace[f"{_PRIVATE}default_{name}"] = defaults[name]
        texts.append(f"{name}={_PRIVATE}default_{name}" if name in defaults else name)
    if code.co_kwonlyargcount:
        texts.insert(code.co_argcount, "*")
    if code.co_posonlyargcount:
        texts.insert(code.co_posonlyargcount, "/")
    return ", ".join(texts)


def _check_declared(template: object, function: object) -> FunctionType:
    label = f"key schema {shown(template)}"
    if not isinstance(function, FunctionType):
        raise KeySchemaError(
            label, None, f"a key function is declared by a plain `def`, not by {type(function).__name__}"
        )
    if function.__code__.co_flags & (CO_COROUTINE | CO_GENERATOR | CO_ASYNC_GENERATOR):
        raise KeySchemaError(
            label, function.__qualname__, "a key function is a plain `def`, neither async nor a generator"
        )
    return function


def declare(template: str, function: object, *, shared: bool) -> FunctionType:
    """Declare a key function and return it compiled."""
    checked = _check_declared(template, function)
    schema = schema_of(template, checked, shared=shared)
    if any(name.startswith(_PRIVATE) for name in schema.placeholders):
        raise KeySchemaError(schema.label, None, f"names that begin with {_PRIVATE} are taken")
    made = _compiled(schema, checked)
    REGISTRY.add(schema)
    return made


def _check_template(template: object) -> None:
    if not issubclass(type(template), str):
        raise KeySchemaError(
            f"key schema {shown(template)}",
            None,
            'a template is text; use the decorator as @key("cart:{cart_id}")',
        )


def key(template: str) -> Callable[[Callable[_P, str | None]], KeyFunction[_P]]:
    """Declare a key of the active tenant: ``@key("cart:{cart_id}")`` above ``def cart(cart_id: str) -> str``.

    Args:
        template: Segments separated by ``:``. A segment is safe text or a whole placeholder, ``{name}``;
            the placeholders are the function's parameters, in any order. The function's body never runs.

    Returns:
        A decorator. The key function it makes takes the declared arguments (defaults and keywords
        included), each ``str``, ``int`` or ``uuid.UUID`` of at most 512 bytes as UTF-8, and returns the
        key. It has ``.pattern(**parts)``, ``.parse(key)`` and ``.template``.

        A call raises ``NoTenantError`` if no tenant is active, and ``InvalidKeyPartError`` for a value
        that cannot be a part.

    Raises:
        KeySchemaError: At once, when the template is not legal; when its placeholders are not the
            parameters; when another schema could yield the same key (both are named); and for coroutine
            functions, generators and classes. Declaring the same module and qualified name again, or the
            same file and line, replaces, with a warning in the log of ``tenantry`` when the template
            differs; a function made inside a function never replaces another.

    Cost: about that of an f-string for ids seen lately, and some four times that for new ones. Memory is
    bounded whatever the number of ids and tenants. Thread-safe.
    """
    _check_template(template)

    def decorate(function: Callable[_P, str | None]) -> KeyFunction[_P]:
        return cast("KeyFunction[_P]", declare(template, function, shared=False))

    return decorate


def shared_key(template: str, *, reason: str) -> Callable[[Callable[_P, str | None]], KeyFunction[_P]]:
    """Declare a key that belongs to no tenant, ``%shared:…``: feature flags, global locks.

    The only way to a key without a tenant. Usable in every state; a guarded client lets it pass.

    Args:
        template: As for :func:`key`.
        reason: Why this belongs to no tenant. Not blank; for readers and for grep.

    Returns:
        A decorator, as for :func:`key`; the key function never asks for a tenant.

    Raises:
        KeySchemaError: As for :func:`key`.
        TypeError: ``reason`` is missing or not a ``str``.
        ValueError: ``reason`` is blank.
    """
    _check_template(template)
    if not isinstance(reason, str):
        raise TypeError(f"shared_key(reason=...) takes a text, not {type(reason).__name__}")
    if not reason.strip():
        raise ValueError(
            "shared_key(reason=...) needs a reason that is not blank: why does this key belong to no tenant?"
        )

    def decorate(function: Callable[_P, str | None]) -> KeyFunction[_P]:
        return cast("KeyFunction[_P]", declare(template, function, shared=True))

    return decorate
