"""Twelve planted faults: a loop is recorded, then run again with one thing changed.

Each must be found with the right class, at the right step, in the right component; and honest
loops must give no alarm.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from in_process_loops import Loop, record, replay_in_process

from auditkit.evidence.reader import RecordingEvidence
from auditkit.replay.recording_replay import NONDETERMINISM, OTHER_RECORD

Order = list[list[int]]


@dataclass(frozen=True)
class Fault:
    """A fault and what must be said of it.

    Attributes:
        name: Of the fault.
        kind: Class of the difference.
        step: Where it shows; a function of the samples of every step.
        component: What is named first.
        cause: Whether runs with the fault agree with each other.
        says: A part of the message.
        code: Exit code that the finding asks for.
    """

    name: str
    kind: str
    step: int | Callable[[Order], int]
    component: str
    cause: str
    says: str = ""
    code: int = 1


def drawn_first(order: Order) -> int:
    """The step that consumes sample 13 first."""
    return next(step for step, samples in enumerate(order, 1) if 13 in samples)


FAULTS = [
    Fault("seed", "RNG drift", 1, "rng/torch", NONDETERMINISM, "torch.manual_seed(SEED)"),
    Fault("workers", "data drift", 1, "batch", OTHER_RECORD, "workers is 0 there, 2 here"),
    Fault("sampler", "order drift", 1, "order", NONDETERMINISM, "runs disagree"),
    Fault("set order", "data drift", 1, "batch", OTHER_RECORD, "other data"),
    Fault("clock", "data drift", drawn_first, "batch", NONDETERMINISM, "<batch>"),
    Fault("listing", "data drift", 1, "batch", OTHER_RECORD, "other data"),
    Fault("batchnorm", "state drift", 2, "batchnorm", OTHER_RECORD, "record is of something else"),
    # Row 10 holds the state that step 9 has left.
    Fault("learning rate", "state drift", 10, "param_groups", OTHER_RECORD, "4 runs agree"),
    Fault("label", "data drift", drawn_first, "batch", OTHER_RECORD, "other data"),
    Fault("pixel", "data drift", drawn_first, "batch", OTHER_RECORD, "other data"),
    Fault("dropout", "state drift", 1, "modules", OTHER_RECORD, "record is of something else"),
    # Which kernel is the first whose bits change is the processor's own affair.
    Fault(
        "threads",
        "state drift",
        2,
        "batchnorm|grad",
        OTHER_RECORD,
        "torch threads is 1 there, 2 here",
        6,
    ),
]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Loop, RecordingEvidence]:
    """An honest loop and its recording."""
    loop = Loop(tmp_path_factory.mktemp("honest") / "run")
    return loop, record(loop)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found_with_class_step_and_component(
    fault: Fault, recorded: tuple[Loop, RecordingEvidence]
) -> None:
    loop, evidence = recorded
    found = replay_in_process(evidence, replace(loop, fault=fault.name))
    (mismatch,) = found.partings
    step = fault.step if isinstance(fault.step, int) else fault.step(loop.order)
    assert (mismatch.kind, mismatch.step) == (fault.kind, step)
    assert mismatch.component in fault.component.split("|")
    assert found.cause == fault.cause
    (finding,) = found.findings
    assert fault.says in str(finding)
    assert finding.exit_code == fault.code
    assert finding.step == found.last_step == step


def test_the_table_has_twelve_faults_of_four_classes() -> None:
    assert len({fault.name for fault in FAULTS}) == 12
    assert {fault.kind for fault in FAULTS} == {
        "order drift",
        "data drift",
        "RNG drift",
        "state drift",
    }


def test_the_unchanged_loop_is_equal(recorded: tuple[Loop, RecordingEvidence]) -> None:
    loop, evidence = recorded
    found = replay_in_process(evidence, loop)
    assert found.equal, found.findings
    assert (found.last_step, found.ranks, found.runs) == (24, 1, 1)


#: Every combination but a few; each with a seed of its own.
HONEST = [
    {
        "seed": seed,
        "workers": workers,
        "optimizer": optimizer,
        "amp": amp,
        "iterable": iterable,
        "parts": parts,
    }
    for seed, (workers, optimizer, amp, iterable, parts) in enumerate(
        itertools.product(
            (0, 2),
            ("SGD", "AdamW", "RMSprop"),
            (False, True),
            (False, True),
            (("batchnorm",), ("dropout",), ("batchnorm", "dropout")),
        )
    )
]


@pytest.mark.slow
@pytest.mark.parametrize("options", HONEST[::-1][:50], ids=str)
def test_honest_replays_give_no_alarm(options: dict[str, object], tmp_path: Path) -> None:
    loop = Loop(tmp_path / "run", **options)  # type: ignore[arg-type]
    found = replay_in_process(record(loop), loop)
    assert found.equal, found.findings
