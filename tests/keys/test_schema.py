"""Templates, collisions, replacement, and parsing with all schemas."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from tenantry import KeySchemaError, keys, tenant_scope
from tenantry.keys import key, parse, shared_key
from tenantry.keys.schema import REGISTRY


def declare(template, name="made", *, shared=False, module="app", qualname=None, filename="<string>", line=1):
    """Declare a schema as if it stood at a place of our choice."""
    parameters = [s[1:-1] for s in template.split(":") if s.startswith("{") and s.endswith("}")]
    parameters = [p for p in dict.fromkeys(parameters) if p.isidentifier()]
    source = "\n" * (line - 1) + f"def {name}({', '.join(parameters)}): 'String.'"
    namespace = {"__name__": module}
    exec(compile(source, filename, "exec"), namespace)
    function = namespace[name]
    function.__qualname__ = qualname or f"f.<locals>.{name}"
    return (shared_key(template, reason="a test") if shared else key(template))(function)


@pytest.mark.parametrize(
    "template",
    [
        "", ":", "a:", ":a", "a::b", "a b:{x}", "a:{x}y", "a:{}", "a:{x", "a:x}", "a:{x-y}", "a:{1}", "a*:{x}", "a?", "a[b]",
        "a%20:{x}", "a\\b", "a\n", "a\x7f", "a\u00a0b", "\ud800", "{x!r}", "{x.y}", "a:{{x}}", "x" * 513, "a:{x}:{x}",
    ],
    ids=ascii,
)  # fmt: skip
@pytest.mark.parametrize("shared", [False, True])
def test_illegal_template_is_refused_at_the_declaration(template, shared):
    """Unsafe literals, partial placeholders, empty segments."""
    with pytest.raises(KeySchemaError, match="made"):
        declare(template, shared=shared)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a:{x}", "a:{y}"),
        ("a:{x}", "a:b"),
        ("a:{x}:c", "a:b:{y}"),
        ("{x}:b", "a:{y}"),
        ("{x}", "a"),
        ("a", "a"),
        ("a:b", "a:b"),
        ("{x}:{y}", "a:b"),
    ],
)
@pytest.mark.parametrize("shared", [False, True])
def test_schemas_that_could_yield_one_key_collide(one, other, shared):
    """Both are named, in either order of declaration."""
    declare(one, "first", shared=shared)
    with pytest.raises(KeySchemaError, match="same key") as caught:
        declare(other, "second", shared=shared)
    assert "second" in caught.value.schema
    assert "first" in caught.value.other
    assert "first" in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other"),
    [("a:{x}", "b:{x}"), ("a:{x}", "a:{x}:{y}"), ("a:{x}:c", "a:{x}:d"), ("{x}:b", "{x}:c"), ("a", "a:{x}")],
)
def test_schemas_that_cannot_meet_stand_side_by_side(one, other):
    """A different literal or length is enough; each key parses as its own."""
    first, second = declare(one, "first"), declare(other, "second")
    with tenant_scope("acme"):
        for function, name in ((first, "first"), (second, "second")):
            arguments = ["v"] * function.template.count("{")
            assert parse(function(*arguments)).schema == name


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("", "a segment of a template is not empty"),
        ("a::{x}", "a segment of a template is not empty"),
        ("bx}", "neither a placeholder"),
        ("{xb", "neither a placeholder"),
        ("{x-y}", "neither a placeholder"),
        ("x" * 513, "at most 512 bytes"),
        ("{x}:{x}", "stands in a template once"),
    ],
)
def test_refused_template_is_told_why(template, why):
    """Also where a parameter has the name that half a placeholder would have."""
    with pytest.raises(KeySchemaError, match=why):

        @key(template)
        def function(x):
            """String."""


def test_lambdas_never_replace_one_another():
    """All of a module's have one name."""
    declared = {}
    for template in ("a:{x}", "b:{x}"):
        exec(
            f"declared[{template!r}] = key({template!r})(lambda x: None)", {"declared": declared, "key": key}
        )
    with tenant_scope("acme"):
        assert [parse(function("1")).parts for function in declared.values()] == [{"x": "1"}] * 2


def test_shared_and_tenant_schemas_never_meet():
    """Their prefixes differ."""
    declare("a:{x}", "first")
    declare("a:{x}", "second", shared=True)
    with tenant_scope("acme"):
        assert parse("acme:a:1").schema == "first"
    assert parse("%shared:a:1").schema == "second"


# --- the seven -----------------------------------------------------------------------------------------

SEVEN = [
    ("rate_limit", ["slack"], "ratelimit:slack"),
    ("idempotency", ["m1"], "dedup:m1"),
    ("session", ["t1"], "session:t1"),
    ("engaged_thread", ["t1"], "engaged:t1"),
    ("memory_short", ["a1", "u1"], "memory:short:a1:u1"),
    ("escalation_status", ["t1"], "escalation:t1"),
    ("pending_tool_confirm", ["t1"], "tool_confirm:t1"),
]


@pytest.mark.parametrize(("name", "arguments", "rest"), SEVEN)
def test_the_seven_have_their_formats(name, arguments, rest, prefix):
    """Byte for byte, and back."""
    function = getattr(keys, name)
    assert getattr(keys, name) is function
    with tenant_scope("acme"):
        made = function(*arguments)
    assert made == prefix + rest
    parsed = parse(made)
    assert (parsed.tenant, parsed.schema, list(parsed.parts.values())) == ("acme", name, arguments)


@pytest.mark.parametrize(("name", "arguments", "rest"), SEVEN)
def test_the_seven_parse_before_they_are_used(name, arguments, rest):
    """They count in parse though they are not declared yet."""
    assert parse(f"acme:{rest}").schema == name
    assert REGISTRY._schemas == ()


def test_template_of_the_seven_is_free_until_it_is_used():
    """An application that takes the place has it, in parse too."""
    declare("session:{id}", "session")
    with tenant_scope("acme"):
        assert keys.rate_limit("x") == "acme:ratelimit:x"
    assert parse("acme:session:1").parts == {"id": "1"}
    with pytest.raises(KeySchemaError, match=r"tenantry\.keys.*session.*session:\{id\}"):
        _ = keys.session


def test_schema_that_takes_a_part_of_the_place_takes_the_place():
    """What only the displaced schema would yield parses no more."""
    declare("session:fixed", "fixed")
    assert parse("acme:session:fixed").schema == "fixed"
    with pytest.raises(KeySchemaError, match="no declared schema"):
        parse("acme:session:other")


def test_the_seven_collide_once_they_are_used():
    """They are schemas like any other."""
    _ = keys.session
    with pytest.raises(KeySchemaError, match="session:{thread_id}"):
        declare("session:{id}", "mine")


def test_module_has_no_other_attributes():
    """A misspelt key function is an AttributeError."""
    with pytest.raises(AttributeError, match="memory_shrot"):
        _ = keys.memory_shrot


# --- declaring again -------------------------------------------------------------------------------------


def test_same_module_and_name_replaces_with_a_warning(caplog):
    """Autoreload and notebooks."""
    declare("a:{x}", qualname="cart")
    declare("a:{x}", qualname="cart")
    assert caplog.text == ""
    declare("b:{x}", qualname="cart")
    assert "replaces" in caplog.text
    assert parse("acme:b:1").schema == "made"
    with pytest.raises(KeySchemaError, match="no declared schema"):
        parse("acme:a:1")


def test_same_file_and_line_replaces():
    """A script is __main__ first and a module later."""
    declare("a:{x}", module="__main__", qualname="cart", filename="app.py", line=7)
    declare("a:{x}", module="app", qualname="cart", filename="app.py", line=7)
    assert len(REGISTRY._schemas) == 1
    with pytest.raises(KeySchemaError, match="same key"):
        declare("a:{x}", module="other", qualname="cart", filename="app.py", line=8)


def test_lines_of_an_interactive_prompt_are_no_place():
    """Two declarations at the first line of a prompt are two."""
    declare("a:{x}", "one", module="m", qualname="one", filename="<stdin>")
    declare("b:{x}", "two", module="m", qualname="two", filename="<stdin>")
    assert len(REGISTRY._schemas) == 2


def test_functions_of_a_factory_never_replace():
    """All schemas of a factory stand, and a second one of the same template collides."""

    def factory(kind):
        @key(f"{kind}:{{x}}")
        def made(x):
            """String."""

        return made

    one, two = factory("one"), factory("two")
    with tenant_scope("acme"):
        assert parse(one("1")).schema == parse(two("1")).schema == "made"
    with pytest.raises(KeySchemaError, match="same key"):
        factory("one")


def test_failed_replacement_leaves_the_old_schema():
    """A collision with a third schema changes nothing."""
    declare("a:{x}", qualname="cart")
    declare("b:{x}", qualname="basket")
    with pytest.raises(KeySchemaError, match="same key"):
        declare("b:{x}", qualname="cart")
    assert parse("acme:a:1").parts == {"x": "1"}


def test_key_may_become_a_shared_key_in_a_reload():
    """It is the same declaration, changed."""
    declare("a:{x}", qualname="cart")
    declare("a:{x}", qualname="cart", shared=True)
    assert parse("%shared:a:1").schema == "made"
    with pytest.raises(KeySchemaError, match="no declared schema"):
        parse("acme:a:1")


# --- parse -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "", "acme", "acme:", "acme:a", "acme:a:", "acme::1", ":a:1", "a b:a:1", "none:a:1", "acme:a:1:2", "acme:a:%31", "acme:a:%3a",
        "acme:a:x y", "ACME%3A:a:1", "{acme}:a:1", "%shared:a:1", "%other:a:1", b"acme:a:\xff", "acme:a:\ud800", "acme:a:" + "x" * 513,
        "acme:A:1",
    ],
    ids=ascii,
)  # fmt: skip
def test_parse_accepts_only_what_a_key_function_builds(text):
    """Anything else is no key, however close."""
    declare("a:{x}")
    with pytest.raises(KeySchemaError, match="no declared schema yields it"):
        parse(text)


def test_no_shared_key_is_read_as_one_of_the_seven():
    """They belong to tenants."""
    assert parse("acme:memory:short:a1:u1").schema == "memory_short"
    with pytest.raises(KeySchemaError, match="no declared schema yields it"):
        parse("%shared:memory:short:a1:u1")


def test_parse_takes_text_and_bytes():
    """Anything else is refused."""
    with pytest.raises(TypeError, match="not int"):
        parse(1)


def test_declaring_imports_nothing_heavy():
    """A declaration costs no import of inspect."""
    source = """
        import sys
        from tenantry import keys
        keys.memory_short
        sys.exit("inspect" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(source)], check=False).returncode == 0
