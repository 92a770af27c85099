"""Loops of every style: recording changes no bit of them, and every row is what happened."""

from __future__ import annotations

import copy
import os
import pickle
import random
import shutil
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import loop_styles
import numpy as np
import pytest
import torch
from in_process_loops import read
from loop_styles import Log, NullRecorder, Style
from torch import nn
from torch.utils.data import DataLoader, WeightedRandomSampler
from torch.utils.data.distributed import DistributedSampler

import auditkit as ak
from auditkit.files import store
from auditkit.formats.recipes import order_digest
from auditkit.formats.run_files import trace_from_tensors
from auditkit.records.digest import EVIDENCE_RECIPE
from auditkit.records.evidence import Trace
from auditkit.signing.keys import TrustedKey
from auditkit.signing.trust import machine_trust
from auditkit.verification.procedure import VerifyRequest, verify


def _sampled(make: Callable[[], Any], name: str, **options: Any) -> Style:
    return lambda rec, log: loop_styles.plain(rec, log, **{name: make()}, **options)


STYLES: dict[str, Style] = {
    "plain": loop_styles.plain,
    "plain, 2 workers": partial(loop_styles.plain, num_workers=2),
    "persistent workers": partial(loop_styles.plain, num_workers=2, persistent_workers=True),
    "last batch dropped": partial(loop_styles.plain, batch_size=5, drop_last=True),
    "no batches": partial(loop_styles.plain, batch_size=None, shuffle=False, epochs=1),
    "own generator": _sampled(lambda: torch.Generator().manual_seed(3), "generator"),
    "eager batch sampler": _sampled(loop_styles.Eager, "batch_sampler"),
    "eager batch sampler, 2 workers": _sampled(loop_styles.Eager, "batch_sampler", num_workers=2),
    "weighted": _sampled(lambda: WeightedRandomSampler([1.0, 3.0] * 12, 20), "sampler"),
    "distributed sampler": _sampled(
        lambda: DistributedSampler(loop_styles.Samples(), num_replicas=2, rank=0), "sampler"
    ),
    "iterable": _sampled(loop_styles.Stream, "dataset"),
    "iterable, 2 workers": _sampled(loop_styles.Stream, "dataset", num_workers=2),
    "accumulation": loop_styles.accumulation,
    "closure": loop_styles.closure,
    "scaler that skips": loop_styles.scaled,
    "evaluation, schedule, average": loop_styles.evaluated,
    "two at a time": loop_styles.together,
    "broken off": loop_styles.broken_off,
    "by hand": loop_styles.by_hand,
    "two loaders": loop_styles.two_loaders,
    "adversarial": loop_styles.adversarial,
}
if shutil.which("g++"):
    STYLES["compiled"] = loop_styles.compiled
#: Compiling takes a minute, and starting workers takes seconds.
SLOW = {
    *("compiled", "persistent workers", "eager batch sampler, 2 workers"),
    "iterable, 2 workers",
}
ITERABLE = {"iterable", "iterable, 2 workers"}


@pytest.fixture(autouse=True)
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home and a script of nobody's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)


def run(style: Style, rec: Any) -> tuple[bytes, Log]:
    """Weights, buffers and random state after a run, and its log."""
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    log = Log()
    modules = style(rec, log)
    parts = [t.numpy().tobytes() for module in modules for t in module.state_dict().values()]
    parts.append(torch.get_rng_state().numpy().tobytes())
    parts.append(repr((random.getstate(), np.random.get_state())).encode())
    return b"".join(parts), log


def trace_of(out: Path) -> Trace:
    tensors, _ = store.read_tensors(out / "trace" / "000000.safetensors", what="trace")
    return trace_from_tensors(tensors, what="trace")


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # its compiler's own
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in STYLES],
)
def test_recording_changes_nothing_and_sees_everything(tmp_path: Path, name: str) -> None:
    bare, _ = run(STYLES[name], NullRecorder())
    out = tmp_path / "out"
    with ak.Recorder(out, seed=7) as rec:
        recorded, log = run(STYLES[name], rec)
    assert recorded == bare

    trace = trace_of(out)
    steps = range(1, len(log.indices) + 1)
    assert trace.last_step == len(log.indices)
    assert [trace.cell(step, "params") for step in steps] == log.params
    assert [trace.cell(step, "batchnorm") for step in steps] == log.batchnorm
    if name not in ITERABLE:
        epochs = epochs_of(name, log)
        for step, indices, epoch in zip(steps, log.indices, epochs, strict=True):
            pairs = np.array([[epoch, index] for index in indices], dtype=np.int64)
            assert trace.cell(step, "order") == order_digest(EVIDENCE_RECIPE, pairs), step
    report = verify(out / "manifest.json", VerifyRequest(trust(), replay="none"))
    assert (report.exit_code, report.verdict) == (0, "integrity-only"), report.checks


def epochs_of(name: str, log: Log) -> list[int]:
    """Number of the iteration that each step belongs to."""
    n_steps = len(log.indices)
    if name == "two at a time":
        return [0, 1] * (n_steps // 2)
    if name == "broken off":
        return [0] * 3 + [1] * 3
    lengths = {"last batch dropped": 4, "weighted": 5, "distributed sampler": 3, "no batches": 24}
    eager = dict.fromkeys(["eager batch sampler", "eager batch sampler, 2 workers"], 4)
    length = {**lengths, **eager}.get(name, 6)
    return [step // length for step in range(n_steps)]


def trust() -> list[TrustedKey]:
    return machine_trust()


def test_the_last_row_is_the_state_at_the_end(tmp_path: Path) -> None:
    models: list[nn.Module] = []

    def style(rec: Any, log: Log) -> list[nn.Module]:
        models.extend(loop_styles.plain(rec, log))
        return models

    with ak.Recorder(tmp_path / "out") as rec:
        run(style, rec)
    state = models[0].state_dict()
    trained = {name: state[name] for name, _ in models[0].named_parameters()}
    trace = trace_of(tmp_path / "out")
    assert trace.cell(trace.last_step + 1, "params") == loop_styles.digest_of(trained)
    assert trace.cell(trace.last_step + 1, "order") == bytes(16)


def test_a_second_loader_has_columns_of_its_own(tmp_path: Path) -> None:
    with ak.Recorder(tmp_path / "out") as rec:
        run(loop_styles.two_loaders, rec)
    trace = trace_of(tmp_path / "out")
    assert {"order/loader-2", "batch/loader-2"} <= set(trace.columns)
    assert all(any(trace.cell(step, "order/loader-2")) for step in range(1, 7))


def test_wrapped_objects_are_the_same_and_behave_the_same(tmp_path: Path) -> None:
    model = loop_styles.network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = loop_styles.loader_of(num_workers=2)
    names, length = list(model.state_dict()), len(loader)
    with ak.Recorder(tmp_path / "out") as rec:
        wrapped = rec.wrap(model, optimizer, loader)
        assert wrapped == (model, optimizer, loader)
        assert all(
            given is got for given, got in zip((model, optimizer, loader), wrapped, strict=True)
        )
        assert isinstance(loader, DataLoader)
        assert (len(loader), loader.batch_size, loader.num_workers) == (length, 4, 2)
        assert list(model.state_dict()) == names
        assert not model._forward_hooks
        assert not optimizer._optimizer_step_pre_hooks
        for twin in (copy.copy(loader), pickle.loads(pickle.dumps(loader))):  # noqa: S301 # ours
            assert type(twin) is DataLoader
            assert len(list(twin)) == length
        iterator = iter(loader)
        assert isinstance(iterator, torch.utils.data.dataloader._BaseDataLoaderIter)
        assert len(iterator) == length
        next(iterator)
    assert type(loader) is DataLoader
    assert "_auditkit" not in str(vars(loader).keys())
    assert len(list(iterator)) == length - 1  # it still delivers what it has
    assert len(list(loader)) == length


def test_a_loader_of_the_users_own_class_that_generates(tmp_path: Path) -> None:
    class Doubled(DataLoader[Any]):
        """Says what it does by ``yield``, and how it is pickled."""

        def __iter__(self) -> Any:
            for inputs, labels, index in super().__iter__():
                yield 2 * inputs, labels, index

        def __getstate__(self) -> dict[str, Any]:
            return {**vars(self), "mark": "kept"}

    def style(rec: Any, log: Log) -> list[nn.Module]:
        model = loop_styles.network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        loader = Doubled(loop_styles.Samples(), batch_size=4, shuffle=True)
        model, optimizer, loader = rec.wrap(model, optimizer, loader)
        assert vars(copy.copy(loader))["mark"] == "kept"
        for _ in range(2):
            for batch in loader:
                x, y = log.step(batch, model)
                loop_styles.update(optimizer, loop_styles.loss_of(model(x), y))
        return [model]

    bare, _ = run(style, NullRecorder())
    with ak.Recorder(tmp_path / "out") as rec:
        recorded, log = run(style, rec)
    assert recorded == bare
    trace = trace_of(tmp_path / "out")
    pairs = np.array([[0, index] for index in log.indices[1]], dtype=np.int64)
    assert trace.cell(2, "order") == order_digest(EVIDENCE_RECIPE, pairs)


def test_an_exception_passes_unchanged_and_leaves_the_evidence_so_far(tmp_path: Path) -> None:
    raised = ValueError("the user's own")

    def style(rec: Any, log: Log) -> list[nn.Module]:
        model = loop_styles.network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model, optimizer, loader = rec.wrap(model, optimizer, loop_styles.loader_of())
        for number, batch in enumerate(loader):
            x, y = log.step(batch, model)
            loop_styles.update(optimizer, loop_styles.loss_of(model(x), y))
            if number == 3:
                raise raised
        return [model]

    with pytest.raises(ValueError) as caught, ak.Recorder(tmp_path / "out") as rec:  # noqa: PT011
        run(style, rec)
    assert caught.value is raised
    assert rec.manifest is None
    assert not (tmp_path / "out" / "manifest.json").exists()
    partial_file = tmp_path / "out" / "trace" / "000000.safetensors.partial"
    tensors, _ = store.read_tensors(partial_file, what="trace")
    trace = trace_from_tensors(tensors, what="trace")
    assert trace.last_step == 4
    assert any(trace.cell(5, "params"))  # the state in which it ended
    assert b'"ended":"ValueError"' in (tmp_path / "out" / "recording.json.partial").read_bytes()


@pytest.mark.parametrize("code", [None, 0])
def test_a_clean_exit_within_the_loop_is_a_clean_end(tmp_path: Path, code: int | None) -> None:
    with pytest.raises(SystemExit), ak.Recorder(tmp_path / "out") as rec:  # noqa: PT012
        run(loop_styles.plain, rec)
        sys.exit(code)
    assert rec.manifest == tmp_path / "out" / "manifest.json"


def test_a_disk_that_fills_up_costs_the_evidence_and_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare, _ = run(loop_styles.plain, NullRecorder())
    real, room = store.write_tensors, [1]

    def full(*arguments: Any) -> None:
        if not room:
            raise ak.AuditError("cannot write: No space left on device")
        room.pop()
        real(*arguments)

    monkeypatch.setattr(store, "write_tensors", full)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with ak.Recorder(tmp_path / "out", checkpoint_every=3) as rec:
            recorded, log = run(loop_styles.plain, rec)
    assert recorded == bare
    assert len(log.indices) == 12
    assert rec.manifest is None
    assert "No space left" in str(rec.failure)
    assert any("No space left" in str(warning.message) for warning in told)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_whatever_breaks_in_the_recorder_the_loop_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare, _ = run(loop_styles.plain, NullRecorder())
    steps: list[tuple[int, int]] = []

    def style(rec: Any, log: Log) -> list[nn.Module]:
        model = loop_styles.network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        model, optimizer, loader = rec.wrap(model, optimizer, loop_styles.loader_of())
        for _ in range(2):
            for number, batch in rec.enumerate(loader):
                x, y = log.step(batch, model)
                loss = loop_styles.loss_of(model(x.reshape(-1, 6).float()), y.reshape(-1))
                loop_styles.update(optimizer, loss)
                steps.append((number, rec.step))
                if len(log.indices) == 4:  # from now on nothing works in there
                    monkeypatch.setattr("auditkit.recorder.loop.Delivery", None)
        return [model]

    with pytest.warns(UserWarning, match="TypeError"), ak.Recorder(tmp_path / "out") as rec:
        recorded, _ = run(style, rec)
    assert recorded == bare
    assert isinstance(rec.failure, TypeError)
    # A loop may go by these numbers, so they stay right.
    assert steps == [(number % 6, number) for number in range(12)]


def test_what_the_users_own_signal_handler_raises_is_theirs(tmp_path: Path) -> None:
    class Preempted(Exception):
        """The user's own."""

    def handler(*_: Any) -> None:
        raise Preempted

    with pytest.raises(Preempted), ak.Recorder(tmp_path / "out") as rec:  # noqa: PT012
        model = loop_styles.network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        model, optimizer, loader = rec.wrap(model, optimizer, loop_styles.loader_of())
        for number, (x, y, _) in enumerate(loader):
            loop_styles.update(optimizer, loop_styles.loss_of(model(x), y))
            if number == 2:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr("auditkit.program.session.TrainingSession.streams", handler)
                    next(iter(loader))
    assert rec.manifest is None


def test_a_batch_that_raises_is_no_step_and_shifts_no_order(tmp_path: Path) -> None:
    class Broken(loop_styles.Samples):
        def __getitem__(self, index: int) -> Any:
            if index == 5:
                raise ValueError("a broken file")
            return super().__getitem__(index)

    for workers in (0, 2):
        out = tmp_path / str(workers)
        seen = []
        loader = DataLoader(Broken(), batch_size=4, num_workers=workers)
        model = loop_styles.network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        with ak.Recorder(out) as rec:
            rec.wrap(model, optimizer, loader)
            iterator = iter(loader)
            while True:
                try:
                    seen.append(next(iterator)[2].tolist())
                except ValueError:
                    continue
                except StopIteration:
                    break
        trace = trace_of(out)
        assert trace.last_step == len(seen) == 5
        for step, indices in enumerate(seen, start=1):
            pairs = np.array([[0, index] for index in indices], dtype=np.int64)
            assert trace.cell(step, "order") == order_digest(EVIDENCE_RECIPE, pairs)


def test_a_fork_of_the_process_leaves_the_recording_alone(tmp_path: Path) -> None:
    with ak.Recorder(tmp_path / "out") as rec:
        model = loop_styles.network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        model, optimizer, loader = rec.wrap(model, optimizer, loop_styles.loader_of())
        batches = iter(loader)
        for number, (x, y, _) in enumerate(batches):
            loop_styles.update(optimizer, loop_styles.loss_of(model(x), y))
            if number == 2:
                child = os.fork()
                if not child:
                    try:
                        next(batches)
                        next(iter(loader))
                        rec.close()
                        is_recorded = (tmp_path / "out" / "manifest.json").exists() or rec.step > 2
                        os._exit(7 if is_recorded else 0)
                    finally:
                        os._exit(9)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert read(tmp_path / "out").manifest.ranks[0].steps == 6


def test_more_than_one_chunk(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(torch.utils.data.TensorDataset(torch.arange(1100.0)), batch_size=1)
    with ak.Recorder(tmp_path / "out", checkpoint_every=1050) as rec:
        rec.wrap(model, optimizer, loader)
        for (x,) in loader:
            loop_styles.update(optimizer, model(x / 1e4).mean())
    manifest = read(tmp_path / "out").manifest
    assert manifest.ranks[0].traces == ("trace/000000.safetensors", "trace/000001.safetensors")
    assert (manifest.ranks[0].steps, manifest.ranks[0].checkpoints[0].step) == (1100, 1050)
    report = verify(tmp_path / "out" / "manifest.json", VerifyRequest(trust(), replay="none"))
    assert report.exit_code == 0, report.checks
    size = sum(file.size for file in manifest.files if file.role == "trace")
    assert size / 1100 < 300
