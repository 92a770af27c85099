"""The folder of a run: who may write there, what is whole, and every way to be killed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_shell import content, timeless
from record_examples import ENVIRONMENT
from studies import PLAN, Run, check_files, study_in_process

from auditkit.diagnose.run_list import find_runs
from auditkit.errors import FormatError, StoreError, UnsafePath
from auditkit.files import artifacts, store
from auditkit.files.run_folder import Journal, RunFolder
from auditkit.files.run_parts import BranchPart, TrunkPart, steps_left
from auditkit.formats import canonical
from auditkit.records.job import ProgramSource
from auditkit.records.manifest import CodeFile
from auditkit.records.plan import StudyPlan
from auditkit.signing.keys import PrivateKey

SOURCE = ProgramSource("tiny_study.py:make_program", "/somewhere", {"data": "map"})

#: Fields of a journal that no test here is about.
OTHERS: dict[str, Any] = {
    "started": "2026-01-01T00:00:00Z",
    "plan_sha256": None,
    "code": (),
    "data": {},
    "built": None,
    "environment": ENVIRONMENT,
    "seeds": (0,),
}


class KilledError(BaseException):
    """The process was killed at this moment: nothing of it runs any more."""


def begin(
    path: Path,
    plan: StudyPlan = PLAN,
    source: ProgramSource = SOURCE,
    *,
    resume: bool = False,
    **others: Any,
) -> str:
    """Claim a folder."""
    fields: dict[str, Any] = {**OTHERS, "seeds": plan.seeds}
    known = path / "run.json.partial"
    if known.exists():  # what is not said to be another is the same
        told = canonical.decode(Journal, known.read_bytes(), what="journal")
        fields |= {name: getattr(told, name) for name in fields if name != "started"}
    folder = RunFolder(path)
    folder.require_free(resume=resume)
    store.make_folder(path)
    arguments = dict(source.arguments)
    return folder.begin(Journal(plan, source.target, arguments, **(fields | others)))


@pytest.fixture(scope="module")
def unpublished(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Path:
    """A run whose seed is complete, killed just before the first file got its final name."""
    out = tmp_path_factory.mktemp("unpublished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "publish", _kill)
        with pytest.raises(KilledError):
            study_in_process(out, key)
    return out


def _kill(*_: Any) -> None:
    raise KilledError


@pytest.fixture
def interrupted(unpublished: Path, tmp_path: Path) -> Path:
    """A copy of that run."""
    shutil.copytree(unpublished, tmp_path / "run")
    return tmp_path / "run"


def source_of(run: Path) -> ProgramSource:
    """The program that a run was started with."""
    journal = json.loads((run / "run.json.partial").read_bytes())
    return ProgramSource(journal["target"], "/elsewhere", journal["arguments"])


def journal_of(run: Path) -> Journal:
    """What a run was started as."""
    return canonical.decode(Journal, (run / "run.json.partial").read_bytes(), what="journal")


def plan_of(run: Path) -> StudyPlan:
    """The plan that a run was started with."""
    return journal_of(run).plan


# Claiming a folder


def test_a_new_folder_is_made_and_claimed_by_a_journal_without_the_programs_place(
    tmp_path: Path,
) -> None:
    out = tmp_path / "new" / "run"
    assert begin(out) == "2026-01-01T00:00:00Z"
    assert artifacts.list_files(out) == ["run.json.partial"]
    assert b"somewhere" not in (out / "run.json.partial").read_bytes()


def test_an_empty_folder_is_claimed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    begin(tmp_path)
    assert artifacts.list_files(tmp_path) == ["run.json.partial"]


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "sub/deep.txt", "x.partial"])
def test_a_folder_with_anything_else_is_left_alone(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("precious")
    for resume in (False, True):
        with pytest.raises(StoreError, match=f"the folder is not empty: it holds '{name}'"):
            begin(tmp_path, resume=resume)
    assert artifacts.list_files(tmp_path) == [name]


@pytest.mark.parametrize("resume", [False, True])
def test_a_finished_run_is_never_touched(small: Run, resume: bool) -> None:
    before = content(small.folder)
    with pytest.raises(StoreError, match="the folder holds a finished run; give another --out"):
        begin(small.folder, resume=resume)
    assert content(small.folder) == before


@pytest.mark.parametrize("below", ["seed-0000", "code", "code/inner"])
def test_a_run_follows_no_link_that_somebody_laid_into_its_folder(
    tmp_path: Path, below: str
) -> None:
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
    elsewhere.mkdir()
    begin(out)
    (out / below).parent.mkdir(exist_ok=True)
    (out / below).symlink_to(elsewhere)
    with pytest.raises(UnsafePath, match=f"a link lies in the folder: {below}"):
        begin(out)


def test_a_file_in_the_folders_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious")
    with pytest.raises(StoreError, match="cannot make the folder"):
        begin(tmp_path / "out")
    assert (tmp_path / "out").read_text() == "precious"


def test_a_run_without_a_complete_seed_is_started_anew_with_any_plan(tmp_path: Path) -> None:
    begin(tmp_path)
    store.make_folder(tmp_path / "seed-0000")
    (tmp_path / "seed-0000" / "fork.safetensors.partial").write_bytes(b"half")
    begin(tmp_path, replace_horizon(PLAN, 20))
    assert plan_of(tmp_path).horizon == 20


def replace_horizon(plan: StudyPlan, horizon: int) -> StudyPlan:
    """The same plan with another horizon."""
    return StudyPlan(
        plan.fork_at, plan.window, horizon, plan.seeds, plan.perturbations, plan.placebos
    )


def test_two_runs_never_write_into_one_folder_at_a_time(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "out")
    with folder.locked():
        begin(folder.path)
        with pytest.raises(StoreError, match="another process is writing here"), folder.locked():
            raise AssertionError
        assert (folder.path / "run.json.partial").exists()
    assert artifacts.list_files(folder.path) == ["run.json.partial"]


def test_the_lock_of_a_run_that_was_killed_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "run.lock.partial").touch()
    with RunFolder(tmp_path).locked():
        begin(tmp_path)
    assert artifacts.list_files(tmp_path) == ["run.json.partial"]


# Going on


def test_a_run_with_a_complete_seed_is_only_gone_on_with_when_asked_to(interrupted: Path) -> None:
    plan, source = plan_of(interrupted), source_of(interrupted)
    before = content(interrupted)
    with pytest.raises(
        StoreError,
        match="an unfinished run: 1 of 1 seeds complete; go on with --resume",
    ):
        begin(interrupted, plan, source)
    started = json.loads((interrupted / "run.json.partial").read_bytes())["started"]
    assert begin(interrupted, plan, source, resume=True) == started
    assert content(interrupted) == before


@pytest.mark.parametrize("text", [b"", b'{"plan": 3}'], ids=["no JSON", "no journal"])
def test_a_damaged_journal_is_called_that_and_has_a_remedy(interrupted: Path, text: bytes) -> None:
    other = Journal(plan_of(interrupted), "", {}, **OTHERS)
    assert [run.state for run in find_runs(interrupted)] == ["resumable"]
    journal = interrupted / "run.json.partial"
    journal.write_bytes(text)
    before = content(interrupted)
    with pytest.raises(FormatError, match=r"is damaged: .*; put it back from a copy, or") as caught:
        RunFolder(interrupted).require_same(other)
    assert caught.value.where == str(journal)
    with pytest.raises(FormatError, match="put it back"):
        RunFolder(interrupted).require_free(resume=False)
    assert content(interrupted) == before
    assert [run.state for run in find_runs(interrupted)] == ["broken"]


def test_another_plan_target_or_argument_is_refused(interrupted: Path) -> None:
    plan, source = plan_of(interrupted), source_of(interrupted)
    others: list[tuple[str, StudyPlan, ProgramSource]] = [
        (
            f"another plan: horizon: {plan.horizon} there, 20 here; seeds: 0 there, 0-1 here",
            replace(replace_horizon(plan, 20), seeds=(0, 1)),
            source,
        ),
        (
            "another target: tiny_study.py:make_program there, other.py:make_program here",
            plan,
            replace(source, target="other.py:make_program"),
        ),
        (
            "other arguments: data: none there, iterable here; more: none there, 1 here",
            plan,
            replace(source, arguments={"data": "iterable", "more": "1"}),
        ),
    ]
    for said, other_plan, other_source in others:
        with pytest.raises(StoreError, match=f"the unfinished run has {said}; --resume"):
            begin(interrupted, other_plan, other_source, resume=True)


def test_a_program_data_or_environment_that_changed_since_is_refused_naming_it(
    interrupted: Path,
) -> None:
    plan, source = plan_of(interrupted), source_of(interrupted)
    journal = journal_of(interrupted)
    known = Journal.__dataclass_fields__.keys() - {"plan", "target", "arguments"}
    same = {name: getattr(journal, name) for name in known}
    assert begin(interrupted, plan, source, resume=True, **same) == journal.started
    assert journal.built is not None
    others: list[tuple[dict[str, Any], str]] = [
        ({"code": (CodeFile("tiny_study.py", "0" * 64),)}, "tiny_study.py has changed since"),
        (
            {"built": replace(journal.built, initial={**journal.built.initial, "params": "0"})},
            "the program now makes another params than when the run was stopped",
        ),
        (
            {"environment": replace(journal.environment, python="2.7.18")},
            "the environment has changed since the run was stopped: python: CPython ",
        ),
        ({"extends_sha256": "0" * 64}, "has another extends_sha256"),
    ]
    for change, text in others:
        with pytest.raises(StoreError, match=text):
            begin(interrupted, plan, source, resume=True, **{**same, **change})


def test_data_that_changed_since_are_refused_by_name(tmp_path: Path) -> None:
    begin(tmp_path, data={"data/root/train.bin": "1" * 64})
    store.make_folder(tmp_path / "seed-0000")
    (tmp_path / "seed-0000" / "trunk.json.partial").write_bytes(b"a note of something")
    begin(tmp_path, resume=True, data={"data/root/train.bin": "1" * 64, "more": "2" * 64})
    with pytest.raises(StoreError, match=r"data/root/train\.bin has changed since the run was"):
        begin(tmp_path, resume=True, data={"data/root/train.bin": "2" * 64})


def complete(run: Path) -> tuple[TrunkPart | None, dict[str, BranchPart]]:
    """The complete parts of seed 0."""
    parts = RunFolder(run).parts(0)
    return parts.trunk(), parts.branches(plan_of(run).branch_names[1:])


def test_complete_parts_are_found_and_only_they(interrupted: Path) -> None:
    trunk, branches = complete(interrupted)
    assert trunk is not None
    assert list(branches) == list(plan_of(interrupted).branch_names[1:])
    kept: list[TrunkPart | BranchPart] = [trunk, *branches.values()]
    files = [file for part in kept for file in part.files]
    assert len({file.name for file in files}) == len(files)
    assert all((interrupted / f"{file.name}.partial").is_file() for file in files)
    assert RunFolder(interrupted).parts(1).trunk() is None
    assert RunFolder(interrupted).progress() == "1 of 1 seeds complete"


def test_progress_counts_the_branches_of_a_seed_that_is_not_complete(interrupted: Path) -> None:
    (interrupted / "seed-0000" / "carry.json.partial").unlink()
    n_branches = len(plan_of(interrupted).branch_names) - 1
    assert RunFolder(interrupted).progress() == (
        f"0 of 1 seeds complete; seed 0: trunk and {n_branches - 1} of {n_branches} branches"
    )
    plan = plan_of(interrupted)
    of_branch = plan.horizon - plan.fork_at
    assert steps_left(interrupted, plan, [0, 1]) == {0: of_branch, 1: plan.seed_steps}
    assert RunFolder(interrupted).has_parts
    RunFolder(interrupted).parts(0).discard()
    assert not RunFolder(interrupted).has_parts
    assert RunFolder(interrupted).progress() == "0 of 1 seeds complete"
    assert steps_left(interrupted, plan, [0]) == {0: plan.seed_steps}
    assert RunFolder(interrupted.parent / "nothing").progress() == ""


def test_steps_are_left_of_every_fork(tmp_path: Path) -> None:
    plan = StudyPlan([3, 5], 2, 9, [0], ["carry"], placebos=1)
    folders = [tmp_path / f"seed-0000-fork-{fork}" for fork in plan.forks]
    for folder in folders:
        folder.mkdir()
        (folder / "trunk.json.partial").touch()
    (folders[1] / "replica.json.partial").touch()
    assert steps_left(tmp_path, plan, [0]) == {0: 3 * (9 - 3) + 2 * (9 - 5)}
    (folders[0] / "trunk.json.partial").unlink()
    assert steps_left(tmp_path, plan, [0]) == {0: plan.seed_steps}


def flip(path: Path) -> None:
    """Change one bit."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    """Lose the last byte."""
    path.write_bytes(path.read_bytes()[:-1])


def link(path: Path) -> None:
    """Let it be a link to the same content."""
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink, link], ids=lambda d: d.__name__)
@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("seed-0000/fork.safetensors.partial", {"trunk"}),
        ("seed-0000/carry.trace.safetensors.partial", {"carry"}),
        ("code/tiny_study.py.partial", {"trunk", "carry", "replica"}),
        ("seed-0000/trunk.json.partial", {"trunk"}),
        ("seed-0000/carry.json.partial", {"carry"}),
    ],
)
def test_a_part_with_a_damaged_file_is_run_again_and_no_other(
    interrupted: Path, name: str, lost: set[str], damage: Callable[[Path], None]
) -> None:
    damage(interrupted / name)
    if damage is link and ".json." in name:
        return  # a note may lie anywhere; what it lists may not
    trunk, branches = complete(interrupted)
    kept = {"trunk": trunk is not None, "carry": "carry" in branches}
    kept["replica"] = "replica" in branches
    assert {part for part, is_kept in kept.items() if not is_kept} == lost


def test_a_note_that_lists_a_path_outside_the_folder_is_no_complete_part(
    interrupted: Path,
) -> None:
    note = interrupted / "seed-0000" / "trunk.json.partial"
    told = json.loads(note.read_bytes().splitlines()[0])
    told["files"][0]["name"] = "../outside"
    text = json.dumps(told)
    note.write_text(f"{text}\n{hashlib.sha256(text.encode()).hexdigest()}")
    assert complete(interrupted)[0] is None


def test_a_note_under_the_name_of_another_part_is_no_note_of_it(interrupted: Path) -> None:
    folder = interrupted / "seed-0000"
    shutil.copy(folder / "carry.json.partial", folder / "replica.json.partial")
    trunk, branches = complete(interrupted)
    assert trunk is not None
    assert "carry" in branches
    assert "replica" not in branches
    shutil.copytree(folder, interrupted / "seed-0001")
    assert RunFolder(interrupted).parts(1).trunk() is None
    assert RunFolder(interrupted).parts(1).branches(["carry"]) == {}


def test_a_file_that_was_written_anew_counts_more_than_one_that_was_published(
    interrupted: Path,
) -> None:
    trunk, branches = complete(interrupted)
    assert trunk is not None
    stale = interrupted / "seed-0000" / "fork.safetensors"
    stale.write_bytes(b"of a run that was killed while it published")
    assert complete(interrupted) == (trunk, branches)
    parts = RunFolder(interrupted).parts(0)
    assert parts.keep_trunk(trunk.result) == trunk
    assert parts.keep_branch(branches["carry"].result) == branches["carry"]


# Publishing


def operations(monkeypatch: pytest.MonkeyPatch, survive: int) -> list[str]:
    """Let the process be killed after so many changes of the folder; lists those made."""
    made: list[str] = []

    def counting(name: str) -> Callable[..., None]:
        real = getattr(store, name)

        def change(path: Path, *others: Any) -> None:
            if len(made) == survive:
                raise KilledError
            made.append(f"{name} {Path(path).name}")
            real(path, *others)

        return change

    for name in ("rename", "write_bytes", "remove"):
        monkeypatch.setattr(store, name, counting(name))
    return made


@pytest.fixture
def publishing(
    interrupted: Path, small: Run, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], list[str]]:
    """Publishes the run as the small honest one, to be killed after so many changes."""

    def publish(survive: int) -> list[str]:
        last = {name: (small.folder / name).read_bytes() for name in ("signer.pub",)}
        last["manifest.json"] = small.path.read_bytes()
        with monkeypatch.context() as patch:
            made = operations(patch, survive)
            try:
                RunFolder(interrupted).publish(small.manifest.files, last)
            except KilledError:
                assert len(made) == survive
        return made

    return publish


def test_publishing_leaves_the_listed_files_and_nothing_partial(
    publishing: Callable[[int], list[str]], interrupted: Path, small: Run
) -> None:
    made = publishing(10_000)
    assert made.index("write_bytes manifest.json") > max(
        n for n, change in enumerate(made) if change.startswith("rename")
    )
    assert made[-1] == "remove run.json.partial"
    there = [name for name in artifacts.list_files(small.folder) if name != "report.json"]
    assert artifacts.list_files(interrupted) == there
    assert check_files(Run(interrupted, small.key), strict=True).exit_code == 0


def test_a_run_that_is_killed_at_any_moment_of_publishing_is_whole_or_can_be_finished(
    publishing: Callable[[int], list[str]], interrupted: Path, small: Run, tmp_path: Path
) -> None:
    shutil.copytree(interrupted, tmp_path / "before")
    plan, source = plan_of(interrupted), source_of(interrupted)
    n_changes = len(publishing(10_000))
    for survive in range(n_changes):
        shutil.rmtree(interrupted)
        shutil.copytree(tmp_path / "before", interrupted)
        publishing(survive)
        if (interrupted / "manifest.json").exists():
            assert check_files(Run(interrupted, small.key)).exit_code == 0
            with pytest.raises(StoreError, match="finished run"):
                begin(interrupted, plan, source, resume=True)
        else:
            assert begin(interrupted, plan, source, resume=True)
            assert complete(interrupted)[0] is not None
            publishing(10_000)
        assert check_files(Run(interrupted, small.key), strict=True).exit_code == 0
        assert content(interrupted) == content(small.folder)
        assert timeless(interrupted / "manifest.json") == timeless(small.path)


def test_a_finished_run_without_its_journal_is_not_tidied(small: Run, tmp_path: Path) -> None:
    shutil.copytree(small.folder, tmp_path / "run")
    (tmp_path / "run" / "mine.partial").write_text("precious")
    with pytest.raises(StoreError, match="finished run"):
        begin(tmp_path / "run")
    assert (tmp_path / "run" / "mine.partial").exists()
