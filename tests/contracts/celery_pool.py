"""What holds in every pool of a Celery worker, on every broker: inherited by one class per combination."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import celery
import pytest
from celery import chain, chord, group

from tenantry import MalformedTenantHeaderError, MissingTenantHeaderError, PropagationError, tenant_scope
from tenantry.integrations.celery import quarantine
from tenantry.propagation import format_header

#: https://github.com/celery/celery/pull/10226
CALLS_HOOKS_AT_HARD_LIMIT = celery.VERSION >= (5, 7)
EVERY_PHASE = ("signal:task_received", "signal:task_prerun", "before_start", "body")
SUCCESS = (*EVERY_PHASE, "on_success", "signal:task_success", "after_return", "signal:task_postrun")
FAILURE = (*EVERY_PHASE, "on_failure", "signal:task_failure", "after_return", "signal:task_postrun")


def tenants(phases: list[str]) -> set[str]:
    """The tenants that phases have noted."""
    return {item.partition("=")[2] for item in phases}


class PoolContract:
    """Inherit it, and give it a fixture ``rig`` whose worker runs."""

    signed: ClassVar[bool] = False

    def header(self, rig: Any, tenant: str, task_id: str, name: str) -> str:
        """The header that a publisher with this rig's keys would write."""
        keys = rig.env["PROBE_SECRETS"].split(",") if self.signed else None
        return format_header(tenant, secret_keys=keys, task_id=task_id, task_name=name)

    def send_raw(self, rig: Any, task: Any, header: Any = ..., **options: Any) -> Any:
        """Publish past the edge, with whatever header."""
        headers = options.pop("headers", {})
        if header is not ...:
            headers = {**headers, "tenantry": header}
        return type(rig.app).send_task(rig.app, task.name, headers=headers, **options)

    # --- every phase ---

    def test_success_binds_every_phase(self, rig) -> None:
        """Signals, hooks and body see the publisher's tenant."""
        with tenant_scope("acme"):
            result = rig.probe.tell.delay()
        phases = rig.phases(result.id, *SUCCESS)
        assert tenants(phases) == {"acme"}
        assert result.get(timeout=20) == "acme"

    def test_failure_binds_every_phase_and_errback(self, rig) -> None:
        """A failing task keeps its tenant to the end, and passes it on to both styles of errback."""
        with tenant_scope("acme"):
            result = rig.probe.fail.apply_async(
                link_error=[rig.probe.errback_by_id.s(), rig.probe.errback_inline.s()]
            )
        phases = rig.phases(result.id, *FAILURE, "errback_by_id", "errback_inline")
        assert tenants(phases) == {"acme"}

    def test_none_task_runs_without_and_its_continuations_get_it_back(self, rig) -> None:
        """The tenant travels with a message whose task does not see it."""
        with tenant_scope("acme"):
            result = chain(rig.probe.tell.si(), rig.probe.untold.si(), rig.probe.tell.si()).delay()
            linked = rig.probe.untold.apply_async(link=[rig.probe.tell.si().set(task_id=f"l-{uuid.uuid4()}")])
        assert result.get(timeout=20) == "acme"
        assert tenants(rig.phases(result.parent.id, *SUCCESS)) == {"-"}
        assert tenants(rig.phases(linked.id, *SUCCESS)) == {"-"}

    def test_failing_none_task_gives_its_errbacks_the_tenant(self, rig) -> None:
        """An errback is a continuation, whether it is published or called."""
        with tenant_scope("acme"):
            result = rig.probe.fail_untold.apply_async(
                link_error=[rig.probe.errback_by_id.s(), rig.probe.errback_inline.s()]
            )
        phases = rig.phases(result.id, *FAILURE, "errback_by_id", "errback_inline")
        errbacks = {item for item in phases if item.startswith("errback")}
        assert errbacks == {"errback_by_id=acme", "errback_inline=acme"}
        assert tenants(set(phases) - errbacks) == {"-"}

    def test_none_tasks_in_a_chord_give_its_body_the_tenant(self, rig) -> None:
        """Nobody in the header sees the tenant; the body does."""
        with tenant_scope("acme"):
            result = chord([rig.probe.untold.si(), rig.probe.untold.si()], rig.probe.tell.si()).delay()
            many = chord([rig.probe.untold.si()], group(rig.probe.tell.si(), rig.probe.tell.si())).delay()
        assert result.get(timeout=20) == "acme"
        assert many.get(timeout=20) == ["acme", "acme"]

    def test_optional_task_runs_either_way(self, rig) -> None:
        """With a tenant under it, without one under none."""
        with tenant_scope("acme"):
            with_one = rig.probe.maybe.delay()
        without = rig.probe.maybe.delay()
        assert (with_one.get(timeout=20), without.get(timeout=20)) == ("acme", None)
        assert tenants(rig.phases(without.id, *SUCCESS)) == {"-"}

    def test_what_a_body_leaves_open_reaches_nothing(self, rig) -> None:
        """Neither its own later phases and continuations nor the next task in the same process."""
        with tenant_scope("acme"):
            results = [rig.probe.leave_open.apply_async(link=rig.probe.tell.si()) for _ in range(3)]
        for result in results:
            phases = rig.phases(result.id, *SUCCESS)
            assert tenants(phases) == {"acme"}
            result.get(timeout=20)
            assert result.children[0].get(timeout=20) == "acme"
        untold = rig.probe.leave_open_untold.delay()
        assert tenants(rig.phases(untold.id, *SUCCESS[:3], *SUCCESS[4:])) == {"-"}
        after = [rig.probe.maybe.delay() for _ in range(4)]
        assert [result.get(timeout=20) for result in after] == [None] * 4

    def test_own_request_strategy_and_base_run_bound(self, rig) -> None:
        """Whatever a task replaces of Celery's machinery."""
        with tenant_scope("acme"):
            result = rig.probe.custom.delay()
            home = rig.probe.home_made.apply_async(kwargs={"tenant_id": "globex"}, link=rig.probe.tell.si())
        assert result.get(timeout=20) == "acme"
        phases = rig.phases(result.id, *SUCCESS, "strategy", "request:on_accepted")
        assert tenants(phases) == {"acme"}
        assert home.get(timeout=20) == "globex"
        noted = rig.phases(home.id, "after_return", "on_success", "signal:task_postrun")
        assert {item for item in noted if not item.endswith("=acme")} == {"inner=globex"}
        assert home.children[0].get(timeout=20) == "acme"

    def test_users_own_context_variable_stays_as_the_body_left_it(self, rig) -> None:
        """For the later phases of the same task; the next task starts anew."""
        with tenant_scope("acme"):
            kept = rig.probe.keep_mine.delay()
            rig.phases(kept.id, "signal:task_postrun")
            others = [rig.probe.user_variable.delay() for _ in range(4)]
        assert rig.notes.lrange(f"mine:{kept.id}", 0, -1) == ["kept"]
        assert [other.get(timeout=20) for other in others] == ["unset"] * 4

    # --- the same task again ---

    def test_retry_keeps_the_own_tenant(self, rig) -> None:
        """Whatever is active when it retries."""
        with tenant_scope("acme"):
            result = rig.probe.try_again.delay()
            itself = rig.probe.try_again_by_itself.delay()
        without = rig.probe.try_again_maybe.delay()
        assert result.get(timeout=20) == "acme"
        assert itself.get(timeout=20) == "acme"
        assert without.get(timeout=20) is None
        assert tenants(rig.phases(result.id, "on_retry", "signal:task_retry", "body1", "after_return")) == {
            "acme"
        }
        assert tenants(rig.phases(without.id, "on_retry", "body1", "after_return")) == {"-"}

    @pytest.mark.parametrize("shape", ["single", "chain", "group"])
    def test_replacement_keeps_the_own_tenant(self, rig, shape) -> None:
        """Whatever replaces the task, and whatever is active when it does."""
        with tenant_scope("acme"):
            result = rig.probe.give_way.delay(shape)
        assert result.get(timeout=20) == (["acme", "acme"] if shape == "group" else "acme")

    def test_member_added_to_a_chord_has_the_own_tenant(self, rig) -> None:
        """Whatever is active when it is added."""
        with tenant_scope("acme"):
            result = chord([rig.probe.join_in.si(), rig.probe.tell.si()], rig.probe.maybe.s()).delay()
        assert result.get(timeout=20) == "acme"

    # --- canvases ---

    def test_canvases_keep_the_tenant(self, rig) -> None:
        """Groups, chords, chunks, maps, nested ones, and children of a running task."""
        probe = rig.probe
        with tenant_scope("acme"):
            results = {
                "group": group(probe.tell.si(), probe.tell.si()).delay(),
                "chord": chord([probe.plus.s(1, 2), probe.plus.s(3, 4)], probe.plus.s()).delay(),
                "nested": chain(
                    probe.plus.s(1), group(probe.plus.s(2), probe.plus.s(3)), probe.plus.s()
                ).delay(),
                "starmap": probe.plus.starmap([(1, 2), (3, 4)]).delay(),
                "map": probe.tell.map([1, 2]).delay(),
                "map_none": probe.untold.map([1, 2]).delay(),
                "chunks": probe.plus.chunks([(1, 2), (3, 4)], 1).apply_async(),
                "child": probe.start_child.delay(),
            }
        values = {name: result.get(timeout=20) for name, result in results.items()}
        child = rig.app.AsyncResult(values.pop("child"))
        assert values == {
            "group": ["acme", "acme"],
            "chord": 10,
            "nested": 7,
            "starmap": [3, 7],
            "map": ["acme", "acme"],
            "map_none": [None, None],
            "chunks": [[3], [7]],
        }
        assert child.get(timeout=20) == "acme"

    def test_countdown_and_inner_headers_keep_the_tenant(self, rig) -> None:
        """A task with an ETA waits in the parent process; an inner headers dict hides ours from the request."""
        with tenant_scope("acme"):
            later = rig.probe.tell.apply_async(countdown=0.2)
            inner = rig.probe.try_again.apply_async(headers={"headers": {"mine": "1"}})
        assert later.get(timeout=20) == "acme"
        assert tenants(rig.phases(later.id, *SUCCESS)) == {"acme"}
        assert inner.get(timeout=20) == "acme"

    def test_expired_task_is_told_under_its_tenant(self, rig) -> None:
        """What the parent process does for a task that never runs."""
        with tenant_scope("acme"):
            result = rig.probe.tell.apply_async(expires=datetime.now(UTC) - timedelta(seconds=5), countdown=0)
        phases = rig.phases(result.id, "signal:task_revoked")
        assert tenants(phases) == {"acme"}
        assert not any(item.startswith("body") for item in phases)

    # --- endings ---

    def test_endings_leave_nothing_for_the_next_task(self, rig) -> None:
        """Success, failure, retry, Ignore and Reject, and in between tasks of nobody."""
        probe = rig.probe
        watched = []
        for tenant in ("acme", "globex"):
            for task in (
                probe.tell,
                probe.fail,
                probe.ignore,
                probe.reject,
                probe.try_again,
                probe.leave_open,
            ):
                with tenant_scope(tenant):
                    watched.append((task.delay().id, tenant))
                watched.append((probe.maybe.delay().id, "-"))
        for task_id, tenant in watched:
            assert tenants(rig.phases(task_id, "signal:task_postrun")) == {tenant}

    # --- what may not run ---

    @pytest.mark.parametrize(
        ("header", "error"),
        [
            (..., MissingTenantHeaderError),
            ("v2;acme", MalformedTenantHeaderError),
            ("v1;", MalformedTenantHeaderError),
            ("v1;acme;x;y", MalformedTenantHeaderError),
            ("v1;acme\n", MalformedTenantHeaderError),
            (7, MalformedTenantHeaderError),
            (None, MalformedTenantHeaderError),
            (["v1;acme"], MalformedTenantHeaderError),
        ],
        ids=str,
    )
    def test_bad_header_never_runs(self, rig, header, error) -> None:
        """Kept once, and without secret keys told to whoever waits."""
        result = self.send_raw(rig, rig.probe.tell, header)
        entry = rig.entry(result.id)
        assert (entry.task, entry.tenant) == (rig.probe.tell.name, None)
        assert error.__name__ in entry.reason
        if self.signed:
            assert result.state == "PENDING"
        else:
            with pytest.raises(error):
                result.get(timeout=20)
        assert rig.phases(result.id) == []

    @pytest.mark.parametrize("task", ["untold", "maybe"])
    def test_bad_header_of_a_task_that_needs_none_never_runs(self, rig, task) -> None:
        """A claim that cannot be read is refused for any task; no claim is not."""
        result = self.send_raw(rig, getattr(rig.probe, task), "v1;not ok")
        assert rig.entry(result.id).tenant is None
        absent = self.send_raw(rig, getattr(rig.probe, task))
        assert absent.get(timeout=20) is None
        assert rig.phases(result.id) == []

    def test_inner_header_that_disagrees_never_runs(self, rig) -> None:
        """Also where one of the two is missing."""
        task_id, name = str(uuid.uuid4()), rig.probe.tell.name
        header = self.header(rig, "acme", task_id, name)
        self.send_raw(
            rig, rig.probe.tell, header, task_id=task_id, headers={"headers": {"tenantry": "v1;globex"}}
        )
        assert rig.entry(task_id).tenant is None
        other = self.send_raw(rig, rig.probe.tell, headers={"headers": {"tenantry": "v1;acme"}})
        assert rig.entry(other.id).tenant is None

    @pytest.mark.parametrize("name", ["celery.map", "celery.starmap", "celery.chunks"])
    @pytest.mark.parametrize("where", ["position", "name", "strange"])
    def test_builtin_around_a_required_task_never_runs_without_tenant(self, rig, name, where) -> None:
        """Celery's own tasks need what is inside them, and a tenant where that cannot be read."""
        inner = dict(rig.probe.tell.si())
        calls = {
            "position": {"args": [inner, [[1]], 1]},
            "name": {"kwargs": {"task": inner, "it": [[1]], "n": 1}},
            "strange": {"kwargs": {"task": 7, "it": [[1]]}},
        }
        result = type(rig.app).send_task(rig.app, name, **calls[where])
        assert "MissingTenantHeaderError" in rig.entry(result.id).reason

    def test_unlock_around_a_required_task_never_runs_without_tenant(self, rig) -> None:
        """It would publish its body untold."""
        result = type(rig.app).send_task(
            rig.app, "celery.chord_unlock", ("gid", dict(rig.probe.tell.si())), {"result": []}
        )
        assert "MissingTenantHeaderError" in rig.entry(result.id).reason

    def test_chord_with_a_refused_member_fails(self, rig) -> None:
        """It does not hang; with secret keys an unauthenticated message touches no chord."""
        member, group_id, body_id = (str(uuid.uuid4()) for _ in range(3))
        body = rig.probe.tell.si().set(task_id=body_id)
        rig.app.backend.set_chord_size(group_id, 1)
        self.send_raw(rig, rig.probe.tell, task_id=member, group_id=group_id, chord=dict(body))
        rig.entry(member)
        if self.signed:
            assert rig.app.AsyncResult(body_id).state == "PENDING"
        else:
            with pytest.raises(Exception, match="no tenant header|Dependency"):
                rig.app.AsyncResult(body_id).get(timeout=20)

    def test_odd_bodies_do_not_end_the_worker(self, rig) -> None:
        """Whatever the shape of a body, the worker goes on."""
        for number, body in enumerate([[], {}, 5, [[], {}], [[], {}, 5], "text", None]):
            rig.publish_body(body, {"task": rig.probe.maybe.name, "id": f"odd-{number}-{rig.queue}"})
        rig.publish_body([[], {}, {}], {"task": rig.probe.maybe.name})
        rig.publish_body([[], {}, {}], {"task": rig.probe.maybe.name, "id": [1]})
        assert rig.probe.maybe.delay().get(timeout=20) is None
        odd = [entry for entry in quarantine(rig.app).list() if (entry.task_id or "odd-").startswith("odd-")]
        assert all(PropagationError.__name__ in entry.reason for entry in odd)
        assert len(odd) == 9

    def test_tenant_whose_hook_fails_never_runs(self, rig) -> None:
        """A scope that is not entered is no scope; the worker goes on."""
        task_id, name = f"hook-{uuid.uuid4()}", rig.probe.tell.name
        self.send_raw(rig, rig.probe.tell, self.header(rig, "hookless", task_id, name), task_id=task_id)
        assert "RuntimeError: the hook failed" in rig.entry(task_id).reason
        assert rig.phases(task_id) == []
        assert rig.probe.maybe.delay().get(timeout=20) is None

    def test_replay_serves_whoever_waits(self, rig) -> None:
        """A compressed message with an expiration too; the same id, under the named tenant."""
        result = self.send_raw(rig, rig.probe.tell, compression="zlib", expires=3600)
        entry = rig.entry(result.id)
        quarantine(rig.app).replay(entry.id, tenant_id="acme")
        rig.phases(result.id, "after_return")
        assert rig.app.AsyncResult(result.id).get(timeout=20) == "acme"
        assert result.id not in [kept.task_id for kept in quarantine(rig.app).list()]


class ProcessContract(PoolContract):
    """What holds beside it where a pool can end a task from outside."""

    def test_hard_limit_is_handled_under_the_tenant(self, rig) -> None:
        """The parent process kills the child and speaks for the task."""
        with tenant_scope("acme"):
            result = rig.probe.too_long.apply_async(
                link_error=[rig.probe.errback_by_id.s(), rig.probe.errback_inline.s()]
            )
        called = ("on_failure", "after_return") if CALLS_HOOKS_AT_HARD_LIMIT else ()
        phases = rig.phases(result.id, *called, "signal:task_failure", "errback_by_id", "errback_inline")
        assert tenants(phases) == {"acme"}

    def test_soft_limit_is_handled_under_the_tenant(self, rig) -> None:
        """The exception arises in the body."""
        with tenant_scope("acme"):
            result = rig.probe.long.delay()
        assert tenants(rig.phases(result.id, "soft", *FAILURE)) == {"acme"}

    def test_lost_worker_is_handled_under_the_tenant(self, rig) -> None:
        """The child is gone, and the parent process speaks for the task; what is delivered again is the same tenant's."""
        with tenant_scope("acme"):
            lost = rig.probe.die.apply_async(
                link_error=[rig.probe.errback_by_id.s(), rig.probe.errback_inline.s()]
            )
            again = rig.probe.die_once.delay()
        phases = rig.phases(lost.id, "signal:task_failure", "errback_by_id", "errback_inline")
        assert tenants(phases) == {"acme"}
        assert again.get(timeout=30) == "acme"
        assert tenants(rig.phases(again.id, "after_return")) == {"acme"}
