from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from auditkit.errors import UncapturedState
from auditkit.observe.values import batches, forms
from auditkit.observe.values.batches import BatchDigester
from auditkit.observe.values.beside import Beside
from auditkit.observe.values.digests import digest_leaves
from auditkit.observe.values.flatten import batch_leaves
from auditkit.records.digest import COMMITMENT_RECIPE, EVIDENCE_RECIPE

x, y = torch.randn(4, 3), torch.arange(4)

#: One after the other: of the same kind, of another, with what no glance tells apart.
BATCHES: list[Any] = [
    [x, y],
    [x.clone(), y + 1],
    [x * 2, y],
    (x, y),
    [x[:2], y[:2]],
    [x.double(), y],
    [x.t().contiguous().t(), y],
    [x, x],
    [x, x.view(4, 3)],
    [x, y],
    [torch._neg_view(x), y],
    [y, x],
    [nn.Parameter(x), y],
    [x, y, "text"],
    {"x": x, "y": y},
    {"x": x + 1, "y": y},
    x,
    x + 1,
    y,
    x.t(),
    x.t() + 1,
    x.clone().requires_grad_(),
    x + 2,
    x[:3],
    torch.tensor(3.0),
    torch.empty(0),
    [torch.randn(2) for _ in range(12)],
    [torch.randn(2) for _ in range(12)],
    [x, y],
    [torch.randn(200, 200), y],
    [torch.randn(200, 200), y],
]


@pytest.mark.parametrize("guarded", [True, False])
def test_a_digester_gives_what_digesting_gives(
    guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not guarded:
        monkeypatch.setattr(forms, "_is_known_good", lambda: False)
    digester = BatchDigester(commit=True)
    for number, batch in enumerate([*BATCHES, *BATCHES[::-1]]):
        leaves, evidence, commitment = digester.digest(batch)
        expected = batch_leaves(batch)
        assert evidence == digest_leaves(EVIDENCE_RECIPE, expected), number
        assert commitment == digest_leaves(COMMITMENT_RECIPE, expected), number
        assert list(leaves) == list(expected)
        assert all(leaves[name] is leaf or leaves[name] == leaf for name, leaf in expected.items())


@pytest.mark.parametrize("guarded", [True, False])
def test_what_has_a_graph_behind_it_is_refused_after_what_has_none(
    guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not guarded:
        monkeypatch.setattr(forms, "_is_known_good", lambda: False)
    digester = BatchDigester(commit=False)
    assert digester.digest([x, y])[2] == b""
    with pytest.raises(UncapturedState, match="graph"):
        digester.digest([nn.Parameter(x) * 2, y])
    assert digester.digest([x, y])[1] == digest_leaves(EVIDENCE_RECIPE, batch_leaves([x, y]))


@pytest.mark.parametrize("kinds", [[x], [y], [[x, y]], [[x, y], [x[:2], y[:2]], x, y]])
def test_what_is_of_a_kind_is_not_looked_into_again(
    kinds: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    digester = BatchDigester(commit=True)
    expected = [digester.digest(batch) for batch in kinds]
    monkeypatch.setattr(batches, "batch_leaves", None)
    assert [digester.digest(batch)[1:] for batch in kinds] == [one[1:] for one in expected]


LARGE = [torch.randn(300, 300), torch.arange(300)]


def test_what_is_begun_is_what_digesting_gives_whatever_is_written_meanwhile() -> None:
    digester, others = BatchDigester(commit=True, beside=True), BatchDigester(commit=True)
    begun = 0
    for batch in [*BATCHES, LARGE, LARGE[:1], LARGE[0], LARGE[0][:280], *BATCHES[::-1]]:
        expected = others.digest(batch)[1:]
        leaves, made = digester.begin(batch)
        assert list(leaves) == list(batch_leaves(batch))
        if isinstance(made, Beside):
            begun += 1
            LARGE[0].add_(1)
            made = made.value()
        assert made == expected
    assert begun == 4


def test_a_copy_is_used_again_when_it_has_been_read() -> None:
    digester = BatchDigester(commit=True, beside=True)
    made = [digester.begin([LARGE[0] * number, LARGE[1]])[1] for number in range(5)]
    found = [one.value() if isinstance(one, Beside) else None for one in made]
    others = BatchDigester(commit=True)
    assert found == [others.digest([LARGE[0] * n, LARGE[1]])[1:] for n in range(5)]
