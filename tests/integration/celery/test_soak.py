"""Many interleaved tasks of many tenants and of none, with every ending: each phase ran as often as it must, and as its own.

``TENANTRY_SOAK`` is the number of tasks per pool; by default 100,000.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tenantry import tenant_scope
from tenantry.integrations.celery import quarantine
from tests.contracts.celery_pool import CALLS_HOOKS_AT_HARD_LIMIT, FAILURE, SUCCESS

pytestmark = [pytest.mark.deep, pytest.mark.timeout(3600)]

TASKS = int(os.environ.get("TENANTRY_SOAK", "100000"))
TENANTS = [f"tenant-{number}" for number in range(50)]
UNDER_WAY = 2000
STARTED = ("signal:task_received", "signal:task_prerun", "before_start")
IGNORED = (*STARTED, "body", "signal:task_postrun")
REJECTED = (*IGNORED, "signal:task_failure")
RETRIED = (
    *STARTED, "body0", "on_retry", "signal:task_retry", "signal:task_postrun",
    *STARTED, "body1", "on_success", "signal:task_success", "after_return", "signal:task_postrun",
)  # fmt: skip
LOST = (*STARTED, "body", "signal:task_failure")
KILLED = (*LOST, "on_failure", "after_return") if CALLS_HOOKS_AT_HARD_LIMIT else LOST

#: Task, the phases that it must note, and how many of 10,000 tasks are of this kind.
EVERYWHERE = [
    ("tell", SUCCESS, 4000), ("maybe", SUCCESS, 2000), ("untold", SUCCESS, 500), ("leave_open", SUCCESS, 500),
    ("fail", FAILURE, 1000), ("ignore", IGNORED, 700), ("reject", REJECTED, 700), ("try_again", RETRIED, 600),
]  # fmt: skip
IN_PROCESSES = [
    ("long", (*FAILURE, "soft"), 2),
    ("too_long", KILLED, 2),
    ("die", LOST, 6),
    ("die_once", (*STARTED, "body", *SUCCESS), 4),
    ("exit_now", (*LOST, "signal:task_postrun"), 4),
]
IN_GREENLETS = [("too_long", FAILURE, 4)]
#: What the child may still note, or the parent a second time, while a process is brought to its end.
MAY_COME_TOO = {"too_long": ("signal:task_failure", "signal:task_postrun", "on_failure", "after_return")}
#: These run without a tenant, whoever publishes them.
UNTENANTED = ("maybe", "untold")


class Ledger:
    """What was published, what the phases have noted in a file, and what is still to come."""

    def __init__(self, path: Path, phases: dict[str, tuple[str, ...]]) -> None:
        self.path = path
        self.phases = {kind: Counter(names) for kind, names in phases.items()}
        self.expected: Counter[str] = Counter()
        self.observed: Counter[str] = Counter()
        self.beside: Counter[str] = Counter()
        self.tasks: dict[str, tuple[str, str]] = {}
        self.noted: dict[str, Counter[str]] = {}
        self.kinds: Counter[str] = Counter()
        self.position = 0

    def add(self, task_id: str, kind: str, tenant: str) -> None:
        """A task was published."""
        self.tasks[task_id], self.noted[task_id] = (kind, tenant), Counter()
        self.kinds[kind] += 1
        self.expected.update({f"{kind} {phase}": times for phase, times in self.phases[kind].items()})

    def read(self) -> None:
        """Take in what was noted since; a wrong tenant, a stranger and a phase too many fail here."""
        with self.path.open("rb") as file:
            file.seek(self.position)
            whole, newline, _ = file.read().rpartition(b"\n")
        self.position += len(whole + newline)
        for line in whole.decode().splitlines():
            task_id, phase, found = line.split(" ")
            kind, tenant = self.tasks[task_id]
            assert found == tenant, f"{kind} {phase} of {tenant} ran as {found}"
            self._count(task_id, kind, phase)

    def _count(self, task_id: str, kind: str, phase: str) -> None:
        noted, due = self.noted.get(task_id), self.phases[kind]
        if noted is None or noted[phase] == due[phase]:
            assert phase in MAY_COME_TOO.get(kind, ()), f"{kind} {phase} ran once too often"
            self.beside[f"{kind} {phase}"] += 1
            return
        noted[phase] += 1
        self.observed[f"{kind} {phase}"] += 1
        if noted == due:
            del self.noted[task_id]

    def wait(self, at_most: int, seconds: float = 120.0) -> None:
        """Until no more than so many tasks are under way; time runs while none is done."""
        deadline = time.monotonic() + seconds
        while (before := len(self.noted)) > at_most:
            self.read()
            if len(self.noted) < before:
                deadline = time.monotonic() + seconds
            assert time.monotonic() < deadline, f"phases are missing: {self._missing()}"
            time.sleep(0.05)

    def _missing(self) -> list[str]:
        some = list(self.noted.items())[:10]
        return [
            f"{self.tasks[task_id]}: {self.phases[self.tasks[task_id][0]] - noted}" for task_id, noted in some
        ]


@pytest.mark.parametrize(
    ("pool", "endings"),
    [
        ("prefork", EVERYWHERE + IN_PROCESSES),
        ("threads", EVERYWHERE),
        ("gevent", EVERYWHERE + IN_GREENLETS),
        ("eventlet", EVERYWHERE),
        ("solo", EVERYWHERE),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_phase_of_every_task_runs_as_its_own(new_rig, tmp_path, pool, endings) -> None:
    """Expected is what was published; a phase that is missing or doubled fails as one of another tenant does."""
    path = tmp_path / "notes"
    path.touch()
    rig = new_rig(EVENTLET_NO_GREENDNS="yes")
    ledger = Ledger(path, {kind: phases for kind, phases, _ in endings})
    chooser = random.Random(7)
    kinds, weights = [kind for kind, _, _ in endings], [weight for _, _, weight in endings]
    started = time.monotonic()
    worker = rig.worker(
        pool=pool, concurrency=1 if pool == "solo" else 4, env={"PROBE_NOTES_FILE": str(path)}
    )
    with worker:
        for kind in chooser.choices(kinds, weights, k=TASKS):
            _publish(rig, ledger, kind, chooser.choice(TENANTS))
            if len(ledger.noted) >= UNDER_WAY:
                ledger.wait(UNDER_WAY // 2)
        ledger.wait(0)
    ledger.read()
    assert ledger.observed == ledger.expected
    assert sum(ledger.kinds.values()) == TASKS
    assert list(quarantine(rig.app).list()) == []
    print(
        f"{pool}: {TASKS} tasks in {time.monotonic() - started:.0f} s: {dict(ledger.kinds)}; "
        f"{ledger.observed.total()} phases expected and observed, beside them {dict(ledger.beside)}"
    )


def _publish(rig, ledger: Ledger, kind: str, tenant: str) -> None:
    task = getattr(rig.probe, kind)
    if kind == "maybe":
        ledger.add(task.apply_async(ignore_result=True).id, kind, "-")
        return
    with tenant_scope(tenant):
        sent = task.apply_async(ignore_result=True)
    ledger.add(sent.id, kind, "-" if kind in UNTENANTED else tenant)
