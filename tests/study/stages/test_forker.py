from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from studies import digests_of, tiny_session, trained

from auditkit.errors import FormatError, RestoreMismatch, StoreError
from auditkit.files import store
from auditkit.study.stages.forker import (
    Fork,
    closed_on_error,
    load_fork,
    read_fork,
    restore_fork,
)
from auditkit.study.stages.snapshotter import Snapshot, freeze

FULL = {"parts": "batchnorm+dropout+ema+scaler", "scheduler": "step", "optimizer": "adamw"}


def snapshot_at(step: int, **arguments: str) -> tuple[Snapshot, dict[str, str]]:
    with tiny_session(**arguments) as session:
        trained(session, 1, step)
        batch = torch.arange(3.0)
        return freeze(session, session.state(), [batch]), digests_of(session)


def without(snapshot: Snapshot, component: str) -> Any:
    components: Any = dict(snapshot.meta["components"])  # type: ignore[call-overload]
    removed = components.pop(component)
    keys = {f"{component}/{entry}" for entry in removed}
    tensors = {name: t for name, t in snapshot.tensors.items() if name not in keys}
    return tensors, {**snapshot.meta, "components": components}


def test_a_session_that_was_placed_is_in_the_state_of_the_fork() -> None:
    snapshot, digests = snapshot_at(6, **FULL)
    with tiny_session(**FULL) as session:
        assert digests_of(session) != digests
        restore_fork(session, read_fork(snapshot.tensors, snapshot.meta))
        assert digests_of(session) == digests
        assert freeze(session, session.state(), [torch.arange(3.0)]).digests == snapshot.digests


def test_a_session_that_was_placed_goes_on_as_the_one_it_was_taken_from() -> None:
    with tiny_session(**FULL) as session:
        trained(session, 1, 6)
        snapshot = freeze(session, session.state(), [])
        control = trained(session, 7, 14).trace()
    with tiny_session(**FULL) as session:
        restore_fork(session, read_fork(snapshot.tensors, snapshot.meta))
        assert trained(session, 7, 14).trace().first_difference(control) is None


def test_one_branch_cannot_reach_another() -> None:
    snapshot, digests = snapshot_at(6)
    fork = read_fork(snapshot.tensors, snapshot.meta)
    with tiny_session() as first, tiny_session() as second:
        restore_fork(first, fork)
        restore_fork(second, read_fork(snapshot.tensors, snapshot.meta))
        trained(first, 7, 14)
        restore_fork(second, read_fork(snapshot.tensors, snapshot.meta))
        assert digests_of(second) == digests
    held = {name: bytes(tensor.data) for name, tensor in snapshot.tensors.items()}
    assert held == {k: bytes(t.data) for k, t in snapshot_at(6)[0].tensors.items()}


def test_the_recalibration_batches_come_back() -> None:
    snapshot, _ = snapshot_at(6)
    (batch,) = read_fork(snapshot.tensors, snapshot.meta).recalibration
    assert torch.equal(batch, torch.arange(3.0))


@pytest.mark.parametrize("section", ["loader", "recalibration"])
def test_a_snapshot_without_its_data_position_or_batches_is_refused(section: str) -> None:
    snapshot, _ = snapshot_at(6)
    with pytest.raises(RestoreMismatch, match="no such section"):
        read_fork(*without(snapshot, section))


@pytest.mark.parametrize("component", ["params", "modules", "param_groups", "rng/python"])
def test_a_snapshot_without_a_component_is_refused(component: str) -> None:
    snapshot, _ = snapshot_at(6)
    tensors, meta = without(snapshot, component)
    kept = {key: tensor for key, tensor in tensors.items() if not key.startswith("rng~1python/")}
    if component == "rng/python":
        tensors = kept
    with tiny_session() as session, pytest.raises(RestoreMismatch):
        restore_fork(session, read_fork(tensors, meta))


@pytest.mark.parametrize(
    "other",
    [{"parts": "dropout"}, {"parts": "batchnorm+dropout+ema"}, {"scheduler": "step"}],
    ids=["model", "average", "scheduler"],
)
def test_a_snapshot_of_another_program_is_refused(other: dict[str, str]) -> None:
    snapshot, _ = snapshot_at(6)
    with tiny_session(**other) as session, pytest.raises(RestoreMismatch):
        restore_fork(session, read_fork(snapshot.tensors, snapshot.meta))


@pytest.mark.parametrize("spoil", [lambda meta: None, lambda meta: {**meta, "format": "x/1"}])
def test_a_file_that_is_no_snapshot_is_refused(spoil: Callable[[Any], Any]) -> None:
    snapshot, _ = snapshot_at(2)
    with pytest.raises(FormatError):
        read_fork(snapshot.tensors, spoil(snapshot.meta))


def test_a_fork_is_read_tensor_by_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot, digests = snapshot_at(6, **FULL)
    store.write_tensors(tmp_path / "fork", snapshot.tensors, snapshot.meta)
    monkeypatch.setattr(store, "read_bytes", None)  # which would have all of it in memory
    with tiny_session(**FULL) as session:
        restore_fork(session, load_fork(tmp_path / "fork"))
        assert digests_of(session) == digests


def test_a_fork_is_restored_once_and_lets_go_of_its_file(tmp_path: Path) -> None:
    snapshot, _ = snapshot_at(6, **FULL)
    store.write_tensors(tmp_path / "fork", snapshot.tensors, snapshot.meta)
    fork = load_fork(tmp_path / "fork")
    with tiny_session(**FULL) as session:
        restore_fork(session, fork)
        with pytest.raises(StoreError, match="cannot read"):
            restore_fork(session, fork)


def test_what_is_no_fork_is_refused(tmp_path: Path) -> None:
    for name, data in {"empty": b"", "short": b"\x02" + bytes(7) + b"{"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FormatError, match="not a safetensors file"):
            load_fork(tmp_path / name)
    with pytest.raises(StoreError, match="cannot read"):
        load_fork(tmp_path / "none")


def test_a_file_that_is_not_restored_from_is_let_go_on_an_error() -> None:
    closed: list[bool] = []
    fork = Fork({}, {}, [], close=lambda: closed.append(True))
    with closed_on_error(fork):
        pass
    assert not closed
    with pytest.raises(RestoreMismatch), closed_on_error(fork):
        raise RestoreMismatch("another loader")
    assert closed
