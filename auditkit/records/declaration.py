"""Declarations: what each perturbation is, which version, and which components it touches.

The verifier judges a branch by this table, never by what a manifest says of it. A declaration
holds no code: what carries it out lives in ``auditkit.perturbations``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

from auditkit.errors import UnknownPerturbation
from auditkit.records.memory_declarations import MEMORY, PARAMS
from auditkit.records.parameter import Parameter
from auditkit.records.plan import ParameterValue, PerturbationSpec

#: Entry point group under which a package registers perturbations of its own.
PLUGINS = "auditkit.perturbations"

Kind = Literal["none", "state", "order", "data"]


#: A parameter of everything that changes no data: whether the branch is given the control's data in
#: place of those that its own course would make.
YOKED = "yoked"
_YOKED = {YOKED: Parameter(default="no", choices=("no", "yes"), optional=True)}


def is_yoked(spec: PerturbationSpec | None) -> bool:
    """Whether a branch is given the control's data in place of its own."""
    return spec is not None and any(part.parameters.get(YOKED) == "yes" for part in spec.parts)


@dataclass(frozen=True)
class Declaration:
    """What a perturbation is.

    Attributes:
        name: Its name on the command line and in manifests.
        version: Raised whenever the same name and parameters would change other bits.
        kind: ``none`` (changes nothing), ``state`` (changes the state at t0), ``order`` (changes
            which batches are delivered inside the window) or ``data`` (changes the bytes of the
            samples that are delivered inside the window, not which they are).
        summary: One line for people.
        source: Where the literature describes it.
        parameters: Allowed parameters by name.
        touched: Component patterns (``fnmatch``) for given, complete parameters. A pattern
            without a wildcard names a component that must differ at t0; with one, one at least
            of those that match.
        allowed: Patterns of further components that may differ, as ``touched``.
        earlier: The same name in earlier versions, which recorded studies have.
        cleared: Patterns of further components that may go missing at t0, and may not become
            anything else.
        needs: What a program must have for it, for people; empty where nobody said.
    """

    name: str
    version: int
    kind: Kind
    summary: str
    source: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    touched: Callable[[Mapping[str, ParameterValue]], tuple[str, ...]] = lambda _: ()
    allowed: Callable[[Mapping[str, ParameterValue]], tuple[str, ...]] = lambda _: ()
    earlier: tuple[Declaration, ...] = ()
    cleared: Callable[[Mapping[str, ParameterValue]], tuple[str, ...]] = lambda _: ()
    needs: str = ""

    def of_version(self, version: int | None) -> Declaration:
        """The declaration of a version.

        Raises:
            UnknownPerturbation: When there is none.
        """
        for known in (self, *self.earlier):
            if known.version == version:
                return known
        versions = " or ".join(str(known.version) for known in (self, *self.earlier))
        raise UnknownPerturbation(
            f"version {version} of the perturbation; this auditkit has {versions}"
        )

    def resolve(self, spec: PerturbationSpec) -> PerturbationSpec:
        """Fill in the defaults of the parameters that are not given; leave out what is implied.

        Raises:
            UnknownPerturbation: On a parameter or value that the declaration does not have.
        """
        known = {**self.parameters, **(_YOKED if self.kind in ("none", "state") else {})}
        for key, value in spec.parameters.items():
            if key not in known:
                raise UnknownPerturbation(
                    f"perturbation {self.name} has no parameter {key!r}",
                    expected=", ".join(sorted(self.parameters)) or "no parameter",
                )
            if not known[key].accepts(value):
                raise UnknownPerturbation(
                    f"perturbation {self.name}: {key}={value} is not allowed",
                    expected=known[key].allowed,
                )
        values = {**{key: known[key].default for key in known}, **spec.parameters}
        kept = {key: v for key, v in values.items() if not known[key].implies(v)}
        return PerturbationSpec(self.name, kept)

    def touches(self, spec: PerturbationSpec) -> tuple[str, ...]:
        """Patterns of the components that ``spec`` changes at t0."""
        return self.touched(self.resolve(spec).parameters)

    def may_set(self, spec: PerturbationSpec) -> tuple[str, ...]:
        """Patterns of all components to which ``spec`` may give another value at t0."""
        parameters = self.resolve(spec).parameters
        return (*self.touched(parameters), *self.allowed(parameters))

    def may_touch(self, spec: PerturbationSpec) -> tuple[str, ...]:
        """Patterns of all components that ``spec`` may change at t0, or clear."""
        return (*self.may_set(spec), *self.cleared(self.resolve(spec).parameters))


def matches(component: str, patterns: tuple[str, ...]) -> bool:
    """Whether a component's name fits one of the patterns."""
    return any(fnmatchcase(component, pattern) for pattern in patterns)


#: Slots by what they are, as torch.optim names them.
FIRST_MOMENT = "exp_avg"
SECOND_MOMENTS = frozenset(
    {
        *("square_avg", "grad_avg"),  # RMSprop; Adadelta has the first of them
        *("acc_delta", "sum", "exp_inf"),  # Adadelta, Adagrad, Adamax
        *("row_var", "col_var", "variance"),  # Adafactor
        *("ax", "eta", "mu"),  # ASGD
    }
)
STEP_SLOTS = ("step", "mu_product")

#: Where an optimizer counts besides its slots.
_COUNTERS = ("param_groups", "param_groups/*", "attributes/optimizer")


def _adam_moments(parameters: Mapping[str, ParameterValue]) -> tuple[str, ...]:
    slots = {"m": ("exp_avg",), "v": ("exp_avg_sq",), "mv": ("exp_avg", "exp_avg_sq")}
    return tuple(f"optimizer/{slot}" for slot in slots[str(parameters["moments"])])


def _adam_touches_1(parameters: Mapping[str, ParameterValue]) -> tuple[str, ...]:
    touched = _adam_moments(parameters)
    return (*touched, "optimizer/step") if parameters["step"] == "reset" else touched


def _adam_allows(parameters: Mapping[str, ParameterValue]) -> tuple[str, ...]:
    found = ("optimizer/max_exp_avg_sq",) if "v" in str(parameters["moments"]) else ()
    if parameters["step"] != "reset":
        return found
    return (*found, *(f"optimizer/{slot}" for slot in STEP_SLOTS), *_COUNTERS)


def _adam_clears(parameters: Mapping[str, ParameterValue]) -> tuple[str, ...]:
    """Whatever else an optimizer of the family accumulates, of which no name tells anything."""
    is_whole = (parameters["moments"], parameters["step"]) == ("mv", "reset")
    return ("optimizer/*",) if is_whole else ()


def _second_allows(parameters: Mapping[str, ParameterValue]) -> tuple[str, ...]:
    found = tuple(f"optimizer/{slot}" for slot in sorted(SECOND_MOMENTS))
    return (*found, "optimizer/step", *_COUNTERS) if parameters["step"] == "reset" else found


def _fixed(*patterns: str) -> Callable[[Mapping[str, ParameterValue]], tuple[str, ...]]:
    return lambda _: patterns


def _data(name: str, summary: str, needs: str, given: dict[str, Parameter]) -> Declaration:
    return Declaration(name, 1, "data", summary, "S2", given, needs=needs)


_DRAW = {"draw": Parameter(default=0)}
_UNIT = {"unit": Parameter(default="sample", choices=("batch", "sample"), optional=True)}
_AUGMENT = {"augment": Parameter(default="step", choices=("kept", "step"), optional=True)}
_STEP = Parameter(default="reset", choices=("keep", "reset"))
_ADAM_1 = {"moments": Parameter(default="mv", choices=("m", "v", "mv")), "step": _STEP}
_ADAM = {**_ADAM_1, **PARAMS}
_ADAM_SOURCE = "S1; arXiv 2306.17833, 2412.17113"
_BREAK_SOURCE = "S1; causal break of arXiv 2601.16563"

DECLARATIONS: Mapping[str, Declaration] = {
    declaration.name: declaration
    for declaration in (
        Declaration(
            "carry",
            1,
            "none",
            "do nothing: everything is carried over",
            "S1",
            needs="nothing",
        ),
        Declaration(
            "ulp",
            1,
            "state",
            "move every trainable weight by -1, 0 or +1 times scale units in the last place",
            "noise floor",
            {"scale": Parameter(default=1, minimum=1), "draw": Parameter(default=0)},
            _fixed("params*"),  # the weights, and named groups of them
            needs="weights that are trained",
        ),
        Declaration(
            "momentum-reset",
            1,
            "state",
            "SGD's momentum buffers := 0",
            "S1",
            PARAMS,
            touched=_fixed("optimizer/momentum_buffer"),
            needs="momentum buffers: SGD or RMSprop with momentum above 0, Muon",
        ),
        Declaration(
            "adam-reset",
            2,
            "state",
            "Adam's moments := 0, the step count kept or as newly built",
            _ADAM_SOURCE,
            _ADAM,
            _adam_moments,
            _adam_allows,
            (
                Declaration(
                    "adam-reset",
                    1,
                    "state",
                    "exp_avg and exp_avg_sq := 0, step kept or set to 0",
                    _ADAM_SOURCE,
                    _ADAM_1,
                    _adam_touches_1,
                ),
            ),
            _adam_clears,
            needs="Adam, AdamW, NAdam, RAdam, SparseAdam or another with their moments; with "
            "moments=m Adamax, too",
        ),
        Declaration(
            "second-moment-reset",
            1,
            "state",
            "running squares (RMSprop, Adagrad, Adadelta, Adafactor, Adamax) and ASGD's averages "
            "as they begin, the step count kept or as newly built",
            "S1",
            {"step": _STEP, **PARAMS},
            allowed=_second_allows,
            needs="RMSprop, Adagrad, Adadelta, Adafactor, Adamax or ASGD",
        ),
        Declaration(
            "optimizer-reset",
            2,
            "state",
            "all that the optimizer accumulates as newly built: slots, counters in groups and "
            "attributes; hyper-parameters kept",
            _BREAK_SOURCE,
            PARAMS,
            allowed=_fixed("optimizer/*", *_COUNTERS),
            earlier=(
                Declaration(
                    "optimizer-reset",
                    1,
                    "state",
                    "every optimizer slot := absent; hyper-parameters kept",
                    _BREAK_SOURCE,
                    touched=_fixed("optimizer/*"),
                ),
            ),
            needs="an optimizer that keeps anything: not SGD without momentum",
        ),
        Declaration(
            "batchnorm-reset",
            1,
            "state",
            "BatchNorm running mean := 0, variance := 1, batch count := 0",
            "S2",
            touched=_fixed("batchnorm"),
            needs="BatchNorm with running statistics",
        ),
        Declaration(
            "order-reverse",
            1,
            "order",
            "the window's samples, or batches, in reverse order",
            "S2",
            _UNIT,
            needs="two samples in the window, or two batches",
        ),
        Declaration(
            "order-shuffle",
            1,
            "order",
            "the window's samples, or batches, in a drawn order",
            "S2",
            {**_DRAW, **_UNIT},
            needs="two samples in the window, or two batches",
        ),
        Declaration(
            "order-swap",
            1,
            "order",
            "the window's first and second half exchanged, cut between samples or batches",
            "S2",
            {**_UNIT, **_AUGMENT},
            needs="two samples in the window, or two batches",
        ),
        Declaration(
            "order-with-replacement",
            1,
            "order",
            "as many samples, or batches, as the window has, drawn from it with replacement",
            "S2",
            {**_DRAW, **_UNIT},
            needs="two samples in the window, or two batches",
        ),
        Declaration(
            "order-curriculum",
            1,
            "order",
            "the window's samples, or batches, by the difficulty that the program gives them",
            "S2",
            {"first": Parameter(default="easy", choices=("easy", "hard")), **_UNIT},
            needs="Program(difficulty=...), and two samples in the window, or two batches",
        ),
        *(Declaration(version=1, kind="state", **row) for row in MEMORY),
        _data(
            "label-noise",
            "a drawn part of the window's labels := other classes",
            "batches with whole-number labels at their end, or under label, labels, target(s) or y",
            {"fraction": Parameter(default="0.2", part=True), **_DRAW},
        ),
        _data("augmentation-off", "no augment= inside the window", "Program(augment=...)", {}),
        _data(
            "stage-shift",
            "inside the window augment= as it is so many steps later",
            "Program(augment=...)",
            {"steps": Parameter(default=1, minimum=1)},
        ),
        _data(
            "data-change",
            "a function of the program's own on every batch of the window",
            "Program(data_changes={name: function})",
            {"name": Parameter(default="change", text=True)},
        ),
    )
}


def declaration_of(
    name: str, declarations: Mapping[str, Declaration] = DECLARATIONS
) -> Declaration:
    """Look up a declaration.

    Raises:
        UnknownPerturbation: When there is none of that name.
    """
    if name not in declarations:
        raise unknown_perturbation(name, declarations)
    return declarations[name]


def unknown_perturbation(name: str, known: Collection[str]) -> UnknownPerturbation:
    """What to say of a name that no perturbation has: the one that is most like it."""
    alike = difflib.get_close_matches(name, list(known), n=1)
    return UnknownPerturbation(
        f"unknown perturbation {name!r}",
        expected=", ".join(sorted(known)),
        hint=f"did you mean {alike[0]}?" if alike else None,
    )
