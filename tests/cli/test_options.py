"""Values of options: what is read, and what is refused with the reason."""

from __future__ import annotations

from inspect import signature
from os.path import normpath
from pathlib import Path

import pytest

from auditkit.cli.options import (
    default_jobs,
    parse_arguments,
    parse_seeds,
    split_target,
)
from auditkit.cli.study_plans import overrides
from auditkit.errors import PlanError, UsageError
from auditkit.formats.redaction import expand_home, redact_path
from auditkit.records.plan import StudyPlan


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0-7", (0, 1, 2, 3, 4, 5, 6, 7)),
        ("1,3,5-7", (1, 3, 5, 6, 7)),
        ("4", (4,)),
        (" 1 , 2 ", (1, 2)),
        ("2,1", (2, 1)),
        ("3-3", (3,)),
        ("9007199254740993", (2**53 + 1,)),
    ],
)
def test_seeds_are_ranges_and_single_numbers_in_the_given_order(
    text: str, seeds: tuple[int, ...]
) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", ",", "1,", "a", "1-", "-1", "1-2-3", "0x1", "1.5", "1..3"])
def test_seeds_that_are_no_numbers_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="takes whole numbers, such as 5, 0-7 or 1,3,5"):
        parse_seeds(text)


@pytest.mark.parametrize("text", ["7-0", "0-99999999999"])
def test_a_range_that_runs_backwards_or_never_ends_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no range"):
        parse_seeds(text)


def test_forks_are_a_number_or_a_list_of_them() -> None:
    study = StudyPlan([2, 4], 3, 9, [0], ["carry"])
    rest = dict.fromkeys(signature(overrides).parameters) | {"perturb": (), "margins": ()}

    def forks(text: str | None) -> tuple[int, ...]:
        given = overrides(**{**rest, "fork_at": text})  # type: ignore[arg-type]
        return study.changed(**given).forks

    assert forks(None) == (2, 4)
    assert forks("3") == (3,)
    assert forks("1,3,5-6") == (1, 3, 5, 6)
    with pytest.raises(UsageError, match=r"--fork-at takes whole numbers.*not 'soon'"):
        forks("soon")
    with pytest.raises(PlanError, match="fork_at: step 3 stands after 5"):
        forks("5,3")


def test_further_steps_override_those_of_the_study_and_none_takes_them_away() -> None:
    study = StudyPlan(3, 3, 9, [0], ["carry"], probe_at=[5])
    nothing = dict.fromkeys(("fork_at", "window", "horizon", "seeds", "placebos", "placebo_scale"))
    nothing |= dict.fromkeys(
        (
            *("primary_metric", "threads", "causal_break", "design"),
            *("evidence_every", "evidence_digest", "segments"),
        )
    )
    rest = {**nothing, "perturb": (), "margins": ()}

    def steps(text: str | None) -> tuple[int, ...]:
        given = overrides(**rest, probe_at=text)  # type: ignore[arg-type]
        return study.changed(**given).probe_at

    assert [steps(text) for text in (None, "4,7-8", "none")] == [(5,), (4, 7, 8), ()]
    with pytest.raises(UsageError, match=r"--probe-at takes whole numbers.*not 'all'"):
        steps("all")
    with pytest.raises(PlanError, match="probe_at: step 9 is no further step"):
        steps("9")


def test_arguments_keep_everything_after_the_first_equals_sign() -> None:
    assert parse_arguments(["a=b=c", "empty="]) == {"a": "b=c", "empty": ""}


@pytest.mark.parametrize("item", ["data", "=x", "a b=c", "1=2", ""])
def test_an_argument_without_a_name_and_a_value_is_refused(item: str) -> None:
    with pytest.raises(UsageError, match="is not name=value"):
        parse_arguments([item])


def test_an_argument_that_is_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="--arg a is given twice"):
        parse_arguments(["a=1", "a=2"])


def test_only_paths_below_the_home_folder_lose_their_user_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    given = ["a=/home/alice/data", "b=/home/alice", "c=/home/alice2/data", "d=x:/home/alice"]
    assert parse_arguments(given) == {
        "a": "~/data",
        "b": "~",
        "c": "/home/alice2/data",
        "d": "x:/home/alice",
    }


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("/srv/../home/alice/x", "~/x"),
        ("/home/./alice//x", "~/x"),
        ("//home/alice/x", "~/x"),
        ("/home/alice/x/", "~/x/"),
        ("/home/alice/", "~/"),
        ("/home/bob/../alice", "~"),
        ("/home/alice/../bob/x", "/home/bob/x"),
        ("/home/alice/../..", "/"),
        ("~/../alice/x", "~/x"),
        ("/data/../set/./x/", "/data/../set/./x/"),  # may be a link, whose .. is elsewhere
        ("/home/alice2/../x", "/home/alice2/../x"),
        ("../x", "../x"),
        ("~", "~"),
        ("~bob/x", "~bob/x"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("home", ["/home/alice", "/home/alice/", "//home/x/../alice"])
def test_no_detour_leads_around_the_removal_of_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, home: str, value: str, kept: str
) -> None:
    monkeypatch.setenv("HOME", home)
    assert redact_path(value) == kept
    if kept != value:  # what is kept still leads to the same place
        assert normpath(expand_home(kept)).lstrip("/") == normpath(expand_home(value)).lstrip("/")


def test_a_home_that_is_everything_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/")
    assert [redact_path(value) for value in ("/", "/data", "x")] == ["/", "/data", "x"]


def test_as_many_seeds_run_at_a_time_as_there_are_cores_and_seeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert default_jobs(threads=1, n_seeds=8) == 6
    assert default_jobs(threads=1, n_seeds=2) == 2
    assert default_jobs(threads=4, n_seeds=8) == 1
    assert default_jobs(threads=16, n_seeds=8) == 1


def test_a_system_that_does_not_tell_its_cores_runs_one_seed_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert default_jobs(threads=1, n_seeds=8) == 1


def test_a_file_is_split_into_its_folder_and_its_factory(tmp_path: Path) -> None:
    program = tmp_path / "my-study.py"
    program.touch()
    assert split_target(str(program)) == ("my-study.py:make_program", str(tmp_path.resolve()))
    assert split_target(f"{program}:other") == ("my-study.py:other", str(tmp_path.resolve()))


def test_a_module_is_looked_up_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert split_target("package.module:make") == ("package.module:make", str(Path.cwd()))
    assert split_target("module") == ("module:make_program", str(Path.cwd()))


@pytest.mark.parametrize("program", ["", ":make", "a b", "../study", "a..b"])
def test_what_is_neither_a_file_nor_a_module_is_refused_with_a_hint(program: str) -> None:
    with pytest.raises(UsageError, match=r"is no program; give FILE.py, FILE.py:NAME or package"):
        split_target(program)


@pytest.mark.parametrize("program", ["nowhere.py", "nowhere.py:make"])
def test_a_file_that_does_not_exist_is_named(program: str) -> None:
    with pytest.raises(UsageError, match=r"no such program file: nowhere.py"):
        split_target(program)
