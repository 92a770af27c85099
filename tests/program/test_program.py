from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_programs
import torch
from tiny_programs import Numbers, small_net
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from auditkit.errors import AuditError, ProgramError, ProgramFailed, UnknownArgument
from auditkit.program.probe import Probe
from auditkit.program.program import LoadedFactory, Program, load_factory, program_failure

BATCH = torch.ones(2, 4)


def program(**changes: Any) -> Program:
    model = changes.pop("model", None) or small_net()
    defaults: dict[str, Any] = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        "loader": DataLoader(Numbers()),
        "loss": lambda model, batch: model(batch).square().mean(),
        "probe": Probe(torch.ones(3, 4), torch.tensor([0, 1, 2])),
    }
    return Program(**{**defaults, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": None}, "Program.optimizer has the wrong type"),
        ({"loader": iter([1])}, "Program.loader has the wrong type"),
        ({"loader": Numbers()}, "Program.loader has the wrong type"),
        ({"loader": {"a": 1}}, "Program.loader has the wrong type"),
        ({"probe": None}, "Program.probe has the wrong type"),
        ({"loss": None}, "needs loss="),
        ({"scheduler_interval": "batch"}, "'step' or 'epoch'"),
        ({"accumulate": 0}, "of 1 to 1000000000"),
        (
            {"optimizer": torch.optim.SGD(nn.Linear(1, 1).parameters())},
            "holds no parameter of the model",
        ),
    ],
)
def test_what_is_no_program_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ProgramError, match=words):
        program(**changes)


@pytest.mark.parametrize(
    "changes", [{}, {"scheduler_interval": "epoch", "step": lambda program, batch, t: None}]
)
def test_a_scheduler_that_needs_a_metric_is_refused(changes: dict[str, Any]) -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters())
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(ProgramError, match="metric"):
        program(model=model, optimizer=optimizer, scheduler=plateau, **changes)
    with_step = program(
        model=model, optimizer=optimizer, scheduler=plateau, step=lambda program, batch, t: None
    )
    assert with_step.train_on(BATCH, 1) is None


@pytest.mark.parametrize(
    "labels", [torch.ones(3), torch.ones(2, 2, 2).long(), torch.ones(0).long()]
)
def test_probe_labels_must_be_class_indices(labels: Tensor) -> None:
    with pytest.raises(ProgramError, match="class index"):
        Probe(torch.ones(3, 4), labels)


def test_probe_labels_become_int64() -> None:
    octets, numbers = torch.tensor([1, 0], dtype=torch.uint8), [1, 0]
    assert Probe(None, octets).known_labels.dtype is torch.int64
    assert Probe(None, numbers).known_labels.tolist() == [1, 0]  # type: ignore[arg-type]


def test_labels_by_position_that_are_left_out_are_no_labels() -> None:
    probe = Probe(None, torch.tensor([[-1, 2], [1, -1]]), ignore_index=-1)
    assert probe.by_position
    assert probe.known_labels.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("labels", "says"), [([[-1, -1]], "every label"), ([[-1, -100, 2]], "no class index")]
)
def test_labels_by_position_that_say_nothing_are_refused(labels: Any, says: str) -> None:
    with pytest.raises(ProgramError, match=says):
        Probe(None, labels, ignore_index=-1)


@pytest.mark.parametrize(("labels", "given"), [([0, 1, 2], {"ignore_index": 2}), ([0, -100], {})])
def test_labels_of_rows_are_not_left_out(labels: Any, given: Any) -> None:
    with pytest.raises(ProgramError, match="leaves out positions and no rows"):
        Probe(None, labels, **given)
    assert Probe(None, [0, 1, 1], ignore_index=2).known_labels.tolist() == [0, 1, 1]  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, "4", 1.5, True])
def test_rows_at_once_are_a_whole_number(size: Any) -> None:
    with pytest.raises(ProgramError, match="batch_size must be a whole number"):
        Probe(None, batch_size=size)
    assert [rows for rows, _ in Probe(torch.ones(3, 1), batch_size=np.int64(2)).slices()] == [  # type: ignore[arg-type]
        slice(0, 2),
        slice(2, 4),
    ]


def test_the_default_step_is_the_usual_loop() -> None:
    first, second = (program(model=nn.Sequential(nn.Linear(4, 2))) for _ in range(2))
    second.model.load_state_dict(first.model.state_dict())
    for t in range(1, 4):
        loss = first.train_on(BATCH, t)
        expected = second.model(BATCH).square().mean()
        expected.backward()
        second.optimizer.step()
        second.optimizer.zero_grad()
        assert loss == expected.item()
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_accumulation_averages_and_reports_the_whole_loss() -> None:
    one = program(model=nn.Sequential(nn.Linear(4, 2)), accumulate=2)
    weight = next(one.model.parameters())
    before = weight.detach().clone()
    full = one.train_on(BATCH, 1)
    assert torch.equal(weight, before)
    half = next(p.grad.clone() for p in one.model.parameters() if p.grad is not None)
    assert one.train_on(BATCH, 2) == full
    assert [p.grad for p in one.model.parameters()] == [None, None]
    assert torch.allclose(weight.detach(), before - 0.1 * 2 * half)


def test_clipping_with_and_without_a_scaler() -> None:
    for scaler in (None, torch.amp.GradScaler("cpu")):
        one = program(
            model=nn.Sequential(nn.Linear(4, 2)), clip_grad_norm=1e-3, scaler=scaler, loss=_large
        )
        before = [p.detach().clone() for p in one.model.parameters()]
        one.train_on(BATCH, 1)
        moved = sum(
            float((p.detach() - q).square().sum())
            for p, q in zip(one.model.parameters(), before, strict=True)
        )
        assert moved**0.5 == pytest.approx(0.1 * 1e-3, rel=1e-3)


def _large(model: nn.Module, batch: Tensor) -> Any:
    return model(batch).square().mean() * 1000


def test_schedulers_and_averages_follow_the_optimizer() -> None:
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    average = AveragedModel(model)
    one = program(
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        averaged={"swa": average, "frozen": nn.Linear(1, 1)},
        accumulate=2,
    )
    for t in range(1, 5):
        one.train_on(BATCH, t)
    one.end_epoch(0)
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert average.n_averaged.item() == 2


def test_epoch_schedulers_and_hooks() -> None:
    ended: list[int] = []
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    one = program(
        model=model,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5),
        scheduler_interval="epoch",
        on_epoch_end=lambda program, epoch: ended.append(epoch),
    )
    one.train_on(BATCH, 1)
    assert optimizer.param_groups[0]["lr"] == 1
    one.end_epoch(3)
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert ended == [3]


@pytest.mark.parametrize(
    ("result", "loss"), [(None, None), (2, 2.0), (torch.tensor([0.5]), 0.5), (0.25, 0.25)]
)
def test_a_step_of_its_own(result: Any, loss: float | None) -> None:
    seen: list[int] = []

    def step(program: Program, batch: Any, t: int) -> Any:
        seen.append(t)
        return result

    assert program(step=step, loss=None).train_on(BATCH, 7) == loss
    assert seen == [7]


# -- factories ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of programs; what they import is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


TEXT = Path(tiny_programs.__file__).read_text()


def test_a_file_is_loaded_with_its_plan(folder: Path) -> None:
    (folder / "tiny_copy.py").write_text(TEXT)
    loaded = load_factory("tiny_copy.py", folder)
    assert loaded.name == "make_program"
    assert loaded.plan == tiny_programs.STUDY
    assert sys.modules["tiny_copy"] is loaded.module
    assert sys.path[0] == str(folder)
    assert isinstance(loaded.build(0, {"hidden": "3"}), Program)
    again = load_factory("tiny_copy.py:make_program", folder)
    assert again.module is not loaded.module
    assert sys.path.count(str(folder)) == 1


def test_a_module_of_a_package_is_loaded(folder: Path) -> None:
    (folder / "tiny_package").mkdir()
    (folder / "tiny_package" / "__init__.py").touch()
    (folder / "tiny_package" / "study.py").write_text("def make(seed): ...\n")
    loaded = load_factory("tiny_package.study:make", folder)
    assert loaded.plan is None
    assert loaded.module.__name__ == "tiny_package.study"


def test_neighbours_can_be_imported(folder: Path) -> None:
    (folder / "tiny_neighbour.py").write_text("X = 3\n")
    (folder / "tiny_with.py").write_text(
        "from tiny_neighbour import X\ndef make_program(seed): return X\n"
    )
    found: object = load_factory("tiny_with.py", folder).make(0)
    assert found == 3


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        ("missing.py", ProgramError, "no such program file"),
        ("missing_module:make", ProgramError, "no such module"),
        ("tiny_file.py:nothing", ProgramError, "no function 'nothing'"),
        ("tiny_file.py:STUDY", ProgramError, "no function 'STUDY'"),
        ("tiny_file.py", ProgramError, "STUDY must be"),
        ("tiny_raises.py", ProgramFailed, r"tiny_raises.py:1: importing .* ValueError: no"),
        ("tiny_syntax.py", ProgramFailed, "SyntaxError"),
        ("tiny_imports.py", ProgramFailed, "ModuleNotFoundError"),
        ("tiny_imports:make", ProgramFailed, "ModuleNotFoundError"),
        ("json.py", ProgramError, "cannot be called json.py"),
        ("torch.py", ProgramError, "cannot be called torch.py"),
    ],
)
def test_what_cannot_be_loaded_is_said(
    folder: Path, target: str, error: type[AuditError], words: str
) -> None:
    (folder / "tiny_file.py").write_text("STUDY = 3\ndef make_program(seed): ...\n")
    (folder / "tiny_raises.py").write_text("raise ValueError('no')\n")
    (folder / "tiny_syntax.py").write_text("def (\n")
    (folder / "tiny_imports.py").write_text("import tiny_not_there\n")
    for taken in ("json.py", "torch.py"):
        (folder / taken).write_text("")
    with pytest.raises(error, match=words) as caught:
        load_factory(target, folder)
    assert type(caught.value) is error
    assert "tiny_raises" not in sys.modules


def _loaded(make: Callable[..., Any]) -> LoadedFactory:
    return LoadedFactory(make, sys.modules[__name__], "make", None)


def test_arguments_reach_the_factory() -> None:
    found = []

    def make(seed: int, data: str = "a", **more: str) -> Program:
        found.append((seed, data, more))
        return program()

    _loaded(make).build(3, {"data": "x", "other": "y"})
    assert found == [(3, "x", {"other": "y"})]


def _refuses(seed: int) -> Program:
    return program(accumulate=0)


def _raises(seed: int, data: str = "") -> Program:
    raise OSError("no data")


def _returns(seed: int) -> int:
    return seed


@pytest.mark.parametrize(
    ("make", "arguments", "error", "words"),
    [
        (_raises, {"date": "x"}, UnknownArgument, "takes no argument 'date'"),
        (_raises, {"seed": "1"}, UnknownArgument, "takes no argument 'seed'"),
        (lambda seed, **more: None, {"seed": "1"}, UnknownArgument, "takes no argument 'seed'"),
        (_raises, {}, ProgramFailed, "raised OSError: no data"),
        (_refuses, {}, ProgramError, "of 1 to 1000000000"),
        (_returns, {}, ProgramError, "returned no Program"),
    ],
)
def test_factories_that_fail(
    make: Any, arguments: dict[str, str], error: type[AuditError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        _loaded(make).build(0, arguments)
    assert type(caught.value) is error


def test_failures_name_the_place_and_no_folder() -> None:
    try:
        _raises(0)
    except OSError as error:
        message = str(program_failure(error, "the factory"))
    assert message.startswith("test_program.py:")
    assert str(Path.cwd()) not in message
