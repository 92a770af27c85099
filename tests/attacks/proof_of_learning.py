"""Forgeries that a proof of learning takes for good (Jia et al. 2021, with its code's defaults).

There a verifier retrains from stored checkpoints, compares with a tolerance, and hashes parts
of the data. Here each is made in a study, and most in a recording too, and named with its
component. The last two use that evidence is no cryptographic digest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import forging
import numpy as np
import pytest
from in_process_loops import Loop, read, replay_in_process
from numpy.typing import NDArray
from studies import Run, study_in_process
from synthetic_recordings import Recording, write_replay

from attacks.attack import Attack
from attacks.subjects import FEW, STOLEN, record_loop
from auditkit.files import store
from auditkit.formats.recipes import digest_raw
from auditkit.formats.snapshot_file import raw_components
from auditkit.records.digest import COMMITMENT_RECIPE, EVIDENCE_RECIPE
from auditkit.records.tensor import RawTensor

GROUP = "proof of learning"

#: As in ``programs/stolen_study.py``.
VARIABLE = "AUDITKIT_TEST_FORGERY"
EXCHANGEABLE = [13, 29]

FORK = "seed-0000/fork.safetensors"

#: The bits of 999.0.
RATE_999 = "408f380000000000"


def cheated(how: str) -> Callable[[Run], Run]:
    """Make the study anew, by an author who cheats while it runs and keeps the honest code."""

    def make(run: Run) -> Run:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(VARIABLE, how)
            return study_in_process(run.folder.parent / "forged", run.key, FEW, STOLEN)

    return make


def _faster(entries: dict[str, Any]) -> None:
    """Another learning rate in the stored settings of the optimizer."""
    (group,) = entries[""]["json"]
    group["values"][group["keys"].index("lr")]["bits"] = RATE_999


def _digests(run: Run) -> list[bytes]:
    section = raw_components(*store.read_tensors(run.folder / FORK, what=FORK))["params"]
    extra = section[0]["extra"]
    assert isinstance(extra, RawTensor)
    assert extra.n_bytes == 4096
    return [digest_raw(recipe, *section) for recipe in (EVIDENCE_RECIPE, COMMITMENT_RECIPE)]


def _exchange(weights: NDArray[Any]) -> None:
    weights[EXCHANGEABLE] = weights[EXCHANGEABLE[::-1]]


def _collide(run: Run) -> None:
    """Exchange two weights of the fork: by the evidence it is the same state."""
    evidence, commitment = _digests(run)
    forging.edit_fork(run, "params", "extra", _exchange)
    assert _digests(run)[0] == evidence
    assert _digests(run)[1] != commitment


def _collide_unsaid(run: Run) -> None:
    """The same, and the commitments stay those of the honest weights."""
    forging.edit_tensors(run, FORK, lambda arrays: _exchange(arrays["params/extra"]))


def recorded(**fault: Any) -> Callable[[Run], Run]:
    """Record a loop that cheats; a reviewer replays it with the honest one."""

    def make(run: Run) -> Run:
        return reviewed(record_loop(run.folder.parent / "forged", run.key, **fault))

    return make


def reviewed(run: Run) -> Run:
    """Replay a recording with the honest loop, as ``auditkit replay`` does, and sign that."""
    return reviewed_with(run, Loop(run.folder, checkpoint_every=0))


def reviewed_with(run: Run, loop: Loop) -> Run:
    """The same, with a loop of one's choice."""
    found = replay_in_process(read(run.folder), loop)
    write_replay(
        Recording(run.folder, run.key),
        findings=found.findings,
        last_step=found.last_step,
        environment=found.environment,
        checkpoints=found.checkpoints,
    )
    return run


def _final_batchnorm(run: Run) -> None:
    """Another BatchNorm at the end than the trace's last row has."""

    def edit(told: forging.Statement) -> None:
        told["predicate"]["ranks"][0]["final"]["batchnorm"] = "5" * 64

    forging.edit_statement(run, edit)
    reviewed(run)


def _other_loader(run: Run) -> None:
    """The loader is said to deliver other batches than it did."""

    def edit(told: forging.Statement) -> None:
        told["predicate"]["ranks"][0]["loaders"][""]["batch size"] = "4096"

    forging.edit_statement(run, edit)
    reviewed(run)


def _row(run: Run) -> None:
    """One digest in the middle, where nothing else says what it must be."""

    def edit(arrays: forging.Arrays) -> None:
        arrays["params"][12, 0] ^= 1

    forging.edit_tensors(run, "trace/000000.safetensors", edit)
    reviewed(run)


def _cut_short(run: Run) -> None:
    """The second half was never trained; the end is said to be that of the first."""

    def cut(arrays: forging.Arrays) -> None:
        for name in list(arrays):
            arrays[name] = arrays[name][:13]
        for name in ("order", "batch", "loss_bits"):
            arrays[name] = np.concatenate([arrays[name][:12], np.zeros_like(arrays[name][:1])])

    def edit(told: forging.Statement) -> None:
        told["predicate"]["ranks"][0].update(steps=12, epochs=1)

    forging.edit_tensors(run, "trace/000000.safetensors", cut)
    forging.edit_statement(run, edit)
    reviewed(run)


def _study(name: str, apply: Callable[[Run], object], says: str, *place: Any) -> Attack:
    where, step, component = place
    return Attack(
        f"study: {name}",
        GROUP,
        apply,
        8,
        1,
        says,
        where=f"seed 0, {where}",
        step=step,
        component=component,
        needs_replay=True,
        subject="images",
    )


def _recording(
    name: str, apply: Callable[[Run], object], says: str, step: int | None, component: str
) -> Attack:
    return Attack(
        f"recording: {name}",
        GROUP,
        apply,
        8,
        1,
        says,
        where="rank 0",
        step=step,
        component=component,
        subject="loop",
    )


ATTACKS = (
    _study(
        "a walk to stolen weights without a gradient",
        cheated("interpolate"),
        "params",
        *("trunk", 2, "optimizer/momentum_buffer"),
    ),
    _study(
        "another learning rate than the code's",
        cheated("learning-rate"),
        "another param_groups",
        *("trunk", 1, "param_groups"),
    ),
    _study(
        "another learning rate in the stored optimizer",
        lambda run: forging.edit_fork_json(run, "param_groups", _faster),
        "param_groups",
        *("trunk", 7, "param_groups"),
    ),
    _study(
        "BatchNorm of the final model",
        cheated("batchnorm"),
        "another batchnorm",
        *("control", 15, "batchnorm"),
    ),
    _study(
        "bytes in the middle of an image", cheated("pixels"), "data drift", *("trunk", 1, "batch")
    ),
    _study("a label", cheated("labels"), "data drift", *("trunk", 1, "batch")),
    _study(
        "two weights exchanged by a collision of xxh3",
        _collide,
        "commitment",
        *("fork", 7, "params"),
    ),
    Attack(
        "study: the same, with the honest commitments",
        GROUP,
        _collide_unsaid,
        7,
        1,
        "the snapshot holds another state than committed",
        where=FORK,
        step=7,
        component="params",
        subject="images",
    ),
    _recording(
        "another learning rate than the script's",
        recorded(fault="learning rate"),
        "another param_groups",
        10,
        "param_groups",
    ),
    _recording("BatchNorm's momentum", recorded(fault="batchnorm"), "state drift", 2, "batchnorm"),
    _recording(
        "bytes in the middle of a sample", recorded(fault="pixel"), "data drift", 12, "batch"
    ),
    _recording("a label", recorded(fault="label"), "data drift", 12, "batch"),
    _recording("BatchNorm of the final model", _final_batchnorm, "commitment", 25, "batchnorm"),
    _recording(
        "another description of the loader",
        _other_loader,
        "description: batch size of the training loader is another",
        None,
        "batch size of the training loader",
    ),
    _recording("half of the steps", _cut_short, "length", None, "steps"),
    _recording("a row of the trace", _row, "state drift", 13, "params"),
)
