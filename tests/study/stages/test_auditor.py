from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from studies import CallbackSpy, tiny_session, trained

from auditkit.formats.recipes import order_digest
from auditkit.observe.values import batches
from auditkit.observe.values.digests import digest_leaves
from auditkit.records.digest import ABSENT, COMMITMENT_RECIPE, EVIDENCE_RECIPE
from auditkit.records.evidence import Trace
from auditkit.study.stages.auditor import Auditor
from auditkit.study.stages.holder import hold


def test_a_trace_has_a_row_a_step_and_one_for_the_end() -> None:
    with tiny_session() as session:
        trace = trained(session, 1, 5).trace()
    assert (trace.first_step, trace.last_step, trace.n_rows) == (1, 5, 6)
    assert {"order", "batch", "params", "batchnorm", "rng/torch"} <= set(trace.columns)


def test_a_row_holds_the_state_before_its_step_and_what_the_step_consumed() -> None:
    with tiny_session() as session:
        before = digest_leaves(EVIDENCE_RECIPE, session.state()["params"])
        looker, auditor = CallbackSpy(), Auditor(1)
        hold(session, 1, 3, auditor, looker)
        after = digest_leaves(EVIDENCE_RECIPE, session.state()["params"])
    trace = auditor.trace()
    assert trace.cell(1, "params") == before
    assert trace.cell(4, "params") == after
    for step, delivery in enumerate(looker.deliveries, start=1):
        assert delivery.order is not None
        assert trace.cell(step, "order") == order_digest(EVIDENCE_RECIPE, delivery.order)


def test_the_last_row_consumed_nothing() -> None:
    with tiny_session() as session:
        trace = trained(session, 1, 5).trace()
    assert trace.cell(6, "order") == trace.cell(6, "batch") == ABSENT
    assert trace.loss(6) == bytes(8)


def test_a_part_of_a_trace_ends_with_a_row_that_consumed_nothing() -> None:
    with tiny_session() as session:
        auditor = trained(session, 1, 8)
    whole, head, tail = auditor.trace(), auditor.trace(1, 4), auditor.trace(5)
    assert (head.first_step, head.last_step, tail.first_step, tail.last_step) == (1, 4, 5, 8)
    assert head.cell(5, "order") == ABSENT
    assert head.loss(5) == bytes(8)
    assert head.cell(5, "params") == tail.cell(5, "params") == whole.cell(5, "params")
    assert tail.cell(5, "order") == whole.cell(5, "order") != ABSENT


def test_a_component_that_appears_later_is_zero_until_then() -> None:
    with tiny_session() as session:
        trace = trained(session, 1, 4).trace()
    assert trace.cell(1, "optimizer/momentum_buffer") == ABSENT
    assert trace.cell(2, "optimizer/momentum_buffer") != ABSENT


def test_a_component_that_never_exists_has_no_column() -> None:
    with tiny_session() as session:
        auditor = trained(session, 1, 4)
    assert "optimizer/momentum_buffer" not in auditor.trace(1, 0).columns


def test_a_later_cut_of_the_same_step_replaces_the_earlier() -> None:
    auditor = Auditor(1)
    auditor.cut({"params": {"w": torch.zeros(2)}, "grad": {"w": torch.ones(2)}})
    auditor.cut({"params": {"w": torch.ones(2)}})
    auditor.consume(torch.zeros(1), None)
    auditor.finish_step(0.5)
    auditor.close({"params": {"w": torch.ones(2)}})
    trace = auditor.trace()
    assert "grad" not in trace.columns
    assert trace.cell(1, "params") == trace.cell(2, "params") != ABSENT


def test_a_batch_without_indices_has_its_content_for_an_order() -> None:
    auditor = Auditor(1)
    auditor.cut({})
    auditor.consume((torch.arange(3), ["a"]), None)
    auditor.finish_step(None)
    auditor.close({})
    trace = auditor.trace()
    assert trace.cell(1, "order") == trace.cell(1, "batch") != ABSENT


def test_what_was_consumed_is_committed_to_batch_by_batch() -> None:
    auditor = Auditor(1, commit_data=True)
    digest = hashlib.sha256()
    for value in (1.0, 2.0):
        leaves = auditor.consume({"x": torch.tensor([value])}, None)
        digest.update(digest_leaves(COMMITMENT_RECIPE, leaves))
        auditor.finish_step(value)
    assert auditor.consumed_sha256 == digest.hexdigest()
    assert Auditor(1).consumed_sha256 == ""


def test_the_loss_is_kept_by_its_bits() -> None:
    auditor = Auditor(3)
    for loss in (float("nan"), -0.0):
        auditor.cut({})
        auditor.consume(torch.zeros(1), None)
        auditor.finish_step(loss)
    auditor.close({})
    trace = auditor.trace()
    assert trace.loss(3) == bytes.fromhex("000000000000f87f")
    assert trace.loss(4) == bytes.fromhex("0000000000000080")


def _rows(given: list[Any], *, beside: bool, indexed: bool) -> tuple[Trace, str, list[Any]]:
    auditor = Auditor(1, commit_data=True, beside=beside)
    found: list[Any] = []
    asked_later: list[Callable[[], bytes]] = []
    for number, batch in enumerate(given):
        auditor.cut({"params": {"w": torch.ones(2)}})
        order = np.array([[0, number]]) if indexed else None
        auditor.consume(batch.clone(), None)  # another one takes its place
        auditor.consume(batch, order)
        batch.add_(1)  # as a step may
        asked_later.append(auditor.commitment)
        if number == 1:
            found += [auditor.commitment(), auditor.pending_row().columns["batch"]]
        elif number == 2:
            found.append(auditor.consumed_sha256)
        auditor.finish_step(0.5)
    auditor.consume(given[0], None)
    auditor.cut({"params": {"w": torch.ones(2)}})  # nothing was done with it
    found += [list(auditor.pending_row().columns), *(ask() for ask in asked_later)]
    auditor.close({"params": {"w": torch.ones(2)}})
    return auditor.trace(), auditor.consumed_sha256, found


@pytest.mark.parametrize("indexed", [True, False])
def test_a_large_batch_that_is_hashed_beside_the_step_leaves_the_same_row(indexed: bool) -> None:
    given = [torch.full((300, 300), float(number)) for number in range(4)]
    both = [
        _rows([one.clone() for one in given], beside=beside, indexed=indexed)
        for beside in (True, False)
    ]
    assert both[0] == both[1]
    assert list(both[0][0].columns) == list(both[1][0].columns)


def test_what_fails_beside_a_step_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(batches, "_digests_of", fail)
    auditor = Auditor(1, commit_data=True, beside=True)
    auditor.cut({"params": {"w": torch.ones(2)}})
    auditor.consume(torch.zeros(300, 300), None)
    for _ in range(2):
        with pytest.raises(MemoryError):
            auditor.finish_step(0.5)
