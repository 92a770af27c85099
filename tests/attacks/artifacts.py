"""Attacks on the files: damaged, exchanged, or of another shape and signed for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import forging
import numpy as np
from studies import Run

from attacks.attack import Attack

GROUP = "artifacts"

FORK = "seed-0000/fork.safetensors"
TRACE = "seed-0000/carry.trace.safetensors"
OUTCOME = "seed-0000/carry.outcome.safetensors"
ORDER = "seed-0000/order.safetensors"


def damaged(name: str, change: Callable[[bytes], bytes]) -> Callable[[Run], object]:
    """Change a file; the manifest stays."""

    def apply(run: Run) -> None:
        path = run.folder / name
        path.write_bytes(change(path.read_bytes()))

    return apply


def signed(name: str, change: Callable[[bytes], bytes]) -> Callable[[Run], object]:
    """Change a file and sign for it."""

    def apply(run: Run) -> None:
        data = (run.folder / name).read_bytes()
        changed = change(data)
        assert changed != data
        forging.replace_file(run, name, changed)

    return apply


def arrays(name: str, change: Callable[[forging.Arrays], object]) -> Callable[[Run], object]:
    """Change the tensors of a file and sign for it."""

    def apply(run: Run) -> None:
        def edit(told: forging.Arrays) -> None:
            change(told)

        forging.edit_tensors(run, name, edit)

    return apply


def header(name: str, change: Callable[[str], str]) -> Callable[[Run], object]:
    """Change the text of a tensor file's header and sign for it."""

    def rewrite(data: bytes) -> bytes:
        length = int.from_bytes(data[:8], "little")
        text = change(data[8 : 8 + length].decode()).encode()
        return len(text).to_bytes(8, "little") + text + data[8 + length :]

    return signed(name, rewrite)


def _flip(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    return bytes(changed)


def _flip_early(data: bytes) -> bytes:
    return data[:7] + b"\x7f" + data[8:]


def _duplicate(text: str) -> str:
    return f'{{"params":{json.dumps(json.loads(text)["params"])},{text[1:]}'


def _overlap(text: str) -> str:
    told = json.loads(text)
    told["params"]["data_offsets"] = told["batch"]["data_offsets"]
    return json.dumps(told)


def _promise(text: str) -> str:
    told = json.loads(text)
    told["params"]["shape"] = [2**40, 2**40]
    return json.dumps(told)


def _swap(one: str, other: str, *, sign: bool) -> Callable[[Run], object]:
    """Exchange the content of two files, and perhaps sign for it."""

    def apply(run: Run) -> None:
        left, right = (run.folder / one).read_bytes(), (run.folder / other).read_bytes()
        assert left != right
        for name, data in ((one, right), (other, left)):
            if sign:
                forging.replace_file(run, name, data)
            else:
                (run.folder / name).write_bytes(data)

    return apply


def _declared(size: int, name: str = FORK) -> Callable[[Run], object]:
    """Sign for a file of that size, which is all holes."""

    def edit(told: forging.Statement) -> None:
        for file in told["predicate"]["files"]:
            if file["name"] == name:
                file["size"] = size

    def apply(run: Run) -> None:
        os.truncate(run.folder / name, size)
        forging.edit_statement(run, edit)

    return apply


def _table(change: Callable[[Any], object]) -> Callable[[forging.Arrays], object]:
    return lambda told: change(told["T"])


def _put(row: int, column: int, value: float) -> Callable[[Any], object]:
    def put(table: Any) -> None:
        table[row, column] = value

    return put


def _negative(table: Any) -> None:
    table[0] = [-0.5, 1.0, 0.5]


def _double(table: Any) -> None:
    table *= 2


def _as_float64(told: forging.Arrays) -> None:
    told["T"] = told["T"].astype(np.float64)


def _wider(told: forging.Arrays) -> None:
    told["T"] = np.pad(told["T"], ((0, 0), (0, 1)))


def _labels(told: forging.Arrays) -> None:
    told["labels"][0] = 7


def _seven_labels(told: forging.Arrays) -> None:
    told["labels"] = told["labels"][:-1]


def _step(told: forging.Arrays) -> None:
    told["step"][3] += 1


def _narrow(told: forging.Arrays) -> None:
    told["params"] = told["params"][:, :8]


def _signed_column(told: forging.Arrays) -> None:
    told["params"] = told["params"].view(np.int8)


def _negative_epoch(told: forging.Arrays) -> None:
    told["order"][2, 1, 0] = -7


def _padded(told: forging.Arrays) -> None:
    told["order"] = np.pad(told["order"], ((0, 0), (0, 1), (0, 0)), constant_values=-1)


def _padded_by_many(told: forging.Arrays) -> None:
    told["order"] = np.pad(told["order"], ((0, 0), (0, 1000), (0, 0)), constant_values=-1)


def _padded_in_front(told: forging.Arrays) -> None:
    told["order"] = np.pad(told["order"], ((0, 0), (1, 0), (0, 0)), constant_values=-1)


def _file(name: str, apply: Callable[[Run], object], says: str, where: str = FORK) -> Attack:
    return Attack(name, GROUP, apply, 3, 1, says, where=where)


def _shape(
    name: str, apply: Callable[[Run], object], says: str, where: str = TRACE, check: int = 4
) -> Attack:
    return Attack(name, GROUP, apply, check, 5, says, where=where)


def _values(name: str, apply: Callable[[Run], object], says: str) -> Attack:
    return Attack(name, GROUP, apply, 4, 1, says, where="seed 0, carry")


ATTACKS = (
    _file("a byte flipped", damaged(FORK, _flip), "sha256 is"),
    _file("a byte of the header flipped", damaged(FORK, _flip_early), "sha256 is"),
    _file("truncated", damaged(FORK, lambda data: data[:-1]), "another size"),
    _file("trailing bytes", damaged(FORK, lambda data: data + b"\0"), "another size"),
    _file("emptied", damaged(FORK, lambda _: b""), "another size"),
    _file(
        "files of two branches swapped",
        _swap(TRACE, "seed-0000/momentum-reset.trace.safetensors", sign=False),
        "sha256 is",
        TRACE,
    ),
    Attack(
        "files of two branches swapped and signed",
        GROUP,
        _swap(TRACE, "seed-0000/momentum-reset.trace.safetensors", sign=True),
        7,
        1,
        "changed at t0 but not declared",
        where="seed 0, carry",
        step=7,
        component="optimizer/momentum_buffer",
    ),
    Attack(
        "outcomes of replica and treatment swapped and signed",
        GROUP,
        _swap(
            "seed-0000/replica.outcome.safetensors",
            "seed-0000/momentum-reset.outcome.safetensors",
            sign=True,
        ),
        9,
        1,
        "replica's outcome T is another",
        where="seed 0, replica",
        component="outcome",
    ),
    Attack(
        "forks of two seeds swapped and signed",
        GROUP,
        _swap(FORK, "seed-0001/fork.safetensors", sign=True),
        7,
        1,
        "the snapshot holds another state than committed",
        where=FORK,
        step=7,
        component="params",
        subject="pair",
    ),
    Attack(
        "traces of two seeds swapped and signed",
        GROUP,
        _swap(
            "seed-0000/control.trace.safetensors",
            "seed-0001/control.trace.safetensors",
            sign=True,
        ),
        7,
        1,
        "the control's first row is of another state",
        where=FORK,
        step=7,
        component="params",
        subject="pair",
    ),
    _file(
        "a size that is not the file's",
        lambda run: forging.edit_statement(
            run, lambda told: told["predicate"]["files"][-1].update(size=1)
        ),
        "another size",
        "seed-0000/trunk.trace.safetensors",
    ),
    Attack(
        "a terabyte of holes, signed for as a fork",
        GROUP,
        _declared(2**40),
        1,
        5,
        "longer than anything of the role fork",
        where="manifest.json",
    ),
    Attack(
        "a hundred gigabytes of holes, signed for as a trace",
        GROUP,
        _declared(10**11, TRACE),
        1,
        5,
        "longer than anything of the role trace",
        where="manifest.json",
    ),
    Attack(
        "a gigabyte of source",
        GROUP,
        _declared(2**30, "code/tiny_study.py"),
        1,
        5,
        "longer than anything of the role code",
        where="manifest.json",
    ),
    _file(
        "a terabyte of holes, not signed for",
        lambda run: os.truncate(run.folder / FORK, 2**40),
        "another size",
    ),
    _shape(
        "a header that claims a huge length",
        signed(TRACE, lambda data: (2**63 - 1).to_bytes(8, "little") + data[8:]),
        "the header is longer than the file",
    ),
    _shape("trailing bytes, signed", signed(TRACE, lambda data: data + b"\0"), "do not fill"),
    _shape("truncated, signed", signed(TRACE, lambda data: data[:-1]), "do not fill"),
    _shape("emptied, signed", signed(TRACE, lambda _: b""), "too few"),
    _shape("duplicate tensor names", header(TRACE, _duplicate), "duplicate"),
    _shape("two tensors of the same bytes", header(TRACE, _overlap), "a gap or an overlap"),
    _shape("a tensor that claims a huge shape", header(TRACE, _promise), "do not fit"),
    _shape("a column of another dtype", arrays(TRACE, _signed_column), "has another shape"),
    _shape("a column of another shape", arrays(TRACE, _narrow), "has another shape"),
    _shape("steps that are not consecutive", arrays(TRACE, _step), "not consecutive"),
    _shape("a table of another dtype", arrays(OUTCOME, _as_float64), "no tensor 'T'", OUTCOME),
    _shape("labels that are too few", arrays(OUTCOME, _seven_labels), "has shape", OUTCOME),
    _shape("a negative epoch", arrays(ORDER, _negative_epoch), "padded with something", ORDER),
    _shape("a column of padding more", arrays(ORDER, _padded), "wider than its longest", ORDER),
    _shape(
        "a thousand columns of padding", arrays(ORDER, _padded_by_many), "wider than its", ORDER
    ),
    _shape("padding in front", arrays(ORDER, _padded_in_front), "padded with something", ORDER),
    _shape(
        "a snapshot that is none",
        signed(FORK, lambda _: b"nothing"),
        "not a safetensors file",
        FORK,
        check=7,
    ),
    _values("a table of another shape", arrays(OUTCOME, _wider), "outcome T has shape"),
    _values(
        "NaN among the probabilities",
        arrays(OUTCOME, _table(_put(2, 1, np.nan))),
        "row 2 holds a value that is not finite",
    ),
    _values(
        "infinity among the probabilities",
        arrays(OUTCOME, _table(_put(5, 0, np.inf))),
        "row 5 holds a value that is not finite",
    ),
    _values(
        "probabilities that do not add up to 1",
        arrays(OUTCOME, _table(_double)),
        "outcome T holds no probabilities",
    ),
    _values(
        "a negative probability",
        arrays(OUTCOME, _table(_negative)),
        "outcome T holds no probabilities",
    ),
    _values("a label that is no class", arrays(OUTCOME, _labels), "labels are not the control's"),
)
