"""Perturbations that a study file declares, from its plan to the report of its verification."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from forging import edit_predicate
from studies import (
    PROGRAMS,
    InProcessWorkers,
    Run,
    check,
    failures,
    findings_text,
    result_of,
    study_in_process,
)

from auditkit.cli import main
from auditkit.cli.study_plans import program_plan
from auditkit.errors import ArtifactMismatch, AuditError, PlanError, UnknownPerturbation
from auditkit.evidence.reader import RunEvidence
from auditkit.formats.structure import from_dict, to_dict
from auditkit.perturbations.own import adopted, perturb
from auditkit.records.job import ProgramSource
from auditkit.records.plan import StudyPlan
from auditkit.signing.keys import PrivateKey

OWN = "own_study.py:make_program"
CHANGING = "changing_study.py:make_program"


def planned(folder: Path = PROGRAMS, target: str = OWN, **given: object) -> StudyPlan:
    return program_plan(InProcessWorkers(), ProgramSource(target, str(folder), {}), given)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Run:
    folder = tmp_path_factory.mktemp("own") / "run"
    return study_in_process(folder, key, planned(), OWN)


def test_a_study_files_own_perturbations_verify(run: Run) -> None:
    plan = run.manifest.plan
    assert plan.treatment_names == (
        "momentum-reset",
        "queue-blur--tenths-1",
        "queue-blur--tenths-20",
        "zero-bias",
    )
    assert [(own.name, own.version, own.touches) for own in plan.own_perturbations] == [
        ("queue-blur", 1, ("buffers/queue",)),
        ("zero-bias", 3, ("params",)),
    ]
    assert "own_study.py" in {file.name for file in run.manifest.program.code}
    report = check(run)
    assert report.verdict == "verified", findings_text(report)
    said = result_of(report, 7).summary
    assert "queue-blur is the program's own, judged by what its signed plan declares" in said
    assert "version 3 changes params" in said


def test_they_verify_in_processes_of_their_own(run: Run) -> None:
    report = check(run, fresh=True, replay=1)
    assert report.exit_code == 0, findings_text(report)


@pytest.fixture(scope="module")
def changing(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Run:
    names = ["fade", "fade:tenths=9", "flip", "truncate", "label-noise:fraction=1"]
    plan = planned(
        target=CHANGING,
        fork_at=7,
        window=4,
        horizon=14,
        seeds=[0],
        placebos=1,
        perturbations=names,
    )
    folder = tmp_path_factory.mktemp("changing") / "run"
    return study_in_process(folder, key, plan, CHANGING)


def test_a_study_files_own_changes_of_data_verify(changing: Run) -> None:
    own = changing.manifest.plan.own_perturbations
    assert [(one.name, one.version, one.kind) for one in own] == [
        ("fade", 2, "data"),
        ("flip", 1, "data"),
        ("truncate", 1, "data"),
    ]
    report = check(changing)
    assert report.verdict == "verified", findings_text(report)
    assert "version 2 changes the window's data" in result_of(report, 7).summary
    seed, evidence = changing.manifest.seeds[0], RunEvidence(changing.folder, changing.manifest)
    control = evidence.trace(seed.branches[0].trace)
    drawn = set()
    for branch in seed.branches[3:]:
        trace = evidence.trace(branch.trace)
        differing = [t for t in range(8, 15) if trace.cell(t, "batch") != control.cell(t, "batch")]
        assert differing == [8, 9, 10, 11], branch.name
        assert control.first_unequal(trace, "order", 8, 15) is None
        drawn.add(trace.cell(8, "batch"))
    assert len(drawn) == 5


def test_a_change_of_data_is_no_change_of_state(changing: Run) -> None:
    def edit(predicate: dict[str, Any]) -> None:
        predicate["plan"]["own_perturbations"][1].update(kind="state", touches=["params"])

    edit_predicate(changing, edit)
    assert {6, 7} <= failures(check(changing, replay="none"))


@pytest.mark.parametrize(
    ("does", "words"),
    [
        ("1 / 0", "perturbation mine, step 2 raised ZeroDivisionError"),
        ("object()", "mine: "),
    ],
)
def test_a_change_of_data_that_cannot_be_made_is_refused_before_the_trunk(
    tmp_path: Path, key: PrivateKey, does: str, words: str
) -> None:
    text = f"X = ak.perturb('mine', kind='data', fn=lambda batch, step, generator: {does})"
    folder = written(tmp_path, text)
    plan = planned(folder, "other_study.py", perturbations=["mine"])
    with pytest.raises(PlanError, match=words):
        study_in_process(tmp_path / "run", key, plan, "other_study.py", folder)
    assert not list((tmp_path / "run").glob("seed-*"))


def test_a_plan_holds_what_it_names_and_comes_back_from_json() -> None:
    plan = planned(perturbations=["group-zero:name=head", "carry"])
    assert [own.name for own in plan.own_perturbations] == ["group-zero"]
    assert plan.perturbations[0].typed == "group-zero:name=head"
    again = from_dict(StudyPlan, to_dict(plan), what="plan")
    assert again == plan
    assert "own_perturbations" not in to_dict(planned(perturbations=["carry"]))


def written(folder: Path, text: str) -> Path:
    for name in ("memory_study.py", "own_study.py"):
        (folder / name).write_text((PROGRAMS / name).read_text())
    (folder / "other_study.py").write_text(
        f"from own_study import *\nfrom own_study import ak\n{text}"
    )
    return folder


def reset(name: str, touches: str = "params", does: str = "None", more: str = "") -> str:
    return f"ak.perturb({name!r}, touches={touches!r}, fn=lambda o, p, s: {does}{more})"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"X = {reset('carry')}", "declares 'carry', which is the name of another"),
        (f"X = {reset('mine')}\nY = {reset('mine')}", "declares 'mine' twice"),
        (f"X = {reset('Mine')}", "no perturbation can be called 'Mine'"),
        (f"X = {reset('placebo-0')}", "every study has that"),
        (f"X = {reset('mine', '')}", "names no component"),
        (f"X = {reset('mine', 'buffers/{x}')}", "names no parameter 'x'"),
        ("X = ak.perturb('mine', touches='params', fn=lambda o: None)", "three arguments"),
        ("X = ak.perturb('mine', touches='params', fn=3)", "fn is no function"),
        (f"X = {reset('mine', more=', version=0')}", "version must be a whole number"),
        (
            "class X(ZeroBias):\n"
            "    declaration = ak.Declaration('mine', 1, 'order', '', '')\n"
            "STUDY = STUDY.changed(perturbations=[X])",
            "of kind order, which only auditkit's own may be",
        ),
        (
            "class X(ZeroBias):\n"
            "    declaration = ak.Declaration('mine', 1, 'state', '', '', {'a': ak.Parameter(1)},\n"
            "        touched=lambda p: ('params',) if p['a'] else ())\n"
            "STUDY = STUDY.changed(perturbations=[X()])",
            "computed from its parameters",
        ),
        (
            "class X(ZeroBias):\n"
            "    def __init__(self, a): pass\n"
            "STUDY = STUDY.changed(perturbations=[X])",
            "give an object of the class",
        ),
        ("STUDY = STUDY.changed(perturbations=[3])", "perturbations: 3 is no perturbation"),
        (
            "X = ak.perturb('mine', kind='order', fn=lambda table, p, s: table)",
            "kind order, which only auditkit's own may be: check 6 computes an order without",
        ),
        ("X = ak.perturb('mine', kind='date', fn=lambda b, s, g: b)", "no kind 'date'"),
        ("X = ak.perturb('mine', kind='data', fn=lambda b: b)", "does not take three arguments"),
        (
            "X = ak.perturb('mine', kind='data', fn=lambda b, s, g: b,\n"
            "    parameters={'a': ak.Parameter(1)})",
            "does not take four arguments",
        ),
        (
            "X = ak.perturb('mine', kind='data', touches='params', fn=lambda b, s, g: b)",
            "it changes data, and no state at t0",
        ),
        (
            "class X(ZeroBias):\n"
            "    declaration = ak.Declaration('mine', 1, 'data', '', '')\n"
            "STUDY = STUDY.changed(perturbations=[X])",
            "kind data, and no other, is a subclass of DataPerturbation",
        ),
    ],
)
def test_what_no_study_file_can_declare_is_refused_at_once(
    tmp_path: Path, text: str, words: str
) -> None:
    with pytest.raises(AuditError) as error:
        planned(written(tmp_path, text), "other_study.py")
    assert words in str(error.value)


def test_a_decorated_function_is_judged_by_what_is_called() -> None:
    @functools.wraps(failures)  # of other arguments
    def change(objects: object, parameters: object, seed: int) -> None:
        """What is called."""

    assert perturb("wrapped", touches="params", fn=change).declaration.name == "wrapped"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (reset("mine", "params", "o.model.queue.zero_()"), "mine: it changes buffers/queue"),
        (reset("mine", "params"), "mine: it does not change params"),
        (reset("mine", "params*"), r"mine: it does not change params\*"),
        (reset("mine", "buffers/kew"), "mine: it does not change buffers/kew"),
        (reset("mine", "params", "1 / 0"), "applying mine raised ZeroDivisionError"),
    ],
)
def test_what_does_not_do_as_it_declares_is_refused_before_the_trunk(
    tmp_path: Path, key: PrivateKey, text: str, words: str
) -> None:
    folder = written(tmp_path, f"STUDY = STUDY.changed(perturbations=[{text}])")
    plan = planned(folder, "other_study.py")
    with pytest.raises(PlanError, match=words):
        study_in_process(tmp_path / "run", key, plan, "other_study.py", folder)
    assert not list((tmp_path / "run").glob("seed-*"))


def test_a_study_file_that_declares_something_else_than_the_plan_is_refused(
    tmp_path: Path, key: PrivateKey
) -> None:
    plan = planned(
        written(tmp_path, "STUDY = STUDY.changed(perturbations=[BLUR])"), "other_study.py"
    )
    text = (tmp_path / "own_study.py").read_text()
    (tmp_path / "own_study.py").write_text(text.replace('"buffers/queue",\n', '"buffers*",\n'))
    with pytest.raises(ArtifactMismatch, match="otherwise than the plan: touches"):
        study_in_process(tmp_path / "run", key, plan, "other_study.py", tmp_path)
    (tmp_path / "own_study.py").write_text(text.replace("queue-blur", "blur"))
    with pytest.raises(UnknownPerturbation, match="declares no perturbation 'queue-blur'"):
        study_in_process(tmp_path / "run2", key, plan, "other_study.py", tmp_path)


def test_a_declaration_that_was_widened_and_signed_anew_fails(
    run: Run, copied: Callable[[Run], Run]
) -> None:
    def widen(predicate: Any) -> None:
        predicate["plan"]["own_perturbations"][1]["touches"] = ["*"]

    forged = copied(run)
    edit_predicate(forged, widen)
    report = check(forged)
    assert report.exit_code == 1, findings_text(report)
    assert "declares 'zero-bias' otherwise than the plan: touches" in findings_text(report)


def test_what_another_study_file_declared_is_forgotten() -> None:
    planned()
    assert "queue-blur" in adopted()
    planned(
        target="memory_study.py", fork_at=1, window=1, horizon=3, seeds=[0], perturbations=["carry"]
    )
    assert not adopted()


def test_an_unknown_name_is_refused_with_what_there_is() -> None:
    with pytest.raises(UnknownPerturbation, match="unknown perturbation 'queue-blurr'") as error:
        planned(perturbations=["queue-blurr"])
    assert "queue-blur" in str(error.value.expected)
    with pytest.raises(UnknownPerturbation, match="tenths=0 is not allowed"):
        planned(perturbations=["queue-blur:tenths=0"])


def declared_as(run: Run, **values: object) -> set[int]:
    """Checks that fail where the signed plan declares something else of ``zero-bias``."""

    def edit(predicate: dict[str, Any]) -> None:
        predicate["plan"]["own_perturbations"][1].update(values)

    edit_predicate(run, edit)
    return failures(check(run, replay="none"))


@pytest.mark.parametrize(
    ("values", "failed"),
    [
        ({"touches": ["buffers/queue"]}, {7}),
        ({"touches": ["params", "batchnorm"]}, {7}),
        ({"touches": [], "allowed": ["par*"]}, set()),
        ({"version": 4}, {4}),
        ({"name": "momentum-reset"}, {4}),
        ({"name": "another"}, {4}),
    ],
)
def test_a_branch_is_judged_by_what_the_signed_plan_declares(
    run: Run, copied: Callable[[Run], Run], values: dict[str, object], failed: set[int]
) -> None:
    assert declared_as(copied(run), **values) == failed


def test_what_the_plan_declares_is_shown(run: Run) -> None:
    done = CliRunner().invoke(main, ["show", str(run.path)], catch_exceptions=False)
    text = " ".join(done.stdout.split())
    assert "queue-blur, version 1, declared to change buffers/queue; zero-bias, version 3," in text
