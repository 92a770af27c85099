"""A tiny training for every framework, and an account of it that auditkit has no part in.

Each sample carries its index, and what a step consumes and trains is noted in the step itself;
a recording is held against that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from auditkit.evidence.reader import RecordingEvidence
from auditkit.formats.recipes import order_digest
from auditkit.formats.statements import manifest_from_statement
from auditkit.observe.values.digests import digest_leaves
from auditkit.records.digest import EVIDENCE_RECIPE
from auditkit.records.evidence import Trace
from auditkit.records.recording import RecordingManifest
from auditkit.signing.envelopes import open_envelope
from auditkit.signing.trust import machine_trust
from auditkit.verification.procedure import VerifyRequest, verify

N_SAMPLES, N_FEATURES, BATCH = 44, 5, 8
N_BATCHES = 6


class Killed(BaseException):
    """The machine went down in the middle of a step."""


class Samples(Dataset[tuple[Tensor, Tensor, int]]):
    """Samples whose augmentation draws from the global stream, and that carry their index."""

    def __len__(self) -> int:
        return N_SAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        clean = torch.linspace(-1, 1, N_FEATURES) * (1 + index % 7)
        return clean + 0.1 * torch.randn(N_FEATURES), torch.tensor(index % 3), index


class Drawing(Samples):
    """Samples with a generator of their own.

    Args:
        draws: Whether each sample draws from it; else it only made something at the beginning.
    """

    def __init__(self, *, draws: bool = True) -> None:
        self.own, self.draws = torch.Generator().manual_seed(5), draws
        self.offset = torch.randn(N_FEATURES, generator=self.own)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        x, y, number = super().__getitem__(index)
        noise = torch.randn(N_FEATURES, generator=self.own) if self.draws else 0.0
        return x + self.offset + noise, y, number


class Net(nn.Module):
    """Dropout draws from the stream that augmentation draws from; BatchNorm has buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(N_FEATURES, 8),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(8, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


@dataclass(slots=True)  # what a module holds in a dict would come back with a checkpoint
class StepLog:
    """What steps consumed and trained.

    Attributes:
        indices: Of each step, in the order of the batch.
        params: Parameters as each step began.
        dies_at: Step at which the machine goes down, from 1; 0 for never.
    """

    indices: list[list[int]] = field(default_factory=list)
    params: list[dict[str, Tensor]] = field(default_factory=list)
    dies_at: int = 0

    def step(self, model: nn.Module, indices: Tensor) -> None:
        """A step begins."""
        self.indices.append(indices.tolist())
        self.params.append({k: v.detach().clone() for k, v in model.named_parameters()})
        if len(self.indices) == self.dies_at:
            raise Killed


def weights(model: nn.Module) -> dict[str, bytes]:
    """Everything a model has learned, as bits."""
    return {
        name: value.detach().float().numpy().tobytes() for name, value in model.state_dict().items()
    }


def manifest_of(out: Path) -> RecordingManifest:
    """What was signed."""
    envelope = open_envelope((out / "manifest.json").read_bytes(), what="manifest.json")
    manifest = manifest_from_statement(envelope.payload, what="manifest.json")
    assert isinstance(manifest, RecordingManifest)
    return manifest


def trace_of(out: Path) -> Trace:
    """The rows of a short recording."""
    manifest = manifest_of(out)
    (name,) = manifest.ranks[0].traces
    return RecordingEvidence(out, manifest).trace(name)


def check_recording(
    out: Path, step_log: StepLog, *, first: int = 1, per_epoch: int = N_BATCHES
) -> None:
    """Hold a recording against the account of its steps, and verify it.

    Args:
        out: The recording's folder.
        diary: The account.
        first: Step with which the account begins.
        per_epoch: Batches in an epoch.
    """
    trace = trace_of(out)
    n_steps = first + len(step_log.indices) - 1
    assert manifest_of(out).ranks[0].steps == n_steps == trace.n_rows - 2 + trace.first_step
    for step, (indices, params) in enumerate(
        zip(step_log.indices, step_log.params, strict=True), start=first
    ):
        epoch = (step - 1) // per_epoch
        pairs = np.array([(epoch, index) for index in indices], dtype=np.int64)
        row = slice((step - 1) * 16, step * 16)
        assert trace.columns["order"][row] == order_digest(EVIDENCE_RECIPE, pairs), step
        assert trace.columns["params"][row] == digest_leaves(EVIDENCE_RECIPE, params), step
    report = verify(out / "manifest.json", VerifyRequest(trusted=machine_trust(), replay="none"))
    assert report.exit_code == 0, [finding for check in report.checks for finding in check.findings]


def killed(train: Callable[[], Any]) -> None:
    """Train until the machine goes down."""
    try:
        train()
    except Killed:
        return
    raise AssertionError("nothing went down")
