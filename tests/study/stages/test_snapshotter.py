from __future__ import annotations

import threading
from collections import UserDict
from dataclasses import replace
from typing import Any

import pytest
import torch
from studies import digests_of, tiny_session, trained
from torch import Tensor, nn

from auditkit.errors import UncapturedState
from auditkit.formats.recipes import digest_raw
from auditkit.formats.snapshot_file import raw_components
from auditkit.observe.values.flatten import batch_leaves
from auditkit.program.program import Program
from auditkit.records.digest import COMMITMENT_RECIPE
from auditkit.study.stages import snapshotter
from auditkit.study.stages.forker import read_fork
from auditkit.study.stages.snapshotter import freeze, hashed_beside, recalibration_batch


class Forgetful(nn.Module):
    """A layer that counts its calls where no ``state_dict`` looks."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, values: Tensor) -> Tensor:
        self.calls += 1
        return values


def forgetful(program: Program) -> Program:
    model: Any = program.model
    model.relu = Forgetful()
    return program


def test_a_snapshot_holds_every_component_and_the_data_position() -> None:
    with tiny_session(parts="batchnorm+dropout+ema", scheduler="step") as session:
        trained(session, 1, 6)
        digests = freeze(session, session.state(), []).digests
        assert set(digests) == {*session.state(), "loader", "recalibration"}
    assert {"params", "batchnorm", "averaged/ema", "scheduler", "rng/numpy"} <= set(digests)


def test_a_snapshot_commits_to_what_it_holds() -> None:
    with tiny_session() as session:
        trained(session, 1, 6)
        snapshot = freeze(session, session.state(), [torch.ones(2)])
        live = digests_of(session)
    sections = raw_components(snapshot.tensors, snapshot.meta)
    assert set(sections) == set(snapshot.digests)
    for name, section in sections.items():
        assert digest_raw(COMMITMENT_RECIPE, *section).hex() == snapshot.digests[name]
    for name, digest in live.items():
        assert snapshot.digests[name] == digest


def test_a_snapshot_is_not_reached_by_later_training() -> None:
    with tiny_session() as session:
        trained(session, 1, 6)
        snapshot = freeze(session, session.state(), [])
        held = {name: bytes(tensor.data) for name, tensor in snapshot.tensors.items()}
        trained(session, 7, 10)
    assert {name: bytes(tensor.data) for name, tensor in snapshot.tensors.items()} == held


def test_freezing_changes_nothing() -> None:
    with tiny_session() as session:
        trained(session, 1, 6)
        before = digests_of(session)
        freeze(session, session.state(), [])
        assert digests_of(session) == before


def test_equal_states_have_equal_snapshots() -> None:
    snapshots = []
    for _ in range(2):
        with tiny_session() as session:
            trained(session, 1, 6)
            snapshots.append(freeze(session, session.state(), []))
    assert snapshots[0] == snapshots[1]


def test_plain_attributes_that_changed_are_in_the_snapshot() -> None:
    with tiny_session(forgetful) as session:
        trained(session, 1, 6)
        layer: Any = session.program.model.relu
        assert layer.calls == 6
        digests = freeze(session, session.state(), []).digests
        layer.calls = 7
        assert (
            digests["attributes/modules"]
            != freeze(session, session.state(), []).digests["attributes/modules"]
        )


def test_state_that_no_snapshot_would_hold_is_refused() -> None:
    with tiny_session(forgetful) as session:
        trained(session, 1, 6)
        layer: Any = session.program.model.relu
        layer.calls = object()
        with pytest.raises(
            UncapturedState, match=r"model\.relu\.calls became an instance of object, no"
        ) as error:
            freeze(session, session.state(), [])
    assert error.value.component == "attributes/modules"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda model: model.add_module("head", nn.Linear(2, 2)), "head"),
        (lambda model: model.register_parameter("scale", nn.Parameter(torch.ones(1))), "scale"),
    ],
)
def test_a_model_that_grew_is_refused_before_the_fork_is_written(change: Any, name: str) -> None:
    with tiny_session() as session:
        trained(session, 1, 6)
        change(session.program.model)
        with pytest.raises(UncapturedState, match=f"{name} was added, removed or replaced"):
            freeze(session, session.state(), [])


def test_a_generator_that_nobody_registered_is_refused_once_it_moves() -> None:
    generator = torch.Generator()

    def noisy(program: Program) -> Program:
        def loss(model: nn.Module, batch: Any) -> Tensor:
            noise = torch.rand((), generator=generator)
            squares: Tensor = model(batch[0]).square()
            return squares.mean() * noise

        return replace(program, loss=loss)

    with tiny_session(noisy) as session:
        session.state()
        torch.rand((), generator=generator)
        with pytest.raises(UncapturedState, match=r"torch\.Generator.*register it"):
            session.state()


def test_a_generator_that_is_registered_is_part_of_the_snapshot() -> None:
    generator = torch.Generator()
    with tiny_session(lambda program: replace(program, extras={"noise": generator})) as session:
        trained(session, 1, 2)
        assert "rng/extras/noise" in freeze(session, session.state(), []).digests


class Sized(UserDict[str, Any]):
    """A batch that adds its size whenever it is made."""

    def __init__(self, items: Any) -> None:
        super().__init__({**items, "made": len(items)})


class Encoding(UserDict[str, Any]):
    """A batch as a tokenizer makes it."""


def test_a_recalibration_batch_of_another_class_comes_back_as_one() -> None:
    with tiny_session() as session:
        snapshot = freeze(session, session.state(), [Encoding({"x": torch.ones(2)})])
    (batch,) = read_fork(snapshot.tensors, snapshot.meta).recalibration
    assert type(batch) is Encoding
    assert torch.equal(batch["x"], torch.ones(2))


def test_a_recalibration_batch_that_cannot_be_made_again_is_refused() -> None:
    class Local(Encoding):
        """A class that nobody finds by its name."""

    for batch in (Sized({"x": torch.ones(2)}), Local({"x": torch.ones(2)})):
        with pytest.raises(UncapturedState) as caught:
            recalibration_batch(batch_leaves(batch))
        assert "cannot be made again from its items" in caught.value.message
        assert "let collate_fn return a dict" in (caught.value.hint or "")


@pytest.mark.parametrize("limit", [0, 2**62])
def test_digests_of_a_large_snapshot_are_made_once_and_while_it_is_written(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshotter, "_LARGE", limit)
    with tiny_session() as session:
        trained(session, 1, 6)
        snapshot = freeze(session, session.state(), [torch.ones(2)])
        expected = digests_of(session)
        trained(session, 7, 8)
    threads = []

    def digest(*part: Any) -> bytes:
        threads.append(threading.current_thread())
        return digest_raw(*part)

    monkeypatch.setattr(snapshotter, "digest_raw", digest)
    with hashed_beside(snapshot):
        pass
    n_made = len(threads)
    assert {name: snapshot.digests[name] for name in expected} == expected
    assert len(threads) == n_made == (0 if limit else len(snapshot.digests))
    assert threading.current_thread() not in threads


def test_what_is_known_of_a_state_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshotter, "_LARGE", 0)
    made = []
    with tiny_session() as session:
        snapshot = freeze(session, session.state(), [])
        known = digests_of(session)

    def digest(*part: Any) -> bytes:
        made.append(digest_raw(*part))
        return made[-1]

    monkeypatch.setattr(snapshotter, "digest_raw", digest)
    assert replace(snapshot, known=known).digests == snapshot.digests
    assert len(made) == 2 * len(snapshot.digests) - len(known)
