from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from studies import digests_of, tiny_session, trained

from auditkit.errors import NothingToPerturb, UnknownPerturbation
from auditkit.perturbations.order import Carry
from auditkit.records.declaration import DECLARATIONS, matches
from auditkit.records.plan import PerturbationSpec
from auditkit.study.stages.perturber import perturb

OPTIMIZERS = {
    "adam-reset": "adam",
    "second-moment-reset": "rmsprop",
    "second-moment-scale": "rmsprop",
}

#: What the tiny program has nothing of: ``tests/perturbations/test_memory.py``.
_OTHERS = ("average-", "teacher-", "queue-", "scheduler-", "batchnorm-recalibrate")


def changed_by(spec: PerturbationSpec | None, **arguments: str) -> set[str]:
    """Components that a perturbation changes after six steps."""
    with tiny_session(**arguments) as session:
        trained(session, 1, 6)
        before = digests_of(session)
        perturb(session, spec)
        after = digests_of(session)
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}


def test_no_perturbation_changes_nothing() -> None:
    assert changed_by(None) == set()


@pytest.mark.parametrize("name", [name for name in DECLARATIONS if not name.startswith(_OTHERS)])
def test_a_perturbation_changes_what_it_declares_and_nothing_else(name: str) -> None:
    spec = PerturbationSpec(name)
    touched, allowed = DECLARATIONS[name].touches(spec), DECLARATIONS[name].may_touch(spec)
    changed = changed_by(spec, optimizer=OPTIMIZERS.get(name, "sgd"))
    assert all(matches(component, allowed) for component in changed)
    assert bool(changed) == (DECLARATIONS[name].kind == "state")
    assert all(any(matches(c, (pattern,)) for c in changed) for pattern in touched)


def test_what_a_perturbation_draws_does_not_reach_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[torch.Tensor] = []
    monkeypatch.setattr(Carry, "apply", lambda *_: drawn.append(torch.rand(1)))
    assert changed_by(PerturbationSpec("carry")) == set()
    assert drawn


def test_a_perturbation_that_declares_random_streams_keeps_what_it_did_to_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Carry, "apply", lambda *_: torch.rand(1))
    declared = replace(Carry.declaration, touched=lambda _: ("rng/*",))
    monkeypatch.setattr(Carry, "declaration", declared)
    assert changed_by(PerturbationSpec("carry")) == {"rng/torch"}


def test_a_perturbation_that_nobody_knows_is_refused() -> None:
    with tiny_session() as session, pytest.raises(UnknownPerturbation):
        perturb(session, PerturbationSpec("frobnicate"))


@pytest.mark.parametrize(
    ("spec", "arguments"),
    [
        (PerturbationSpec("momentum-reset"), {"optimizer": "adam"}),
        (PerturbationSpec("adam-reset"), {"optimizer": "sgd"}),
        (PerturbationSpec("batchnorm-reset"), {"parts": "dropout"}),
    ],
    ids=lambda value: value.name if isinstance(value, PerturbationSpec) else "",
)
def test_a_program_without_what_is_to_be_changed_is_told(
    spec: PerturbationSpec, arguments: Any
) -> None:
    with pytest.raises(NothingToPerturb):
        changed_by(spec, **arguments)
