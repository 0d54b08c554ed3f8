"""What leaves this process, whose it is, and what does not leave."""

from __future__ import annotations

import uuid

import pytest
from celery import Celery, chain, chord, group, signals, signature

from tenantry import (
    BadTenantSignatureError,
    InvalidTenantIdError,
    MalformedTenantHeaderError,
    NoTenantError,
    TenantConflictError,
    add_scope_hook,
    current_tenant_or_none,
    tenant_scope,
    without_tenant,
)
from tenantry.context import unit_of_work
from tenantry.integrations.celery import install, uninstall
from tenantry.integrations.celery.publish import _ids_in
from tenantry.propagation import extract, format_header

NEEDY = {
    "delay": lambda w: w.needs.delay(),
    "apply_async": lambda w: w.needs.apply_async(countdown=3),
    "send_task": lambda w: w.app.send_task("needs"),
    "send_task_positional": lambda w: w.app.send_task("needs", (), {}, None, None, "an-id"),
    "unknown_name": lambda w: w.app.send_task("somewhere.else"),
    "signature": lambda w: w.needs.s().delay(),
    "signature_by_name": lambda w: signature("needs", app=w.app).delay(),
    "group": lambda w: group(w.free.s(), w.maybe.s(), w.needs.s()).delay(),
    "group_of_dicts": lambda w: group([dict(w.free.s()), dict(w.needs.s())], app=w.app).delay(),
    "group_generator": lambda w: group(t.s() for t in (w.free, w.needs)).delay(),
    "nested_group": lambda w: group(w.free.s(), group(w.free.s(), w.needs.s())).delay(),
    "chain": lambda w: chain(w.free.s(), w.free.s(), w.needs.s()).delay(),
    "chain_call": lambda w: (w.free.s() | w.needs.s())(),
    "chain_run": lambda w: chain(w.free.s(), w.needs.s()).run(),
    "chain_with_group": lambda w: chain(w.free.s(), group(w.free.s(), w.needs.s()), w.free.s()).delay(),
    "chord_header": lambda w: chord([w.free.s(), w.needs.s()], w.free.s()).delay(),
    "chord_body": lambda w: chord([w.free.s(), w.free.s()], w.needs.s()).delay(),
    "chord_body_call": lambda w: chord([w.free.s(), w.free.s()])(w.needs.s()),
    "chord_body_chain": lambda w: chord([w.free.s(), w.free.s()], w.free.s() | w.needs.s()).delay(),
    "chord_run": lambda w: chord([w.free.s()], w.free.s()).run(
        group(w.free.s(), w.needs.s()), w.free.s(), ()
    ),
    "chord_by_its_task": lambda w: w.app.tasks["celery.chord"]([w.free.s(), w.needs.s()], w.free.s()),
    "chord_in_chain": lambda w: chain(w.free.s(), chord([w.free.s()] * 2, w.needs.s())).delay(),
    "link": lambda w: w.free.apply_async(link=w.needs.s()),
    "link_in_list": lambda w: w.free.apply_async(link=[w.free.s(), w.needs.s()]),
    "chain_option": lambda w: w.free.apply_async(chain=[w.needs.s()]),
    "chord_option": lambda w: w.free.apply_async(chord=w.needs.s()),
    "link_positional": lambda w: w.app.send_task(
        "free", (), {}, None, None, "an-id", None, None, None, None, None, None, [w.needs.s()]
    ),
    "link_of_signature": lambda w: w.free.s().set(link=[dict(w.needs.s())]).delay(),
    "link_of_link": lambda w: w.free.apply_async(link=w.free.s().set(link=w.needs.s())),
    "link_error": lambda w: w.free.apply_async(link_error=w.needs.s()),
    "link_error_of_group_member": lambda w: group(w.free.s(), w.free.s().on_error(w.needs.s())).delay(),
    "map": lambda w: w.needs.map([1]).delay(),
    "starmap": lambda w: w.needs.starmap([(1,)]).delay(),
    "chunks": lambda w: w.needs.chunks([(1,), (2,)], 1).apply_async(),
    "chunks_delay": lambda w: w.needs.chunks([(1,), (2,)], 1).delay(),
    "map_in_group": lambda w: group(w.free.s(), w.needs.map([1])).delay(),
    "unreadable_builtin": lambda w: w.app.send_task("celery.map", (7, [])),
    "map_of_another_option": lambda w: w.app.send_task("celery.map", (w.needs.s().set(tenant="acme"), [1])),
    "unreadable_list": lambda w: w.app.send_task("celery.map", ([w.free.s()], [1])),
    "unreadable_name": lambda w: w.app.send_task("celery.map", ({"task": ["x"]}, [])),
    "unreadable_name_in_group": lambda w: w.app.send_task("celery.group", ([{"task": ["x"]}],)),
    "unreadable_member": lambda w: w.app.send_task("celery.chain", (["free", 7],)),
    "unreadable_group": lambda w: w.app.send_task("celery.group", (7,)),
    "builtin_without_arguments": lambda w: w.app.send_task("celery.map"),
    "builtin_with_others": lambda w: w.app.send_task("celery.map", kwargs={"it": []}),
    "unlock": lambda w: w.app.send_task("celery.chord_unlock", ("gid", dict(w.needs.s())), {"result": []}),
    "apply": lambda w: w.needs.apply(),
    "apply_of_link": lambda w: w.free.apply(link=w.needs.s()),
    "apply_of_link_error": lambda w: w.free.apply(link_error=w.needs.s()),
    "apply_of_chain": lambda w: chain(w.free.s(), w.needs.s()).apply(),
    "apply_of_group": lambda w: group(w.free.s(), w.needs.s()).apply(),
    "apply_of_chord": lambda w: chord([w.free.s()], w.needs.s()).apply(),
}


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("path", NEEDY)
def test_publish_without_tenant_puts_nothing_on_the_wire(new_wire, path, protocol) -> None:
    """On whatever path, whatever would leave before the task that needs a tenant."""
    wire = new_wire({"task_protocol": protocol})
    with pytest.raises(NoTenantError, match="needs an active tenant"):
        NEEDY[path](wire)
    assert wire.messages() == []


@pytest.mark.parametrize(
    "path", [name for name in NEEDY if not name.startswith(("apply_of", "unlock", "map_of_another"))]
)
def test_publish_under_a_tenant_writes_it_on_every_message(new_wire, path) -> None:
    """The same paths, and every message of them."""
    wire = new_wire()
    with tenant_scope("acme"):
        NEEDY[path](wire)
        assert current_tenant_or_none() == "acme"
    headers = wire.headers()
    assert path == "apply" or headers
    assert set(headers) <= {"v1;acme"}


#: Celery's own tasks around one of ours, by position, by name, and as others have written them.
AROUND = {
    "celery.map": lambda one: ((one, [1]), {}),
    "celery.starmap": lambda one: ((one, [(1,)]), {}),
    "celery.chunks": lambda one: ((one, [1], 2), {}),
    "celery.chord_unlock": lambda one: (("gid", one), {"result": []}),
    "celery.group": lambda one: (([one, one], "r", "gid", ()), {}),
    "celery.chain": lambda one: (([one, one],), {}),
    "celery.chord": lambda one: (([one, one], one), {}),
}


@pytest.mark.parametrize("name", AROUND)
@pytest.mark.parametrize(
    "shape", [dict, lambda one: {"task": one["task"]}, lambda one: one["task"]], ids=["dict", "bare", "name"]
)
def test_celerys_own_task_needs_what_is_inside(wire, name, shape) -> None:
    """No more and no less, wherever it stands."""
    args, kwargs = AROUND[name](shape(wire.free.s()))
    wire.app.send_task(name, args, kwargs)
    with tenant_scope("acme"):
        wire.app.send_task(name, args, kwargs)
    assert wire.headers() == [None, "v1;acme"]
    args, kwargs = AROUND[name](shape(wire.needs.s()))
    with pytest.raises(NoTenantError):
        wire.app.send_task(name, args, kwargs)
    assert wire.messages() == []


def test_options_of_what_is_called_inside_count_for_nothing_where_there_is_no_tenant(wire) -> None:
    """It is called where ``celery.map`` runs; nobody publishes it."""
    one = wire.free.s().set(headers={"tenantry": "v1;globex"}, tenant="acme")
    wire.app.send_task("celery.map", (one, [1]))
    assert wire.headers() == [None]


@pytest.mark.parametrize("name", ["celery.accumulate", "celery.backend_cleanup"])
def test_celerys_own_task_with_nothing_inside_needs_no_tenant(wire, name) -> None:
    """It runs nobody's code."""
    wire.app.send_task(name)
    assert wire.headers() == [None]


def test_header_of_a_chord_may_be_a_group(wire) -> None:
    """One signature, or the name of one task, instead of several."""
    for header in (dict(group(wire.free.s(), wire.free.s())), "free"):
        wire.app.send_task("celery.chord", (header, dict(wire.free.s())))
        assert wire.headers() == [None]
    for header in (dict(group(wire.free.s(), wire.needs.s())), "needs"):
        with pytest.raises(NoTenantError):
            wire.app.send_task("celery.chord", (header, dict(wire.free.s())))
    group([], app=wire.app).apply_async()
    assert wire.messages() == []


def test_tenant_that_comes_out_of_a_canvas_goes_on_behind_it(wire) -> None:
    """Out of the last of a chain, the body of a chord, a group that agrees; not out of one that does not."""
    named, needs = wire.needs.s().set(tenant="acme"), wire.needs.s()
    good = [
        chain(chain(wire.free.s(), named), needs),
        chain(chord([wire.free.s(), wire.free.s()], named), needs),
        chord([group(named, named)], needs),
        wire.free.s().set(link=named.clone().set(link=needs)),
    ]
    for canvas in good:
        canvas.delay()
        assert set(wire.headers()) <= {None, "v1;acme"}
    for canvas in (
        chord([wire.free.s(), named], needs),
        group(chain(wire.free.s(), named), needs),
        wire.free.s().set(link=[named, needs]),
    ):
        with pytest.raises(NoTenantError):
            canvas.delay()
    assert wire.messages() == []


def test_declarations_are_evaluated_only_where_they_have_to_be() -> None:
    """A task that is registered, or an application that is not to be finalised, leaves them for later."""
    app = Celery("pending", broker="memory://", set_as_current=False)
    install(app)

    @app.task(name="early", lazy=False, tenancy="none", shared=False)
    def early(): ...

    @app.task(name="late", tenancy="none", shared=False)
    def late(): ...

    app.send_task("early")
    assert not app.finalized
    app.send_task("late")
    assert app.finalized
    by_hand = Celery("by_hand", broker="memory://", set_as_current=False, autofinalize=False)
    install(by_hand)
    with pytest.raises(NoTenantError):
        by_hand.send_task("somewhere.else")
    with without_tenant(reason="a test"):
        by_hand.send_task("somewhere.else")
    assert not by_hand.finalized
    for made in (app, by_hand):
        uninstall(made)
        made.close()


def test_unit_of_work_of_another_edge_is_no_running_task(wire) -> None:
    """A request publishes under its own tenant."""
    with unit_of_work("acme", unit=object()):
        wire.needs.delay()
        group(wire.needs.s(), wire.needs.s()).delay()
        assert wire.needs.apply().state == "SUCCESS"
    assert wire.headers() == ["v1;acme"] * 3


def test_header_names_that_are_no_text_are_the_callers(wire) -> None:
    """As everywhere in Celery."""
    with tenant_scope("acme"):
        wire.needs.apply_async(headers={5: "x"})
        wire.app.send_task("needs", headers=None)
    assert wire.headers() == ["v1;acme"] * 2


def test_registered_task_may_not_pass_inside_without_tenant(wire) -> None:
    """Only a name that nobody here knows may, since the worker will judge it."""
    with without_tenant(reason="a test"):
        with pytest.raises(NoTenantError, match="without_tenant"):
            wire.needs.delay()
        wire.app.send_task("somewhere.else")
        group(signature("somewhere.else", app=wire.app), wire.free.s()).delay()
    assert wire.headers() == [None, None, None]


def test_tenant_travels_whatever_the_task_declares(wire) -> None:
    """A task that runs without it passes it on to what comes after."""
    with tenant_scope("acme"):
        wire.free.delay()
        wire.maybe.delay()
    wire.free.delay()
    wire.maybe.delay()
    assert wire.headers() == ["v1;acme", "v1;acme", None, None]


def test_option_names_the_tenant(wire) -> None:
    """With none active, or the same; ``None`` is not given."""
    wire.needs.apply_async(tenant="acme")
    wire.needs.s().set(tenant="acme").delay()
    wire.app.send_task("needs", tenant="acme")
    with tenant_scope("globex"):
        wire.needs.apply_async(tenant="globex")
        wire.needs.apply_async(tenant=None)
    messages = wire.messages()
    assert [m.headers["tenantry"] for m in messages] == ["v1;acme"] * 3 + ["v1;globex"] * 2
    assert not [m for m in messages if "tenant" in m.properties or "tenant" in m.headers]
    assert current_tenant_or_none() is None


@pytest.mark.parametrize("native", [True, False])
def test_option_names_the_tenant_of_a_whole_canvas(new_wire, native) -> None:
    """Of a chord its unlock too."""
    wire = new_wire()
    canvases = [
        group(wire.needs.s(), wire.needs.s()),
        chain(wire.needs.s(), wire.needs.s()),
        chord([wire.needs.s(), wire.needs.s()], wire.needs.s()),
    ]
    for canvas in canvases:
        if native:
            canvas.apply_async(tenant="acme")
        else:
            canvas.set(tenant="acme").delay()
        headers = wire.headers()
        assert headers
        assert set(headers) == {"v1;acme"}


def test_first_of_a_chain_names_the_tenant_of_what_follows(wire) -> None:
    """It is what the others will inherit."""
    chain(wire.needs.s().set(tenant="acme"), wire.needs.s()).delay()
    chord([wire.needs.s().set(tenant="acme"), wire.needs.s().set(tenant="acme")], wire.needs.s()).delay()
    assert set(wire.headers()) == {"v1;acme"}
    chain(wire.free.s(), wire.needs.s().set(tenant="acme")).delay()
    assert wire.headers() == [None]
    with pytest.raises(NoTenantError):
        group(wire.needs.s().set(tenant="acme"), wire.needs.s()).delay()
    assert wire.messages() == []


CONFLICTS = {
    "option": lambda w: w.needs.apply_async(tenant="globex"),
    "header": lambda w: w.needs.apply_async(headers={"tenantry": "v1;globex"}),
    "inner_header": lambda w: w.needs.apply_async(headers={"headers": {"tenantry": "v1;globex"}}),
    "send_task_header": lambda w: w.app.send_task("needs", headers={"tenantry": "v1;globex"}),
    "header_of_free": lambda w: w.free.apply_async(headers={"tenantry": "v1;globex"}),
    "member": lambda w: group(w.free.s(), w.free.s().set(tenant="globex")).delay(),
    "member_header": lambda w: group(w.free.s(), w.free.s().set(headers={"tenantry": "v1;globex"})).delay(),
    "tail": lambda w: chain(w.free.s(), w.free.s().set(tenant="globex")).delay(),
    "body": lambda w: chord([w.free.s(), w.free.s()], w.free.s().set(tenant="globex")).delay(),
    "link": lambda w: w.free.apply_async(link=w.free.s().set(tenant="globex")),
    "link_error": lambda w: w.free.apply_async(link_error=w.free.s().set(tenant="globex")),
    "map": lambda w: w.free.map([1]).apply_async(tenant="globex"),
    "map_inside": lambda w: w.app.send_task("celery.map", (w.free.s().set(tenant="globex"), [1])),
    "apply": lambda w: w.free.apply(tenant="globex"),
    "apply_header": lambda w: w.free.apply(headers={"tenantry": "v1;globex"}),
    "apply_link": lambda w: w.free.apply(link=w.free.s().set(tenant="globex")),
}


@pytest.mark.parametrize("path", CONFLICTS)
def test_another_tenant_is_a_conflict_and_puts_nothing_on_the_wire(wire, path) -> None:
    """Named by option or header, of the whole or of a part."""
    with tenant_scope("acme"), pytest.raises(TenantConflictError) as caught:
        CONFLICTS[path](wire)
    assert (caught.value.active, caught.value.requested) == ("acme", "globex")
    assert wire.messages() == []


def test_two_members_of_two_tenants_are_a_conflict(wire) -> None:
    """Also where none is active: a canvas belongs to one tenant."""
    with pytest.raises(TenantConflictError):
        group(wire.needs.s().set(tenant="acme"), wire.needs.s().set(tenant="globex")).delay()
    assert wire.messages() == []


def test_header_of_the_caller_needs_an_active_tenant(wire) -> None:
    """A request's headers that are passed on never become ours."""
    with pytest.raises(TenantConflictError):
        wire.needs.apply_async(headers={"tenantry": "v1;globex"})
    with pytest.raises(TenantConflictError):
        wire.free.apply_async(headers={"tenantry": "v1;globex"})
    assert wire.messages() == []
    with tenant_scope("acme"):
        wire.needs.apply_async(headers={"tenantry": "v1;acme"})
    assert wire.headers() == ["v1;acme"]


@pytest.mark.parametrize("value", [None, 7, "acme", "v2;acme", "v1;acme ", b"v1;acme", ["v1;acme"]])
def test_malformed_header_of_the_caller_is_refused(wire, value) -> None:
    """It is no way to say nothing."""
    with tenant_scope("acme"), pytest.raises(MalformedTenantHeaderError):
        wire.needs.apply_async(headers={"tenantry": value})
    assert wire.messages() == []


def test_header_of_the_caller_in_another_spelling_is_refused(wire) -> None:
    """The worker would find two headers and run neither."""
    with tenant_scope("acme"), pytest.raises(MalformedTenantHeaderError, match="spelled 'Tenantry'"):
        wire.free.apply_async(headers={"Tenantry": "v1;acme"})
    assert wire.messages() == []


def test_ids_are_read_of_signatures_that_other_clients_wrote() -> None:
    """What another language leaves out comes as null; a task that went well must still be followed."""
    written = {"task": "a", "kwargs": None, "options": None, "args": None}
    group_of = {"task": "celery.group", "kwargs": {"tasks": [{"options": {"task_id": "t"}, "kwargs": None}]}}
    assert _ids_in([written, None, [written, group_of]]) == {"t"}


def test_body_that_names_another_tenant_than_its_chord_is_a_conflict(wire) -> None:
    """Celery would write the chord's option over the body's own."""
    for canvas in (
        chord([wire.needs.s()] * 2, wire.needs.s().set(tenant="globex")),
        chord([wire.needs.s().set(tenant="globex")] * 2, wire.needs.s()),
    ):
        with pytest.raises(TenantConflictError):
            canvas.apply_async(tenant="acme")
    assert wire.messages() == []


@pytest.mark.parametrize("value", ["", " ", "none", "a:b", 7, b"acme"])
def test_option_that_is_no_tenant_id_is_refused(wire, value) -> None:
    """Before anything is published."""
    with pytest.raises(InvalidTenantIdError):
        wire.needs.apply_async(tenant=value)
    assert wire.messages() == []


def test_stamp_named_tenant_is_not_our_option(wire) -> None:
    """Users may stamp with that word."""
    signed = wire.needs.s()
    signed.stamp(tenant="not ours")
    with tenant_scope("acme"):
        signed.delay()
    (message,) = wire.messages()
    assert message.headers["stamps"] == {"tenant": "not ours", "tenantry": "acme"}


def test_message_carries_the_stamp(wire) -> None:
    """For ``revoke_by_stamped_headers``; a stamp that others wrote does not survive."""
    forged = wire.free.s()
    forged.stamp(tenantry="globex", mine="1")
    with tenant_scope("acme"):
        wire.needs.delay()
        forged.delay()
    forged.delay()
    first, second, third = wire.messages()
    assert (first.headers["stamped_headers"], first.headers["stamps"]) == (["tenantry"], {"tenantry": "acme"})
    assert second.headers["stamps"] == {"tenantry": "acme", "mine": "1"}
    assert third.headers["stamps"] == {"mine": "1"}


def test_members_that_share_a_headers_dict_each_verify(new_wire) -> None:
    """Celery hands the same dict to all of them; the caller's stays as it was."""
    wire, shared = new_wire(secret_keys=["old", "new"]), {"mine": "1", "headers": {"tenantry": "v1;acme"}}
    with tenant_scope("acme"):
        group(wire.needs.s(), wire.needs.s(), wire.free.s()).apply_async(headers=shared)
        wire.app.send_task("needs", headers=shared)
    assert shared == {"mine": "1", "headers": {"tenantry": "v1;acme"}}
    messages = wire.messages()
    assert len(messages) == 4
    for message in messages:
        task_id, name = message.headers["id"], message.headers["task"]
        found = extract(message.headers, secret_keys="new", task_id=task_id, task_name=name)
        assert (found, message.headers["mine"]) == ("acme", "1")
        with pytest.raises(BadTenantSignatureError):
            extract(message.headers, secret_keys="new", task_id=task_id, task_name="another")
        with pytest.raises(BadTenantSignatureError):
            extract(message.headers, secret_keys="old", task_id=task_id, task_name=name)


def test_agreeing_header_of_the_caller_is_signed_anew(new_wire) -> None:
    """Unsigned, or signed for another message."""
    wire = new_wire(secret_keys="k")
    other = format_header("acme", secret_keys="k", task_id="other", task_name="needs")
    with tenant_scope("acme"):
        wire.needs.apply_async(
            headers={"tenantry": "v1;acme", "headers": {"tenantry": other}}, task_id="this"
        )
    (message,) = wire.messages()
    assert extract(message.headers, secret_keys="k", task_id="this", task_name="needs") == "acme"
    assert message.headers["headers"]["tenantry"] == message.headers["tenantry"]


def test_publish_that_fails_leaves_the_context(wire) -> None:
    """Whatever failed, and whoever was active."""

    class Odd:
        """Cannot be put into a message."""

    for active in (None, "acme"):
        for canvas in (wire.free.s(Odd()), chord([wire.free.s(Odd())], wire.free.s()).set(tenant="acme")):
            scope = tenant_scope(active) if active else without_tenant(reason="a test")
            with scope:
                with pytest.raises(Exception, match="Odd|JSON"):
                    canvas.delay()
                assert current_tenant_or_none() == active
    assert current_tenant_or_none() is None


def test_signal_receiver_sees_the_publishers_tenant(wire) -> None:
    """Whatever is connected to ``before_task_publish`` runs in the publisher's context."""
    seen = []

    def receive(headers=None, **_):
        seen.append((current_tenant_or_none(), headers["tenantry"]))

    signals.before_task_publish.connect(receive)
    try:
        with tenant_scope("acme"):
            wire.needs.delay()
    finally:
        signals.before_task_publish.disconnect(receive)
    assert seen == [("acme", "v1;acme")]


def test_task_id_that_is_no_text_is_signed_as_its_text(new_wire) -> None:
    """Serialisers turn a UUID into one, and the worker reads text."""
    wire, identity = new_wire(secret_keys="k"), uuid.uuid4()
    with tenant_scope("acme"):
        wire.needs.apply_async(task_id=identity)
    (message,) = wire.messages()
    assert extract(message.headers, secret_keys="k", task_id=str(identity), task_name="needs") == "acme"


# --- eager ---------------------------------------------------------------------------------------


def test_eager_call_runs_under_its_tenant_and_leaves_the_callers(new_wire) -> None:
    """As in a worker: bound, or not for a task that declares none, whatever its end."""
    wire = new_wire({"task_always_eager": True, "task_eager_propagates": False})

    @wire.app.task(name="see", shared=False, bind=True)
    def see(self, fail=False):
        seen = current_tenant_or_none()
        tenant_scope("globex", switch=True).__enter__()
        if fail:
            raise ValueError("as asked")
        return seen

    @wire.app.task(name="unseen", shared=False, tenancy="none")
    def unseen():
        return current_tenant_or_none()

    with tenant_scope("acme"):
        assert see.delay().get() == "acme"
        assert see.apply().get() == "acme"
        assert unseen.delay().get() is None
        assert see.delay(fail=True).state == "FAILURE"
        assert current_tenant_or_none() == "acme"
    assert see.apply_async(tenant="acme").get() == "acme"
    assert unseen.delay().get() is None
    assert current_tenant_or_none() is None
    with pytest.raises(NoTenantError):
        see.delay()


def test_eager_canvas_is_checked_whole_before_its_first_task_runs(wire) -> None:
    """What follows it included."""
    ran = []

    @wire.app.task(name="runs", shared=False, tenancy="none")
    def runs(*_):
        ran.append(1)

    first, needy = runs.s(), {"link": wire.needs.s()}
    for canvas in (chord([first, first], runs.s()), chain(first, first), group(first, wire.needs.s())):
        with pytest.raises(NoTenantError):
            canvas.apply(**({} if canvas["task"] == "celery.group" else needy))
    assert ran == []
    chord([first, first], runs.s()).apply()
    assert ran == [1, 1, 1]


def test_eager_call_gets_what_it_was_given(wire) -> None:
    """Its options, its id, and the header beside the caller's own."""

    @wire.app.task(name="see", shared=False, bind=True)
    def see(self):
        with tenant_scope("globex", switch=True):
            wire.app.send_task("see", task_id=self.request.id)
        return [self.request.id, self.request.loglevel, self.request.logfile, self.request.headers]

    headers = {"mine": 1}
    with tenant_scope("acme"):
        found = see.apply(task_id="this", loglevel=10, logfile="a-file", headers=headers).get()
        assert found == ["this", 10, "a-file", {"mine": 1, "tenantry": "v1;acme"}]
        assert see.apply().get()[0] not in (None, "None")
    assert headers == {"mine": 1}
    assert wire.headers() == ["v1;acme"] * 2


def test_eager_call_whose_scope_hook_fails_does_not_run(wire) -> None:
    """The hook's error is the caller's."""
    ran = []

    @wire.app.task(name="see", shared=False)
    def see():
        ran.append(current_tenant_or_none())

    def hook(tenant_id):
        raise RuntimeError(f"no {tenant_id} today")

    remove = add_scope_hook(hook)
    try:
        with pytest.raises(RuntimeError, match="no acme today"):
            see.apply(tenant="acme")
    finally:
        remove()
    assert ran == []


def test_eager_error_that_propagates_leaves_the_callers_tenant(new_wire) -> None:
    """And so does a retry."""
    wire = new_wire({"task_always_eager": True, "task_eager_propagates": True})

    @wire.app.task(name="again", shared=False, bind=True, max_retries=3)
    def again(self, times=1):
        if self.request.retries < times:
            with tenant_scope("globex", switch=True):
                raise self.retry(countdown=0)
        return current_tenant_or_none()

    @wire.app.task(name="fails", shared=False)
    def fails():
        raise ValueError("as asked")

    with tenant_scope("acme"):
        with pytest.raises(ValueError, match="as asked"):
            fails.delay()
        assert current_tenant_or_none() == "acme"
        assert again.apply(throw=False).get() == "acme"
        assert current_tenant_or_none() == "acme"


def test_eager_chain_passes_the_tenant_through_a_none_task(new_wire) -> None:
    """Its link is checked and run as its continuation."""
    wire = new_wire({"task_always_eager": True})
    seen = []

    @wire.app.task(name="see", shared=False)
    def see(*_):
        seen.append(current_tenant_or_none())

    @wire.app.task(name="unseen", shared=False, tenancy="none")
    def unseen(*_):
        seen.append(current_tenant_or_none())

    with tenant_scope("acme"):
        chain(see.s(), unseen.s(), see.s()).delay()
        unseen.apply_async(link=see.s())
    assert seen == ["acme", None, "acme", None, "acme"]


def test_none_task_publishes_under_nobody(new_wire) -> None:
    """Its message has a tenant, for its continuations; what its own code publishes has none."""
    wire, refused = new_wire(), []

    def publish(where) -> None:
        for canvas in (wire.needs.s(), group(wire.needs.s()), chain(wire.free.s(), wire.needs.s())):
            try:
                canvas.delay()
            except NoTenantError:
                refused.append(where)

    class Publishing(wire.app.Task):
        abstract = True

        def before_start(self, *_):
            publish("before_start")

        def on_success(self, *_):
            publish("on_success")

        def after_return(self, *_):
            publish("after_return")

    @wire.app.task(name="unseen", shared=False, tenancy="none", base=Publishing)
    def unseen():
        publish("body")

    with tenant_scope("acme"):
        unseen.apply()
    assert refused == ["before_start"] * 3 + ["body"] * 3 + ["on_success"] * 3 + ["after_return"] * 3
    assert wire.messages() == []


@pytest.mark.parametrize("path", [name for name in NEEDY if name.startswith(("chord", "chain_with_group"))])
def test_chord_without_native_join_publishes_no_unlock(new_wire, tmp_path, path) -> None:
    """Where the unlock is the first message of a chord, it is not published either."""
    wire = new_wire({"backend": f"file://{tmp_path}"})
    with pytest.raises(NoTenantError):
        NEEDY[path](wire)
    assert wire.messages() == []


def test_chord_is_checked_for_the_application_that_it_is_run_with(new_wire, tmp_path) -> None:
    """Which publishes its unlock, whatever application its signatures were made for."""
    wire = new_wire({"backend": f"file://{tmp_path}"})
    other = Celery("other", broker="memory://", backend="cache+memory://", set_as_current=False)
    free, needs = signature("free", app=other), signature("needs", app=other)
    with pytest.raises(NoTenantError):
        chord([free], free, app=other).run(group(free, needs, app=other), free, (), wire.app)
    assert wire.messages() == []
    other.close()


def test_option_of_a_chord_names_the_tenant_of_its_unlock(new_wire, tmp_path) -> None:
    """Celery publishes it without the options of the chord."""
    wire = new_wire({"backend": f"file://{tmp_path}"})
    made = [
        lambda: chord([wire.needs.s()] * 2, wire.needs.s()).apply_async(tenant="acme"),
        lambda: chord([wire.needs.s()] * 2, wire.needs.s()).set(tenant="acme").delay(),
        lambda: chord([wire.needs.s().set(tenant="acme")] * 2, wire.needs.s()).delay(),
    ]
    for publish in made:
        publish()
        messages = wire.messages()
        assert messages[0].headers["task"] == "celery.chord_unlock"
        assert [message.headers["tenantry"] for message in messages] == ["v1;acme"] * 3
    assert current_tenant_or_none() is None
