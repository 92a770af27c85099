"""``auditkit perturbations``: what a plan can name here, and what each needs."""

from __future__ import annotations

import importlib.metadata
import json
import re
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from auditkit.cli import main
from auditkit.cli.perturbations import known_of
from auditkit.errors import NothingToPerturb
from auditkit.observe.state.components import TrainingObjects
from auditkit.perturbations.batchnorm import BatchNormReset
from auditkit.perturbations.registry import perturbation_of, registry
from auditkit.records.declaration import DECLARATIONS, Declaration
from auditkit.records.parameter import Parameter
from auditkit.records.plan import PerturbationSpec


def call(*options: str, columns: int = 160) -> str:
    done = CliRunner().invoke(
        main, ["perturbations", *options], env={"COLUMNS": str(columns)}, catch_exceptions=False
    )
    assert (done.exit_code, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("columns", [60, 80, 160])
def test_each_is_listed_with_parameters_what_it_changes_and_needs(columns: int) -> None:
    out = call(columns=columns)
    assert max(map(len, out.splitlines())) <= columns
    text = " ".join(out.split())
    for declaration in DECLARATIONS.values():
        assert f"{declaration.name}: {declaration.summary}" in text
        assert declaration.needs
        assert f"needs: {declaration.needs}" in text
    assert "moments=m|v|mv, mv by default" in text
    assert "scale=a whole number of at least 1, 1 by default" in text
    assert "changes: the order inside the window" in text
    assert "changes: optimizer/momentum_buffer" in text


def test_json_has_the_same() -> None:
    listed = json.loads(call("--json"))["perturbations"]
    assert [each["name"] for each in listed] == list(DECLARATIONS)
    (adam,) = (each for each in listed if each["name"] == "adam-reset")
    assert adam["parameters"][0] == {
        "name": "moments",
        "default": "mv",
        "allowed": "m or v or mv",
        "choices": ["m", "v", "mv"],
    }
    assert {"optimizer/exp_avg", "optimizer/exp_avg_sq", "optimizer/step"} <= set(adam["touches"])
    assert (adam["version"], adam["is_plugin"]) == (2, False)


def test_what_a_plug_in_declares_is_listed_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    declaration = Declaration(
        "zero-bias", 1, "state", "every bias := 0", "a test", {"part": Parameter("x", text=True)}
    )

    class ZeroBias(BatchNormReset):
        """A plug-in's."""

    ZeroBias.declaration = declaration

    class Entry:
        name = "zero-bias"

        def load(self) -> Any:
            return ZeroBias

    def entry_points(group: str) -> list[Entry]:
        return [Entry()] if group == "auditkit.perturbations" else []

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    registry.cache_clear()
    try:
        out = call()
    finally:
        registry.cache_clear()
    assert "zero-bias (plug-in): every bias := 0\n    part=a name, x by default\n" in out
    assert "needs: not said by its author" in out
    assert not known_of(DECLARATIONS["carry"]).is_plugin


OPTIMIZERS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9},
    "RMSprop": {"momentum": 0.9},
    **{
        name: {}
        for name in (
            *("Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "Adafactor"),
            *("ASGD", "Muon", "Rprop"),
        )
        if hasattr(torch.optim, name)
    },
}


def applies(name: str, optimizer: str, settings: dict[str, Any], **parameters: str) -> bool:
    """Whether a perturbation finds something to change after two steps."""
    model = nn.Linear(3, 3, bias=False)
    built = getattr(torch.optim, optimizer)(model.parameters(), lr=0.1, **settings)
    for _ in range(2):
        model(torch.ones(2, 3)).square().sum().backward()
        built.step()
    spec = DECLARATIONS[name].resolve(PerturbationSpec(name, dict(parameters)))
    try:
        perturbation_of(name).apply(TrainingObjects(model, built), spec.parameters, 0)
    except NothingToPerturb:
        return False
    return True


@pytest.mark.parametrize("name", ["momentum-reset", "adam-reset", "second-moment-reset"])
def test_the_optimizers_that_it_needs_are_the_ones_that_it_fits(name: str) -> None:
    needed = DECLARATIONS[name].needs
    always = needed.partition("; with moments=m")[0]
    for optimizer, settings in OPTIMIZERS.items():
        is_named = re.search(rf"\b{optimizer}\b", always) is not None
        assert applies(name, optimizer, settings) == is_named, optimizer
    if name == "adam-reset":
        assert applies(name, "Adamax", {}, moments="m")
    if name == "momentum-reset":
        assert not applies(name, "SGD", {})
        assert not applies(name, "RMSprop", {})
