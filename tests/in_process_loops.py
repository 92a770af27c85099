"""Loops of a user's own, recorded and run again inside the test's process.

A process that loads torch takes seconds; :class:`InProcessCommands` stands in for
:class:`auditkit.processes.commands.Commands` and calls a function instead, with the same connection
between the Recorder in it and who runs the command.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

import auditkit as ak
from auditkit.evidence.reader import RecordingEvidence
from auditkit.formats.statements import manifest_from_statement
from auditkit.processes import protocol
from auditkit.processes.commands import CommandResult
from auditkit.processes.server import Handler, Server
from auditkit.records.recording import RecordingManifest
from auditkit.replay.live_comparison import CommandConfig
from auditkit.replay.recording_replay import RecordingReplay, replay_recording
from auditkit.signing.envelopes import open_envelope

Script = Callable[[], object]


class InProcessCommands:
    """Runs a function as if it were a command.

    Args:
        script: The function.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self.variables: list[Mapping[str, str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left running."""

    def run(
        self,
        command: Sequence[str],
        handler: Handler,
        *,
        variables: Mapping[str, str] = {},
        output: IO[bytes] | None = None,
    ) -> CommandResult:
        """Call the function; its random streams and threads are its own."""
        self.variables.append(variables)
        connections: list[protocol.Connection] = []
        returncode, tail = 0, ""

        def connect(client_info: dict[str, Any]) -> protocol.Connection | None:
            connection = protocol.connect(client_info)
            assert connection is not None
            connections.append(connection)
            return connection

        with Server(handler) as server, ExitStack() as stack:
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr("auditkit.recorder.tasks.connect", connect)
            for name, value in {**variables, protocol.SESSION_VARIABLE: server.variable}.items():
                patch.setenv(name, value)
            try:
                self._script()
            except SystemExit as end:
                returncode = int(end.code or 0)
            except Exception as error:
                returncode, tail = 1, f"{type(error).__name__}: {error}"
            for connection in connections:  # a process would end here
                connection.close()
            assert server.wait(30)
        return CommandResult(returncode, tail, server.connected)


@dataclass
class Loop:
    """A small loop with everything that faults need; call it to train.

    Attributes:
        out: Where it records.
        fault: Changes one thing, or None.
        workers: Of its loader.
        checkpoint_every: Steps between checkpoints.
        optimizer: Name of its optimizer's class.
        seed: What it is seeded with.
        amp: Whether the forward pass runs in bfloat16.
        iterable: Whether its dataset is an iterable one.
        parts: Names of further parts of the model: ``batchnorm``, ``dropout``.
        epochs: How often it goes through its samples, 12 steps each.
        at: Step at which its learning rate is changed, if that is the fault.
        sets: What is set in its group then.
        validates: Whether it goes through a further loader after every epoch.
        order: Samples of every step, of the latest call.
    """

    out: Path
    fault: str | None = None
    workers: int = 0
    checkpoint_every: int = 5
    optimizer: str = "SGD"
    seed: int = 0
    amp: bool = False
    iterable: bool = False
    parts: tuple[str, ...] = ("batchnorm", "dropout")
    epochs: int = 2
    at: int = 9
    sets: dict[str, object] = field(default_factory=lambda: {"lr": 0.04})
    validates: bool = False
    order: list[list[int]] = field(default_factory=list)

    def __call__(self) -> None:
        self.order = []
        random.seed(self.seed)
        np.random.seed(self.seed)
        if self.fault == "seed":
            torch.seed()
        else:
            torch.manual_seed(self.seed)
        before = torch.get_num_threads()
        torch.set_num_threads(2 if self.fault == "threads" else 1)
        try:
            with pytest.MonkeyPatch.context() as patch:  # the script is not pytest
                patch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
                self._train()
        finally:
            torch.set_num_threads(before)

    def _train(self) -> None:
        model = self._model()
        optimizer = getattr(torch.optim, self.optimizer)(model.parameters(), lr=0.05)
        loader = self._loader()
        tones = torch.linspace(0, 9, 200_000).sin()
        every = self.checkpoint_every
        step = 0
        with ak.Recorder(self.out, seed=self.seed, checkpoint_every=every) as recorder:
            further = [self._loader()] if self.validates else []
            model, optimizer, loader, *further = recorder.wrap(model, optimizer, loader, *further)
            for _ in range(self.epochs):
                for x, y, index in loader:
                    step += 1
                    self.order.append(index.tolist())
                    if self.fault == "learning rate" and step == self.at:
                        optimizer.param_groups[0].update(self.sets)
                    with torch.autocast("cpu", torch.bfloat16, enabled=self.amp):
                        loss = nn.functional.cross_entropy(model(x).float(), y)
                    loss = loss * (1 + tones.sum() / 1e6)
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    recorder.log(loss=loss)
                for held_out in further:
                    assert sum(len(x) for x, *_ in held_out) == 48

    def _model(self) -> nn.Module:
        momentum = 0.2 if self.fault == "batchnorm" else 0.1
        extra: list[nn.Module] = []
        if "batchnorm" in self.parts:
            extra.append(nn.BatchNorm1d(8, momentum=momentum))
        if "dropout" in self.parts:
            extra.append(nn.Dropout(0.2))
        model = nn.Sequential(nn.Linear(6, 8), *extra, nn.ReLU(), nn.Linear(8, 3)).train()
        if self.fault == "dropout":
            extra[-1].eval()
        return model

    def _loader(self) -> DataLoader[Any]:
        if self.iterable:
            return DataLoader(Stream(self), batch_size=4, num_workers=self.workers)
        workers = 2 if self.fault == "workers" else self.workers
        sampler: Sampler[int] | None = None
        if self.fault == "sampler":
            generator = torch.Generator().manual_seed(int.from_bytes(os.urandom(7), "big"))
            sampler = torch.utils.data.RandomSampler(range(48), generator=generator)
        return DataLoader(
            Samples(self),
            batch_size=4,
            shuffle=None if sampler else True,
            sampler=sampler,
            num_workers=workers,
        )


class Samples(Dataset[Any]):
    """48 samples with an augmentation that draws from all three global streams.

    Args:
        loop: Its loop.
    """

    def __init__(self, loop: Loop) -> None:
        generator = torch.Generator().manual_seed(1)
        self.fault = loop.fault
        columns = {name: torch.randn(48, generator=generator) for name in "abcdef"}
        if loop.fault == "set order":
            columns = dict(reversed(columns.items()))
        self.inputs = torch.stack(list(columns.values()), 1)
        self.labels = torch.arange(48) % 3
        files = [f"{number:02}" for number in range(48)]
        if loop.fault == "listing":
            files = files[7:] + files[:7]
        self.files = [int(name) for name in files]
        if loop.fault == "label":
            self.labels[13] = (self.labels[13] + 1) % 3
        if loop.fault == "pixel":
            self.inputs[13, 2] += 1e-3

    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        noise = 0.01 * torch.randn(6) + 0.01 * random.random() + 0.01 * float(np.random.rand())
        if self.fault == "clock" and index == 13:
            late = torch.Generator().manual_seed(time.perf_counter_ns())
            noise = noise + 0.01 * torch.randn(6, generator=late)
        file = self.files[index]
        return self.inputs[file] + noise, self.labels[file], index


class Stream(IterableDataset[Any]):
    """The same samples in a fixed order, a part for each worker."""

    def __init__(self, loop: Loop) -> None:
        self.samples = Samples(loop)

    def __iter__(self) -> Iterator[Any]:
        info = torch.utils.data.get_worker_info()
        first, every = (info.id, info.num_workers) if info else (0, 1)
        for index in range(first, 48, every):
            yield self.samples[index]


def record(loop: Loop) -> RecordingEvidence:
    """Record a loop, and read what it left."""
    loop()
    return read(loop.out)


def read(folder: Path) -> RecordingEvidence:
    """A finished recording."""
    envelope = open_envelope((folder / "manifest.json").read_bytes())
    manifest = manifest_from_statement(envelope.payload, what="manifest")
    assert isinstance(manifest, RecordingManifest)
    return RecordingEvidence(folder, manifest)


def replay_in_process(evidence: RecordingEvidence, script: Script) -> RecordingReplay:
    """Replay a recording with a function for a command."""
    return replay_recording(evidence, CommandConfig(InProcessCommands(script), ["here"], {}))
