"""What the Recorder refuses, with the reason, and with everything left as it was."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import loop_styles
import numpy as np
import pytest
import torch
from record_examples import EXAMPLES
from torch import nn
from torch.utils.data import DataLoader

import auditkit as ak
from auditkit.errors import (
    AuditError,
    KeyFileError,
    PlanError,
    ProgramError,
    RecorderMisuse,
    StoreError,
    UncapturedState,
    UnsupportedLoader,
)
from auditkit.files import artifacts
from auditkit.observe.state.components import TrainingObjects
from auditkit.processes.protocol import Connection
from auditkit.recorder.script_jobs import JobBackend
from auditkit.recorder.wrapping import Wrapped, check_kinds
from auditkit.recorder.writer import RecordingStopped
from auditkit.records.job import Job
from auditkit.records.recording import RecordingManifest


@pytest.fixture(autouse=True)
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home and a script of nobody's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)


def objects() -> tuple[nn.Module, torch.optim.Optimizer, DataLoader[Any]]:
    model = loop_styles.network()
    return model, torch.optim.SGD(model.parameters(), lr=0.1), loop_styles.loader_of()


def stranger(model: nn.Module, optimizer: Any, loader: Any) -> tuple[Any, ...]:
    return model, torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1), loader


def lazy(model: nn.Module, optimizer: Any, loader: Any) -> tuple[Any, ...]:
    return nn.LazyLinear(3), optimizer, loader


REFUSED: dict[str, tuple[Callable[..., tuple[Any, ...]], type[AuditError], str]] = {
    "no loader": (lambda m, o, d: (m, o), RecorderMisuse, "was given no loader"),
    "no optimizer": (lambda m, o, d: (m, d), RecorderMisuse, "was given no optimizer"),
    "no model": (lambda m, o, d: (o, d), RecorderMisuse, "was given no model"),
    "a model twice": (lambda m, o, d: (m, o, d, m), RecorderMisuse, "the same model twice"),
    "a loader twice": (lambda m, o, d: (m, o, d, d), RecorderMisuse, "the same loader twice"),
    "something else": (lambda m, o, d: (m, o, d, 3), RecorderMisuse, "argument 4 of wrap is a int"),
    "a list": (lambda m, o, d: (m, o, [1, 2]), UnsupportedLoader, "when a list is iterated"),
    "a mapping": (lambda m, o, d: (m, o, {}), RecorderMisuse, "argument 3 of wrap is a dict"),
    "no shape yet": (lazy, RecorderMisuse, "has no shape yet"),
    "a stranger's optimizer": (stranger, UncapturedState, "neither the model nor an extra"),
    "out of order": (
        lambda m, o, d: (m, o, loop_styles.loader_of(num_workers=2, in_order=False)),
        UnsupportedLoader,
        "in_order=False",
    ),
}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"averaged": nn.Linear(2, 2)}, "averaged of wrap.*a dict, as averaged=.*found .*Linear"),
        ({"extras": [1]}, "extras of wrap.*found list"),
        ({"extras": {1: nn.Linear(2, 2)}}, "a name in extras of wrap.*found 1"),
        (
            {"extras": {"x" * 5000: nn.Linear(2, 2)}},
            "a name in extras of wrap.*1 to 200 characters",
        ),
        ({"averaged": {"ema": 5}}, r"averaged\['ema'\] of wrap.*Module, found int"),
        ({"scheduler": [None, 5]}, "scheduler of wrap.*state_dict.*found int"),
        ({"scaler": torch.amp.GradScaler}, "scaler of wrap.*found the class GradScaler"),
        ({"groups": torch.zeros(2)}, "groups of wrap.*found .*Tensor"),
        ({"probe": torch.zeros(3)}, "probe of wrap.*auditkit.Probe.*found .*Tensor"),
        ({"loss": 0.5}, "loss of wrap.*found float"),
    ],
)
def test_what_wrap_is_given_under_another_name_is_refused(
    tmp_path: Path, given: dict[str, Any], says: str
) -> None:
    with pytest.raises(RecorderMisuse, match=says):
        ak.Recorder(tmp_path / "run").wrap(*objects(), **given)
    assert not (tmp_path / "run").exists()


def test_a_dictionary_of_modules_has_names(tmp_path: Path) -> None:
    named = nn.ModuleDict({"a": nn.Linear(2, 2)})
    check_kinds(
        scheduler=None,
        scaler=None,
        averaged=named,
        extras=named,
        probe=None,
        loss=None,
        groups=None,
    )


@pytest.mark.parametrize("out", ["", "a\0b", b"run", 5, None])
def test_what_is_no_folder_is_refused_at_once(out: Any) -> None:
    with pytest.raises(PlanError, match="out must be a path, not "):
        ak.Recorder(out)
    with pytest.raises(PlanError, match="key must be a path, not ''"):
        ak.Recorder("run", key="")


@pytest.mark.parametrize("name", ["new", "unproven"])
def test_a_flag_is_true_or_false(tmp_path: Path, name: str) -> None:
    for value in ("false", 1, None, np.zeros(2)):
        with pytest.raises(PlanError, match=f"{name} is True or False, not "):
            ak.Recorder.resume(tmp_path / "run", **{name: value})  # type: ignore[arg-type]


def test_a_number_is_nothing_to_iterate(tmp_path: Path) -> None:
    recorder = ak.Recorder(tmp_path / "run")
    with pytest.raises(RecorderMisuse, match=r"epochs takes .*rec.epochs\(range\(30\)\), found 30"):
        list(recorder.epochs(30))  # type: ignore[arg-type]
    with pytest.raises(RecorderMisuse, match=r"enumerate takes .*found None"):
        list(recorder.enumerate(None))  # type: ignore[arg-type]


def test_a_number_without_a_name_is_not_logged(tmp_path: Path) -> None:
    recorder = ak.Recorder(tmp_path / "run")
    with pytest.raises(RecorderMisuse, match=r"log takes numbers by name.*loss=loss.*found float"):
        recorder.log(0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_loop_is_refused(tmp_path: Path, name: str) -> None:
    change, error, message = REFUSED[name]
    loader = loop_styles.loader_of()
    model, optimizer, _ = objects()
    rec = ak.Recorder(tmp_path / "out")
    with pytest.raises(error, match=message):
        rec.wrap(*change(model, optimizer, loader))
    assert type(loader) is DataLoader
    assert not list(tmp_path.glob("out/*"))
    rec.wrap(model, optimizer, loader)  # nothing is in the way of a second, better try
    assert len(list(loader)) == 6
    rec.close()
    assert rec.manifest is not None


def test_extras_must_have_a_state(tmp_path: Path) -> None:
    with pytest.raises(UncapturedState, match="no state_dict"):
        ak.Recorder(tmp_path / "out").wrap(*objects(), extras={"thing": object()})


def test_wrapping_twice_is_refused(tmp_path: Path) -> None:
    given = objects()
    with ak.Recorder(tmp_path / "out") as rec:
        rec.wrap(*given)
        with pytest.raises(RecorderMisuse, match="wrap was called twice"):
            rec.wrap(*objects())
        with pytest.raises(UnsupportedLoader, match="already being recorded"):
            ak.Recorder(tmp_path / "other").wrap(*given)
        for _ in given[2]:
            pass
    with pytest.raises(RecorderMisuse, match="closed"):
        rec.wrap(*objects())


@pytest.mark.parametrize("options", [{}, {"num_workers": 2, "persistent_workers": True}], ids=str)
def test_a_loader_that_is_iterated_already_is_refused(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    model, optimizer, _ = objects()
    loader = loop_styles.loader_of(**options)
    iterator = iter(loader)
    next(iterator)
    rec = ak.Recorder(tmp_path / "out")
    with pytest.raises(UnsupportedLoader, match="is being iterated already"):
        rec.wrap(model, optimizer, loader)
    assert type(loader) is DataLoader
    list(iterator)
    if not options:  # exhausted, it is in nobody's way
        rec.wrap(model, optimizer, loader)
        rec.checkpoint()


def test_a_look_at_the_first_batch_is_no_iteration(tmp_path: Path) -> None:
    model, optimizer, loader = objects()
    next(iter(loader))
    with ak.Recorder(tmp_path / "out") as rec:
        rec.wrap(model, optimizer, loader)
        for _ in loader:
            pass
    assert rec.manifest is not None


def test_before_wrap_there_is_nothing_to_log_or_keep(tmp_path: Path) -> None:
    rec = ak.Recorder(tmp_path / "out")
    for call in (lambda: rec.log(loss=1.0), rec.checkpoint, lambda: rec.step):
        with pytest.raises(RecorderMisuse, match="call wrap"):
            call()
    with pytest.warns(RecordingStopped, match="nothing to record"):
        rec.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"checkpoint_every": -1}, "checkpoint_every must be a whole number of at least 0, not -1"),
        ({"checkpoint_every": "6"}, "checkpoint_every must be a whole number .* not '6'"),
        ({"checkpoint_every": True}, "checkpoint_every must be a whole number .* not True"),
        ({"out": None}, "out must be a path, not None"),
        ({"key": 3}, "key must be a path, not 3"),
        ({"new": "no"}, "new is True or False, not 'no'"),
        ({"evidence_digest": np.zeros(2)}, "unknown evidence_digest"),
        ({"keep_checkpoints": 0}, "keep_checkpoints must be a whole number of at least 1, not 0"),
        ({"keep_checkpoints": 1.5}, "keep_checkpoints must be a whole number .* not 1.5"),
        ({"patience": "60"}, "patience is above 0"),
        ({"seed": "0"}, "seed must be a whole number, not '0'"),
        ({"seed": True}, "not True"),
        ({"seed": 1.5}, "not 1.5"),
        ({"seed": 2**70}, "seed has more than 20 digits"),
    ],
    ids=str,
)
def test_numbers_that_mean_nothing_are_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        ak.Recorder(**{"out": tmp_path / "out", **settings})


@pytest.mark.parametrize("seed", [np.int64(7), -(2**63), 10**20 - 1], ids=str)
def test_a_seed_that_a_manifest_holds_is_recorded(tmp_path: Path, seed: int) -> None:
    with ak.Recorder(tmp_path / "out", seed=seed) as rec:
        for _ in rec.wrap(*objects())[2]:
            pass
    manifest = ak.load_manifest(tmp_path / "out")
    assert isinstance(manifest, RecordingManifest)
    assert manifest.seed == seed


def test_folders_that_cannot_be_written_are_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("precious")
    for out, message in (("file", "make the folder"), ("full", "not empty: it holds 'thesis.tex'")):
        with pytest.raises(StoreError, match=message):
            ak.Recorder(tmp_path / out).wrap(*objects())
    assert (tmp_path / "full" / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize(
    ("make", "what"),
    [(ak.Recorder, "new=True for a new"), (ak.Recorder.resume, "nothing is left to resume")],
)
def test_a_finished_folder_is_refused_with_what_can_be_done(
    tmp_path: Path, make: Callable[..., ak.Recorder], what: str
) -> None:
    with ak.Recorder(tmp_path / "out") as rec:
        for _ in rec.wrap(*objects())[2]:
            pass
    with pytest.raises(StoreError, match=what):
        make(tmp_path / "out").wrap(*objects())


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with ak.Recorder(tmp_path / "out") as rec:
        loader = rec.wrap(*objects())[2]
        with pytest.raises(StoreError, match="another process is writing here"):
            ak.Recorder(tmp_path / "out").wrap(*objects())
        for _ in loader:
            pass
    assert rec.manifest is not None


def test_a_key_that_cannot_be_read_is_told_before_training(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("no key")
    loader = loop_styles.loader_of()
    model, optimizer, _ = objects()
    with pytest.raises(KeyFileError):
        ak.Recorder(tmp_path / "out", key=tmp_path / "key").wrap(model, optimizer, loader)
    assert type(loader) is DataLoader


def test_a_loop_that_never_asks_for_a_batch_gets_no_manifest(tmp_path: Path) -> None:
    with (
        pytest.warns(RecordingStopped, match="no step was recorded"),
        ak.Recorder(tmp_path / "out") as rec,
    ):
        rec.wrap(*objects())
    assert rec.manifest is None
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_what_cannot_be_digested_is_told_at_the_first_batch(tmp_path: Path) -> None:
    model = nn.Embedding(4, 2)
    model.register_buffer("odd", torch.eye(2).to_sparse())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rec = ak.Recorder(tmp_path / "out")
    _, _, loader = rec.wrap(model, optimizer, loop_styles.loader_of())
    with pytest.raises(UncapturedState):
        next(iter(loader))
    with pytest.warns(RecordingStopped):
        rec.close()


def test_nobodys_name_is_in_a_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home" / "jane.doe"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(sys, "argv", ["train.py", str(home / "data"), "--lr", "1"])
    with ak.Recorder(tmp_path / "out", checkpoint_every=2) as rec:
        loop_styles.plain(rec, loop_styles.Log())
    names = [
        name for name in artifacts.list_files(tmp_path / "out") if not name.startswith("code/")
    ]
    assert len(names) > 5
    for name in names:
        data = (tmp_path / "out" / name).read_bytes()
        assert b"jane.doe" not in data, name


def test_a_study_of_a_script_whose_model_is_sharded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auditkit.observe.machine.distributed.is_sharded", lambda _: True)
    model, optimizer, loader = objects()
    wrapped = Wrapped(TrainingObjects(model, optimizer), loader, {})
    (job,) = (one for one in EXAMPLES if isinstance(one, Job) and one.kind == "branches")
    parent, child = socket.socketpair()
    with parent, pytest.raises(ProgramError, match="a branch of a study is one process"):
        JobBackend(wrapped, Connection(child), job)
