"""Forge a run as an attacker who holds its key would: edit, make everything agree again, sign.

Every function changes the run on disk and leaves a manifest that is signed by ``run.key``.
What is edited is made consistent as far as no training has to be done again: sizes, SHA-256,
commitments, evidence digests. What then still tells on the forger is for the checks to say.

::

    edit_statement(run, edit)                    the signed statement, as a dict
    replace_file / add_file / remove_file        a file, and what the statement says of it
    edit_tensors(run, name, edit)                any tensor file, as arrays
    edit_trace(run, branch, step, component)     a digest in a trace
    edit_outcome(run, branch, time, edit)        a probe table
    edit_fork(run, component, entry, edit)       the snapshot, with all that depends on it
    edit_fork_json(run, component, edit)         the same, for what is no tensor in it
    edit_order(run, edit)                        the control's order, with all that depends on it
    copy_branch(run, source, target)             one branch's files and commitments for another's
    resign(run, key)  sign_payload(run, bytes)   the statement, or any bytes, signed anew
    edit_envelope(run, edit)                     the envelope around it, nothing signed anew
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from studies import Run

from auditkit.files import store
from auditkit.formats import canonical, tensor_file
from auditkit.formats.ordering import Batch, delivered_order, from_table, order_sha256, to_table
from auditkit.formats.recipes import digest_raw, order_digest
from auditkit.formats.snapshot_file import raw_components, tensor_key
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.digest import COMMITMENT_RECIPE, EVIDENCE_BYTES, EVIDENCE_RECIPE
from auditkit.records.plan import PerturbationSpec
from auditkit.records.tensor import RawTensor
from auditkit.signing.envelopes import sign_statement
from auditkit.signing.keys import PrivateKey

Statement = dict[str, Any]
Arrays = dict[str, NDArray[Any]]

#: Sections of a snapshot that are in no trace.
_BESIDE = ("loader", "recalibration")


# The statement and its envelope


def statement_of(run: Run) -> Statement:
    """The signed statement, not checked."""
    envelope = json.loads(run.path.read_bytes())
    statement: Statement = json.loads(base64.b64decode(envelope["payload"]))
    return statement


def edit_statement(run: Run, edit: Callable[[Statement], None]) -> None:
    """Change the statement in place and sign it."""
    statement = statement_of(run)
    edit(statement)
    sign_payload(run, canonical.dumps(statement))


def edit_predicate(run: Run, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change the statement's predicate in place and sign it."""
    edit_statement(run, lambda statement: edit(statement["predicate"]))


def resign(run: Run, key: PrivateKey) -> None:
    """Sign the statement as it is, with another key."""
    sign_payload(run, canonical.dumps(statement_of(run)), key)


def sign_payload(run: Run, payload: bytes, key: PrivateKey | None = None) -> None:
    """Sign any bytes and make them the manifest."""
    run.path.write_bytes(sign_statement(payload, key or run.key))


def edit_envelope(run: Run, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change the envelope in place; nothing is signed anew."""
    envelope = json.loads(run.path.read_bytes())
    edit(envelope)
    run.path.write_text(json.dumps(envelope))


def edit_payload_unsigned(run: Run, edit: Callable[[Statement], None]) -> None:
    """Change the statement and keep the old signature."""
    statement = statement_of(run)
    edit(statement)
    payload = base64.b64encode(canonical.dumps(statement)).decode()
    edit_envelope(run, lambda envelope: envelope.update(payload=payload))


# What the statement says of seeds, branches and files


def seed_in(statement: Statement, seed: int) -> dict[str, Any]:
    """What a statement says of a seed."""
    for record in statement["predicate"]["seeds"]:
        if record["seed"] == seed:
            return dict_of(record)
    raise KeyError(seed)


def branch_in(statement: Statement, branch: str, seed: int = 0) -> dict[str, Any]:
    """What a statement says of a branch."""
    for record in seed_in(statement, seed)["branches"]:
        if record["name"] == branch:
            return dict_of(record)
    raise KeyError(branch)


def dict_of(value: Any) -> dict[str, Any]:
    """The same object, known to be a dict."""
    assert isinstance(value, dict)
    return value


def set_listing(statement: Statement, name: str, data: bytes) -> None:
    """List a file under its true size and SHA-256."""
    predicate = statement["predicate"]
    digest = {"sha256": hashlib.sha256(data).hexdigest()}
    (listed,) = (item for item in predicate["files"] if item["name"] == name)
    (subject,) = (item for item in statement["subject"] if item["name"] == name)
    listed["size"], subject["digest"] = len(data), digest
    for source in predicate["program"]["code"]:
        if f"code/{source['name']}" == name:
            source.update(digest)


# Files


def replace_file(run: Run, name: str, data: bytes) -> None:
    """Give a listed file other content, and the manifest its size and SHA-256."""
    (run.folder / name).write_bytes(data)
    edit_statement(run, lambda statement: set_listing(statement, name, data))


def add_file(run: Run, name: str, data: bytes, role: str) -> None:
    """Add a file to the folder and to the manifest."""

    def add(statement: Statement) -> None:
        statement["predicate"]["files"].append({"name": name, "role": role, "size": 0})
        statement["subject"].append({"name": name, "digest": {}})
        set_listing(statement, name, data)

    (run.folder / name).write_bytes(data)
    edit_statement(run, add)


def remove_file(run: Run, name: str) -> None:
    """Remove a file from the folder and from the manifest."""

    def remove(statement: Statement) -> None:
        for items in (statement["predicate"]["files"], statement["subject"]):
            items[:] = [item for item in items if item["name"] != name]

    (run.folder / name).unlink()
    edit_statement(run, remove)


def read_arrays(run: Run, name: str) -> tuple[Arrays, object]:
    """Tensors, as arrays that can be written to, and metadata of a file."""
    tensors, meta = store.read_tensors(run.folder / name, what=name)
    arrays = {
        key: np.frombuffer(bytearray(tensor.data), dtype=tensor.dtype).reshape(tensor.shape)
        for key, tensor in tensors.items()
    }
    return arrays, meta


def edit_tensors(run: Run, name: str, edit: Callable[[Arrays], None]) -> None:
    """Change the tensors of a file in place; only its size and SHA-256 are made to agree."""
    arrays, meta = read_arrays(run, name)
    edit(arrays)
    replace_file(run, name, _file_bytes(arrays, meta))


def trace_name(run: Run, branch: str, seed: int = 0) -> str:
    """Name of a branch's trace; the trunk's, too."""
    statement = statement_of(run)
    if branch == "trunk":
        return str(seed_in(statement, seed)["trunk"])
    return str(branch_in(statement, branch, seed)["trace"])


def edit_trace(
    run: Run,
    branch: str,
    step: int,
    component: str,
    digest: bytes | None = None,
    seed: int = 0,
) -> None:
    """Change one digest of a trace: by default one bit of it."""

    def edit(arrays: Arrays) -> None:
        row = step - int(arrays["step"][0])
        if digest is None:
            arrays[component][row, 0] ^= 1
        else:
            arrays[component][row] = np.frombuffer(digest, dtype=np.uint8)

    edit_tensors(run, trace_name(run, branch, seed), edit)


def edit_outcome(
    run: Run, branch: str, time: str, edit: Callable[[NDArray[Any]], None], seed: int = 0
) -> None:
    """Change one probe table in place."""
    name = branch_in(statement_of(run), branch, seed)["outcome"]
    edit_tensors(run, name, lambda arrays: edit(arrays[time]))


def flatter(table: NDArray[Any]) -> None:
    """Move a table of probabilities a little towards the uniform one; the rows still add up."""
    table[:] = 0.9 * table + 0.1 / table.shape[1]


def copy_branch(run: Run, source: str, target: str, seed: int = 0) -> None:
    """Let a branch's trace, outcome and commitments be another's."""
    statement = statement_of(run)
    original = branch_in(statement, source, seed)
    for role in ("trace", "outcome"):
        name = branch_in(statement, target, seed)[role]
        replace_file(run, name, (run.folder / original[role]).read_bytes())

    def edit(statement: Statement) -> None:
        for field in ("digests", "order_sha256", "diverged_at"):
            branch_in(statement, target, seed)[field] = original[field]

    edit_statement(run, edit)


# Snapshot and order, with all that depends on them


def edit_fork(
    run: Run, component: str, entry: str, edit: Callable[[NDArray[Any]], None], seed: int = 0
) -> None:
    """Change a tensor of the snapshot in place, and whatever was derived from it.

    Commitments and evidence at t0 follow, in the trunk, the control and every branch that had
    the control's state there; the later rows stay, as they cannot be had without training.
    """
    name = seed_in(statement_of(run), seed)["fork"]
    edit_tensors(run, name, lambda arrays: edit(arrays[tensor_key(component, entry)]))
    _follow_fork(run, component, seed)


def edit_fork_json(
    run: Run, component: str, edit: Callable[[dict[str, Any]], None], seed: int = 0
) -> None:
    """The same for what is no tensor: the entries of a component, as the file's metadata."""
    name = seed_in(statement_of(run), seed)["fork"]
    arrays, meta = read_arrays(run, name)
    edit(dict_of(dict_of(meta)["components"])[component])
    replace_file(run, name, _file_bytes(arrays, meta))
    _follow_fork(run, component, seed)


def _follow_fork(run: Run, component: str, seed: int) -> None:
    name = seed_in(statement_of(run), seed)["fork"]
    section = raw_components(*store.read_tensors(run.folder / name, what=name))[component]
    commitment = digest_raw(COMMITMENT_RECIPE, *section).hex()
    evidence = digest_raw(EVIDENCE_RECIPE, *section)
    statement = statement_of(run)
    step = statement["predicate"]["plan"]["fork_at"] + 1
    old = seed_in(statement, seed)["fork_digests"][component]
    followers = ["trunk"] * (component not in _BESIDE)
    for branch in seed_in(statement, seed)["branches"]:
        if branch["digests"]["t0"].get(component) == old:
            branch["digests"]["t0"][component] = commitment
            followers.append(branch["name"])
    seed_in(statement, seed)["fork_digests"][component] = commitment
    for stream in seed_in(statement, seed)["rng"]["streams"]:
        if stream["stream"] == component:
            stream["fork"] = commitment
    sign_payload(run, canonical.dumps(statement))
    for branch_name in followers:
        edit_trace(run, branch_name, step, component, evidence, seed)


def edit_order(run: Run, edit: Callable[[list[Batch]], None], seed: int = 0) -> None:
    """Change the control's order in place: file, commitments and evidence of all branches."""
    statement = statement_of(run)
    plan = statement["predicate"]["plan"]
    name = seed_in(statement, seed)["order"]
    batches = from_table(read_arrays(run, name)[0]["order"])
    edit(batches)
    edit_tensors(run, name, lambda arrays: arrays.update(order=to_table(batches)))
    statement = statement_of(run)
    record = seed_in(statement, seed)
    record["order_sha256"] = order_sha256(batches)
    traces = {record["trunk"]: (1, batches[: plan["fork_at"]])}
    for branch in record["branches"]:
        spec = _order_spec(branch["perturbation"])
        tail = delivered_order(batches[plan["fork_at"] :], spec, plan["window"], seed)
        branch["order_sha256"] = order_sha256(tail)
        traces[branch["trace"]] = (plan["fork_at"] + 1, tail)
    sign_payload(run, canonical.dumps(statement))
    for trace, (_, consumed) in traces.items():
        cells = [order_digest(EVIDENCE_RECIPE, batch) for batch in consumed]
        column = np.frombuffer(b"".join([*cells, bytes(EVIDENCE_BYTES)]), dtype=np.uint8)
        table = column.reshape(-1, EVIDENCE_BYTES)
        edit_tensors(run, trace, functools.partial(_set, name="order", array=table))


def _set(arrays: Arrays, name: str, array: NDArray[Any]) -> None:
    arrays[name] = array


def _order_spec(told: dict[str, Any] | None) -> PerturbationSpec | None:
    if told is None or DECLARATIONS[told["name"]].kind != "order":
        return None
    return PerturbationSpec(told["name"], told["parameters"])


def _file_bytes(arrays: Arrays, meta: object) -> bytes:
    tensors = {
        name: RawTensor(str(array.dtype), array.shape, np.ascontiguousarray(array).tobytes())
        for name, array in arrays.items()
    }
    return tensor_file.to_bytes(tensors, meta)
