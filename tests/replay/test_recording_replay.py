"""Replays of recordings: what is compared, how far states are apart, how a replay can fail.

What differs, and how it is named, is in ``test_planted_faults.py``.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from idle_loops import IdleLoop
from in_process_loops import InProcessCommands, Loop, read, record, replay_in_process
from torch.optim.optimizer import register_optimizer_step_pre_hook

import auditkit as ak
from auditkit.errors import CommandError, Undecided
from auditkit.evidence.reader import RecordingEvidence
from auditkit.processes.commands import Commands
from auditkit.replay.live_comparison import CommandConfig
from auditkit.replay.recording_replay import OTHER_RECORD, replay_recording


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Loop, RecordingEvidence]:
    """A loop of 24 steps with checkpoints after every fifth."""
    loop = Loop(tmp_path_factory.mktemp("loop") / "run")
    return loop, record(loop)


@contextmanager
def raising_at(step: int, error: BaseException) -> Iterator[None]:
    """Have the optimizer raise at a step."""
    steps: list[int] = []

    def stop(optimizer: object, args: object, kwargs: object) -> None:
        steps.append(1)
        if len(steps) == step:
            raise error

    handle = register_optimizer_step_pre_hook(stop)
    try:
        yield
    finally:
        handle.remove()


def test_an_equal_loop_is_equal_in_every_step(recorded: tuple[Loop, RecordingEvidence]) -> None:
    loop, evidence = recorded
    steps: list[int] = []
    before = sorted(path.name for path in loop.out.rglob("*"))
    found = replay_recording(
        evidence, CommandConfig(InProcessCommands(loop), ["here"], {}), steps.append
    )
    assert found.equal
    assert (found.last_step, found.ranks, found.partings) == (24, 1, ())
    assert found.environment_differences == ()
    assert steps == list(range(1, 26))
    assert sorted(path.name for path in loop.out.rglob("*")) == before


def test_a_command_of_another_number_of_processes_decides_nothing(
    recorded: tuple[Loop, RecordingEvidence], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, evidence = recorded
    monkeypatch.setattr("auditkit.recorder.tasks.rank_and_size", lambda: (0, 2))
    with pytest.raises(Undecided, match=r"another number of processes .*\(expected 1, found 2\)"):
        replay_in_process(evidence, loop)


def test_rows_are_compared_across_the_chunks_of_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("auditkit.recorder.writer.TRACE_STEPS", 6)
    monkeypatch.setattr("auditkit.files.recording_folder.TRACE_STEPS", 6)
    monkeypatch.setattr("auditkit.replay.recorded_rows.TRACE_STEPS", 6)
    loop = Loop(tmp_path / "run")
    evidence = record(loop)
    assert len(evidence.manifest.ranks[0].traces) == 4
    assert replay_in_process(evidence, loop).equal
    found = replay_in_process(evidence, replace(loop, fault="learning rate", at=18))
    assert (found.last_step, found.partings[0].component) == (19, "param_groups")


@pytest.mark.parametrize(("epochs", "step"), [(1, 13), (3, 25)])
def test_a_loop_of_another_length_is_found(
    epochs: int, step: int, recorded: tuple[Loop, RecordingEvidence]
) -> None:
    loop, evidence = recorded
    found = replay_in_process(evidence, replace(loop, epochs=epochs))
    (mismatch,) = found.partings
    assert (mismatch.kind, mismatch.component, mismatch.step) == ("length", "steps", step)


class Late(Loop):
    """A loop whose model gives something else from its 15th step on, in a resumed loop as well."""

    def _model(self) -> torch.nn.Module:
        model = super()._model()
        counted = next(part for part in model.modules() if isinstance(part, torch.nn.BatchNorm1d))
        model.register_forward_hook(
            lambda _, __, output: output * (2 if int(counted.num_batches_tracked or 0) > 14 else 1)
        )
        return model


@pytest.mark.slow
def test_a_replay_from_the_end_of_an_epoch_knows_what_was_drawn_there(tmp_path: Path) -> None:
    """What explains a difference goes on from the checkpoint, and need not begin anew."""
    loop = Loop(tmp_path / "run", checkpoint_every=12, validates=True)
    found = replay_in_process(record(loop), Late(**vars(loop)))
    assert (found.partings[0].step, found.cause) == (15, OTHER_RECORD)
    assert found.runs == 3  # a fourth would begin at the start


@pytest.mark.parametrize(
    ("sets", "at", "line"),
    [
        (
            {"maximize": True},
            9,
            "maximize False -> True from step 10 on (param_groups[0]; the first",
        ),
        (
            {"maximize": True},
            10,
            "maximize False -> True from step 11 on (param_groups[0]); step 10",
        ),
        (
            {"foreach": False},
            9,
            "foreach None -> False from step 10 on (param_groups[0]; the first",
        ),
        ({"mode": "mine"}, 10, "mode None -> mine from step 11 on (param_groups[0]); step 10"),
    ],
)
def test_settings_that_are_no_numbers_are_named(
    sets: dict[str, object], at: int, line: str, recorded: tuple[Loop, RecordingEvidence]
) -> None:
    loop, evidence = recorded
    changed = replace(loop, fault="learning rate", at=at, sets=sets)
    (finding, *_) = replay_in_process(evidence, changed).findings
    assert str(finding).startswith(f"rank 0: {line}")
    assert str(finding).count(" -> ") == 1


# Distances


def test_states_are_measured_at_the_checkpoint_after_the_difference(
    recorded: tuple[Loop, RecordingEvidence],
) -> None:
    loop, evidence = recorded
    found = replay_in_process(evidence, replace(loop, fault="batchnorm"))
    assert found.distance is not None
    assert found.distance.step == 5
    (apart,) = found.distance.components
    assert apart.component == "batchnorm"
    assert apart.absolute_tensor in ("1.running_mean", "1.running_var")
    assert apart.absolute is not None
    assert apart.absolute > 1e-3


def test_states_are_measured_at_a_checkpoint_that_has_just_gone_by(tmp_path: Path) -> None:
    loop = Loop(tmp_path / "run", checkpoint_every=10)
    found = replay_in_process(record(loop), replace(loop, fault="learning rate", at=20))
    assert (found.last_step, found.cause) == (21, OTHER_RECORD)
    assert found.distance is not None
    assert found.distance.step == 20
    components = {apart.component: apart for apart in found.distance.components}
    assert sorted(components) == ["param_groups", "params"]
    assert components["params"].absolute_tensor is not None


def test_without_a_later_checkpoint_there_is_no_distance(tmp_path: Path) -> None:
    loop = Loop(tmp_path / "run", checkpoint_every=0)
    found = replay_in_process(record(loop), replace(loop, fault="batchnorm"))
    assert (found.distance, found.cause, found.last_step) == (None, OTHER_RECORD, 2)


@pytest.mark.slow
def test_a_state_is_written_where_a_later_epoch_begins(tmp_path: Path) -> None:
    loop = Loop(tmp_path / "run", checkpoint_every=12)
    found = replay_in_process(record(loop), replace(loop, fault="batchnorm"))
    assert found.distance is not None
    assert [apart.component for apart in found.distance.components] == ["batchnorm"]
    assert found.distance.step == 12


# What the replay runs


def test_a_recorded_hash_seed_is_set(recorded: tuple[Loop, RecordingEvidence]) -> None:
    loop, evidence = recorded
    environment = evidence.manifest.environment
    for variables, expected in (
        ({}, {"MINE": "1"}),
        ({"PYTHONHASHSEED": "7"}, {"MINE": "1", "PYTHONHASHSEED": "7"}),
    ):
        manifest = replace(evidence.manifest, environment=replace(environment, variables=variables))
        commands = InProcessCommands(loop)
        seeded = RecordingEvidence(evidence.root, manifest)
        assert replay_recording(seeded, CommandConfig(commands, ["here"], {"MINE": "1"})).equal
        assert commands.variables == [expected]


def test_other_arguments_are_named(
    recorded: tuple[Loop, RecordingEvidence], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, evidence = recorded
    monkeypatch.setattr(sys, "argv", ["train.py", "--momentum", "0.2"])
    manifest = replace(evidence.manifest, resumed_with=(("--momentum", "0.3"),))
    resumed = RecordingEvidence(evidence.root, manifest)
    found = replay_in_process(resumed, replace(loop, fault="batchnorm"))
    assert found.suspects[0].endswith("--momentum 0.2 here")
    assert found.suspects[0].startswith("the script's arguments: ")
    assert found.suspects[1] == "the recording was resumed with other arguments: --momentum 0.3"


def test_a_resumed_recording_is_replayed_from_its_start(tmp_path: Path) -> None:
    loop = Loop(tmp_path / "run")
    with raising_at(9, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        loop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ak, "Recorder", ak.Recorder.resume)
        loop()
    evidence = read(loop.out)
    assert evidence.manifest.ranks[0].resumed_at == (5,)
    assert replay_in_process(evidence, loop).equal


def test_a_resume_that_was_not_exact_is_among_the_reasons(tmp_path: Path) -> None:
    class Counting(Loop):
        def _model(self) -> torch.nn.Module:
            model, counter = super()._model(), itertools.count(1)
            model[0].register_forward_hook(lambda _, __, output: output / next(counter))  # type: ignore[index]
            return model

    loop = Counting(tmp_path / "run")
    with raising_at(9, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        loop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ak, "Recorder", functools.partial(ak.Recorder.resume, unproven=True))
        loop()
    found = replay_in_process(read(loop.out), loop)
    assert (found.partings[0].step, found.partings[0].component) == (6, "loss")
    said = "or the resume was not exact: the recording was resumed after step 5, not proven"
    assert said in found.findings[0].message
    # A difference before the resume is none of its doing.
    found = replay_in_process(read(loop.out), replace(loop, fault="learning rate", at=3))
    assert "the resume" not in found.findings[0].message


# What cannot be decided


def test_streams_that_nobody_draws_from_make_no_nondeterminism(tmp_path: Path) -> None:
    loop = IdleLoop(tmp_path / "run")
    loop()
    evidence = read(loop.out)
    assert replay_in_process(evidence, loop).equal
    found = replay_in_process(evidence, replace(loop, halved_at=3))
    assert (found.cause, found.unseeded) == (OTHER_RECORD, ())
    assert found.findings[0].message.startswith("lr 0.5 -> 0.25 from step 4 on (param_groups[0])")
    found = replay_in_process(evidence, replace(loop, lr=0.25))
    assert (found.partings[0].component, found.partings[0].others) == ("param_groups", ())


def test_where_streams_that_nobody_draws_from_stood_is_no_distance(tmp_path: Path) -> None:
    loop = IdleLoop(tmp_path / "run", every=2)
    loop()
    distance = replay_in_process(read(loop.out), replace(loop, lr=0.25)).distance
    assert distance is not None
    assert [apart.component for apart in distance.components] == ["grad", "param_groups", "params"]


def test_a_command_without_a_loop_decides_nothing(
    recorded: tuple[Loop, RecordingEvidence],
) -> None:
    _loop, evidence = recorded
    with pytest.raises(Undecided, match='given a loop; it wrote: "KeyError'):
        replay_in_process(evidence, lambda: dict[str, str]()["x"])


@pytest.mark.parametrize(
    ("error", "says"),
    [(ValueError("disk full"), r"after step 2: .*disk full"), (SystemExit(3), r"SystemExit")],
)
def test_a_script_that_fails_decides_nothing(
    error: BaseException, says: str, recorded: tuple[Loop, RecordingEvidence]
) -> None:
    loop, evidence = recorded
    with raising_at(3, error), pytest.raises(Undecided, match=says):
        replay_in_process(evidence, loop)


def test_two_loops_of_one_process_are_refused(
    recorded: tuple[Loop, RecordingEvidence],
) -> None:
    loop, evidence = recorded

    def both() -> None:
        loop()
        loop()

    with pytest.raises(Undecided, match="two Recorders"):
        replay_in_process(evidence, both)


def test_a_command_that_cannot_be_started_is_wrong_use(
    recorded: tuple[Loop, RecordingEvidence],
) -> None:
    with Commands() as commands, pytest.raises(CommandError, match="no-such-command"):
        replay_recording(recorded[1], CommandConfig(commands, ["no-such-command"], {}))


@pytest.mark.slow
def test_a_script_that_catches_its_own_end_is_killed_and_told_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = str(Path(__file__).parents[1] / "programs" / "stubborn_loop.py")
    monkeypatch.setattr("auditkit.processes.row_server._GRACE_SECONDS", 0.5)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    out = tmp_path / "out"
    subprocess.run([sys.executable, script, str(out), "0.1"], check=True, timeout=120)
    with Commands() as commands:
        command = [sys.executable, script, str(out), "0.2"]
        found = replay_recording(read(out), CommandConfig(commands, command, {}))
    assert not found.equal
    assert {mismatch.step for mismatch in found.partings} == {1}


@pytest.mark.slow
def test_a_stream_that_nobody_seeds_or_draws_from_is_no_difference(tmp_path: Path) -> None:
    def script() -> None:
        random.seed()
        np.random.seed(int.from_bytes(os.urandom(4), "little"))
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        data = torch.utils.data.TensorDataset(torch.randn(16, 4))
        loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
            with ak.Recorder(tmp_path / "out") as rec:
                rec.wrap(model, optimizer, loader)
                for (x,) in loader:
                    optimizer.zero_grad()
                    (model(x).sum() * (random.random() if drawing else 1)).backward()
                    optimizer.step()

    drawing = False
    script()
    evidence = read(tmp_path / "out")
    assert replay_in_process(evidence, script).equal
    drawing = True
    found = replay_in_process(evidence, script)
    assert not found.equal
