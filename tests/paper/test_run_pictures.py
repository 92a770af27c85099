from __future__ import annotations

import math
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray

from auditkit.errors import ArtifactMissing
from auditkit.evidence.reader import RunEvidence
from auditkit.formats.run_files import Outcome
from auditkit.formats.statements import manifest_from_statement
from auditkit.paper import run_curves
from auditkit.paper.drawing import to_bytes, to_svg
from auditkit.paper.run_curves import (
    CONTROL,
    PLACEBOS,
    Course,
    loss_courses,
    reliability_curves,
)
from auditkit.paper.run_pictures import Floats, divergence_picture, reliability_picture
from auditkit.records.manifest import StudyManifest
from auditkit.signing.envelopes import open_envelope
from auditkit.statistics.metrics import calibration_error, reliability

GOLDEN = Path(__file__).parents[1] / "golden" / "0.1" / "study"


def evidence(folder: Path) -> RunEvidence:
    payload = open_envelope((folder / "manifest.json").read_bytes()).payload
    manifest = manifest_from_statement(payload, what="manifest.json")
    assert isinstance(manifest, StudyManifest)
    return RunEvidence(folder, manifest)


@pytest.fixture(scope="module")
def run() -> RunEvidence:
    return evidence(GOLDEN)


def losses(run: RunEvidence, file: str) -> list[float]:
    trace = run.trace(file)
    steps = range(trace.first_step, trace.last_step + 1)
    return [struct.unpack("<d", trace.loss(step))[0] for step in steps]


def test_a_course_is_the_mean_over_seeds_of_absolute_differences(run: RunEvidence) -> None:
    course, plan = loss_courses(run), run.manifest.plan
    assert course.steps.tolist() == list(range(plan.fork_at + 1, plan.horizon + 1))
    assert set(course.differences) == {
        *(PLACEBOS, "adam-reset:moments=mv,step=reset", "batchnorm-reset", "order-reverse")
    }
    for name, stem in (("order-reverse", "order-reverse"), (PLACEBOS, "placebo-0")):
        each = [
            [
                abs(here - there)
                for here, there in zip(
                    losses(run, f"seed-{n:04}/{stem}.trace.safetensors"),
                    losses(run, f"seed-{n:04}/control.trace.safetensors"),
                    strict=True,
                )
            ]
            for n in (0, 1)
        ]
        expected = [math.fsum(pair) / 2 for pair in zip(*each, strict=True)]
        np.testing.assert_allclose(course.differences[name], expected, rtol=1e-12)


def test_a_step_without_a_loss_is_no_number(
    run: RunEvidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = run_curves._losses
    calls: list[int] = []

    def broken(trace: object) -> NDArray[np.float64]:
        found = np.array(real(trace))  # type: ignore[arg-type]
        calls.append(0)
        if len(calls) <= 2:  # the first seed's control: no branch of it has a distance there
            found[-1] = np.inf
        return found

    monkeypatch.setattr(run_curves, "_losses", broken)
    one = replace(run, manifest=replace(run.manifest, seeds=run.manifest.seeds[:1]))
    course = loss_courses(one)
    assert all(math.isnan(y[-1]) and math.isfinite(y[0]) for y in course.differences.values())
    calls.clear()
    both = loss_courses(run)
    assert all(math.isfinite(y[-1]) for y in both.differences.values())


def test_a_reliability_curve_is_of_all_seeds_together(run: RunEvidence) -> None:
    curves = reliability_curves(run, "")
    assert set(curves) == {
        *(CONTROL, "adam-reset:moments=mv,step=reset", "batchnorm-reset", "order-reverse")
    }
    outcomes = [run.outcome(seed.branches[0]) for seed in run.manifest.seeds]
    table = np.concatenate([outcome.tables["T"] for outcome in outcomes])
    labels = np.concatenate([outcome.labels for outcome in outcomes])
    expected = reliability(table.max(axis=1).astype(np.float64), table.argmax(axis=1) == labels)
    np.testing.assert_allclose(curves[CONTROL], expected, rtol=1e-6)


def test_the_gaps_of_a_reliability_curve_are_the_calibration_error() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.permutation(np.linspace(0.2, 0.95, 60))  # no ties: 15 bins of four
    is_right = rng.random(60) < confidence
    mean, accuracy = reliability(confidence, is_right)
    np.testing.assert_allclose(mean, np.sort(confidence).reshape(15, 4).mean(axis=1))
    ordered = is_right[np.argsort(confidence)].reshape(15, 4)
    np.testing.assert_allclose(accuracy, ordered.mean(axis=1))
    gap = np.abs(mean - accuracy).mean()
    assert gap == pytest.approx(calibration_error(confidence, is_right))


def test_a_probe_by_position_and_one_without_labels(
    run: RunEvidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = reliability_curves(run, "")

    def by_position(self: RunEvidence, branch: object) -> Outcome:
        found = real(self, branch)  # type: ignore[arg-type]
        table = found.tables["T"]
        columns = {
            "T@tokens:confidence": table.max(axis=1),
            "T@tokens:predicted": table.argmax(axis=1).astype(np.int32),
            "labels@tokens": found.labels,
            "T@bare": table,
        }
        return Outcome(np.empty(0, np.int64), columns)

    real = RunEvidence.outcome
    monkeypatch.setattr(RunEvidence, "outcome", by_position)
    columns = reliability_curves(run, "tokens")
    assert set(columns) == set(whole)
    for name, pair in whole.items():
        np.testing.assert_allclose(columns[name], pair, rtol=1e-6)
    assert reliability_curves(run, "bare") == {}
    assert reliability_curves(run, "other") == {}
    assert reliability_picture((None, {})) is None
    assert reliability_picture() is None


def test_a_branch_that_diverged_is_in_no_reliability_curve(run: RunEvidence) -> None:
    seeds = tuple(
        replace(
            seed,
            branches=tuple(
                replace(b, diverged_at=3) if b.name == "order-reverse" else b for b in seed.branches
            ),
        )
        for seed in run.manifest.seeds
    )
    broken = replace(run, manifest=replace(run.manifest, seeds=seeds))
    assert "order-reverse" not in reliability_curves(broken, "")


def test_a_file_that_is_gone_is_an_error(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "run")
    run = evidence(tmp_path / "run")
    (tmp_path / "run" / "seed-0001" / "placebo-0.trace.safetensors").unlink()
    with pytest.raises(ArtifactMissing):
        loss_courses(run)
    (tmp_path / "run" / "seed-0001" / "order-reverse.outcome.safetensors").unlink()
    with pytest.raises(ArtifactMissing):
        reliability_curves(run, "")


def test_branches_that_never_part_are_named_and_not_drawn() -> None:
    steps = np.arange(1, 5)
    parted, never = np.array([0.0, np.nan, 1e-5, 2.0]), np.zeros(4)
    drawn = divergence_picture(Course(steps, {PLACEBOS: parted, "batchnorm-reset": never}))
    assert drawn is not None
    assert "Equal to the control's at every step: batchnorm-reset." in drawn.caption
    svg = to_svg(drawn)
    assert "batchnorm-reset</text>" not in svg
    assert "mathdefault" not in svg
    assert ">1e-05<" in svg
    assert divergence_picture(Course(steps, {"a": never, "b": np.full(4, np.nan)})) is None


def test_a_branch_without_a_loss_is_not_called_equal() -> None:
    lost, part = np.full(3, np.nan), np.array([0.0, np.nan, np.nan])
    course = Course(np.arange(1, 4), {"a": np.ones(3), "b": lost, "c": part})
    drawn = divergence_picture(course)
    assert drawn is not None
    assert "Without a loss that is a number: b." in drawn.caption
    assert "Equal to the control's as long as the loss is a number: c." in drawn.caption


def test_each_fork_has_reliability_panels_beside_its_own_control() -> None:
    def forked(at: float) -> dict[str, tuple[Floats, Floats]]:
        return {
            name: (np.array([at, 0.9]), np.array([at, height]))
            for name, height in ((CONTROL, 0.8), ("a", 0.7))
        }

    drawn = reliability_picture((30, forked(0.3)), (60, forked(0.6)))
    assert drawn is not None
    figure = Figure()
    drawn.draw(figure)
    assert [panel.get_title() for panel in figure.axes] == ["a at t0=30", "a at t0=60"]
    for panel, at in zip(figure.axes, (0.3, 0.6), strict=True):
        _, control, treatment = panel.lines
        assert np.asarray(control.get_xydata()).tolist() == [[at, at], [0.9, 0.8]]
        assert np.asarray(treatment.get_xydata()).tolist() == [[at, at], [0.9, 0.7]]


def test_what_is_too_many_for_a_picture_is_counted() -> None:
    curve = (np.array([0.4, 0.9]), np.array([0.5, 0.8]))
    curves = {CONTROL: curve, **{f"treatment-{n}": curve for n in range(15)}}
    drawn = reliability_picture((None, curves))
    assert drawn is not None
    assert "3 more are not drawn" in drawn.caption
    assert to_svg(drawn).count(">treatment-") == 12
    assert to_bytes(drawn, "png").startswith(b"\x89PNG")
    long = {f"{n}-{'x' * 90}": np.array([1.0, 2.0]) for n in range(12)}
    many = divergence_picture(Course(np.arange(1, 3), long))
    assert many is not None
    assert to_bytes(many, "pdf").startswith(b"%PDF")


def test_each_fork_has_a_panel_that_names_it() -> None:
    late = Course(np.arange(61, 64), {"b": np.ones(3), PLACEBOS: np.zeros(3)})
    early = Course(np.arange(31, 64), {"a": np.ones(33), "b": np.zeros(33), "c": np.zeros(33)})
    drawn = divergence_picture(early, late)
    assert drawn is not None
    assert drawn.title == "Divergence over steps, of each fork"
    assert "One panel a fork, after steps 30, 60." in drawn.caption
    assert "Equal to the control's at every step: c, placebos." in drawn.caption
    svg = to_svg(drawn)
    for text in ("t0 = 30", "t0 = 60", "a", "b"):
        assert svg.count(f">{text}</text>") == 1
    alone = divergence_picture(early)
    assert alone is not None
    assert "fork" not in f"{alone.title} {alone.caption}"
    assert "t0 =" not in to_svg(alone)
