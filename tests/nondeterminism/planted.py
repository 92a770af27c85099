"""Sources of nondeterminism and of drift, what must be said of each; and honest programs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import forging
from numpy.typing import NDArray
from studies import Run

#: What is said of a source. *refused*: the study itself ends with an error that names it.
Kind = Literal["nondeterminism", "edit", "environment", "refused", "leak"]

#: Exit code of ``auditkit verify`` for each; *refused* is that of ``auditkit run``.
EXIT_CODES: Mapping[Kind, int] = {
    "nondeterminism": 1,
    "edit": 1,
    "environment": 6,
    "refused": 1,
    "leak": 1,
}


@dataclass(frozen=True)
class Planted:
    """A source, and what must be said of it.

    Attributes:
        name: Of the source.
        factory: Name of its program.
        kind: What is said of it. *leak*: the program keeps state that no snapshot holds, so that
            the replica is not the control (check 9).
        step: First step; None where no row differs. A row holds the state before its step.
        component: First component.
        module: What of a module is named first; None where no module is at fault.
        arguments: Of the factory; ``{data}`` stands for a folder with data.
        between: What happens to the data or to the run before it is verified.
        other_world: Whether the world outside is another one when it is verified.
        other_environment: Whether the record says of its environment what replays do not.
        branches: Which branches are replayed; None for all.
    """

    name: str
    factory: str
    kind: Kind
    step: int | None
    component: str
    module: str | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    between: Callable[[Run, Path], None] | None = None
    other_world: bool = False
    other_environment: bool = False
    branches: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return self.name


def change_data(_: Run, data: Path) -> None:
    """Edit one number of the data."""
    file = data / "points.txt"
    file.write_text("9.5 " + file.read_text().partition(" ")[2])


def touch_files(_: Run, data: Path) -> None:
    """Copy files anew: the same ones, the dates the other way round."""
    dates = {file: file.stat().st_mtime_ns for file in data.glob("part-*.txt")}
    for file, date in zip(sorted(dates), sorted(dates.values(), reverse=True), strict=True):
        os.utime(file, ns=(date, date))


def edit_code(run: Run, _: Path) -> None:
    """Change the learning rate in the recorded code, and sign it."""
    name = "code/tiny_study.py"
    text = (run.folder / name).read_text().replace("lr=0.05", "lr=0.06")
    forging.replace_file(run, name, text.encode())


def edit_momentum(run: Run, _: Path) -> None:
    """Double an optimizer slot of the snapshot."""

    def double(slot: NDArray[Any]) -> None:
        slot *= 2

    forging.edit_fork(run, "optimizer/momentum_buffer", "last.weight", double)


def edit_row(run: Run, _: Path) -> None:
    """Change one digest of a trace."""
    forging.edit_trace(run, "momentum-reset", 10, "params")


def rename_seed(run: Run, _: Path) -> None:
    """Say that the run is of another seed."""

    def rename(predicate: forging.Statement) -> None:
        predicate["plan"]["seeds"] = [5]
        predicate["seeds"][0]["seed"] = 5

    forging.edit_predicate(run, rename)


_DROP = "drop (Layer) output"

PLANTED = [
    # In a module
    Planted("unseeded numpy noise", "numpy_noise", "nondeterminism", 8, "loss", "body (Seq"),
    Planted("dropout from os.urandom", "entropy_dropout", "nondeterminism", 8, "loss", _DROP),
    Planted("self-seeded dropout", "unseeded_dropout", "nondeterminism", 8, "loss", _DROP),
    Planted("rounding by chance", "rounding_by_entropy", "nondeterminism", 8, "loss", _DROP),
    Planted("order of id()", "order_of_addresses", "nondeterminism", 8, "loss", _DROP),
    Planted(
        "noise in the backward pass",
        "backward_noise",
        "nondeterminism",
        9,
        "optimizer/momentum_buffer",
        "gradient of norm",
    ),
    Planted("noisy evaluation", "noisy_evaluation", "nondeterminism", None, "T"),
    # In the loss, the gradients, the optimizer
    Planted("loss reduced in any order", "shuffled_reduction", "nondeterminism", 8, "loss"),
    Planted(
        "gradient noise",
        "gradient_noise",
        "nondeterminism",
        9,
        "grad",
    ),
    Planted("Langevin noise", "weight_noise", "nondeterminism", 9, "params"),
    Planted(
        "learning rate from the clock", "clock_learning_rate", "nondeterminism", 9, "param_groups"
    ),
    Planted("BatchNorm by wall time", "clock_batchnorm", "nondeterminism", 9, "attributes/modules"),
    Planted("teacher by wall time", "clock_teacher", "nondeterminism", 9, "extras/teacher"),
    Planted("seed from the clock", "clock_seed", "nondeterminism", 9, "rng/torch"),
    # In the data
    Planted(
        "augmentation by the clock", "clock_augmentation", "nondeterminism", 1, "batch", "<batch>"
    ),
    Planted("label noise by the clock", "clock_labels", "nondeterminism", 1, "batch", "<batch>"),
    Planted(
        "order that is lost",
        "late_sampler",
        "nondeterminism",
        1,
        "order",
        "<batch>",
        other_world=True,
    ),
    # Refused while the study runs
    Planted("sampler from os entropy", "entropy_sampler", "refused", 7, "order"),
    Planted("private generator", "private_generator", "refused", None, "rng"),
    Planted("generator in a closure", "closure_generator", "refused", None, "rng"),
    Planted("thread count changed", "more_threads", "refused", None, "torch threads"),
    Planted("kernels switched", "other_precision", "refused", None, "deterministic algorithms"),
    Planted("result kept on a module", "module_attribute", "refused", None, "attributes/modules"),
    Planted("augmentation by process id", "process_augmentation", "refused", None, "batch"),
    Planted("augmentation by worker", "worker_augmentation", "refused", None, "batch"),
    Planted("initialised by chance", "initialised_by_chance", "refused", None, "params"),
    Planted("probe drawn anew", "unsteady_probe", "refused", None, "probe inputs"),
    # State that no snapshot holds, so that the replica is not the control
    Planted("queue in a global", "queue_in_a_global", "leak", 7, "loss"),
    # The record is of something else
    Planted(
        "file changed",
        "file_that_changes",
        "edit",
        1,
        "batch",
        arguments={"path": "{data}/points.txt"},
        between=change_data,
    ),
    Planted(
        "files in order of date",
        "files_by_date",
        "edit",
        1,
        "batch",
        arguments={"folder": "{data}"},
        between=touch_files,
    ),
    Planted(
        "environment variable",
        "variable_for_learning_rate",
        "edit",
        1,
        "param_groups",
        other_world=True,
    ),
    Planted("autocast by date", "precision_by_date", "edit", 8, "loss", other_world=True),
    Planted("path of the program", "place_of_the_program", "edit", 1, "batch"),
    Planted(
        "code edited",
        "file_that_changes",
        "edit",
        1,
        "param_groups",
        arguments={"path": "{data}/points.txt"},
        between=edit_code,
    ),
    Planted(
        "snapshot edited",
        "file_that_changes",
        "edit",
        7,
        "optimizer/momentum_buffer",
        arguments={"path": "{data}/points.txt"},
        between=edit_momentum,
    ),
    Planted(
        "trace edited",
        "file_that_changes",
        "edit",
        10,
        "params",
        arguments={"path": "{data}/points.txt"},
        between=edit_row,
    ),
    Planted(
        "other seed",
        "file_that_changes",
        "edit",
        1,
        "rng/numpy",
        arguments={"path": "{data}/points.txt"},
        between=rename_seed,
    ),
    # Another environment
    Planted(
        "another library's rounding",
        "rounding_of_a_library",
        "environment",
        8,
        "loss",
        other_world=True,
        other_environment=True,
    ),
    Planted(
        "edit in another environment",
        "file_that_changes",
        "edit",
        10,
        "params",
        arguments={"path": "{data}/points.txt"},
        between=edit_row,
        other_environment=True,
    ),
]

#: Factories of ``programs/honest_study.py`` with their arguments.
HONEST: list[tuple[str, dict[str, str]]] = [
    ("tiny", {}),
    ("tiny", {"workers": "2"}),
    ("tiny", {"data": "iterable"}),
    ("tiny", {"data": "iterable", "workers": "2"}),
    ("tiny", {"optimizer": "adamw", "parts": "batchnorm+dropout+ema", "scheduler": "step"}),
    ("tiny", {"parts": "batchnorm+scaler", "accumulate": "2", "scheduler": "epoch"}),
    ("weighted_sampler", {}),
    ("own_generators", {}),
    ("all_global_streams", {}),
    ("queue_in_extras", {}),
    ("sequence_model", {}),
    ("attention_model", {}),
    ("normalised_model", {}),
    ("clipped_gradients", {}),
    ("plateau", {}),
    ("two_kinds_of_groups", {}),
    ("order_of_a_set", {}),
    ("clock_that_only_watches", {}),
]
