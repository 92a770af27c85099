"""What a recording's manifest says beside its rows, and a replay can know, is compared by it."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import forging
import numpy as np
import pytest
import torch
from in_process_loops import Loop, read, record, replay_in_process
from studies import Run
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak
from auditkit.diagnose.run_difference import compare_runs
from auditkit.errors import UncapturedState
from auditkit.evidence.reader import RecordingEvidence
from auditkit.formats.data_position import epoch_of, position_digests
from auditkit.recorder.closing import close_recording
from auditkit.records.recording import RankRecord
from auditkit.replay.recording_replay import OTHER_RECORD
from auditkit.signing.keys import generate_key
from auditkit.signing.trust import SigningKey


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Loop, RecordingEvidence]:
    """A loop of 24 steps with checkpoints after every fifth."""
    loop = Loop(tmp_path_factory.mktemp("loop") / "run")
    return loop, record(loop)


def claiming(evidence: RecordingEvidence, **changes: Any) -> RecordingEvidence:
    """The same recording, of whose only process something else is said."""
    record = replace(rank(evidence), **changes)
    return replace(evidence, manifest=replace(evidence.manifest, ranks=(record,)))


def rank(evidence: RecordingEvidence) -> RankRecord:
    return evidence.manifest.ranks[0]


def other_start(evidence: RecordingEvidence, stream: str) -> RecordingEvidence:
    """The same recording, of which it is said that a stream began elsewhere."""
    contract = rank(evidence).rng
    streams = [
        replace(one, start="5" * 64) if one.stream == stream else one for one in contract.streams
    ]
    return claiming(evidence, rng=replace(contract, streams=tuple(streams)))


def test_an_honest_loop_is_equal_in_all_of_it(recorded: tuple[Loop, RecordingEvidence]) -> None:
    loop, evidence = recorded
    found = replay_in_process(evidence, loop)
    assert (found.equal, found.runs, found.checkpoints) == (True, 1, 4)


@pytest.mark.parametrize("epochs", [1, 3, 300])
def test_another_number_of_epochs(recorded: tuple[Loop, RecordingEvidence], epochs: int) -> None:
    loop, evidence = recorded
    found = replay_in_process(claiming(evidence, epochs=epochs), loop)
    (mismatch,) = found.partings
    assert (mismatch.kind, mismatch.component) == ("length", "epochs")
    assert [finding.exit_code for finding in found.findings] == [1]


@pytest.mark.parametrize("stream", ["rng/torch", "rng/numpy", "rng/python"])
def test_another_start_of_a_stream(recorded: tuple[Loop, RecordingEvidence], stream: str) -> None:
    loop, evidence = recorded
    found = replay_in_process(other_start(evidence, stream), loop)
    (mismatch,) = found.partings
    assert (mismatch.kind, mismatch.component, mismatch.step) == ("RNG drift", stream, 1)
    assert (found.cause, found.runs, found.unseeded) == (OTHER_RECORD, 2, (stream,))
    assert [finding.exit_code for finding in found.findings] == [1]


@pytest.mark.parametrize("section", ["params", "rng/torch", "loader", "recalibration"])
def test_another_commitment_to_a_checkpoint(
    recorded: tuple[Loop, RecordingEvidence], section: str
) -> None:
    """As where a checkpoint's tensors were exchanged by a collision of the fast digest."""
    loop, evidence = recorded
    first, second, *others = rank(evidence).checkpoints
    second = replace(second, digests={**second.digests, section: "5" * 64})
    found = replay_in_process(claiming(evidence, checkpoints=(first, second, *others)), loop)
    if section == "loader":  # its file holds the honest position, and that is what is looked at
        assert found.equal
        return
    (mismatch,) = found.partings
    assert (mismatch.branch, mismatch.step) == (f"rank 0, {second.file}", 10)
    assert (mismatch.kind, mismatch.component, mismatch.others) == ("commitment", section, ())


def test_where_no_checkpoint_can_be_taken_none_is_compared(
    recorded: tuple[Loop, RecordingEvidence], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise UncapturedState("cannot be kept")

    monkeypatch.setattr("auditkit.recorder.row_client.sections", refuse)
    loop, evidence = recorded
    found = replay_in_process(evidence, loop)
    assert (found.equal, found.checkpoints) == (True, 0)


@dataclass
class Unseeded:
    """A loop that seeds torch only, and draws from nothing else.

    Attributes:
        out: Where it records.
        workers: Of its loader.
        late: Whether the other streams are seeded and drawn from after the objects were wrapped.
    """

    out: Path
    workers: int = 0
    late: bool = False

    def __call__(self) -> None:
        random.seed()
        np.random.seed(random.getrandbits(32))
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        data = TensorDataset(torch.randn(16, 4))
        loader = DataLoader(data, batch_size=4, shuffle=True, num_workers=self.workers)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
            with ak.Recorder(self.out, checkpoint_every=3) as rec:
                rec.wrap(model, optimizer, loader)
                if self.late:
                    random.seed(1)
                for _ in range(2):
                    for (x,) in loader:
                        optimizer.zero_grad()
                        (model(x).sum() * (random.random() if self.late else 1)).backward()
                        optimizer.step()
                rec.checkpoint()


def test_where_a_stream_stands_that_nobody_draws_from_is_no_matter(tmp_path: Path) -> None:
    loop = Unseeded(tmp_path / "out")
    loop()
    evidence = read(loop.out)
    found = replay_in_process(evidence, loop)
    assert (found.equal, found.checkpoints) == (True, 3)
    (taken, *others) = rank(evidence).checkpoints
    taken = replace(taken, digests={**taken.digests, "params": "5" * 64})
    found = replay_in_process(claiming(evidence, checkpoints=(taken, *others)), loop)
    assert [part.component for part in found.partings] == ["params"]


def shift_position(out: Path) -> str:
    """Let the first checkpoint go on from another batch; its name."""
    name = rank(read(out)).checkpoints[0].file

    def edit(told: forging.Arrays) -> None:
        text = told["loader/"].tobytes().replace(b'"values":[0,3,', b'"values":[0,2,')
        told["loader/"][:] = np.frombuffer(text, np.uint8)

    forging.edit_tensors(Run(out, generate_key()), name, edit)
    return name


def test_a_data_position_is_compared_beside_such_a_stream(tmp_path: Path) -> None:
    loop = Unseeded(tmp_path / "out")
    loop()
    name = shift_position(loop.out)
    evidence = read(loop.out)
    digest = evidence.sections(name)["loader"].commitment
    taken, *others = rank(evidence).checkpoints
    assert digest != taken.digests["loader"]
    taken = replace(taken, digests={**taken.digests, "loader": digest})
    found = replay_in_process(claiming(evidence, checkpoints=(taken, *others)), loop)
    assert [part.component for part in found.partings] == ["loader"]


def test_streams_that_are_seeded_once_the_objects_are_wrapped(tmp_path: Path) -> None:
    """Where they stood before is chance, there and here: two runs of the command say so."""
    loop = Unseeded(tmp_path / "out", late=True)
    loop()
    found = replay_in_process(read(loop.out), loop)
    assert (found.equal, found.runs) == (True, 2)


def test_another_number_of_workers_changes_no_verdict(tmp_path: Path) -> None:
    loop = Unseeded(tmp_path / "out", workers=1)
    loop()
    found = replay_in_process(read(loop.out), replace(loop, workers=2))
    assert (found.equal, found.checkpoints) == (True, 3)


def test_a_position_of_a_loader_that_is_set_up_otherwise_is_not_counted(tmp_path: Path) -> None:
    loop = Unseeded(tmp_path / "out", workers=1)
    loop()
    name = shift_position(loop.out)
    evidence = read(loop.out)
    digest = evidence.sections(name)["loader"].commitment
    taken, *others = rank(evidence).checkpoints
    taken = replace(taken, digests={**taken.digests, "loader": digest})
    claimed = claiming(evidence, checkpoints=(taken, *others))
    found = replay_in_process(claimed, replace(loop, workers=2))
    assert (found.equal, found.checkpoints) == (True, 2)
    assert not replay_in_process(claimed, loop).equal


# The parts of a data position

POSITION = (
    b'{"$":"dict","keys":["epoch","start"],"values":[%d,{"$":"dict","keys":'
    b'["rng/numpy","rng/torch"],"values":[%d,%d]}]}'
)


def parts(*numbers: int) -> dict[str, str]:
    return position_digests(POSITION % numbers, lambda rest: rest)


@pytest.mark.parametrize(
    ("numbers", "differs"),
    [((1, 2, 3), set()), ((4, 2, 3), {""}), ((1, 4, 3), {"rng/numpy"}), ((1, 2, 4), {"rng/torch"})],
)
def test_parts_differ_by_themselves(numbers: tuple[int, ...], differs: set[str]) -> None:
    one, other = parts(1, 2, 3), parts(*numbers)
    assert {name for name in one if one[name] != other[name]} == differs


@pytest.mark.parametrize(
    ("text", "epoch"),
    [
        (POSITION % (1, 2, 3), 1),
        (b"null", None),
        (b"[1]", None),
        (b"{", None),
        (b'{"$":"dict","keys":["epoch"],"values":[]}', None),
        (b'{"$":"dict","keys":["epoch"],"values":["1"]}', None),
        (b'{"$":"dict","keys":[["epoch"],"epoch"],"values":[1,2]}', 2),
    ],
)
def test_the_epoch_of_any_bytes(text: bytes, epoch: int | None) -> None:
    assert epoch_of(text) == epoch


def killed(loop: Unseeded) -> str:
    """Run a loop whose process dies at its end; closed afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("auditkit.recorder.recording.RecordingBackend._finish", lambda *_: None)
        patch.setattr(ak.Recorder, "checkpoint", lambda *_: None)
        loop()
    assert close_recording(loop.out, SigningKey(generate_key(), "", "")).ranks[0].final == {}
    return str(loop.out)


@pytest.mark.parametrize(("late", "named"), [(False, set()), (True, {"rng/python"})])
def test_of_a_killed_process_the_rows_say_what_nobody_drew_from(
    tmp_path: Path, late: bool, named: set[str]
) -> None:
    loop = Unseeded(tmp_path / "one", late=late)
    paths = [killed(loop), killed(replace(loop, out=tmp_path / "two"))]
    assert replay_in_process(read(loop.out), loop).equal
    texts = {f"rank 0: {name}: start" for name in named}
    assert {one.name for one in compare_runs(*paths).fields} == texts
