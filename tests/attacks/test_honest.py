"""A hundred honest runs of many kinds, none of which may be rejected."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import in_process_loops
import pytest
from studies import Run, check, check_files, findings_text, study_in_process

from attacks.proof_of_learning import reviewed, reviewed_with
from attacks.subjects import record_loop
from auditkit.records.plan import StudyPlan
from auditkit.signing.keys import PrivateKey

N_STUDIES = 60
N_RECORDINGS = 40

OPTIMIZERS = {"sgd": "momentum-reset", "adam": "adam-reset", "adamw": "adam-reset:moments=v"}


def study_of(number: int) -> tuple[StudyPlan, dict[str, str]]:
    """A plan and arguments of the tiny study's program; equal numbers give equal ones."""
    chance = random.Random(number)
    kind = chance.choice(sorted(OPTIMIZERS))
    parts = [part for part in ("batchnorm", "dropout", "ema", "scaler") if chance.random() < 0.5]
    data = chance.choice(["map", "map", "map", "iterable"])
    perturbations = ["carry", OPTIMIZERS[kind], "optimizer-reset"]
    perturbations += ["batchnorm-reset"] * ("batchnorm" in parts)
    perturbations += chance.sample(["order-reverse", "order-shuffle", "order-swap"], 2) * (
        data == "map"
    )
    fork_at, window = chance.randint(2, 9), chance.randint(1, 5)
    plan = StudyPlan(
        fork_at=fork_at,
        window=window,
        horizon=fork_at + window + chance.randint(0, 6),
        seeds=chance.sample(range(2**31), chance.randint(1, 2)),
        perturbations=perturbations,
        placebos=chance.randint(1, 3),
        placebo_scale=chance.choice([1, 8]),
        augmentation_rng=chance.choice(["per-sample", "per-sample", "inherit"]),
    )
    return plan, {
        "optimizer": kind,
        "parts": "+".join(parts) or "none",
        "scheduler": chance.choice(["none", "step", "epoch"]),
        "data": data,
        "workers": chance.choice(["0", "0", "0", "0", "0", "2"]),
        "accumulate": chance.choice(["1", "1", "2"]),
    }


def loop_of(number: int) -> dict[str, Any]:
    """Fields of a loop."""
    chance = random.Random(number)
    return {
        "seed": chance.randrange(2**31),
        "optimizer": chance.choice(["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"]),
        "workers": chance.choice([0, 0, 0, 0, 2]),
        "amp": chance.random() < 0.3,
        "iterable": chance.random() < 0.3,
        "parts": tuple(p for p in ("batchnorm", "dropout") if chance.random() < 0.6),
        "epochs": chance.randint(1, 3),
        "checkpoint_every": chance.choice([0, 1, 5, 7]),
    }


@pytest.mark.slow
@pytest.mark.parametrize("number", range(N_STUDIES))
def test_an_honest_study_is_verified(number: int, tmp_path: Path, key: PrivateKey) -> None:
    plan, arguments = study_of(number)
    run = study_in_process(tmp_path / "run", key, plan, arguments=arguments)
    report = check(run, strict=True)
    assert (report.verdict, report.exit_code) == ("verified", 0), findings_text(report)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(N_RECORDINGS))
def test_an_honest_recording_is_verified(number: int, tmp_path: Path, key: PrivateKey) -> None:
    fields = loop_of(number)
    run = record_loop(tmp_path / "run", key, **fields)
    assert check_files(run, strict=True).verdict == "integrity-only"
    reviewed_with(run, in_process_loops.Loop(tmp_path / "again", **fields))
    report = check_files(run, strict=True)
    assert (report.verdict, report.exit_code) == ("verified", 0), findings_text(report)


def test_a_loop_that_a_reviewer_replayed_is_verified_and_a_strangers_word_counts_for_nothing(
    tmp_path: Path, key: PrivateKey
) -> None:
    run = record_loop(tmp_path / "run", key)
    reviewed(run)
    assert check_files(run).verdict == "verified"
    assert check_files(Run(run.folder, key)).verdict == "integrity-only"


def test_the_honest_runs_are_of_many_kinds() -> None:
    studies = [study_of(number) for number in range(N_STUDIES)]
    for field in ("optimizer", "scheduler", "data", "workers", "accumulate"):
        assert len({arguments[field] for _, arguments in studies}) > 1
    assert len({plan.seeds for plan, _ in studies}) == N_STUDIES
    assert len({repr(loop_of(number)) for number in range(N_RECORDINGS)}) == N_RECORDINGS
