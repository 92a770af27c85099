"""Moments in doses, on every optimizer of torch that has the slot, and on chosen parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from auditkit.errors import NothingToPerturb
from auditkit.observe.state.components import TrainingObjects, as_built, capture
from auditkit.observe.values.digests import digest_leaves
from auditkit.perturbations.registry import perturbation_of
from auditkit.records.declaration import DECLARATIONS, matches
from auditkit.records.digest import EVIDENCE_RECIPE
from auditkit.records.memory_declarations import FIRST_MOMENTS, SCALED_SQUARES
from auditkit.records.plan import PerturbationSpec

#: Every optimizer of torch.optim, with settings in which it keeps what it can.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Adam": {"amsgrad": True},
    "AdamW": {"amsgrad": True},
    **{name: {} for name in ("NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "Adafactor")},
    **{name: {} for name in ("ASGD", "Rprop", "LBFGS", "Muon") if hasattr(torch.optim, name)},
}
RESETS = ("momentum-reset", "adam-reset", "second-moment-reset", "optimizer-reset")
SCALES = ("momentum-scale", "second-moment-scale")


def test_no_optimizer_of_torch_is_left_out() -> None:
    kinds = {
        name
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
    }
    assert kinds - {"Optimizer", "SparseAdam"} == set(OPTIMIZERS)


def trained(kind: str, **more: Any) -> TrainingObjects:
    """Two layers without bias, which every optimizer takes, after three steps."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Tanh(), nn.Linear(3, 2, bias=False))
    given = {"lr": 0.1, **OPTIMIZERS[kind], **more}
    objects = as_built(
        TrainingObjects(model, getattr(torch.optim, kind)(model.parameters(), **given))
    )

    def closure() -> Any:
        objects.optimizer.zero_grad()
        loss = model(inputs).square().mean()
        loss.backward()
        return loss

    for _ in range(3):
        inputs = torch.randn(5, 4)
        objects.optimizer.step(closure)
    objects.optimizer.zero_grad()
    return objects


def digests(objects: TrainingObjects) -> dict[str, bytes]:
    state = capture(objects)
    return {name: digest_leaves(EVIDENCE_RECIPE, leaves) for name, leaves in state.items()}


def slots(objects: TrainingObjects) -> list[dict[str, Any]]:
    return [
        {slot: value.clone() if isinstance(value, Tensor) else value for slot, value in one.items()}
        for one in objects.optimizer.state.values()
    ]


def apply(name: str, objects: TrainingObjects, **parameters: Any) -> set[str]:
    """Returns what changed, which must be what is declared."""
    spec = DECLARATIONS[name].resolve(PerturbationSpec(name, parameters))
    before = digests(objects)
    perturbation_of(name).apply(objects, spec.parameters, 5)
    after = digests(objects)
    changed = {one for one in before | after if before.get(one) != after.get(one)}
    assert changed
    assert all(matches(one, DECLARATIONS[name].may_touch(spec)) for one in changed), changed
    for pattern in DECLARATIONS[name].touches(spec):
        assert any(matches(one, (pattern,)) for one in changed)
    return changed


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize(
    ("name", "of"), [("momentum-scale", FIRST_MOMENTS), ("second-moment-scale", SCALED_SQUARES)]
)
def test_what_an_optimizer_keeps_is_scaled_or_the_refusal_says_what_fits(
    kind: str, name: str, of: tuple[str, ...]
) -> None:
    objects = trained(kind)
    before = slots(objects)
    kept = {slot for one in before for slot in one} & set(of)
    if not kept:
        with pytest.raises(NothingToPerturb, match=f"{kind} keeps no"):
            apply(name, objects, factor="0.25")
        return
    changed = apply(name, objects, factor="0.25")
    root = {"optimizer/grad_avg"} if name == "second-moment-scale" and kind == "RMSprop" else set()
    assert changed == {f"optimizer/{slot}" for slot in kept} | root
    for old, new in zip(before, slots(objects), strict=True):
        for slot in kept & old.keys():
            assert torch.equal(new[slot], old[slot] * 0.25)
        if "grad_avg" in old:
            assert torch.equal(new["grad_avg"], old["grad_avg"] * (0.5 if root else 1))


def test_a_centered_square_stays_above_the_square_of_its_mean() -> None:
    objects = trained("RMSprop")
    apply("second-moment-scale", objects, factor="0.01")
    for one in slots(objects):
        assert (one["square_avg"] - one["grad_avg"] ** 2 > -1e-9).all()


@pytest.mark.parametrize("kind", ["SGD", "RMSprop", "Muon", "Adam"])
def test_a_momentum_times_0_is_reset(kind: str) -> None:
    if kind not in OPTIMIZERS:
        pytest.skip("another version of torch")
    scaled, reset = trained(kind), trained(kind)
    apply("momentum-scale", scaled, factor=0)
    other = {"name": "adam-reset", "moments": "m", "step": "keep"}
    given = other if kind == "Adam" else {"name": "momentum-reset"}
    apply(given.pop("name"), reset, **given)
    assert digests(scaled) == digests(reset)


@pytest.mark.parametrize("name", SCALES)
def test_a_dose_of_1_changes_nothing_and_says_so(name: str) -> None:
    with pytest.raises(NothingToPerturb, match="times 1 is what it was"):
        apply(name, trained("Adam"), factor=1)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 400))
def test_doses_differ_in_nothing_but_the_factor(hundredths: int) -> None:
    text = f"{hundredths / 100:g}"
    if text == "1":
        return
    factor: Any = int(text) if text.isdigit() else text
    objects = trained("Adam")
    before = slots(objects)
    assert apply("momentum-scale", objects, factor=factor) == {"optimizer/exp_avg"}
    for old, new in zip(before, slots(objects), strict=True):
        assert torch.equal(new["exp_avg"], old["exp_avg"] * float(text))


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("name", [*RESETS, *SCALES])
def test_chosen_parameters_alone_are_changed(kind: str, name: str) -> None:
    objects = trained(kind)
    try:
        apply(name, trained(kind))
    except NothingToPerturb:
        return  # it has no such slot
    if kind == "LBFGS":
        pytest.skip("keeps one state for all parameters")
    before = slots(objects)
    apply(name, objects, params="2.*")
    states = objects.optimizer.state
    first, second = (states.get(parameter, {}) for parameter in objects.model.parameters())
    assert set(first) == set(before[0])
    for slot, value in before[0].items():
        assert torch.equal(torch.as_tensor(first[slot]), torch.as_tensor(value)), slot
    assert any(
        slot not in second or not torch.equal(torch.as_tensor(second[slot]), torch.as_tensor(value))
        for slot, value in before[1].items()
    )


@pytest.mark.parametrize("name", [*RESETS, *SCALES])
def test_a_pattern_that_fits_nothing_is_refused_with_what_there_is(name: str) -> None:
    kind = "SGD" if name == "momentum-reset" else "Adam"
    with pytest.raises(NothingToPerturb, match=r"no parameter that head\.\* fits") as error:
        apply(name, trained(kind), params="head.*")
    assert error.value.hint == "it trains 0.weight, 2.weight"


def test_a_reset_of_all_by_pattern_is_the_reset_of_all() -> None:
    for name, parameters in (("adam-reset", {}), ("momentum-scale", {"factor": 2})):
        whole, chosen = trained("AdamW"), trained("AdamW")
        apply(name, whole, **parameters)
        apply(name, chosen, params="?.weight", **parameters)
        assert digests(whole) == digests(chosen)


def test_the_default_pattern_goes_without_saying() -> None:
    for name in (*RESETS, *SCALES):
        spec = DECLARATIONS[name].resolve(PerturbationSpec(name, {"params": "*"}))
        assert "params" not in spec.parameters
    assert DECLARATIONS["momentum-reset"].resolve(
        PerturbationSpec("momentum-reset")
    ).branch_name == ("momentum-reset")


@pytest.mark.parametrize("name", [*SCALES, "adam-reset", "optimizer-reset"])
def test_an_optimizer_of_sparse_gradients(name: str) -> None:
    torch.manual_seed(3)
    model = nn.Embedding(5, 2, sparse=True)
    objects = as_built(TrainingObjects(model, torch.optim.SparseAdam(model.parameters())))
    for _ in range(2):
        model(torch.tensor([0, 3])).square().sum().backward()
        objects.optimizer.step()
        objects.optimizer.zero_grad()
    apply(name, objects)
