"""Forgeries of a study by somebody who holds its key: the signature is good, the content is not.

Without a replay a forger who edits everything that hangs together passes checks 1 to 7; what was
edited then contradicts the re-execution.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import forging
import numpy as np
import pytest
from numpy.typing import NDArray
from studies import Run, study_in_process

from attacks.attack import Attack
from attacks.envelope import predicate
from attacks.subjects import FEW
from auditkit.formats.ordering import Batch
from auditkit.formats.recipes import digest_raw
from auditkit.perturbations.optimizer_resets import MomentumReset
from auditkit.perturbations.ulp import Ulp
from auditkit.records.digest import EVIDENCE_RECIPE

GROUP = "forged with the key"

#: The tiny study's times.
FORK_ROW, WINDOW_END, LAST_ROW = 7, 9, 15

TREATED = "seed 0, momentum-reset"


def seed(change: Callable[[dict[str, Any]], object], number: int = 0) -> Callable[[Run], object]:
    """Change what the manifest says of a seed."""
    return predicate(lambda told: change(told["seeds"][number]))


def branch(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Run], object]:
    """Change what the manifest says of a branch."""

    def find(told: dict[str, Any]) -> None:
        change(next(item for item in told["branches"] if item["name"] == name))

    return seed(find)


def rows(name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[Run], object]:
    """Change the rows of every column of a branch's trace."""

    def edit(told: forging.Arrays) -> None:
        for column in list(told):
            told[column] = change(told[column])

    return lambda run: forging.edit_tensors(run, forging.trace_name(run, name), edit)


def _without_steps(run: Run) -> None:
    """Leave out two steps, number the others anew."""
    rows("carry", lambda column: np.concatenate([column[:3], column[5:]]))(run)
    _number(run, "carry")


def _with_steps_twice(run: Run) -> None:
    rows("carry", lambda column: np.concatenate([column[:4], column[2:4], column[4:]]))(run)
    _number(run, "carry")


def _exchanged_steps(run: Run) -> None:
    rows("momentum-reset", lambda column: column[[0, 1, 2, 4, 3, 5, 6, 7, 8]])(run)
    _number(run, "momentum-reset")


def _number(run: Run, name: str) -> None:
    def number(told: forging.Arrays) -> None:
        told["step"] = np.arange(FORK_ROW, FORK_ROW + len(told["step"]), dtype="<i8")

    forging.edit_tensors(run, forging.trace_name(run, name), number)


def _swap_samples(batches: list[Batch]) -> None:
    batches[10][[0, 1]] = batches[10][[1, 0]]


def _final_batchnorm(run: Run) -> None:
    """Change BatchNorm's last state in every branch that must equal the control."""
    fake = digest_raw(EVIDENCE_RECIPE, {"norm.running_mean": b"[5]"}, {})
    for name in ("control", "replica", "carry"):
        forging.edit_trace(run, name, LAST_ROW, "batchnorm", fake)
        branch(name, lambda told: told["digests"]["T"].update(batchnorm="5" * 64))(run)


def _double(slot: NDArray[Any]) -> None:
    slot *= 2


def _dishonest(kind: Any, apply: Callable[..., None]) -> Callable[[Run], Run]:
    """Run the study anew, with a perturbation that does something else than it says."""

    def make(run: Run) -> Run:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kind, "apply", apply)
            return study_in_process(run.folder.parent / "forged", run.key, FEW)

    return make


_HONESTLY = MomentumReset.apply


def _greedily(self: MomentumReset, objects: Any, parameters: Any, number: int) -> None:
    _HONESTLY(self, objects, parameters, number)
    objects.model.last.bias.data += 1


def _half(_: MomentumReset, objects: Any, parameters: Any, number: int) -> None:
    for state in objects.optimizer.state.values():
        state["momentum_buffer"] = state["momentum_buffer"] / 2


def _nothing(*_: object) -> None:
    return


def _shuffled_otherwise(run: Run) -> None:
    """In place of the reversed window, one in which two steps changed places."""
    name = forging.trace_name(run, "order-reverse")

    def edit(told: forging.Arrays) -> None:
        for column in ("order", "batch"):
            told[column][[0, 1]] = told[column][[1, 0]]

    forging.edit_tensors(run, name, edit)


def _without_stream(told: dict[str, Any]) -> None:
    streams = told["rng"]["streams"]
    streams[:] = [stream for stream in streams if stream["stream"] != "rng/numpy"]


def _twin_seed(run: Run) -> None:
    """The second pair is the first one again, under its own name."""

    def edit(told: dict[str, Any]) -> None:
        first, second = told["seeds"]
        for field in ("fork_digests", "order_sha256", "initial", "rng", "data"):
            second[field] = first[field]
        for ours, theirs in zip(first["branches"], second["branches"], strict=True):
            for field in ("order_sha256", "digests"):
                theirs[field] = ours[field]

    for path in sorted(Path(run.folder, "seed-0000").iterdir()):
        forging.replace_file(run, f"seed-0001/{path.name}", path.read_bytes())
    predicate(edit)(run)


def _rename_seeds(told: dict[str, Any]) -> None:
    told["plan"]["seeds"] = [0, 7]
    told["seeds"][1]["seed"] = 7


def _add_branch(told: dict[str, Any]) -> None:
    told["branches"].append({**told["branches"][-1], "name": "adam-reset"})


def _remove_branch(told: dict[str, Any]) -> None:
    told["branches"] = [item for item in told["branches"] if item["name"] != "carry"]


def _remove_branch_everywhere(told: dict[str, Any]) -> None:
    """The plan, too, never had it; only the files were forgotten."""
    told["plan"]["perturbations"] = [
        item for item in told["plan"]["perturbations"] if item["name"] != "carry"
    ]
    _remove_branch(told["seeds"][0])


def _longer(told: dict[str, Any]) -> None:
    told["plan"]["horizon"] = 20


def _other_fork(told: dict[str, Any]) -> None:
    told["plan"].update(fork_at=5, window=4)


def _widen(told: dict[str, Any]) -> None:
    told["perturbation"]["touches"] = ["optimizer/momentum_buffer", "params"]


def _claim(told: dict[str, Any]) -> None:
    told["estimates"] = [{"metric": "tv", "value": 0.25}]


def _other_parameters(told: dict[str, Any]) -> None:
    told["perturbation"]["parameters"] = {"scale": 5, "draw": 0}


def _planted_nan(run: Run) -> None:
    """An outcome that is not a number, declared as divergence: the pair would be dropped."""
    forging.edit_outcome(run, "momentum-reset", "T", lambda table: table.fill(np.nan))
    branch("momentum-reset", lambda told: told.update(diverged_at=14))(run)


def _flatten_all(run: Run) -> None:
    for name in ("control", "replica", "carry"):
        forging.edit_outcome(run, name, "T", forging.flatter)


def _threads(told: dict[str, Any]) -> None:
    told["environment"]["determinism"]["torch threads"] = "8"


def _other_code(run: Run) -> None:
    """Code that trains otherwise, signed as if it were what ran."""
    source = (run.folder / "code" / "tiny_study.py").read_bytes()
    forging.replace_file(run, "code/tiny_study.py", source.replace(b"lr=0.05", b"lr=0.06"))


def _never_opened(told: dict[str, Any]) -> None:
    """Data of a name, size and digest that sound well."""
    file = {"name": "data/imagenet/train.bin", "size": 5, "sha256": "a" * 64, "reason": None}
    told["opened"]["files"] = [file]


def _forge(name: str, apply: Callable[[Run], object], check: int, says: str, **of: Any) -> Attack:
    return Attack(name, GROUP, apply, check, of.pop("exit_code", 1), says, **of)


def _in_fork(branch_name: str, component: str) -> dict[str, Any]:
    return {"where": f"seed 0, {branch_name}", "step": FORK_ROW, "component": component}


_AGAIN = {"needs_replay": True}

STEPS = (
    _forge("steps removed", _without_steps, 4, "has steps 7..12", where="seed 0, carry"),
    _forge("steps twice", _with_steps_twice, 4, "has steps 7..16", where="seed 0, carry"),
    _forge(
        "two steps exchanged",
        _exchanged_steps,
        6,
        "order drift",
        where=TREATED,
        step=10,
        component="order",
    ),
    _forge(
        "the order hash of one step changed",
        lambda run: forging.edit_trace(run, "momentum-reset", 11, "order"),
        6,
        "order drift",
        where=TREATED,
        step=11,
        component="order",
    ),
    _forge(
        "the batch digest of one step changed",
        lambda run: forging.edit_trace(run, "momentum-reset", 11, "batch"),
        6,
        "data drift",
        where=TREATED,
        step=11,
        component="batch",
    ),
    _forge(
        "a row of the state changed",
        lambda run: forging.edit_trace(run, "momentum-reset", 12, "params"),
        8,
        "state drift",
        where=TREATED,
        step=12,
        component="params",
        **_AGAIN,
    ),
    _forge(
        "two samples of a batch exchanged, everywhere",
        lambda run: forging.edit_order(run, _swap_samples),
        8,
        "order drift",
        where="seed 0, control",
        step=11,
        component="order",
        **_AGAIN,
    ),
    _forge(
        "BatchNorm in the final state, everywhere",
        _final_batchnorm,
        8,
        "another batchnorm",
        where="seed 0, control",
        step=LAST_ROW,
        component="batchnorm",
        **_AGAIN,
    ),
    _forge(
        "an optimizer's slot in the fork",
        lambda run: forging.edit_fork(run, "optimizer/momentum_buffer", "last.weight", _double),
        8,
        "optimizer/momentum_buffer",
        **_in_fork("trunk", "optimizer/momentum_buffer"),
        **_AGAIN,
    ),
    _forge(
        "the replica's trace for a nondeterministic program's",
        lambda run: forging.copy_branch(run, "control", "replica"),
        8,
        "nondeterminism",
        step=8,
        component="loss",
        subject="clock",
        **_AGAIN,
    ),
)

CHANGES = (
    _forge(
        "a treatment that changes more than it declares",
        _dishonest(MomentumReset, _greedily),
        7,
        "changed at t0 but not declared",
        **_in_fork("momentum-reset", "params"),
    ),
    _forge(
        "a treatment that changes nothing",
        _dishonest(MomentumReset, _nothing),
        7,
        "declared but not changed at t0",
        **_in_fork("momentum-reset", "optimizer/momentum_buffer"),
    ),
    _forge(
        "a treatment that changes in another way",
        _dishonest(MomentumReset, _half),
        8,
        "state drift",
        **_in_fork("momentum-reset", "optimizer/momentum_buffer"),
        **_AGAIN,
    ),
    _forge(
        "a placebo that changes nothing",
        _dishonest(Ulp, _nothing),
        7,
        "declared but not changed at t0",
        **_in_fork("placebo-0", "params"),
    ),
    _forge(
        "a placebo that is a copy of the control",
        lambda run: forging.copy_branch(run, "control", "placebo-0"),
        7,
        "declared but not changed at t0",
        **_in_fork("placebo-0", "params"),
    ),
    _forge(
        "a treatment that is a copy of the placebo",
        lambda run: forging.copy_branch(run, "placebo-0", "momentum-reset"),
        7,
        "changed at t0 but not declared",
        **_in_fork("momentum-reset", "params"),
    ),
    _forge(
        "another permutation than the declared one",
        _shuffled_otherwise,
        6,
        "not the declared permutation",
        **_in_fork("order-reverse", "order"),
    ),
    _forge(
        "a declared permutation that was not made",
        lambda run: forging.copy_branch(run, "control", "order-reverse"),
        7,
        "the order inside the window is the control's",
        **_in_fork("order-reverse", "order"),
    ),
    _forge(
        "a declaration widened in the manifest",
        branch("momentum-reset", _widen),
        1,
        "unknown field 'touches'",
        exit_code=5,
    ),
    _forge(
        "another version of the perturbation",
        branch("momentum-reset", lambda told: told.update(version=2)),
        4,
        "version 2 of the perturbation",
        where=TREATED,
    ),
    _forge(
        "other parameters of a perturbation",
        branch("placebo-0", _other_parameters),
        4,
        "role or perturbation is not the plan's",
        where="seed 0, placebo-0",
    ),
    _forge(
        "a treatment in the role of a placebo",
        branch("momentum-reset", lambda told: told.update(role="placebo")),
        4,
        "role or perturbation is not the plan's",
        where=TREATED,
    ),
)

SEEDS = (
    _forge(
        "an RNG contract without a stream",
        seed(_without_stream),
        5,
        "missing from the contract",
        where="seed 0",
        component="rng/numpy",
    ),
    _forge(
        "an RNG contract that covers everything",
        seed(lambda told: told["rng"].update(uncovered=[])),
        5,
        "does not name what it does not cover",
        where="seed 0",
        component="rng",
    ),
    _forge(
        "an RNG contract that admits less",
        seed(lambda told: told["rng"].update(uncovered=["nothing worth a word"])),
        5,
        "does not name what it does not cover",
        where="seed 0",
        component="rng",
    ),
    _forge(
        "a derived stream with a state",
        seed(lambda told: told["rng"]["streams"][-1].update(end="5" * 64)),
        5,
        "a derived stream has no state of its own",
        where="seed 0",
        component="worker",
    ),
    _forge(
        "another start of a random stream",
        seed(lambda told: told["rng"]["streams"][0].update(start="5" * 64)),
        8,
        "rng",
        where="seed 0, trunk",
        component="rng",
        **_AGAIN,
    ),
    _forge(
        "other weights before the first step",
        seed(lambda told: told["initial"].update(params="5" * 64)),
        8,
        "commitment: params",
        where="seed 0, trunk",
        step=1,
        component="params",
        **_AGAIN,
    ),
    _forge(
        "another identity of the data",
        seed(lambda told: told["data"].update(consumed_sha256="5" * 64)),
        8,
        "data drift",
        where="seed 0, trunk",
        **_AGAIN,
    ),
    _forge(
        "another description of the loader",
        seed(lambda told: told["data"]["loader"].update({"batch size": "4096"})),
        8,
        "data (loader) is another",
        where="seed 0, trunk",
        **_AGAIN,
    ),
    _forge(
        "another description of the model",
        predicate(lambda told: told["program"]["description"].update(parameters="7000000000")),
        8,
        "description: parameters is another",
        where="seed 0, trunk",
        component="parameters",
        **_AGAIN,
    ),
    _forge(
        "a stream that was seeded otherwise",
        seed(lambda told: told["rng"]["streams"][0].update(seed="7")),
        5,
        "not seeded from the study seed",
        where="seed 0",
    ),
    _forge(
        "two seeds that are one",
        _twin_seed,
        5,
        "starts from the same random streams as seed 0",
        where="seed 1",
        component="rng",
        subject="pair",
    ),
    _forge(
        "seeds renamed",
        predicate(_rename_seeds),
        5,
        "not seeded from the study seed",
        where="seed 7",
        subject="pair",
    ),
    _forge(
        "a seed left out",
        predicate(lambda told: told["seeds"].pop()),
        4,
        "the seeds are not the plan's",
        subject="pair",
    ),
    _forge(
        "a seed left out of the plan, too",
        predicate(lambda told: (told["seeds"].pop(), told["plan"]["seeds"].pop())),
        4,
        "listed as fork, used as None",
        where="seed-0001/fork.safetensors",
        subject="pair",
    ),
    _forge(
        "the same seed twice in the plan",
        predicate(lambda told: told["plan"].update(seeds=[0, 0])),
        1,
        "a seed is given twice",
        exit_code=5,
        subject="pair",
    ),
)

CLAIMS = (
    _forge(
        "an outcome edited",
        lambda run: forging.edit_outcome(run, "momentum-reset", "T", forging.flatter),
        8,
        "outcome",
        where=TREATED,
        component="T",
        **_AGAIN,
    ),
    _forge(
        "an outcome of replica, control and carry edited alike",
        _flatten_all,
        8,
        "outcome",
        where="seed 0, control",
        component="T",
        **_AGAIN,
    ),
    _forge(
        "estimates claimed in the manifest",
        predicate(_claim),
        1,
        "unknown field 'estimates'",
        exit_code=5,
    ),
    _forge(
        "a divergence that never was",
        branch("momentum-reset", lambda told: told.update(diverged_at=12)),
        4,
        "diverged at step None by its evidence, at 12 by the manifest",
        where=TREATED,
        step=12,
    ),
    _forge(
        "a divergence with a table that fits",
        _planted_nan,
        8,
        "state drift",
        where=TREATED,
        component="loss",
        **_AGAIN,
    ),
    _forge("the horizon moved", predicate(_longer), 4, "the plan 7..20", where="seed 0, control"),
    _forge("the fork moved", predicate(_other_fork), 4, "the plan 6..14", where="seed 0, control"),
    _forge(
        "a branch removed",
        seed(_remove_branch),
        4,
        "branches are not the plan's",
        where="seed 0",
    ),
    _forge(
        "a branch removed from the plan, too",
        predicate(_remove_branch_everywhere),
        4,
        "listed as outcome, used as None",
        where="seed-0000/carry.outcome.safetensors",
    ),
    _forge("a branch added", seed(_add_branch), 4, "branches are not the plan's", where="seed 0"),
    _forge(
        "files in another order",
        predicate(lambda told: told["files"].reverse()),
        4,
        "the list of files is not in the order of their names",
    ),
    _forge(
        "components in another order",
        seed(lambda told: told["components"].reverse()),
        4,
        "the list of components is not in the order of their names",
        where="seed 0",
    ),
    _forge(
        "seeds in another order",
        predicate(lambda told: told["seeds"].reverse()),
        4,
        "the seeds are not the plan's",
        subject="pair",
    ),
    _forge(
        "one file for two branches",
        branch("replica", lambda told: told.update(trace="seed-0000/control.trace.safetensors")),
        4,
        "one file stands for two things",
    ),
    _forge(
        "the number of threads edited",
        predicate(_threads),
        4,
        "torch threads was 8, the protocol asks for 1",
        where="environment",
    ),
    _forge(
        "code edited",
        _other_code,
        8,
        "param_groups",
        where="seed 0, trunk",
        step=1,
        component="param_groups",
        **_AGAIN,
    ),
    _forge(
        "a file listed that the program never opens",
        predicate(_never_opened),
        8,
        "no process of the replay opened it: data/imagenet/train.bin",
        where="opened files",
        exit_code=6,
        **_AGAIN,
    ),
    _forge(
        "code edited in the list only",
        predicate(lambda told: told["program"]["code"][0].update(sha256="0" * 64)),
        4,
        "two digests for one source",
        where="code/tiny_study.py",
    ),
)

ATTACKS = (*STEPS, *CHANGES, *SEEDS, *CLAIMS)
