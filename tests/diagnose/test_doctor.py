"""``auditkit doctor``: what it finds in a few steps of a loop, and what it says to do."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from in_process_loops import InProcessCommands, Loop, Script
from studies import PROGRAMS, InProcessWorkers
from torch.utils.data import DataLoader

from auditkit.diagnose import doctor
from auditkit.diagnose.doctor import Diagnosis, examine_command, examine_program
from auditkit.diagnose.resuming import ResumeTrial
from auditkit.diagnose.telling import diagnosis_lines
from auditkit.errors import ProgramError, Undecided, UnsupportedLoader
from auditkit.recorder import row_client
from auditkit.records.job import ProgramSource
from auditkit.replay.live_comparison import CommandConfig


def examine(script: Script, runs: int = 2) -> Diagnosis:
    """Examine eight steps of a function."""
    return examine_command(CommandConfig(InProcessCommands(script), ["here"], {}), 8, runs)


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path / "run")


def noisy(loop: Loop, noise: Callable[[torch.Tensor], torch.Tensor]) -> Script:
    """A loop whose dropout's output is changed from its second step on."""

    class Noisy(Loop):
        def _model(self) -> torch.nn.Module:
            model = super()._model()
            calls = []

            def hook(module: object, inputs: object, output: torch.Tensor) -> torch.Tensor:
                calls.append(1)
                return noise(output) if len(calls) > 1 else output

            dropout = next(part for part in model.modules() if isinstance(part, torch.nn.Dropout))
            dropout.register_forward_hook(hook)
            return model

    return Noisy(**vars(loop))


def shaken(output: torch.Tensor) -> torch.Tensor:
    """Something that no stream and no seed has a part in."""
    return output + int.from_bytes(os.urandom(2), "big") * 1e-6


def test_a_repeatable_loop_is_called_so_with_the_number_of_runs(loop: Loop) -> None:
    found = examine(loop, runs=3)
    assert found == Diagnosis(True, 8, 3, resume=ResumeTrial(4, 4))
    assert not loop.out.exists()


@pytest.mark.slow
def test_what_is_drawn_between_two_epochs_is_in_the_checkpoint_at_their_boundary(
    loop: Loop,
) -> None:
    config = CommandConfig(InProcessCommands(replace(loop, validates=True)), ["here"], {})
    assert examine_command(config, 24).resume == ResumeTrial(12, 12)


def counting(loop: Loop) -> Script:
    """A loop that counts its steps where no checkpoint sees it, and trains by the count."""

    class Counting(Loop):
        def _model(self) -> torch.nn.Module:
            model, counter = super()._model(), itertools.count(1)
            model[0].register_forward_hook(lambda _, __, output: output / next(counter))  # type: ignore[index]
            return model

    return Counting(**vars(loop))


def test_a_loop_with_state_that_no_checkpoint_holds_is_repeatable_and_cannot_be_resumed(
    loop: Loop,
) -> None:
    found = examine(counting(loop))
    assert found.repeatable
    assert found.resume is not None
    assert found.resume.parting is not None
    assert (found.resume.step, found.resume.parting.step) == (4, 6)
    assert found.resume.parting.kind == "state drift"
    assert "a generator or counter of the loop" in found.advice[0]
    assert "give it to wrap: further models and optimizers by position" in found.advice[0]


def test_a_loop_that_cannot_be_checkpointed_is_repeatable_and_the_reason_is_said(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise UnsupportedLoader("no position of this loader can be gone on from")

    monkeypatch.setattr(row_client, "freeze", refuse)
    found = examine(loop)
    assert found.repeatable
    assert found.resume is not None
    assert "no position of this loader" in str(found.resume.refused)
    assert not found.advice


def test_a_loop_that_ends_early_is_compared_to_its_end(loop: Loop) -> None:
    config = CommandConfig(InProcessCommands(loop), ["here"], {})
    assert examine_command(config, 100).steps == 24


def test_a_stream_that_is_not_seeded_is_named_with_the_call_that_seeds_it(loop: Loop) -> None:
    found = examine(replace(loop, fault="seed"))
    assert found.parting is not None
    assert (found.parting.kind, found.parting.step) == ("RNG drift", 1)
    assert (found.parting.component, found.unseeded) == ("rng/torch", ("rng/torch",))
    assert (found.idle, found.experiments) == ((), ())
    assert "call torch.manual_seed(SEED) before the model" in found.advice[0]


def test_a_stream_that_nobody_draws_from_is_told_apart(loop: Loop) -> None:
    def script() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(random, "seed", lambda _: setattr(random, "_x", 0))
            patch.setattr(random, "random", lambda: 0.5)
            state = random.getstate()
            random.setstate((3, (*os.urandom(4), *state[1][4:]), None))
            loop()

    found = examine(script)
    assert found.repeatable
    assert found.unseeded == found.idle == ("rng/python",)
    assert found.advice == ()
    assert found.resume is not None
    assert found.resume.exact
    assert list(diagnosis_lines(found))[1] == (
        "  rng/python begins elsewhere in every run (random.seed(SEED) would change that); nothing "
        "drew from there"
    )


def test_an_unseeded_sampler_is_an_order_drift(loop: Loop) -> None:
    found = examine(replace(loop, fault="sampler"))
    assert found.parting is not None
    assert (found.parting.kind, found.parting.step) == ("order drift", 1)
    assert [(e.change, e.outcome) for e in found.experiments] == [
        ("PYTHONHASHSEED=0", "still differs")
    ]
    assert "generator=torch.Generator().manual_seed(SEED)" in found.advice[0]


def test_an_augmentation_by_the_clock_is_a_data_drift(loop: Loop) -> None:
    clock = replace(loop, fault="clock")
    config = CommandConfig(InProcessCommands(clock), ["here"], {})
    found = examine_command(config, 24)
    assert found.parting is not None
    assert (found.parting.kind, found.parting.component) == ("data drift", "batch")
    assert found.parting.step == next(
        step for step, samples in enumerate(clock.order, 1) if 13 in samples
    )
    assert found.module == "<batch>"
    assert "the clock, os.urandom or a generator that is not registered" in found.advice[0]
    assert "workers" not in found.advice[0]


def test_workers_that_are_seeded_without_a_number_are_named_and_idle_streams_are_not(
    loop: Loop,
) -> None:
    class Reseeding(Loop):
        def _loader(self) -> DataLoader[Any]:
            random.seed()  # in the main process, too, where nothing draws from it
            loader = super()._loader()
            loader.worker_init_fn = lambda _: np.random.seed()
            return loader

    reseeding = Reseeding(loop.out, workers=2)
    found = examine_command(CommandConfig(InProcessCommands(reseeding), ["here"], {}), 3)
    assert found.parting is not None
    assert (found.parting.kind, found.unseeded, found.idle) == (
        "data drift",
        ("rng/python",),
        ("rng/python",),
    )
    workers, others = found.advice
    assert workers.startswith("the loader has 2 workers with random streams of their own")
    assert "in worker_init_fn from torch.initial_seed()" in workers
    assert others.startswith("to see whether it is the workers, examine it with num_workers=0")
    assert "before the model and the loader are built" not in " ".join(found.advice)


def test_noise_in_a_module_is_found_in_that_module(loop: Loop) -> None:
    found = examine(noisy(loop, shaken))
    assert found.parting is not None
    assert (found.parting.kind, found.parting.step) == ("state drift", 2)
    assert found.parting.component == "loss"  # which belongs to its own step
    assert found.module == "2 (Dropout) output"
    assert {e.outcome for e in found.experiments} == {"still differs"}
    assert "look in or before 2 (Dropout) output" in found.advice[0]


def test_a_later_stream_drift_names_the_step(loop: Loop) -> None:
    numbers = itertools.count(1)  # goes on from run to run

    def draw_some(output: torch.Tensor) -> torch.Tensor:
        torch.rand(next(numbers))
        return output

    found = examine(noisy(loop, draw_some))
    assert found.parting is not None
    assert (found.parting.kind, found.parting.component) == ("RNG drift", "rng/torch")
    assert found.parting.step == 3
    assert "step 2 draws another number of random numbers" in found.advice[0]


# Remedies, found by experiment


def test_the_hash_seed_is_tried(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    script = noisy(
        loop, lambda out: out if os.environ.get("PYTHONHASHSEED") == "0" else shaken(out)
    )
    found = examine(script)
    assert [(e.change, e.outcome) for e in found.experiments] == [("PYTHONHASHSEED=0", "equal")]
    assert found.advice == (
        "the order of a set or dict of strings decides: sort it, or start python with "
        "PYTHONHASHSEED=0",
    )


def test_deterministic_algorithms_are_tried_and_put_back(loop: Loop) -> None:
    script = noisy(
        loop, lambda out: out if torch.are_deterministic_algorithms_enabled() else shaken(out)
    )
    found = examine(script)
    assert found.experiments[-1].change == "deterministic algorithms"
    assert found.experiments[-1].helped
    assert found.advice == ("call torch.use_deterministic_algorithms(True)",)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
def test_an_operation_that_refuses_to_be_deterministic_is_named(loop: Loop) -> None:
    def put(output: torch.Tensor) -> torch.Tensor:
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))
        return shaken(output)

    found = examine(noisy(loop, put))
    assert any("put_" in advice and "refused" in advice for advice in found.advice)


@pytest.mark.slow
def test_one_thread_is_tried_where_there_are_several(loop: Loop) -> None:
    script = noisy(
        replace(loop, fault="threads"),
        lambda out: out if os.environ.get("OMP_NUM_THREADS") == "1" else shaken(out),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("OMP_NUM_THREADS", raising=False)
        found = examine(script)
    assert found.experiments[-1].change == "one thread"
    assert found.advice[0].startswith("set OMP_NUM_THREADS=1")


# What cannot be run


def test_a_command_without_a_recorder_cannot_be_examined() -> None:
    with pytest.raises(Undecided, match="given a loop; it wrote: 'ValueError: oh no'"):
        examine(lambda: (_ for _ in ()).throw(ValueError("oh no")).__next__())
    with pytest.raises(Undecided, match="no Recorder in it"):
        examine(lambda: np.zeros(1))


def test_a_script_that_fails_is_told_with_its_error(loop: Loop) -> None:
    def fail(output: torch.Tensor) -> torch.Tensor:
        raise ValueError("the disk is full")

    with pytest.raises(Undecided, match=r"failed after step 1: .*the disk is full"):
        examine(noisy(loop, fail))


# Programs


def program(target: str, **arguments: str) -> ProgramSource:
    """A program of the tests."""
    return ProgramSource(target, str(PROGRAMS), arguments)


def test_a_program_is_examined_as_a_study_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "Workers", InProcessWorkers)
    found = examine_program(program("tiny_study.py:make_program"), 6)
    assert found == Diagnosis(True, 6, 2)
    with pytest.raises(ProgramError):
        examine_program(program("tiny_study.py:no_such_factory"), 6)


def test_the_fault_of_a_program_is_found_in_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "Workers", InProcessWorkers)
    found = examine_program(program("faulty_study.py:make_clock_program"), 10)
    assert found.parting is not None
    assert (found.parting.kind, found.parting.step) == ("state drift", 8)
    assert found.module == "drop (ClockDropout) output"
    assert "look in or before drop (ClockDropout) output" in found.advice[0]
