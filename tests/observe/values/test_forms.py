from __future__ import annotations

import pytest
import torch
from torch import nn

from auditkit.observe.values import forms
from auditkit.observe.values.forms import Forms

z = torch.zeros(2, 3, dtype=torch.complex64)


@pytest.mark.parametrize("guarded", [True, False])
def test_other_forms_are_told_apart(guarded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not guarded:
        monkeypatch.setattr(forms, "_is_known_good", lambda: False)
    known = Forms([z, torch.zeros(3)])
    assert known.are_of([z + 1, torch.ones(3)])
    for other in (
        nn.Parameter(z),
        z.conj(),
        torch._neg_view(z),
        z.t().contiguous().t(),
        z.view(3, 2),
        z.view(torch.int64),
        torch.zeros(2, 6, dtype=torch.complex64)[:, ::2],
    ):
        assert not known.are_of([other, torch.ones(3)])
        assert known.are_of([z, torch.ones(3)])


@pytest.mark.parametrize("guarded", [True, False])
def test_what_is_no_part_of_a_form_is_let_through(
    guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not guarded:
        monkeypatch.setattr(forms, "_is_known_good", lambda: False)
    weight = nn.Parameter(torch.zeros(3))
    known, minding = Forms([weight]), Forms([weight], with_grad=True)
    with torch.inference_mode():
        assert known.are_of([weight])
    weight.requires_grad_(False)
    assert known.are_of([weight])
    assert known.are_of([weight])
    assert not minding.are_of([weight])
    assert Forms([]).are_of([])


@pytest.mark.parametrize("broken", [None, lambda *_, **__: 1 / 0, lambda *_, **__: object()])
def test_a_torch_without_such_guards_is_asked_otherwise(
    broken: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    forms._is_known_good.cache_clear()
    monkeypatch.setattr(forms, "_Guards", broken)
    assert not forms._is_known_good()
    assert Forms([z]).are_of([z + 1])
    assert not Forms([z]).are_of([z.view(3, 2)])
    forms._is_known_good.cache_clear()
