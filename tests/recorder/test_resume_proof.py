"""A resume must give the rows of the killed run again, or it is refused and leaves no trace."""

from __future__ import annotations

import random
import re
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import loop_styles
import numpy as np
import pytest
import torch
from in_process_loops import read
from random_loops import NoRecorder
from torch.utils.data import DataLoader

import auditkit as ak
from auditkit.errors import (
    AuditError,
    FormatError,
    RecordingIncomplete,
    ResumeMismatch,
    StoreError,
)
from auditkit.files import store
from auditkit.files.recording_folder import RecordingFolder
from auditkit.formats import canonical
from auditkit.recorder.proof import RowPace, choose_start
from auditkit.recorder.writer import RecordingStopped
from auditkit.records.evidence import Trace
from auditkit.records.journal import RecordingJournal
from auditkit.signing.keys import generate_key, private_key_bytes
from auditkit.signing.trust import machine_trust
from auditkit.verification.procedure import VerifyRequest, verify


class Killed(BaseException):
    """Ends a loop as kill -9 would: nobody closes the Recorder."""


@pytest.fixture(autouse=True)
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home and a script of nobody's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)


Loop = Callable[..., bytes]


def train(
    rec: Any,
    kill_at: int | None = None,
    *,
    hidden: int = 0,
    epochs: int = 4,
    mean: bool = False,
    accuracy: bool = False,
    validates: int = 0,
) -> bytes:
    """Six steps an epoch.

    Args:
        rec: The Recorder.
        kill_at: Step in which it is killed.
        hidden: The period of what the loop counts by itself and trains by; 0 for none.
        epochs: How many.
        mean: Whether the loss that is logged is the mean of all so far, in this process.
        accuracy: Whether it logs such a mean beside the loss.
        validates: How often it goes through a further loader after every epoch.
    """
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    model = loop_styles.network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    held_out = DataLoader(range(24), batch_size=8, generator=torch.Generator())  # type: ignore[arg-type, var-annotated]
    further = [held_out] if validates else []
    model, optimizer, loader, *further = rec.wrap(
        model, optimizer, loop_styles.loader_of(), *further
    )
    taken, losses = 0, []
    for _ in rec.epochs(range(epochs)):
        for x, y, _index in loader:
            taken += 1
            if rec.step + 1 == kill_at:
                raise Killed
            loss = loop_styles.loss_of(model(x), y)
            if hidden and taken % hidden == 0:
                loss = loss * 2
            loop_styles.update(optimizer, loss)
            losses.append(loss.item())
            so_far = sum(losses) / len(losses)
            rec.log(loss=so_far if mean else loss, nothing=float("nan"))
            if accuracy:
                rec.log(accuracy=so_far)
        for validation in further * validates:
            assert len(list(validation)) == 3
    return b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())


def kill(loop: Loop, make: Callable[[], Any], kill_at: int) -> None:
    """Run a loop that nobody closes; its lock goes as the kernel would take it."""
    rec = make()
    with pytest.raises(Killed):
        loop(rec, kill_at)
    rec._closed = True
    rec._backend._resources.close()


def whole(loop: Loop) -> bytes:
    """What it ends in where nothing kills it, and nothing records it."""
    return loop(NoRecorder())


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def resume(loop: Loop, out: Path, **settings: Any) -> bytes:
    with ak.Recorder.resume(out, **settings) as rec:
        return loop(rec)


def rank_of(out: Path) -> Any:
    return read(out).manifest.ranks[0]


# What the killed run did not do


def test_a_resume_that_goes_wrong_is_refused_and_leaves_everything_as_it_was(
    tmp_path: Path,
) -> None:
    loop, out = partial(train, hidden=5), tmp_path / "out"
    expected = whole(loop)
    kill(loop, partial(ak.Recorder, out, checkpoint_every=3), 15)
    before = content(out)
    for _ in range(2):  # the second time from the very same
        with pytest.raises(ResumeMismatch) as caught:
            resume(loop, out, checkpoint_every=3)
        assert (caught.value.step, caught.value.component) == (11, "grad")
        text = str(caught.value)
        assert "goes on after step 6, gives another grad" in text
        assert "also optimizer/momentum_buffer, params" in text
        assert "a generator or counter of the loop" in text
        assert "unproven=True" in text
        assert content(out) == before
    # The way out is recorded; and what the proof is there for is what comes of it.
    assert resume(loop, out, checkpoint_every=3, unproven=True) != expected
    assert (rank_of(out).resumed_at, rank_of(out).proven_by) == ((12,), (0,))
    report = verify(out / "manifest.json", VerifyRequest(machine_trust(), replay="none"))
    assert report.exit_code == 0
    assert report.checks[3].warnings == ("rank 0: resumed after step 12, not proven",)


def test_without_the_comparison_the_same_resume_ends_in_other_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, out = partial(train, hidden=5), tmp_path / "out"
    expected = whole(loop)
    kill(loop, partial(ak.Recorder, out, checkpoint_every=3), 15)
    monkeypatch.setattr(Trace, "row_difference", lambda *_: [])
    assert resume(loop, out) != expected


@pytest.mark.parametrize("planted", [0, 1])
def test_every_row_is_compared(tmp_path: Path, planted: int) -> None:
    """The first and the last row that was left: one bit of each is changed."""
    out = tmp_path / "out"
    kill(train, partial(ak.Recorder, out, checkpoint_every=3), 15)
    journal = canonical.decode(
        RecordingJournal,
        (out / "recording.json.partial").read_bytes().partition(b"\n")[0],
        what="journal",
    )
    rows = RecordingFolder(out).read_rows(3, journal)
    assert rows is not None
    assert rows.last_step >= 13  # killed in step 15, and at most one row behind
    step = (7, rows.last_step + 1)[planted]
    column = bytearray(rows.columns["params"][:])
    column[(step - 1) * 16] ^= 1
    RecordingFolder(out).write_trace(
        replace(rows, columns={**rows.columns, "params": bytes(column)})
    )
    with pytest.raises(ResumeMismatch) as caught:
        resume(train, out, checkpoint_every=3)
    assert (caught.value.step, caught.value.component) == (step, "params")


@pytest.mark.parametrize(
    "kill_at", [12, *(pytest.param(n, marks=pytest.mark.slow) for n in (9, 15))]
)
def test_what_is_drawn_between_two_epochs_is_in_the_checkpoint_at_their_boundary(
    tmp_path: Path, kill_at: int
) -> None:
    loop, out = partial(train, validates=1), tmp_path / "out"
    expected = whole(loop)
    kill(loop, partial(ak.Recorder, out, checkpoint_every=6), kill_at)
    assert resume(loop, out, checkpoint_every=6) == expected
    assert rank_of(out).resumed_at == (6,)
    assert [set(kept.drawn) for kept in rank_of(out).checkpoints[:2]] == [
        {"batch/loader-2", "order/loader-2"}
    ] * 2


def test_a_loop_that_draws_something_else_between_two_epochs_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    kill(partial(train, validates=1), partial(ak.Recorder, out, checkpoint_every=5), 9)
    with pytest.raises(ResumeMismatch) as caught:
        resume(partial(train, validates=2), out)
    assert (caught.value.step, caught.value.component) == (7, "order/loader-2")


def test_a_loop_that_catches_errors_does_not_get_away(tmp_path: Path) -> None:
    def stubborn(rec: Any, kill_at: int | None = None) -> None:
        for _ in range(3):
            with warnings.catch_warnings():
                try:
                    train(rec, kill_at, hidden=5)
                except ResumeMismatch:
                    rec.wrap = lambda *objects, **_: objects
                    continue

    out = tmp_path / "out"
    kill(partial(train, hidden=5), partial(ak.Recorder, out, checkpoint_every=3), 15)
    before = content(out)
    with pytest.raises(ResumeMismatch), ak.Recorder.resume(out) as rec:
        stubborn(rec)
    assert content(out) == before


def test_a_loop_that_ends_before_the_rows_are_used_up_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    kill(train, partial(ak.Recorder, out, checkpoint_every=3), 15)
    before = content(out)
    with pytest.raises(ResumeMismatch, match=r"after step 12, .* that one had begun step 1[45]"):
        resume(partial(train, epochs=2), out)
    assert content(out) == before


def test_a_tensor_is_named_where_a_checkpoint_lies_at_the_row(tmp_path: Path) -> None:
    out = tmp_path / "out"
    kill(partial(train, hidden=5), partial(ak.Recorder, out, checkpoint_every=1), 12)
    with pytest.raises(ResumeMismatch, match=r"another grad \(0\.bias\) than the killed run"):
        resume(partial(train, hidden=5), out)


def test_a_mean_that_is_logged_is_said_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop, out = partial(train, mean=True), tmp_path / "out"
    expected = whole(loop)
    kill(loop, partial(ak.Recorder, out, checkpoint_every=3), 15)
    with pytest.warns(RecordingStopped, match="from step 7 on the loop logs another loss"):
        assert resume(loop, out, checkpoint_every=3) == expected
    assert "other numbers" not in caplog.text


def test_numbers_that_are_logged_otherwise_are_said_by_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loop, out = partial(train, accuracy=True), tmp_path / "out"
    expected = whole(loop)
    kill(loop, partial(ak.Recorder, out, checkpoint_every=3), 15)
    assert resume(loop, out, checkpoint_every=3) == expected
    (said,) = [line for line in caplog.messages if "logs other numbers" in line]
    assert re.search(r"same steps: accuracy is \S+, not \S+, at step 7; what", said)


def test_numbers_that_are_logged_alike_are_not_mentioned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    kill(train, partial(ak.Recorder, out, checkpoint_every=3), 15)
    resume(train, out, checkpoint_every=3)
    assert "other numbers" not in caplog.text


# Kills at other moments


@pytest.mark.parametrize(
    ("kill_at", "keep"),
    [
        (8, None),
        (11, 1),
        *(pytest.param(n, 1, marks=pytest.mark.slow) for n in (9, 10, 16, 21)),
    ],
)
def test_a_kill_right_after_a_checkpoint_goes_on_from_the_one_before(
    tmp_path: Path, kill_at: int, keep: int | None
) -> None:
    expected = whole(train)
    out = tmp_path / "out"
    settings: dict[str, Any] = {"checkpoint_every": 5, "keep_checkpoints": keep}
    kill(train, partial(ak.Recorder, out, **settings), kill_at)
    assert resume(train, out, **settings) == expected
    rank = rank_of(out)
    assert rank.proven_by
    assert all(rows >= 1 for rows in rank.proven_by)
    steps = [checkpoint.step for checkpoint in rank.checkpoints]
    assert steps == ([20] if keep else [5, 10, 15, 20])


def test_with_one_kept_checkpoint_the_one_before_stays_until_rows_follow(tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings: dict[str, Any] = {"checkpoint_every": 10, "keep_checkpoints": 1}
    for kill_at, kept in ((12, [10]), (22, [10, 20])):
        kill(train, partial(ak.Recorder.resume, out, **settings), kill_at)
        found = sorted(out.glob("checkpoint-*"))
        assert [int(path.name[11:19]) for path in found] == kept
    kill(partial(train, epochs=5), partial(ak.Recorder.resume, out, **settings), 30)
    assert [path.name[11:19] for path in out.glob("checkpoint-*")] == ["00000020"]


def test_where_no_row_follows_the_only_checkpoint_the_loop_begins_anew(tmp_path: Path) -> None:
    out = tmp_path / "out"
    expected = whole(train)
    kill(train, partial(ak.Recorder, out, checkpoint_every=5), 6)
    with pytest.warns(RecordingStopped, match="the loop begins anew, and is compared"):
        assert resume(train, out, checkpoint_every=5) == expected
    rank = rank_of(out)
    assert (rank.resumed_at, rank.proven_by) == ((), ())
    assert [checkpoint.step for checkpoint in rank.checkpoints] == [5, 10, 15, 20]


def test_a_loop_that_begins_anew_otherwise_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    kill(train, partial(ak.Recorder, out, checkpoint_every=5), 6)
    before = content(out)
    with pytest.warns(RecordingStopped), pytest.raises(ResumeMismatch, match="step 4"):
        resume(partial(train, hidden=3), out)
    assert content(out) == before


def test_a_script_that_is_another_file_is_named_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "train.py", tmp_path / "out"
    source.write_text("bias = 0")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(source))
    kill(train, partial(ak.Recorder, out, checkpoint_every=3), 15)
    source.write_text("bias = 1")
    with pytest.raises(ResumeMismatch) as caught:
        resume(partial(train, hidden=5), out)
    expected = "likely train.py is another file than when the recording began; if not that, likely"
    assert expected in str(caught.value)


def test_other_arguments_are_told_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "lr=0.05", "out=a"])
    kill(train, partial(ak.Recorder, tmp_path / "out", checkpoint_every=3), 15)
    caplog.clear()
    monkeypatch.setattr(sys, "argv", ["train.py", "lr=0.04", "out=a", "resume=1"])
    resume(train, tmp_path / "out")
    manifest = read(tmp_path / "out").manifest
    assert manifest.command == ("lr=0.05", "out=a")
    assert manifest.resumed_with == (("lr=0.04", "out=a", "resume=1"),)
    (line,) = [m for m in caplog.messages if "script's arguments" in m]
    assert "than when the recording began: lr=0.05 -> lr=0.04, resume=1 added; what a" in line


def test_a_number_that_counts_the_steps_and_begins_anew_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kill(train, partial(ak.Recorder, tmp_path / "out", checkpoint_every=4), 13)
    caplog.clear()
    resume(train, tmp_path / "out", checkpoint_every=4)
    line, ended = [record.getMessage() for record in caplog.records]
    assert "after step 5, taken is 1, not 5;" in line
    assert "next: auditkit verify" in ended


def test_a_resume_that_is_killed_while_it_proves_is_resumed_as_before(tmp_path: Path) -> None:
    out = tmp_path / "out"
    expected = whole(train)
    settings: dict[str, Any] = {"checkpoint_every": 3}
    kill(train, partial(ak.Recorder, out, **settings), 15)
    before = content(out)
    for kill_at in (7, 9, 13):
        kill(train, partial(ak.Recorder.resume, out, **settings), kill_at)
        assert content(out) == before
    with (  # noqa: PT012
        pytest.raises(ZeroDivisionError),
        pytest.MonkeyPatch.context() as patch,
        ak.Recorder.resume(out, **settings) as rec,
    ):
        patch.setattr(ak.Recorder, "log", lambda *_, **__: 1 / 0)
        train(rec)
    assert content(out) == before
    kill(train, partial(ak.Recorder.resume, out, **settings), 21)
    assert resume(train, out, **settings) == expected
    assert rank_of(out).resumed_at == (6, 12)


def test_an_interrupted_step_is_not_compared(tmp_path: Path) -> None:
    """Ctrl-C falls between backward and step: the last state that was kept is no boundary's."""
    out = tmp_path / "out"
    expected = whole(train)

    def interrupted(rec: Any) -> None:
        def step(self: Any, real: Any = torch.optim.SGD.step) -> None:
            if rec.step == 13:
                raise KeyboardInterrupt
            real(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.optim.SGD, "step", step)
            train(rec)

    with pytest.raises(KeyboardInterrupt), ak.Recorder(out, checkpoint_every=3) as rec:
        interrupted(rec)
    assert resume(train, out) == expected
    assert rank_of(out).proven_by == (10,)


def test_what_is_found_to_be_unresumable_while_it_resumes_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    kill(train, partial(ak.Recorder, out, checkpoint_every=3), 15)
    before = content(out)
    rec: Any = ak.Recorder.resume(out)

    def mark(_: Any, rounds: Any) -> Any:
        rec._backend._writer.mark_unresumable("rng is a generator that nobody registered")
        yield from rounds

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RecordingIncomplete), rec:  # noqa: PT012
        patch.setattr(ak.Recorder, "epochs", mark)
        train(rec)
    assert content(out) == before


def test_what_is_found_after_the_proof_stops_the_loop_too(tmp_path: Path) -> None:
    out = tmp_path / "out"
    kill(train, partial(ak.Recorder, out, checkpoint_every=3), 12)
    rec: Any = ak.Recorder.resume(out)
    reason = "rng is a generator that nobody registered"

    def mark(_: Any, rounds: Any) -> Any:
        for item in rounds:
            if rec.step > 12:
                rec._backend._watch.cannot_resume(reason)
            yield item

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RecordingIncomplete), rec:  # noqa: PT012
        patch.setattr(ak.Recorder, "epochs", mark)
        train(rec)
    with pytest.raises(RecordingIncomplete, match=reason):
        resume(train, out)


def test_rows_that_cannot_be_read_are_an_error_and_nothing_is_cleared_away(tmp_path: Path) -> None:
    out = tmp_path / "out"
    kill(train, partial(ak.Recorder, out, checkpoint_every=3), 15)
    (out / "trace" / "000000.safetensors.partial").write_bytes(b"broken")
    before = content(out)
    with pytest.raises(FormatError):
        resume(train, out)
    assert content(out) == before


@pytest.mark.parametrize("again", [ak.Recorder, ak.Recorder.resume])
@pytest.mark.parametrize("damage", ["gone", "empty", "other bytes", "without checkpoints"])
def test_checkpoints_that_no_journal_names_are_not_cleared_away(
    tmp_path: Path, damage: str, again: Callable[..., Any]
) -> None:
    out = tmp_path / "out"
    kill(train, partial(ak.Recorder, out, checkpoint_every=3), 15)
    path = out / "recording.json.partial"
    text = path.read_bytes().partition(b"\n")[0]
    if damage == "gone":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "other bytes":
        path.write_bytes(path.read_bytes().replace(b'"step":3', b'"step":4'))
    else:
        journal = canonical.decode(RecordingJournal, text, what="journal")
        RecordingFolder(out).write_journal(replace(journal, kept=()))
    before = content(out)
    is_damaged = damage in {"empty", "other bytes"}
    what = "a damaged journal" if is_damaged else "no journal that names them"
    with pytest.raises(StoreError, match=f"4 checkpoints, and {what}"):
        train(again(out))
    assert content(out) == before


@pytest.mark.parametrize("step", [3, 12])
def test_a_checkpoint_that_is_gone_is_told_at_once(tmp_path: Path, step: int) -> None:
    out = tmp_path / "out"
    kill(train, partial(ak.Recorder, out, checkpoint_every=3), 15)
    (out / f"checkpoint-{step:08d}.safetensors.partial").unlink()
    before = content(out)
    with pytest.raises(AuditError, match="no such file"):
        resume(train, out)
    assert content(out) == before


def test_a_kill_before_the_journal_names_the_first_checkpoint_begins_anew(tmp_path: Path) -> None:
    out = tmp_path / "out"
    kill(train, partial(ak.Recorder, out, checkpoint_every=10), 15)
    folder = RecordingFolder(out)
    text = (out / "recording.json.partial").read_bytes().partition(b"\n")[0]
    journal = canonical.decode(RecordingJournal, text, what="journal")
    folder.write_journal(replace(journal, kept=()))
    assert resume(train, out) == whole(train)


def test_killed_while_the_last_checkpoint_was_written_the_end_is_no_boundary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that was asked for at the very end, and a kill before the manifest."""
    out = tmp_path / "out"

    def asking(rec: Any) -> bytes:
        try:
            return train(rec)
        finally:
            rec.checkpoint()
            torch.rand(1)  # a draw between the last step and the end

    expected = whole(train)
    with (  # noqa: PT012
        pytest.raises(KeyboardInterrupt),
        monkeypatch.context() as patch,
        ak.Recorder(out, checkpoint_every=5) as rec,
    ):
        patch.setattr(RecordingFolder, "publish", interrupt)
        asking(rec)
    assert resume(partial(train, epochs=4), out, checkpoint_every=5) == expected
    assert rank_of(out).resumed_at == (15,)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


# When rows are written, and from where one goes on


def test_rows_are_on_disk_soon_after_a_checkpoint_and_never_64_steps_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    pace, written = RowPace(), []
    assert not pace.is_due(1000)  # nothing can be resumed
    pace.checkpoint_taken(100)
    for step in range(101, 500):
        if pace.is_due(step):
            written.append(step - 100)
            pace.rows_written(step)
    assert written == [1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 320, 384]
    monkeypatch.setattr(time, "monotonic", lambda: 1.0)
    assert pace.is_due(501)  # slow steps: a second has passed


@pytest.mark.parametrize(
    ("checkpoints", "last", "start"),
    [
        ([10, 20, 30], 38, 30),
        ([10, 20, 30], 37, 20),
        ([20, 30], 31, 20),
        ([30], 31, 30),
        ([30], 30, 0),
        ([28, 30], 30, 28),
    ],
)
def test_the_latest_checkpoint_with_enough_rows(
    checkpoints: list[int], last: int, start: int
) -> None:
    assert choose_start(checkpoints, last) == start


def test_rows_of_several_chunks_are_read_in_a_row(tmp_path: Path) -> None:
    def rows(first: int, last: int) -> Trace:
        steps = range(first, last + 2)
        column = b"".join(step.to_bytes(16, "little") for step in steps)
        return Trace(first, bytes(8 * len(steps)), {"params": column})

    folder = RecordingFolder(tmp_path)
    store.make_folder(tmp_path / "trace")
    journal = RecordingJournal(None, "")
    folder.write_trace(rows(1, 1024))
    folder.write_trace(rows(1025, 1030))
    for first, last in ((1025, 1030), (1031, 1031), (1032, 1100)):
        folder.append_rows(rows(first, last))
    for step, first in ((1000, 1), (1024, 1), (1025, 1025)):
        found = folder.read_rows(step, journal)
        assert found is not None
        assert (found.first_step, found.last_step) == (first, 1100)
        for at in (first, 1025, 1101):
            assert int.from_bytes(found.cell(at, "params"), "little") == at
    data = bytearray((tmp_path / "rows.partial").read_bytes())
    for damaged in (data[:-1], data[:-9] + b"\1" + data[-8:]):  # cut short; never flushed
        (tmp_path / "rows.partial").write_bytes(damaged)
        found = folder.read_rows(1024, journal)
        assert found is not None
        assert found.last_step == 1031
    folder.write_trace(rows(1025, 1030))
    assert not (tmp_path / "rows.partial").exists()
    found = folder.read_rows(1024, replace(journal, ended="KeyboardInterrupt"))
    assert found is not None
    assert found.last_step == 1029


# Folders


def test_a_relative_folder_and_key_are_those_of_the_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("AUDITKIT_KEY", "key")
    Path("key").write_bytes(private_key_bytes(generate_key()))
    Path("key").chmod(0o600)
    rec = ak.Recorder("runs/x", checkpoint_every=2)
    monkeypatch.chdir(tmp_path / "there")
    with rec:
        train(rec)
    assert rec.failure is None
    assert rec.manifest == tmp_path / "here" / "runs" / "x" / "manifest.json"
    assert not list((tmp_path / "there").iterdir())
