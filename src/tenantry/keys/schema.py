"""Declared key templates: what they look like, which two can meet, and which one a key belongs to."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from tenantry.errors import KeySchemaError, shown
from tenantry.keys.encoding import decode_segment, is_ordinary
from tenantry.keys.layout import SHARED_PREFIX, key_text, split_owner

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import FunctionType

    from tenantry.ids import TenantId

__all__ = ["ParsedKey", "Placeholder", "Schema", "is_shared_key", "parse"]


class ParsedKey(NamedTuple):
    """What a key says: whose it is, which schema it belongs to, and its parts.

    Attributes:
        tenant: The tenant; ``None`` for a shared key.
        schema: Name of the key function that builds it.
        parts: Placeholder → text, in the order of the template.
    """

    tenant: TenantId | None
    schema: str
    parts: Mapping[str, str]


class Placeholder(NamedTuple):
    """A segment of a template that a part fills."""

    name: str


class Schema(NamedTuple):
    """A declared template.

    ``origin`` is (module, qualified name) and ``place`` (file, line), where the declaration has one that
    a later declaration may replace; both are ``None`` for functions made inside functions.
    """

    name: str
    label: str
    template: str
    segments: tuple[str | Placeholder, ...]
    shared: bool
    origin: tuple[str, str] | None
    place: tuple[str, int] | None

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The names of the placeholders, in the order of the template."""
        return tuple(segment.name for segment in self.segments if isinstance(segment, Placeholder))

    def meets(self, other: Schema) -> bool:
        """Tell whether some parts give both schemas the same key. Decided segment by segment."""
        return (
            self.shared == other.shared
            and len(self.segments) == len(other.segments)
            and all(
                mine == theirs or isinstance(mine, Placeholder) or isinstance(theirs, Placeholder)
                for mine, theirs in zip(self.segments, other.segments, strict=True)
            )
        )

    def match(self, texts: Sequence[str]) -> dict[str, str] | None:
        """Return the parts that give these segments, or ``None``."""
        if len(texts) != len(self.segments):
            return None
        parts: dict[str, str] = {}
        for segment, text in zip(self.segments, texts, strict=True):
            if isinstance(segment, str):
                if segment != text:
                    return None
                continue
            part = decode_segment(text)
            if part is None:
                return None
            parts[segment.name] = part
        return parts

    def replaces(self, other: Schema) -> bool:
        """Tell whether this is ``other``, declared again."""
        return (self.origin is not None and self.origin == other.origin) or (
            self.place is not None and self.place == other.place
        )


def schema_of(template: str, function: FunctionType, *, shared: bool) -> Schema:
    """Return the schema that ``template`` and ``function`` declare.

    Raises:
        KeySchemaError: The template is not legal.
    """
    name = function.__name__
    module, qualified = function.__module__, function.__qualname__
    label = f"{module}.{qualified} ({shown(template)})"
    text = str.__str__(template)
    segments = tuple(_segment(segment, label) for segment in text.split(":"))
    names = [segment.name for segment in segments if isinstance(segment, Placeholder)]
    if len(set(names)) != len(names):
        raise KeySchemaError(label, None, "a placeholder stands in a template once")
    is_local = "<locals>" in qualified or name == "<lambda>"
    code = function.__code__
    is_file = not code.co_filename.startswith("<")
    return Schema(
        name=name,
        label=label,
        template=text,
        segments=segments,
        shared=shared,
        origin=None if is_local else (module, qualified),
        place=None if is_local or not is_file else (code.co_filename, code.co_firstlineno),
    )


def _segment(text: str, label: str) -> str | Placeholder:
    if text.startswith("{") and text.endswith("}") and text[1:-1].isidentifier():
        return Placeholder(text[1:-1])
    if not text:
        raise KeySchemaError(label, None, "a segment of a template is not empty")
    if not is_ordinary(text):
        raise KeySchemaError(
            label,
            None,
            f"the segment {shown(text)} is neither a placeholder, {{name}} as a whole segment, nor safe: "
            "literals have no white space, control characters, or any of % * ? [ ] \\ { }",
        )
    if decode_segment(text) is None:
        raise KeySchemaError(label, None, "a literal is UTF-8 text of at most 512 bytes")
    return text


class Registry:
    """The schemas of a process. Thread-safe."""

    def __init__(self, fallbacks: Iterable[Schema] = ()) -> None:
        self._lock = threading.Lock()
        self._schemas: tuple[Schema, ...] = ()
        self._fallbacks = tuple(fallbacks)

    def add(self, schema: Schema) -> None:
        """Add ``schema``, in the place of its own earlier declaration if there is one.

        Raises:
            KeySchemaError: It could yield a key that another one could yield too.
        """
        with self._lock:
            kept = tuple(other for other in self._schemas if not schema.replaces(other))
            for other in kept:
                if schema.meets(other):
                    raise KeySchemaError(
                        schema.label,
                        other.label,
                        "some parts would give both the same key; change a literal segment of one of them",
                    )
            replaced = [other for other in self._schemas if schema.replaces(other)]
            self._schemas = (*kept, schema)
        for other in replaced:
            if schema.template != other.template:
                import logging  # not at the top: it is the slowest import of all, and may not be needed

                logging.getLogger("tenantry").warning("key schema %s replaces %s", schema.label, other.label)

    def add_fallbacks(self, schemas: Iterable[Schema]) -> None:
        """Add schemas that parse as long as no declared one could yield their keys."""
        self._fallbacks = (*self._fallbacks, *schemas)

    def find(self, texts: Sequence[str], *, shared: bool) -> tuple[Schema, dict[str, str]] | None:
        """Return the one schema that yields these segments, with the parts that do, or ``None``."""
        declared = self._schemas
        for schema in declared:
            if schema.shared == shared and (parts := schema.match(texts)) is not None:
                return schema, parts
        for schema in self._fallbacks:
            if schema.shared != shared or (parts := schema.match(texts)) is None:
                continue
            if not any(schema.meets(other) for other in declared):
                return schema, parts
        return None


REGISTRY: Final = Registry()


def parse(key: str | bytes) -> ParsedKey:
    """Read a key back: the inverse of the key functions.

    Args:
        key: A whole key, as ``str`` or as the ``bytes`` that Redis returns.

    Returns:
        Tenant, schema and parts. ``tenant`` is ``None`` for a shared key.

    Raises:
        KeySchemaError: No declared schema yields exactly this key in the layout in use.
        TypeError: ``key`` is neither ``str`` nor ``bytes``.

    Works with no tenant active. Cost: grows with the number of declared schemas.
    """
    found = _parse_any(key)
    if found is None:
        raise KeySchemaError(
            f"key {shown(key)}", None, "no declared schema yields it; declare one with @key(...)"
        )
    return found[1]


def parse_as(schema: Schema, key: str | bytes) -> ParsedKey:
    """Read a key of ``schema`` back, as :func:`parse` does, and refuse keys of others."""
    split = _split(key)
    if split is not None and split[2] == schema.shared and (parts := schema.match(split[1])) is not None:
        return ParsedKey(split[0], schema.name, parts)
    raise KeySchemaError(f"key {shown(key)}", schema.label, "the schema does not yield this key")


def is_shared_key(key: str | bytes) -> bool:
    """Tell whether ``key`` is exactly one that a declared shared schema yields."""
    found = _parse_any(key)
    return found is not None and found[0].shared


def _split(key: str | bytes) -> tuple[TenantId | None, list[str], bool] | None:
    """Return (tenant, segments, shared) of a key, or ``None`` if it has neither kind of prefix."""
    text = key_text(key)
    if text is None:
        return None
    if text.startswith(SHARED_PREFIX):
        return None, text[len(SHARED_PREFIX) :].split(":"), True
    owned = split_owner(text)
    return None if owned is None else (owned[0], owned[1].split(":"), False)


def _parse_any(key: str | bytes) -> tuple[Schema, ParsedKey] | None:
    split = _split(key)
    if split is None:
        return None
    tenant, texts, shared = split
    found = REGISTRY.find(texts, shared=shared)
    if found is None:
        return None
    schema, parts = found
    return schema, ParsedKey(tenant, schema.name, parts)
