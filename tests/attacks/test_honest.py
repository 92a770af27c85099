"""A hundred honest runs of many kinds, none of which may be rejected.

Each is drawn from a number: what it trains, with what, on what, in which order, on how many
threads, and what a study changes. Half are studies, replayed in full; half are recordings, which
somebody with another key replays. ``pytest -m slow tests/attacks/test_honest.py`` ends in a line
that counts them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forging
import pytest
import torch
from in_process_loops import read, replay_in_process
from studies import (
    PROGRAMS,
    Run,
    check,
    check_files,
    findings_text,
    study_in_process,
    untouched,
)
from synthetic_recordings import Recording, write_replay

from attacks.proof_of_learning import reviewed
from attacks.subjects import record_loop
from auditkit.program.program import load_factory
from auditkit.records.plan import StudyPlan
from auditkit.signing.keys import PrivateKey

N_STUDIES = N_RECORDINGS = 50

TARGET = "drawn_study.py:make_program"

#: What a program may be made of, see ``programs/drawn_study.py``; weighted by repetition.
CHOICES = {
    name: values.split()
    for name, values in {
        "model": "mlp mlp conv lstm gru attention words wide",
        "optimizer": "sgd nesterov adam amsgrad adamw nadam rmsprop adagrad adadelta",
        "scheduler": "none step cosine restarts one-cycle lambda",
        "interval": "step epoch",
        "loader": "shuffle shuffle sequential weighted subset batches stream generator",
        "augmentation": "none python numpy torch all",
        "workers": "0 0 0 0 2",
        "accumulate": "1 1 2",
    }.items()
}
PARTS = ("batchnorm", "layernorm", "dropout", "ema", "scaler", "amp", "clip")

#: Resets that an optimizer's own slots allow.
_OF_SGD = ("momentum-reset",)
_OF_ADAM = ("adam-reset", "adam-reset:moments=v", "adam-reset:moments=m,step=keep")
RESETS = {
    **dict.fromkeys(("sgd", "nesterov"), _OF_SGD),
    **dict.fromkeys(("adam", "amsgrad", "adamw", "nadam"), _OF_ADAM),
}
ORDERS = ["order-reverse", "order-shuffle", "order-shuffle:draw=3", "order-swap"]


def settings_of(chance: random.Random) -> dict[str, str]:
    """Arguments of the program."""
    drawn = {name: chance.choice(values) for name, values in CHOICES.items()}
    parts = [part for part in PARTS if chance.random() < 0.3]
    return {**drawn, "parts": "+".join(parts)}


def study_of(number: int) -> tuple[StudyPlan, dict[str, str]]:
    """A plan, and the program's arguments; equal numbers give equal ones."""
    chance = random.Random(f"study {number}")
    settings = settings_of(chance)
    possible = ["carry", "optimizer-reset", "ulp:scale=4,draw=9"]
    possible += RESETS.get(settings["optimizer"], ())
    possible += ["batchnorm-reset"] * ("batchnorm" in settings["parts"])
    possible += ORDERS * (settings["loader"] != "stream")
    fork_at, window = chance.randint(2, 9), chance.randint(1, 5)
    plan = StudyPlan(
        fork_at=fork_at,
        window=window,
        horizon=fork_at + window + chance.randint(0, 6),
        seeds=chance.sample(range(2**31), chance.randint(1, 2)),
        perturbations=chance.sample(possible, 3),
        placebos=chance.randint(1, 3),
        placebo_scale=chance.choice([1, 8]),
        threads=chance.choice([1, 2]),
        augmentation_rng=chance.choice(["per-sample", "per-sample", "inherit"]),
    )
    return plan, settings


@dataclass(frozen=True)
class Drawn:
    """A recorded loop; call it to train."""

    out: Path
    seed: int
    threads: int
    epochs: int
    checkpoint_every: int
    settings: dict[str, str]

    @classmethod
    def of(cls, number: int, out: Path) -> Drawn:
        """The loop of a number."""
        chance = random.Random(f"recording {number}")
        return cls(
            out=out,
            seed=chance.randrange(2**31),
            threads=chance.choice([1, 2]),
            epochs=chance.randint(1, 3),
            checkpoint_every=chance.choice([0, 1, 4, 7]),
            settings=settings_of(chance),
        )

    def __call__(self) -> None:
        threads = torch.get_num_threads()
        with untouched(PROGRAMS):
            module: Any = load_factory(TARGET, PROGRAMS).module
            try:
                module.record(
                    *(self.out, self.seed, self.threads),
                    *(self.epochs, self.checkpoint_every, self.settings),
                )
            finally:
                torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(N_STUDIES))
def test_an_honest_study_is_verified(number: int, tmp_path: Path, key: PrivateKey) -> None:
    plan, settings = study_of(number)
    run = study_in_process(tmp_path / "run", key, plan, TARGET, arguments=settings)
    report = check(run, strict=True)
    assert (report.verdict, report.exit_code) == ("verified", 0), findings_text(report)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(N_RECORDINGS))
def test_an_honest_recording_is_verified(
    number: int, tmp_path: Path, key: PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("AUDITKIT_KEY", raising=False)
    Drawn.of(number, tmp_path / "run")()
    run = Recording(tmp_path / "run", key)  # its verifier trusts the reviewer's key, too
    forging.resign(run, key)
    assert check_files(run, strict=True).verdict == "integrity-only"
    found = replay_in_process(read(run.folder), Drawn.of(number, tmp_path / "again"))
    write_replay(
        run,
        findings=found.findings,
        last_step=found.last_step,
        environment=found.environment,
        checkpoints=found.checkpoints,
    )
    assert found.checkpoints == len(run.recorded.ranks[0].checkpoints)
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
    loops = [Drawn.of(number, Path("out")) for number in range(N_RECORDINGS)]
    for drawn in ([s for _, s in studies], [loop.settings for loop in loops]):
        for name, values in CHOICES.items():
            assert {settings[name] for settings in drawn} == set(values), name
        for part in PARTS:
            assert any(part in settings["parts"].split("+") for settings in drawn), part
    specs = {spec.name for plan, _ in studies for spec in plan.perturbations}
    named = {"momentum-reset", "adam-reset", "batchnorm-reset", *(o.split(":")[0] for o in ORDERS)}
    assert named <= specs
    assert {plan.threads for plan, _ in studies} == {loop.threads for loop in loops} == {1, 2}
    assert len({(plan.seeds, *settings.items()) for plan, settings in studies}) == N_STUDIES
    assert len({loop.seed for loop in loops}) == N_RECORDINGS
