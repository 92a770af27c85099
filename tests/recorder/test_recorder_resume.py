"""Going on after a kill: the weights, rows and chains of a run that was never interrupted."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import loop_styles
import numpy as np
import pytest
import torch
from in_process_loops import read
from torch import nn

import auditkit as ak
from auditkit.errors import (
    AuditError,
    RecordingIncomplete,
    RestoreMismatch,
    ResumeMismatch,
    StoreError,
)
from auditkit.files import store
from auditkit.formats.run_files import trace_from_tensors
from auditkit.recorder.writer import RecordingStopped

SCRIPT = Path(__file__).parents[1] / "programs" / "killed_loop.py"


class Killed(Exception):
    """Ends a loop between two statements."""


@pytest.fixture(autouse=True)
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home and a script of nobody's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)


class Stateful(loop_styles.Samples):
    """Samples whose augmentation draws from a generator of the data set's own."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng(5)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, int]:
        clean, label, _ = super().__getitem__(index)
        return clean + float(self.generator.normal()), label, index


class Drawing(loop_styles.Samples):
    """An augmentation from a generator of its own that nobody registers."""

    def __init__(self) -> None:
        super().__init__()
        self.own = torch.Generator().manual_seed(3)

    def __getitem__(self, index: int) -> Any:
        x, y, number = super().__getitem__(index)
        return x + 0.1 * torch.randn(x.shape, generator=self.own), y, number


def train(rec: Any, kill_at: int | None = None, **options: Any) -> bytes:
    """Four epochs with a schedule, an average, dropout and BatchNorm; the final bits."""
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    model = loop_styles.network()
    ema = torch.optim.swa_utils.AveragedModel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)
    loader = loop_styles.loader_of(**options)
    extras = {}
    if isinstance(loader.dataset, Stateful):
        extras["augmentation"] = loader.dataset.generator
    rec.wrap(*(model, optimizer, loader), scheduler=scheduler, averaged={"ema": ema}, extras=extras)
    for _ in rec.epochs(range(4)):
        for number, (x, y, _index) in rec.enumerate(loader):
            (loop_styles.loss_of(model(x), y) / 2).backward()  # type: ignore[no-untyped-call]
            if number % 2:  # every other batch: the phase must survive
                optimizer.step()
                optimizer.zero_grad()
                ema.update_parameters(model)
            if kill_at is not None and rec.step + 1 == kill_at:
                raise Killed
        scheduler.step()
    state = [*model.state_dict().values(), *ema.state_dict().values(), torch.get_rng_state()]
    return b"".join(tensor.numpy().tobytes() for tensor in state)


class Pipeline:
    """A loader that is no DataLoader: it holds one, counts its epochs, and adds noise."""

    def __init__(self) -> None:
        self.inner, self.epoch = loop_styles.loader_of(), 0

    def __len__(self) -> int:
        return len(self.inner)

    def __iter__(self) -> Any:
        self.epoch += 1
        return ((x + self.epoch * torch.rand(()), y, index) for x, y, index in self.inner)


class Hides(Pipeline):
    """One that counts its batches where nobody looks, and not by what goes before in its epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: Any = itertools.count()

    def __iter__(self) -> Any:
        return ((x + next(self.taken), y, index) for x, y, index in self.inner)


def unchecked(rec: Any, kill_at: int | None = None, loader: Any = None) -> bytes:
    """A loop that knows nothing of resuming: it goes through all its epochs."""
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    model = loop_styles.network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    loader = loop_styles.loader_of() if loader is None else loader
    model, optimizer, loader = rec.wrap(model, optimizer, loader)
    for _ in range(3):
        total = 0.0
        for x, y, _index in loader:
            loss = loop_styles.loss_of(model(x), y)
            loop_styles.update(optimizer, loss)
            total += loss.item()
            if kill_at is not None and rec.step + 1 == kill_at:
                raise Killed
        assert total / len(loader) > 0  # an epoch before the position delivers a batch, too
    return b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())


def two_loaders(rec: Any, kill_at: int | None = None) -> bytes:
    """Labelled and unlabelled batches; the second loader has epochs of its own."""
    random.seed(7)
    np.random.seed(7)
    torch.manual_seed(7)
    model = loop_styles.network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    more = loop_styles.loader_of(batch_size=5)
    model, optimizer, loader, more = rec.wrap(model, optimizer, loop_styles.loader_of(), more)
    others = iter(more)
    for _ in rec.epochs(range(3)):
        for x, y, _index in loader:
            batch = next(others, None)
            if batch is None:
                others = iter(more)
                batch = next(others)
            loss = loop_styles.loss_of(model(x), y) + 0.1 * model(batch[0]).square().mean()
            loop_styles.update(optimizer, loss)
            if kill_at is not None and rec.step + 1 == kill_at:
                raise Killed
    return b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())


LOOPS: dict[str, Any] = {
    "workers 0": train,
    "workers 2": partial(train, num_workers=2),
    "stateful dataset": lambda rec, kill_at=None: train(rec, kill_at, dataset=Stateful()),
    "iterable": lambda rec, kill_at=None: train(rec, kill_at, dataset=loop_styles.Stream()),
    "iterable, workers 2": lambda rec, kill_at=None: train(
        rec, kill_at, dataset=loop_styles.Stream(), num_workers=2
    ),
    "copies in workers": lambda rec, kill_at=None: train(
        rec, kill_at, dataset=Drawing(), num_workers=2
    ),
    "no word of resuming": unchecked,
    "no DataLoader": lambda rec, kill_at=None: unchecked(rec, kill_at, Pipeline()),
    "two loaders": two_loaders,
}


#: What a neighbour shows, too: its kind of data set, or its number of workers.
LIKE_ANOTHER = ("iterable, workers 2", "copies in workers")


def test_a_pipeline_that_is_elsewhere_stops_the_resume(tmp_path: Path) -> None:
    with pytest.raises(Killed), ak.Recorder(tmp_path / "out", seed=7, checkpoint_every=9) as rec:
        unchecked(rec, 15, Hides())
    with (
        pytest.raises(RestoreMismatch, match="yields other samples"),
        ak.Recorder.resume(tmp_path / "out", seed=7, checkpoint_every=9) as rec,
    ):
        unchecked(rec, None, Hides())


def finished(out: Path) -> Any:
    """Trace and rank record of a finished recording, but for when it was gone on from."""
    tensors, _ = store.read_tensors(out / "trace" / "000000.safetensors", what="trace")
    rank = read(out).manifest.ranks[0]
    rank = replace(rank, resumed_at=(), proven_by=(), checkpoints=())
    return trace_from_tensors(tensors, what="trace"), rank


@pytest.mark.parametrize(
    "kill_at",
    [14, *(pytest.param(step, marks=pytest.mark.slow) for step in (4, 6, 7))],
    ids="step {}".format,
)
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LIKE_ANOTHER)) for n in LOOPS]
)
def test_a_resumed_loop_ends_as_if_nothing_had_happened(
    tmp_path: Path, name: str, kill_at: int
) -> None:
    loop = LOOPS[name]
    with ak.Recorder(tmp_path / "whole", seed=7, checkpoint_every=3) as rec:
        expected = loop(rec)
    out = tmp_path / "out"
    with pytest.raises(Killed), ak.Recorder(out, seed=7, checkpoint_every=3) as rec:
        loop(rec, kill_at)
    assert not (out / "manifest.json").exists()
    # Killed in step 4, no row after the checkpoint of step 3 could prove that it is gone on from.
    anew = pytest.warns(RecordingStopped, match="begins anew")
    told: Any = anew if kill_at == 4 else nullcontext()
    with told, ak.Recorder.resume(out, seed=7, checkpoint_every=3) as rec:
        assert loop(rec) == expected
    trace, rank = finished(out)
    whole, whole_rank = finished(tmp_path / "whole")
    assert trace.first_difference(whole) is None
    assert rank == whole_rank
    # Killed in step 14, so that the rows of 13 steps count: from 3 on there are enough.
    starts: dict[int, tuple[int, ...]] = {4: (), 6: (3,), 7: (3,), 14: (3,)}
    rank = read(out).manifest.ranks[0]
    assert rank.resumed_at == starts[kill_at]
    assert rank.proven_by == tuple(kill_at - 1 - step for step in rank.resumed_at)
    # A replay of either compares the other's checkpoints, data positions included.
    digests = [
        [c.digests for c in read(folder).manifest.ranks[0].checkpoints]
        for folder in (out, tmp_path / "whole")
    ]
    assert digests[0] == digests[1]


def test_a_warning_that_is_made_an_error_stays_what_it_is(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Killed), ak.Recorder(out, seed=7, checkpoint_every=3) as rec:
        train(rec, 4)
    with (
        pytest.raises(RecordingStopped, match="begins anew"),
        ak.Recorder.resume(out, seed=7, checkpoint_every=3) as rec,
    ):
        train(rec)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A recording that nothing interrupts, and what its loop ends in."""
    home = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(home / "config"))
        patch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
        with ak.Recorder(home / "out", seed=7) as rec:
            return home / "out", train(rec)


def test_twice_killed_and_only_the_latest_checkpoints_kept(
    tmp_path: Path, whole: tuple[Path, bytes]
) -> None:
    complete, expected = whole
    out = tmp_path / "out"
    settings: dict[str, Any] = {"seed": 7, "checkpoint_every": 2, "keep_checkpoints": 2}
    for kill_at in (6, 13):
        with pytest.raises(Killed), ak.Recorder.resume(out, **settings) as rec:
            train(rec, kill_at)
        assert len(list(out.glob("checkpoint-*"))) == 2
    with ak.Recorder.resume(out, **settings) as rec:
        assert train(rec) == expected
    rank = read(out).manifest.ranks[0]
    assert rank.resumed_at == (2, 10)  # one row of a step follows the latest, too few
    assert rank.proven_by == (3, 2)
    assert [checkpoint.step for checkpoint in rank.checkpoints] == [20, 22]
    assert finished(out)[0].first_difference(finished(complete)[0]) is None


def test_a_checkpoint_that_is_asked_for_is_taken_at_the_boundary(tmp_path: Path) -> None:
    with ak.Recorder(tmp_path / "out") as rec:
        model = loop_styles.network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        model, optimizer, loader = rec.wrap(model, optimizer, loop_styles.loader_of())
        for number, (x, y, _) in enumerate(loader):
            loop_styles.update(optimizer, loop_styles.loss_of(model(x), y))
            if number in (1, 5):
                rec.checkpoint()
    steps = [checkpoint.step for checkpoint in read(tmp_path / "out").manifest.ranks[0].checkpoints]
    assert steps == [2, 6]  # the second one at the end: no batch came after it


def test_what_cannot_be_gone_on_from_is_refused_before_training(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Killed), ak.Recorder(out, checkpoint_every=3) as rec:
        train(rec, 8)
    with pytest.raises(StoreError, match="unfinished recording"), ak.Recorder(out) as rec:
        train(rec)

    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model.weight.clone()
    with pytest.raises(RestoreMismatch), ak.Recorder.resume(out) as rec:  # noqa: PT012
        model, optimizer, loader = rec.wrap(model, optimizer, loop_styles.loader_of())
        for _ in rec.epochs(range(4)):
            for x, y, _index in loader:
                loop_styles.update(optimizer, loop_styles.loss_of(model(x), y))
    assert torch.equal(model.weight, before)
    for path in out.glob("checkpoint-*"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(AuditError), ak.Recorder.resume(out) as rec:
        train(rec)


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 5}, {"shuffle": False}, {"dataset": loop_styles.Stream()}, {"num_workers": 1}],
    ids=["batch size", "order", "dataset", "workers"],
)
def test_other_batches_than_were_recorded_are_refused(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    with pytest.raises(Killed), ak.Recorder(out, checkpoint_every=3) as rec:
        train(rec, 5)
    with pytest.raises(AuditError), ak.Recorder.resume(out) as rec:
        train(rec, **options)
    assert not (out / "manifest.json").exists()


def test_other_threads_are_refused(tmp_path: Path) -> None:
    out, threads = tmp_path / "out", torch.get_num_threads()
    with pytest.raises(Killed), ak.Recorder(out, checkpoint_every=3) as rec:
        train(rec, 5)
    torch.set_num_threads(threads + 1)
    try:
        with (
            pytest.raises(RestoreMismatch, match="torch threads"),
            ak.Recorder.resume(out) as rec,
        ):
            train(rec)
    finally:
        torch.set_num_threads(threads)


def test_another_optimizer_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Killed), ak.Recorder(out, checkpoint_every=3) as rec:
        train(rec, 5)
    model = loop_styles.network()
    ema = torch.optim.swa_utils.AveragedModel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)
    loader = loop_styles.loader_of()
    with (  # noqa: PT012
        pytest.raises(RestoreMismatch, match="another optimizer"),
        ak.Recorder.resume(out) as rec,
    ):
        rec.wrap(model, optimizer, loader, scheduler=scheduler, averaged={"ema": ema})
        next(iter(loader))


def test_a_loop_that_never_gets_to_the_checkpoint_is_not_recorded(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Killed), ak.Recorder(out, checkpoint_every=3) as rec:
        unchecked(rec, 18)
    with (  # noqa: PT012
        pytest.raises(ResumeMismatch, match="that one had begun step 18"),
        ak.Recorder.resume(out) as rec,
    ):
        model = loop_styles.network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        model, optimizer, loader = rec.wrap(model, optimizer, loop_styles.loader_of())
        assert len(list(loader)) == 1  # an epoch before the position, and no other
    assert not (out / "manifest.json").exists()


def test_a_loader_iterated_twice_at_once_gets_no_checkpoint(tmp_path: Path) -> None:
    with (
        pytest.warns(UserWarning, match="iterated twice at once"),
        ak.Recorder(tmp_path / "out", checkpoint_every=2) as rec,
    ):
        loop_styles.together(rec, loop_styles.Log())
    assert not read(tmp_path / "out").manifest.ranks[0].checkpoints


def publish(out: Path, number: int | None = None) -> list[str]:
    """Record, killed before one more file than so many gets its final name; those that got one."""
    named: list[str] = []

    def until_killed(real: Any, position: int) -> Any:
        def write(*arguments: Any, **options: Any) -> None:
            target = Path(arguments[position])
            if out in target.parents and target.suffix != store.PARTIAL:
                if len(named) == number:
                    raise KeyboardInterrupt
                named.append(target.relative_to(out).as_posix())
            real(*arguments, **options)

        return write

    with (
        ak.Recorder(out, seed=7, checkpoint_every=5) as rec,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, position in (("rename", 1), ("write_bytes", 0)):
            patch.setattr(store, name, until_killed(getattr(store, name), position))
        train(rec)
        rec.close()
    return named


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_while_it_publishes(tmp_path: Path, whole: tuple[Path, bytes], every: int) -> None:
    complete, expected = whole
    names = publish(tmp_path / "unkilled")
    recorded = read(tmp_path / "unkilled").manifest.files
    assert names[-1] == "manifest.json"
    assert {file.name for file in recorded} <= set(names)
    for number in range(0, len(names), every):
        out = tmp_path / f"{number}"
        with pytest.raises(KeyboardInterrupt):
            publish(out, number)
        assert not (out / "manifest.json").exists()
        with ak.Recorder.resume(out, seed=7, checkpoint_every=5) as rec:
            assert train(rec) == expected
        assert finished(out)[0].first_difference(finished(complete)[0]) is None


def test_a_finished_recording_is_not_gone_on_from(tmp_path: Path) -> None:
    with ak.Recorder(tmp_path / "out") as rec:
        train(rec)
    with pytest.raises(StoreError, match="finished"), ak.Recorder.resume(tmp_path / "out") as rec:
        train(rec)


def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config")}


def start(tmp_path: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, SCRIPT, str(out)],
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )


def killed_again_and_again(tmp_path: Path, moments: list[float]) -> None:
    """Kill at random moments; what ends by itself must end in the same weights."""
    whole, _ = start(tmp_path, tmp_path / "whole").communicate(timeout=120)
    expected = whole.split()[-1]
    for number, moment in enumerate(moments):
        out = tmp_path / f"out-{number}"
        process = start(tmp_path, out)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        if (out / "manifest.json").exists():
            continue  # it was done before
        said, error = start(tmp_path, out).communicate(timeout=120)
        assert said.split()[-1] == expected, error
        assert (out / "manifest.json").exists()


@pytest.mark.slow  # test_random_loops kills, too
def test_kill_9_at_any_moment(tmp_path: Path) -> None:
    killed_again_and_again(tmp_path, [random.uniform(1.5, 4)])


@pytest.mark.slow
def test_kill_9_at_twenty_moments(tmp_path: Path) -> None:
    killed_again_and_again(tmp_path, [random.uniform(0.5, 6) for _ in range(20)])


@pytest.mark.slow
def test_a_checkpoint_at_the_end_of_a_chunk(tmp_path: Path) -> None:
    def loop(rec: Any, kill_at: int | None = None) -> bytes:
        torch.manual_seed(7)
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        data = torch.utils.data.TensorDataset(torch.arange(1100.0))
        loader = torch.utils.data.DataLoader(data, shuffle=True)
        rec.wrap(model, optimizer, loader)
        for (x,) in loader:
            loop_styles.update(optimizer, model(x / 1e4).mean())
            if rec.step + 1 == kill_at:
                raise Killed
        return model.weight.detach().numpy().tobytes()

    with ak.Recorder(tmp_path / "whole") as rec:
        expected = loop(rec)
    with pytest.raises(Killed), ak.Recorder(tmp_path / "out", checkpoint_every=1024) as rec:
        loop(rec, 1030)
    with ak.Recorder.resume(tmp_path / "out") as rec:
        assert loop(rec) == expected
    for name in ("trace/000000.safetensors", "trace/000001.safetensors"):
        whole, out = ((tmp_path / which / name).read_bytes() for which in ("whole", "out"))
        assert whole == out


def test_another_seed_or_a_changed_checkpoint_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Killed), ak.Recorder(out, seed=7, checkpoint_every=3) as rec:
        train(rec, 5)
    with pytest.raises(StoreError, match="another seed"), ak.Recorder.resume(out, seed=8) as rec:
        train(rec)
    (path,) = out.glob("checkpoint-*")
    data = bytearray(path.read_bytes())
    data[-40] ^= 1
    path.write_bytes(data)
    with pytest.raises(AuditError), ak.Recorder.resume(out, seed=7) as rec:
        train(rec)


def test_what_is_marked_as_not_resumable_is_refused_and_gets_no_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(Killed), ak.Recorder(out, checkpoint_every=3) as rec:  # noqa: PT012
        model = loop_styles.network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        model, optimizer, loader = rec.wrap(model, optimizer, loop_styles.loader_of())
        for x, y, _ in loader:
            if rec.step == 3:
                backend: Any = rec._backend
                backend._writer.mark_unresumable("rng is a generator that nobody registered")
            loop_styles.update(optimizer, loop_styles.loss_of(model(x), y))
            if rec.step == 5:
                raise Killed
    assert not list(out.glob("checkpoint-00000006*"))
    with (
        pytest.raises(RecordingIncomplete, match="cannot be resumed: rng is a generator"),
        ak.Recorder.resume(out) as rec,
    ):
        train(rec)
