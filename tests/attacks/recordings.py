"""Forgeries of a recording: with the key that signed it, and of the replay beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import forging
import in_process_loops
import numpy as np
from studies import Run
from synthetic_recordings import DRIFT, Loop, Recording, write_replay, write_snapshot

from attacks.attack import Attack
from attacks.envelope import predicate
from attacks.proof_of_learning import reviewed_with
from auditkit.files import store
from auditkit.formats.recipes import digest_raw
from auditkit.formats.snapshot_file import raw_components
from auditkit.records.digest import COMMITMENT_RECIPE
from auditkit.records.recording import TRACE_STEPS
from auditkit.signing.keys import generate_key

GROUP = "recordings"

FIRST, SECOND = "trace/000000.safetensors", "trace/000001.safetensors"
CHECKPOINT, END = "checkpoint-00000003.safetensors", "checkpoint-00001030.safetensors"
OTHER_RANK = "rank-0001/trace/000000.safetensors"

FIFTH, FIFTEENTH = "checkpoint-00000005.safetensors", "checkpoint-00000015.safetensors"

_STRANGER = generate_key()


def rank(change: Callable[[dict[str, Any]], object], number: int = 0) -> Callable[[Run], object]:
    """Change what the manifest says of a rank."""
    return predicate(lambda told: change(told["ranks"][number]))


def rows(change: Callable[[forging.Arrays], object], name: str = FIRST) -> Callable[[Run], object]:
    """Change a chunk of the trace and sign for it."""

    def apply(run: Run) -> None:
        def edit(told: forging.Arrays) -> None:
            change(told)

        forging.edit_tensors(run, name, edit)

    return apply


def flip(column: str, row: int, name: str = FIRST) -> Callable[[Run], object]:
    """Change one digest."""

    def edit(told: forging.Arrays) -> None:
        told[column][row, 0] ^= 1

    return rows(edit, name)


def _without_chunk(run: Run) -> None:
    forging.remove_file(run, SECOND)
    rank(lambda told: told["traces"].pop())(run)


def _swap_rows(run: Run) -> None:
    """The first row of the second chunk for one of the first, and the other way round."""
    first, _ = forging.read_arrays(run, FIRST)
    second, _ = forging.read_arrays(run, SECOND)
    saved = {name: column[0].copy() for name, column in second.items() if name != "step"}

    def put(told: forging.Arrays, row: int, source: dict[str, Any]) -> None:
        for name, value in source.items():
            told[name][row] = value

    taken = {name: first[name][100] for name in saved}
    forging.edit_tensors(run, SECOND, lambda told: put(told, 0, taken))
    forging.edit_tensors(run, FIRST, lambda told: put(told, 100, saved))


def _exchange_chunks(run: Run) -> None:
    left, right = ((run.folder / name).read_bytes() for name in (FIRST, SECOND))
    forging.replace_file(run, FIRST, right)
    forging.replace_file(run, SECOND, left)


def _other_weights(run: Run, step: int, name: str) -> None:
    path = run.folder / name
    state = Loop(state_at=1).state(step + 1, 0)
    state["loader"] = {"position": b"%d" % step}
    write_snapshot(path, state)
    forging.replace_file(run, name, path.read_bytes())


def _other_weights_committed(run: Run) -> None:
    _other_weights(run, 3, CHECKPOINT)
    rank(lambda told: told["checkpoints"][0]["digests"].update(params="5" * 64))(run)


def _without_stream(told: dict[str, Any]) -> None:
    streams = told["rng"]["streams"]
    streams[:] = [stream for stream in streams if stream["stream"] != "rng/python"]


def _without_stream_anywhere(told: dict[str, Any]) -> None:
    """It is in no component and no commitment either; only the checkpoints have it."""
    _without_stream(told)
    told["components"].remove("rng/python")
    for digests in (told["initial"], told["final"]):
        del digests["rng/python"]


def _other_start(told: dict[str, Any]) -> None:
    (stream,) = (one for one in told["rng"]["streams"] if one["stream"] == "rng/torch")
    stream["start"] = "5" * 64


def replayed(change: Callable[[dict[str, Any]], object]) -> Callable[[Run], object]:
    """Change what the manifest says of a loop, which a reviewer then replays honestly."""

    def apply(run: Run) -> None:
        rank(change)(run)
        every = 5 if any(run.folder.glob("checkpoint-*")) else 0
        reviewed_with(run, in_process_loops.Loop(run.folder, checkpoint_every=every))

    return apply


def _other_position(run: Run) -> None:
    """A checkpoint that goes on from another batch, committed to; a reviewer then replays."""

    def edit(told: forging.Arrays) -> None:
        text = told["loader/"].tobytes()
        assert text.count(b'"values":[0,5,') == 1
        told["loader/"][:] = np.frombuffer(text.replace(b"[0,5,", b"[0,4,"), np.uint8)

    forging.edit_tensors(run, FIFTH, edit)
    section = raw_components(*store.read_tensors(run.folder / FIFTH, what=FIFTH))["loader"]
    digest = digest_raw(COMMITMENT_RECIPE, *section).hex()
    replayed(lambda told: told["checkpoints"][0]["digests"].update(loader=digest))(run)


def _as_loader(told: dict[str, Any]) -> None:
    told["components"] = sorted([*told["components"], "order/validation"])


def _end(component: str) -> Callable[[Run], object]:
    return rank(lambda told: told["final"].update({component: "5" * 64}))


def _replay(**changes: Any) -> Callable[[Run], object]:
    return lambda run: write_replay(Recording(run.folder, run.key), **changes)


def _edited_replay(run: Run) -> None:
    """A replay with findings, from which they were taken without signing anew."""
    recording = Recording(run.folder, run.key)
    honest = json.loads(write_replay(recording).read_bytes())
    path = write_replay(recording, findings=(DRIFT,))
    told = json.loads(path.read_bytes())
    told["payload"] = honest["payload"]
    path.write_text(json.dumps(told))


def _in_first(name: str, apply: Callable[[Run], object], says: str, **of: Any) -> Attack:
    of.setdefault("subject", "recording")
    return Attack(name, GROUP, apply, of.pop("check", 4), of.pop("exit_code", 1), says, **of)


ATTACKS = (
    _in_first("a chunk removed", _without_chunk, "1 trace files for 1030 steps", where="rank 0"),
    _in_first("chunks exchanged", _exchange_chunks, "has steps 1025..1030", where=FIRST),
    _in_first(
        "a row edited where chunks join",
        flip("params", TRACE_STEPS),
        "does not begin where the chunk before it ends",
        where=SECOND,
        step=TRACE_STEPS + 1,
        component="params",
    ),
    _in_first(
        "a row edited where a checkpoint lies",
        flip("params", 3),
        "the trace's row is of another state",
        where=CHECKPOINT,
        step=4,
        component="params",
    ),
    _in_first(
        "a row edited in one process",
        flip("params", 2, OTHER_RANK),
        "the state is not that of rank 0",
        where="rank 1",
        step=3,
        component="params",
        subject="ranks",
    ),
    _in_first(
        "rows of two chunks swapped",
        _swap_rows,
        "does not begin where the chunk before it ends",
        where=SECOND,
        step=TRACE_STEPS + 1,
    ),
    _in_first(
        "a tensor of a checkpoint edited",
        lambda run: _other_weights(run, 3, CHECKPOINT),
        "the checkpoint holds another state than committed",
        where=CHECKPOINT,
        step=3,
        component="params",
    ),
    _in_first(
        "a checkpoint edited and committed to",
        _other_weights_committed,
        "the trace's row is of another state",
        where=CHECKPOINT,
        step=4,
        component="params",
    ),
    _in_first(
        "the final state edited, with a checkpoint at the end",
        _end("params"),
        "the rank's commitment is of another state",
        where=END,
        step=1030,
        component="params",
    ),
    _in_first(
        "the final state edited, of what never changed",
        _end("param_groups"),
        "committed to as another state",
        where=FIRST,
        step=6,
        component="param_groups",
        subject="ranks",
    ),
    _in_first(
        "the final state of one process edited",
        rank(lambda told: told["final"].update({"optimizer/momentum_buffer": "5" * 64}), 1),
        "committed to as another state",
        where=OTHER_RANK,
        step=6,
        component="optimizer/momentum_buffer",
        subject="ranks",
    ),
    _in_first(
        "the final state of a random stream edited",
        _end("rng/torch"),
        "the contract's end is not the rank's final state",
        check=5,
        where="rank 0",
        step=6,
        component="rng/torch",
        subject="ranks",
    ),
    _in_first(
        "a random stream removed from the contract",
        rank(_without_stream),
        "missing from the contract",
        check=5,
        where="rank 0",
        component="rng/python",
    ),
    _in_first(
        "a random stream removed everywhere",
        rank(_without_stream_anywhere),
        "the contract lacks the stream",
        check=5,
        where="rank 0",
        component="rng/python",
    ),
    _in_first(
        "a random stream that was seeded",
        rank(lambda told: told["rng"]["streams"][0].update(seed="7")),
        "a recording seeds and forks nothing",
        check=5,
        where="rank 0",
        component="rng/numpy",
    ),
    _in_first(
        "another number of processes",
        predicate(lambda told: told["world"].update(size=2)),
        "ranks are 0; the world has 2",
        where="world",
    ),
    _in_first(
        "a process left out",
        predicate(lambda told: (told["ranks"].pop(), told["world"].update(size=1))),
        "used as None",
        where=OTHER_RANK,
        subject="ranks",
    ),
    _in_first(
        "processes without a backend",
        predicate(lambda told: told["world"].update(backend=None)),
        "2 processes without a backend",
        where="world",
        subject="ranks",
    ),
    _in_first("a loader that nobody described", rank(_as_loader), "nothing is said of the loader"),
    _in_first(
        "another count of steps",
        rank(lambda told: told.update(steps=1029)),
        "has steps 1025..1030, expected 1025..1029",
        where=SECOND,
    ),
    _in_first(
        "a recording that finished before it started",
        predicate(lambda told: told["run"].update(finished="2025-12-31T23:59:59Z")),
        "run: finished before it started",
        check=1,
        exit_code=5,
    ),
    _in_first(
        "a study's plan in a recording",
        predicate(lambda told: told.update(plan={})),
        "unknown field 'plan'",
        check=1,
        exit_code=5,
    ),
    _in_first(
        "a resumption that never was",
        rank(lambda told: told.update(resumed_at=[500])),
        "resumed where there is no checkpoint",
        where="rank 0",
        step=500,
    ),
    _in_first(
        "fewer epochs than a checkpoint's",
        rank(lambda told: told.update(epochs=1)),
        "the manifest says 1 epochs",
        where=FIFTEENTH,
        step=15,
        component="loader",
        subject="checkpoints",
    ),
    _in_first(
        "another number of epochs",
        replayed(lambda told: told.update(epochs=300)),
        "length: epochs is another",
        check=8,
        where="rank 0",
        component="epochs",
        subject="loop",
    ),
    _in_first(
        "a whole state said to be a part, which ranks need not share",
        replayed(lambda told: told.update(sharded=["params"])),
        "sharding of params is another",
        check=8,
        where="rank 0",
        component="sharding of params",
        subject="loop",
    ),
    _in_first(
        "another start of a random stream",
        replayed(_other_start),
        "another rng/torch, before step 1 (RNG drift",
        check=8,
        where="rank 0",
        step=1,
        component="rng/torch",
        subject="loop",
    ),
    _in_first(
        "a checkpoint that goes on from another batch",
        _other_position,
        "commitment: loader is another",
        check=8,
        where=f"rank 0, {FIFTH}",
        step=5,
        component="loader",
        subject="checkpoints",
    ),
    _in_first(
        "a replay of more steps than there are",
        _replay(last_step=6),
        "the recording has steps 1..5",
        check=8,
        where="replay.json",
        subject="replayed",
    ),
    _in_first(
        "a replay of more processes than there are",
        _replay(ranks=2),
        "were equal; the recording has steps 1..5 of 1 process",
        check=8,
        where="replay.json",
        subject="replayed",
    ),
    _in_first(
        "a replay with findings that ask for success",
        _replay(findings=(DRIFT,)),
        "params",
        check=8,
        step=3,
        component="params",
        subject="replayed",
    ),
    # A replay that does not count leaves a recording that nobody re-executed.
    *(
        Attack(name, GROUP, apply, 8, 0, says, subject="replayed")
        for name, apply, says in (
            (
                "a replay of another manifest",
                _replay(statement_sha256="0" * 64),
                "another manifest",
            ),
            (
                "the manifest edited after its replay",
                predicate(lambda told: told.update(seed=7)),
                "about another manifest",
            ),
            (
                "a stranger's replay",
                lambda run: write_replay(Recording(run.folder, run.key), _STRANGER),
                "not a trusted key",
            ),
            ("a replay whose findings were removed", _edited_replay, "does not match the payload"),
        )
    ),
)
