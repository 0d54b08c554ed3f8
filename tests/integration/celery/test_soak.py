"""Many interleaved tasks of many tenants and of none, with every ending: each phase ran, and ran as its own.

``TENANTRY_SOAK`` is the number of tasks per pool; by default 100,000.
"""

from __future__ import annotations

import os
import random
import time

import pytest

from tenantry import tenant_scope
from tests.contracts.celery_pool import FAILURE, SUCCESS

pytestmark = [pytest.mark.deep, pytest.mark.timeout(3600)]

TASKS = int(os.environ.get("TENANTRY_SOAK", "100000"))
TENANTS = [f"tenant-{number}" for number in range(50)]
STARTED = ("signal:task_received", "signal:task_prerun", "before_start")
UNUSUAL = (*STARTED, "body", "signal:task_postrun")
RETRIED = (*STARTED, "body0", "on_retry", "signal:task_retry", "body1", "on_success", "after_return")

#: Task, the phases that it must note, and how many of 10,000 tasks are of this kind.
EVERYWHERE = [
    ("tell", SUCCESS, 4000), ("maybe", SUCCESS, 2000), ("leave_open", SUCCESS, 1000), ("fail", FAILURE, 1000),
    ("ignore", UNUSUAL, 700), ("reject", UNUSUAL, 700), ("try_again", RETRIED, 600),
]  # fmt: skip
IN_PROCESSES = [
    ("long", (*FAILURE, "soft"), 2),
    ("too_long", (*STARTED, "body", "signal:task_failure"), 2),
    ("die", (*STARTED, "body", "signal:task_failure"), 6),
]


@pytest.mark.parametrize(
    ("pool", "endings"),
    [
        ("prefork", EVERYWHERE + IN_PROCESSES),
        ("threads", EVERYWHERE),
        ("gevent", EVERYWHERE),
        ("eventlet", EVERYWHERE),
        ("solo", EVERYWHERE),
    ],
)
def test_every_phase_of_every_task_runs_as_its_own(new_rig, pool, endings) -> None:
    """Expected is what was published; a phase that is missing fails as a wrong one does."""
    rig = new_rig(EVENTLET_NO_GREENDNS="yes")
    chooser = random.Random(7)
    kinds = {name: phases for name, phases, _ in endings}
    weights = [weight for _, _, weight in endings]
    left: dict[str, tuple[str, str]] = {}
    counted = 0
    with rig.worker(pool=pool, concurrency=4 if pool != "solo" else 1, loglevel="INFO"):
        for _ in range(TASKS):
            (name,) = chooser.choices(list(kinds), weights)
            task = getattr(rig.probe, name)
            if name == "maybe":
                left[task.apply_async(ignore_result=True).id] = (name, "-")
                continue
            tenant = chooser.choice(TENANTS)
            with tenant_scope(tenant):
                left[task.apply_async(ignore_result=True).id] = (name, tenant)
            if len(left) >= 2000:
                counted += _settle(rig, left, kinds, wait_for_all=False)
        counted += _settle(rig, left, kinds, wait_for_all=True)
    assert left == {}
    assert counted == TASKS


def _settle(rig, left: dict, kinds: dict, *, wait_for_all: bool) -> int:
    """Take off what has noted all of its phases, each under the right tenant."""
    counted, deadline = 0, time.monotonic() + 120
    while left and time.monotonic() < deadline:
        ids = list(left)
        with rig.notes.pipeline(transaction=False) as pipe:
            for task_id in ids:
                pipe.lrange(f"phases:{task_id}", 0, -1)
            noted = dict(zip(ids, pipe.execute(), strict=True))
        before = counted
        for task_id, found in noted.items():
            name, tenant = left[task_id]
            wrong = [item for item in found if item.partition("=")[2] != tenant]
            assert not wrong, f"{name} of {tenant}: {wrong}"
            if {item.partition("=")[0] for item in found}.issuperset(kinds[name]):
                del left[task_id]
                rig.notes.delete(f"phases:{task_id}")
                counted += 1
        if counted != before:
            deadline = time.monotonic() + 120
        if not wait_for_all and len(left) < 1000:
            break
        time.sleep(0.1)
    missing = {kind: sum(1 for name, _ in left.values() if name == kind) for kind in kinds}
    assert not (wait_for_all and left), f"phases are missing: {missing}"
    return counted
