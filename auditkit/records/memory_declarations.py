"""Declarations of what changes a program's memory beside its optimizer's slots, and scales those.

Averages, teachers, queues, the schedule, the random streams and BatchNorm's statistics. Each row is
the arguments of a :class:`auditkit.records.declaration.Declaration`, all of kind ``state``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from auditkit.records.parameter import Parameter, ParameterValue

Parameters = Mapping[str, ParameterValue]

#: Restricts a perturbation of the optimizer to parameters whose name fits a pattern.
PARAMS = {"params": Parameter(default="*", text=True, optional=True)}

#: Slots that average gradients, and those that average or sum up their squares. A mean that is
#: subtracted from a running square (RMSprop, centered) is scaled by the root.
FIRST_MOMENTS = ("momentum_buffer", "exp_avg")
SCALED_SQUARES = (
    *("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum", "exp_inf"),
    *("row_var", "col_var", "variance"),
)
SCALED_BY_ROOT = ("grad_avg",)

_FACTOR = {"factor": Parameter(default="0.5", decimal=True), **PARAMS}
_AVERAGE = {"name": Parameter(default="", text=True, optional=True)}
_QUEUE = {"name": Parameter(default="queue", text=True)}
_DIM = {"dim": Parameter(default=0, optional=True)}
_NEEDS_QUEUE = "a group of that name, Program(groups={'queue': ...}), or such an extra"


def _average(parameters: Parameters) -> tuple[str, ...]:
    return (f"averaged/{parameters.get('name') or '*'}",)


def _teacher(parameters: Parameters) -> tuple[str, ...]:
    name = parameters["name"]
    return (f"averaged/{name}", *_queue(parameters))


def _queue(parameters: Parameters) -> tuple[str, ...]:
    name = parameters["name"]
    return (f"buffers/{name}", f"extras/{name}", f"params/{name}")


def _slots(*slots: str) -> Any:
    return lambda _: tuple(f"optimizer/{slot}" for slot in slots)


MEMORY: tuple[dict[str, Any], ...] = (
    {
        "name": "momentum-scale",
        "summary": "momentum buffers, or Adam's first moments, times factor",
        "source": "S1; dose-response",
        "parameters": _FACTOR,
        "allowed": _slots(*FIRST_MOMENTS),
        "needs": "momentum buffers or first moments: SGD or RMSprop with momentum, Muon, Adam and "
        "its kin",
    },
    {
        "name": "second-moment-scale",
        "summary": "running squares of gradients times factor",
        "source": "S1; dose-response",
        "parameters": _FACTOR,
        "allowed": _slots(*SCALED_SQUARES, *SCALED_BY_ROOT),
        "needs": "running squares: Adam and its kin, RMSprop, Adagrad, Adadelta, Adafactor, Adamax",
    },
    {
        "name": "average-reset",
        "summary": "an averaged copy := the model's weights and buffers, its count kept",
        "source": "S1, S5",
        "parameters": _AVERAGE,
        "touched": _average,
        "needs": "an averaged copy with the model's names",
    },
    {
        "name": "average-restart",
        "summary": "an averaged copy's count := 0, so that it begins anew at its next update",
        "source": "S1, S5",
        "parameters": _AVERAGE,
        "touched": _average,
        "needs": "an averaged copy with n_averaged, such as AveragedModel",
    },
    {
        "name": "teacher-reset",
        "summary": "a teacher := the student's weights now, or what it was when newly built",
        "source": "S5",
        "parameters": {
            "name": Parameter(default="teacher", text=True),
            "to": Parameter(default="student", choices=("built", "student"), optional=True),
            "student": Parameter(default="", text=True, optional=True),
        },
        "allowed": _teacher,
        "needs": "a group, an averaged copy or a module among the extras of that name",
    },
    {
        "name": "queue-clear",
        "summary": "all that a queue holds := 0, a pointer in it included",
        "source": "S4",
        "parameters": _QUEUE,
        "allowed": _queue,
        "needs": _NEEDS_QUEUE,
    },
    {
        "name": "queue-shuffle",
        "summary": "the rows of a queue in a drawn order",
        "source": "S4",
        "parameters": {**_QUEUE, "draw": Parameter(default=0), **_DIM},
        "allowed": _queue,
        "needs": _NEEDS_QUEUE,
    },
    {
        "name": "queue-stale",
        "summary": "the newer half of a ring queue's rows := its older half",
        "source": "S4",
        "parameters": {
            **_QUEUE,
            **_DIM,
            "pointer": Parameter(default="", text=True, optional=True),
        },
        "allowed": _queue,
        "needs": f"{_NEEDS_QUEUE}, with a pointer",
    },
    {
        "name": "scheduler-reset",
        "summary": "the learning-rate schedule as newly built, with the rates that it began with",
        "source": "S1",
        "touched": lambda _: ("scheduler",),
        "allowed": lambda _: ("param_groups", "param_groups/*"),
        "needs": "a scheduler",
    },
    {
        "name": "rng-reseed",
        "summary": "the global random streams seeded anew",
        "source": "nuisance",
        "parameters": {"draw": Parameter(default=0)},
        "touched": lambda _: ("rng/python", "rng/numpy", "rng/torch"),
        "allowed": lambda _: ("rng/cuda:*",),
        "needs": "nothing",
    },
    {
        "name": "batchnorm-recalibrate",
        "summary": "BatchNorm statistics := the average over the control's first batches",
        "source": "S2",
        "touched": lambda _: ("batchnorm",),
        "needs": "BatchNorm with running statistics, and loss= or recalibrate=",
    },
)
