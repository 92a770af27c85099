from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import checklist_example
import pytest
from checklist_example import example_estimates, example_manifest, example_report
from hypothesis import given, settings
from hypothesis import strategies as st
from record_examples import BACK_FLOW

from auditkit.formats import schema
from auditkit.formats.statements import study_from_statement, to_statement
from auditkit.formats.structure import to_dict
from auditkit.paper import lists
from auditkit.paper.checklist import fill
from auditkit.paper.checklist_page import is_checklist_page, to_page
from auditkit.paper.lists import ABOUT_PAPERS, LISTS
from auditkit.paper.questions import BASE_CHECKS, NEURIPS, SURVEY, ChecklistItem
from auditkit.paper.rendering import is_checklist, to_latex, to_markdown
from auditkit.paper.survey import SURVEY_ITEMS
from auditkit.records.manifest import BranchRecord, FurtherFork, RunTimes, StudyManifest
from auditkit.records.plan import PerturbationSpec
from auditkit.records.report import (
    CHECKS,
    CheckResult,
    Countersignature,
    Finding,
    Status,
    Verdict,
    VerificationReport,
)

MANIFEST = example_manifest()
REPORT = example_report()
QUESTIONS = [question for name in LISTS for question in lists.QUESTIONS[name]]


def items_of(manifest: StudyManifest, report: VerificationReport) -> dict[str, ChecklistItem]:
    return {item.key: item for item in fill(manifest, report, lists=tuple(LISTS)).items}


def with_status(report: VerificationReport, statuses: dict[int, Status]) -> VerificationReport:
    """The report with other outcomes; a failed check gets a finding."""
    checks = [
        replace(
            check,
            status=statuses[check.number],
            findings=(Finding(f"broken {check.number}"),)
            if statuses[check.number] == "failed"
            else (),
        )
        if check.number in statuses
        else check
        for check in report.checks
    ]
    return replace(report, checks=tuple(checks))


def test_a_perturbation_is_spelt_as_it_is_typed() -> None:
    spec = PerturbationSpec("adam-reset", {"moments": "v", "step": "keep"})
    seeds = [
        replace(
            seed,
            branches=tuple(
                replace(branch, name=spec.branch_name, perturbation=spec)
                if branch.role == "treatment" and branch == seed.branches[-1]
                else branch
                for branch in seed.branches
            ),
        )
        for seed in MANIFEST.seeds
    ]
    text = to_markdown(fill(replace(MANIFEST, seeds=tuple(seeds)), REPORT))
    assert "adam-reset:moments=v,step=keep" in text
    assert spec.branch_name not in text


def test_further_times_are_named_and_no_line_is_of_them() -> None:
    plan = MANIFEST.plan.changed(probe_at=[MANIFEST.plan.fork_at + 1, MANIFEST.plan.horizon - 1])
    table = example_estimates()
    rows = [replace(row, time="t0+1", family="exploratory") for row in table.distances]
    more = replace(table, times=plan.probed, distances=(*rows, *table.distances))
    items = items_of(replace(MANIFEST, plan=plan), replace(REPORT, estimates=more))
    before = items_of(MANIFEST, REPORT)
    assert "for every branch at t0, t0+W, T and 2 further times." in items["state"].justification
    steps = f", branches evaluated after steps {plan.probe_at[0]}, {plan.probe_at[1]} as well; "
    assert steps in items["neurips-6"].justification
    for key in ("floor", "uncertainty"):
        assert items[key].evidence == before[key].evidence


def test_the_digests_of_every_fork_are_cited() -> None:
    plan = MANIFEST.plan
    first, second = plan.fork_at, plan.fork_at + 1
    others = tuple(
        replace(
            seed,
            branches=tuple(
                replace(
                    branch,
                    order_sha256="5" * 64,
                    digests={
                        time: dict.fromkeys(found, "7" * 64)
                        for time, found in branch.digests.items()
                    },
                )
                for branch in seed.branches
            ),
        )
        for seed in MANIFEST.seeds
    )
    forked = replace(
        MANIFEST,
        plan=plan.changed(fork_at=[first, second]),
        further=(FurtherFork(second, others),),
    )
    items, alone = items_of(forked, REPORT), items_of(MANIFEST, REPORT)
    assert f"2 forks each, after steps {first}, {second}; " in items["pairs"].justification
    assert f"one fork each after step {first}; " in alone["pairs"].justification
    for key, other in (("order", "5" * 16), ("state", "7" * 16), ("pairs", "7" * 16)):
        lines = items[key].evidence
        assert any(f"t0={first}" in line and other not in line for line in lines), key
        assert any(f"t0={second}" in line and other in line for line in lines), key
        assert not any("t0=" in line for line in alone[key].evidence)


def behind(key: str) -> set[int]:
    question = next(question for question in QUESTIONS if question.key == key)
    return {*BASE_CHECKS, *question.checks}


def map_branches(manifest: StudyManifest, change: Any) -> StudyManifest:
    seeds = tuple(
        replace(seed, branches=tuple(change(branch) for branch in seed.branches))
        for seed in manifest.seeds
    )
    return replace(manifest, seeds=seeds)


def test_the_page_is_what_the_code_gives() -> None:
    page = checklist_example.CHECKLIST.read_text(encoding="utf-8")
    assert checklist_example.generated(page) == page, (
        "CHECKLIST.md is stale: run `python tests/checklist_example.py`"
    )
    assert page.count("<!-- template:begin -->") == page.count("<!-- example:end -->") == 1


def test_the_page_names_every_check_and_what_rests_on_it() -> None:
    page = checklist_example.CHECKLIST.read_text(encoding="utf-8")
    for n, name in CHECKS.items():
        row = re.search(rf"^\| {n} \| {name} \| (.*) \|$", page, re.MULTILINE)
        assert row is not None
        resting = [q.title.lower() for q in QUESTIONS if n in q.checks and q.source == SURVEY]
        listed = [] if row[1] == "all" else row[1].lower().split(", ")
        assert listed == resting
        assert (row[1] == "all") == (n in BASE_CHECKS)


def test_the_example_is_a_manifest_of_the_schema() -> None:
    assert study_from_statement(to_statement(MANIFEST), what="example") == MANIFEST
    schema.check(to_dict(REPORT), "report", what="example")
    schema.check(to_dict(example_report(replayed=False)), "report", what="example")


def test_every_question_has_its_facts() -> None:
    keys = [question.key for question in QUESTIONS]
    assert len(set(keys)) == len(keys)
    assert keys == [*SURVEY_ITEMS, *ABOUT_PAPERS]
    assert [q.number for q in QUESTIONS if q.source == NEURIPS] == ["4", "5", "6", "7", "8", "12"]
    assert all(q.checks for q in QUESTIONS if q.source == SURVEY)
    assert [item.key for item in fill(MANIFEST, REPORT, lists=tuple(LISTS)).items] == keys
    assert {q.source for q in QUESTIONS} == {source.key for source in LISTS.values()}


def numbers_of(name: str) -> list[str]:
    return [question.number for question in lists.QUESTIONS[name]]


def test_items_have_the_numbers_of_their_lists() -> None:
    assert numbers_of("aaai") == [f"4.{n}" for n in range(7, 14)]
    assert numbers_of("reforms") == ["2a", "2b", "2c"]
    pineau = [f"{part}.{n}" for part, last in ((3, 5), (4, 5), (5, 6)) for n in range(1, last + 1)]
    assert numbers_of("pineau") == pineau
    assert set(numbers_of("mlsys")) == {f"A.{n}" for n in range(1, 8)}
    assert set(numbers_of("acm")) == set(numbers_of("survey")) == {""}
    assert all(source.version for source in LISTS.values())


def test_a_replayed_study_fills_the_survey_and_leaves_the_paper_to_a_person() -> None:
    for item in items_of(MANIFEST, REPORT).values():
        assert item.answer == ("yes" if item.source == SURVEY else "todo")
        assert item.justification
        assert item.person or item.source == SURVEY


def test_every_filled_item_cites_a_check_and_a_digest() -> None:
    text = f"{to_statement(MANIFEST).decode()} {REPORT.statement_sha256} {REPORT.manifest_sha256}"
    unfilled = []
    for key, item in items_of(MANIFEST, REPORT).items():
        assert all(re.match(r"checks? \d", line) for line in item.evidence)
        cited = re.findall(r"\b[0-9a-f]{16}(?=\.\.\.)", " ".join(item.evidence))
        assert all(digits in text for digits in cited)
        unfilled += [] if cited else [key]
    told = {items_of(MANIFEST, REPORT)[key].justification for key in unfilled}
    assert told == {
        "No manifest shows anything of this.",
        "No countersignature of a trusted key other than the author's lies there.",
    }


def test_a_countersignature_that_counts_is_cited() -> None:
    other = Countersignature("countersign-1.json", "SHA256:O", True, "verified", "all branches")
    idle = replace(other, file="countersign-2.json", counts=False)
    item = items_of(MANIFEST, replace(REPORT, countersignatures=(other, idle)))["acm-reproduced"]
    assert item.justification.startswith("1 countersignature of trusted keys")
    assert "countersign-1.json, signed by SHA256:O: verified" in item.evidence[0]
    assert "countersign-2" not in " ".join(item.evidence)
    assert item.answer == "todo"


def test_of_a_manifest_that_does_not_verify_nothing_is_filled_in() -> None:
    report = replace(with_status(REPORT, {6: "failed"}), verdict="failed", exit_code=1)
    filled = fill(None, report, lists=tuple(LISTS))
    assert filled.problem.startswith("THIS MANIFEST DOES NOT VERIFY: check 6 (order) failed.")
    assert len(filled.items) == len(QUESTIONS)
    for item in filled.items:
        assert item.evidence == ()
        assert item.answer == ("no" if item.key in ("order", "pairs") else "todo")
        assert "does not verify" in item.justification or "broken 6" in item.justification
    markdown, latex, page = to_markdown(filled), to_latex(filled), to_page(filled)
    assert "THIS MANIFEST DOES NOT VERIFY" in markdown.splitlines()[0]
    assert "THIS MANIFEST DOES NOT VERIFY" in latex.splitlines()[0]  # read in the source
    assert "THIS MANIFEST DOES NOT VERIFY" in latex.splitlines()[1]  # and typeset
    body = page[page.index("<main>") :]
    assert body.startswith('<main><p class="verdict bad">THIS MANIFEST DOES NOT VERIFY')
    assert is_checklist(markdown.encode())
    assert is_checklist(latex.encode())
    assert is_checklist_page(page.encode())


def test_lists_are_chosen_by_name() -> None:
    some = fill(MANIFEST, REPORT, lists=("aaai", "survey"))
    assert [source.name for source in some.sources] == ["survey", "aaai"]
    assert {item.source for item in some.items} == {SURVEY, "AAAI"}


def test_without_replay_three_items_stay_open_and_say_how_to_fill_them() -> None:
    items = items_of(MANIFEST, example_report(replayed=False))
    for key in SURVEY_ITEMS:
        is_open = key in ("kernels", "floor", "uncertainty")
        assert items[key].answer == ("todo" if is_open else "yes")
        if is_open:
            assert "--replay all" in items[key].justification
            assert "--report" in items[key].justification
            assert items[key].evidence == ()
    assert "check 8" not in " ".join(items["state"].evidence)
    assert "not all re-executed" in items["state"].justification
    assert "needs check 8" in items["perturbations"].justification
    assert "Check 8 was not run" in items["neurips-4"].justification
    assert "Check 10 was not run" in items["neurips-7"].justification
    assert "replay-consistency" not in " ".join(
        fill(MANIFEST, example_report(replayed=False)).notes
    )


@pytest.mark.parametrize("number", CHECKS)
@pytest.mark.parametrize("status", ["failed", "not run"])
def test_what_a_check_did_not_show_is_not_claimed(number: int, status: Status) -> None:
    items = items_of(MANIFEST, with_status(REPORT, {number: status}))
    for key in SURVEY_ITEMS:
        item = items[key]
        if number not in behind(key):
            assert item.answer == "yes"
        else:
            assert item.answer == ("no" if status == "failed" else "todo")
            assert f"Check {number}" in item.justification
            assert (f"broken {number}" in item.justification) == (status == "failed")


@settings(deadline=None, max_examples=60)
@given(
    st.dictionaries(
        st.integers(min_value=1, max_value=10), st.sampled_from(["passed", "failed", "not run"])
    )
)
def test_yes_is_said_only_where_all_checks_behind_it_passed(statuses: dict[int, Status]) -> None:
    report = with_status(REPORT, statuses)
    good = {check.number for check in report.checks if check.status == "passed"}
    for item in items_of(MANIFEST, report).values():
        assert item.answer != "yes" or (item.source == SURVEY and behind(item.key) <= good)
        assert item.source == SURVEY or item.answer == "todo"


@settings(deadline=None, max_examples=60)
@given(st.sets(st.integers(min_value=5, max_value=10)))
def test_no_check_is_cited_that_did_not_pass(broken: set[int]) -> None:
    report = with_status(REPORT, dict.fromkeys(broken, "not run"))
    if 8 in broken:
        report = replace(report, verdict="integrity-only")
    for item in items_of(MANIFEST, report).values():
        for line in item.evidence:
            cited = re.findall(r"\d+", line.partition(":" if "passed" in line else ";")[0])
            assert not broken & set(map(int, cited)), line


def test_a_report_without_a_check_counts_it_as_not_run() -> None:
    items = items_of(MANIFEST, replace(REPORT, checks=REPORT.checks[:5]))
    assert items["order"].answer == "todo"
    assert items["rng"].answer == "yes"


def test_many_findings_are_counted() -> None:
    broken = CheckResult(6, "failed", "9 findings", tuple(Finding(f"f{n}") for n in range(9)))
    checks = tuple(broken if check.number == 6 else check for check in REPORT.checks)
    text = items_of(MANIFEST, replace(REPORT, checks=checks))["order"].justification
    assert text == "Check 6 (order) failed: f0; f1; f2; and 6 more."


def test_a_sampled_replay_is_not_a_whole_one() -> None:
    report = replace(REPORT, verdict="sampled", replay="3 of 20 branches with their trunks")
    items = items_of(MANIFEST, report)
    assert items["kernels"].evidence == ("check 8; 3 of 20 branches with their trunks",)
    assert "3 of 20" in items["uncertainty"].justification
    assert "checks 3 and 8" not in " ".join(items["floor"].evidence)
    assert "not shown for every branch" in items["perturbations"].justification
    assert "in the branches that were replayed" in fill(MANIFEST, report).notes[0]


def test_the_record_itself_can_forbid_a_yes() -> None:
    lax = replace(MANIFEST.environment, determinism={"deterministic algorithms": "False"})
    assert items_of(replace(MANIFEST, environment=lax), REPORT)["kernels"].answer == "no"
    table = example_estimates()
    floorless = replace(table, floor=replace(table.floor, n_placebos=0, developed=None))
    items = items_of(MANIFEST, replace(REPORT, estimates=floorless))
    assert items["floor"].answer == "no"
    rows = tuple(replace(row, permutation_p=None, interval=None) for row in table.distances)
    items = items_of(MANIFEST, replace(REPORT, estimates=replace(table, distances=rows)))
    assert items["uncertainty"].answer == "no"
    items = items_of(MANIFEST, replace(REPORT, estimates=None))
    assert (items["floor"].answer, items["uncertainty"].answer) == ("todo", "todo")


def test_a_model_without_buffers_is_said_to_have_none() -> None:
    def strip(branch: BranchRecord) -> BranchRecord:
        digests = {
            time: {
                name: value for name, value in at.items() if name not in ("batchnorm", "buffers")
            }
            for time, at in branch.digests.items()
        }
        return replace(branch, digests=digests)

    item = items_of(map_branches(MANIFEST, strip), REPORT)["state"]
    assert item.answer == "yes"  # all that there is has its checksums
    assert "no component batchnorm and no buffers" in item.justification
    assert "params" in item.evidence[0]


def test_an_undeveloped_floor_stands_beside_every_excess_at_the_horizon() -> None:
    table = example_estimates()
    young = replace(table, floor=replace(table.floor, n_above=1, developed=False))
    items = items_of(MANIFEST, replace(REPORT, estimates=young))
    assert "has not developed at T: 1 of 8" in items["floor"].justification
    for line in items["uncertainty"].evidence[:4]:
        assert ("floor not developed at T" in line) == (" at T:" in line)


def test_back_flow_is_cited_with_its_margin() -> None:
    report = example_report()
    assert report.estimates is not None
    rows = (BACK_FLOW, replace(BACK_FLOW, arm="contrast", margin=None, adjusted_p=None, verdict=""))
    report = replace(report, estimates=replace(report.estimates, back_flow=rows))
    items = fill(example_manifest(), report, (), ("survey", "neurips")).items
    told = [item for item in items if any("back-flow" in line for line in item.evidence)]
    assert {item.source for item in told} == {LISTS["survey"].key, LISTS["neurips"].key}
    for item in told:
        carried, contrast = (line for line in item.evidence if "back-flow" in line)
        assert "q 0.04, inside the margin 0.6: q 0.08): amplification" in carried
        assert "inside" not in contrast
        assert contrast.endswith("(n = 3, 1 left out): fewer than 3 seeds")
        assert "D2 - D1 of each seed" in item.justification


def test_a_signed_primary_metric_is_told_as_one() -> None:
    table = example_estimates()
    row = replace(table.signed[0], family="primary", ate=-0.01, t_p=0.02, adjusted_p=0.04)
    table = replace(table, primary_metric="accuracy", signed=(row,), distances=())
    item = items_of(MANIFEST, replace(REPORT, estimates=table))["uncertainty"]
    assert "treatment minus control paired by seed" in item.justification
    assert "accuracy at T: ATE -0.01 (n = 4, paired t p = 0.02, Holm 0.04)" in item.evidence[0]


def test_long_studies_are_cited_in_part() -> None:
    seeds = tuple(checklist_example.example_seed(0) for _ in range(40))
    items = items_of(replace(MANIFEST, seeds=seeds), REPORT)
    assert "check 6; 32 more seeds: see the manifest" in items["order"].evidence
    assert all(len(item.evidence) < 40 for item in items.values())


@pytest.mark.parametrize(
    ("times", "says"),
    [
        (("2026-01-01T00:00:00Z", "2026-01-01T01:30:00Z"), "1.50 hours"),
        (("2026-01-01T00:00:00", "2026-01-01T01:30:00Z"), "Run from 2026-01-01T00:00:00 to"),
        (("yesterday", "today"), "Run from yesterday to today"),
    ],
)
def test_run_times_are_self_reported(times: tuple[str, str], says: str) -> None:
    item = items_of(replace(MANIFEST, run=RunTimes(*times)), REPORT)["neurips-8"]
    assert says in item.justification
    assert "self-reported" in item.justification


def test_what_this_verifier_did_not_find_is_called_the_author_s_word() -> None:
    word = "as the author's machine reported, not confirmed here"
    program = replace(MANIFEST.program, git_commit="0" * 40)
    manifest = replace(MANIFEST, program=program)
    here = replace(REPORT, environment=MANIFEST.environment)
    line = "hardware: processor is an abacus there, Intel here"
    other = replace(here, environment_differences=(line,))
    for report, is_told in ((REPORT, True), (here, False), (other, True)):
        items = items_of(manifest, report)
        hardware = items["neurips-8"].justification.partition(" a run.")[0]
        assert (word in hardware) is is_told
        assert f"commit {'0' * 40}, {word}" in items["neurips-5"].justification
        assert f"(self-reported: {word})" in items["neurips-8"].justification


def test_optimizer_and_data_are_marked_where_nothing_was_replayed() -> None:
    mark = "Not replayed: as recorded, and executed by no check."
    for report in (REPORT, checklist_example.example_report(replayed=False)):
        told = items_of(MANIFEST, report)["neurips-6"].justification
        assert (mark in told) is (report is not REPORT)


def test_nothing_of_the_machine_that_verifies_is_told() -> None:
    report = replace(REPORT, trust="trusted by /home/alice/keys/author.pub")
    filled = fill(MANIFEST, report, lists=tuple(LISTS))
    for text in (to_markdown(filled), to_latex(filled), to_page(filled)):
        assert "alice" not in text


def test_what_two_topics_say_stands_there_once() -> None:
    items = items_of(MANIFEST, example_report(replayed=False))
    assert items["mlsys-a.6"].justification.count("Check 8 was not run") == 1
    for item in items_of(MANIFEST, REPORT).values():
        assert len(set(item.evidence)) == len(item.evidence)


@pytest.mark.parametrize(
    ("verdict", "says"),
    [("verified", "every one"), ("sampled", "some of them"), ("integrity-only", "not replayed")],
)
def test_evaluation_is_as_far_shown_as_it_was_replayed(verdict: Verdict, says: str) -> None:
    item = items_of(MANIFEST, replace(REPORT, verdict=verdict))["pineau-4.3"]
    assert says in item.justification
