from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from studies import digests_of, tiny_session, trained
from torch import Tensor, nn

from auditkit.errors import ProbeDisturbance, ProgramError, ProgramFailed
from auditkit.program.probe import Probe
from auditkit.program.program import Program
from auditkit.study.stages.evaluator import evaluate_probe, has_non_finite, needs_recalibration

Predict = Callable[[nn.Module, Any], Any]


def predicting(predict: Predict, **options: Any) -> Callable[[Program], Program]:
    """Gives a program another ``Probe.predict``."""

    def change(program: Program) -> Program:
        assert program.probe is not None
        return replace(program, probe=replace(program.probe, predict=predict, **options))

    return change


def look_with(predict: Predict, **options: Any) -> Any:
    with tiny_session(predicting(predict, **options)) as session:
        trained(session, 1, 3)
        return evaluate_probe(session, [])


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    return [(torch.randn(4, 4, generator=generator), torch.arange(4) % 3) for _ in range(3)]


# The probe leaves no trace


@pytest.mark.parametrize("recalibrate", [False, True])
def test_looking_leaves_the_state_as_it_was(recalibrate: bool) -> None:
    with tiny_session(parts="batchnorm+dropout+ema+scaler", scheduler="step") as session:
        trained(session, 1, 5)
        before = digests_of(session)
        flags = [layer.training for layer in session.program.model.modules()]
        evaluate_probe(session, batches() if recalibrate else [])
        assert digests_of(session) == before
        assert [layer.training for layer in session.program.model.modules()] == flags


def test_a_run_that_is_looked_at_goes_on_as_one_that_is_not() -> None:
    traces = []
    for looked_at in (False, True):
        with tiny_session() as session:
            trained(session, 1, 5)
            if looked_at:
                evaluate_probe(session, batches())
            traces.append(trained(session, 6, 10).trace())
    assert traces[0].first_difference(traces[1]) is None


def test_a_probe_that_draws_has_its_random_streams_put_back() -> None:
    def noisy(model: nn.Module, inputs: Tensor) -> Any:
        random.random()
        np.random.rand()
        return model(inputs) + torch.rand(len(inputs), 1)

    look_with(noisy)  # it raises no ProbeDisturbance


def test_a_probe_that_changes_train_mode_has_it_put_back() -> None:
    def training(model: Any, inputs: Tensor) -> Any:
        model.last.train()
        return model(inputs)

    look_with(training)


def write_weight(model: Any, inputs: Tensor) -> Any:
    model.last.bias += 1
    return model(inputs)


def train_batchnorm(model: Any, inputs: Tensor) -> Any:
    model.train()
    return model(inputs)


def leave_gradient(model: Any, inputs: Tensor) -> Any:
    with torch.enable_grad():
        model(inputs).sum().backward()
    return model(inputs)


@pytest.mark.parametrize(
    ("predict", "component"),
    [(write_weight, "params"), (train_batchnorm, "batchnorm"), (leave_gradient, "grad")],
)
def test_a_probe_that_changes_the_state_is_an_error_that_names_the_component(
    predict: Predict, component: str
) -> None:
    with pytest.raises(ProbeDisturbance) as caught:
        look_with(predict)
    assert caught.value.component == component


def test_a_probe_that_draws_from_a_registered_generator_is_an_error() -> None:
    generator = torch.Generator()

    def change(program: Program) -> Program:
        def predict(model: nn.Module, inputs: Tensor) -> Any:
            return model(inputs) + torch.rand(len(inputs), 1, generator=generator)

        return replace(predicting(predict)(program), extras={"noise": generator})

    with tiny_session(change) as session, pytest.raises(ProbeDisturbance) as caught:
        evaluate_probe(session, [])
    assert caught.value.component == "rng/extras/noise"


# What the probe gives


def test_rows_are_probabilities_of_the_model_in_eval_mode() -> None:
    with tiny_session() as session:
        trained(session, 1, 3)
        table = evaluate_probe(session, [])[""]
        program = session.program
        assert program.probe is not None
        program.model.eval()
        with torch.no_grad():
            expected = program.model(program.probe.inputs).double().softmax(dim=1).float().numpy()
    assert table.dtype == np.float32
    assert table.shape == (8, 3)
    assert table.tobytes() == expected.tobytes()
    assert np.allclose(table.sum(axis=1), 1)


def test_probabilities_are_taken_as_they_are() -> None:
    table = torch.tensor([[0.25, 0.75]]).repeat(8, 1)
    given = look_with(lambda model, inputs: table, probabilities=True, labels=torch.ones(8).long())
    assert np.array_equal(given[""], table.numpy())


def test_rows_that_are_passed_a_few_at_a_time_are_all_there() -> None:
    sizes: list[int] = []

    def predict(model: nn.Module, inputs: Tensor) -> Any:
        sizes.append(len(inputs))
        return model(inputs)

    table = look_with(predict, batch_size=3)[""]
    assert sizes == [3, 3, 2]
    assert table.shape == (8, 3)


@pytest.mark.parametrize(
    ("predict", "message"),
    [
        (lambda model, inputs: model(inputs)[:-1], "scores an example.* a row for each of its "),
        (lambda model, inputs: model(inputs)[:, :1], "one row of class scores an example"),
        (lambda model, inputs: model(inputs).sum(dim=1), "one row of class scores an example"),
        (lambda model, inputs: model(inputs)[:, :2], "no class index"),
        (lambda model, inputs: model(inputs).tolist(), "list, not a tensor"),
    ],
    ids=["rows", "one class", "no table", "labels", "type"],
)
def test_a_probe_that_gives_no_table_of_scores_is_an_error(predict: Predict, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        look_with(predict)


def test_a_probe_that_raises_is_told_with_its_place() -> None:
    def predict(model: nn.Module, inputs: Tensor) -> Any:
        raise ValueError("no such thing")

    with pytest.raises(ProgramFailed, match="the probe raised ValueError: no such thing") as caught:
        look_with(predict)
    assert (caught.value.where or "").startswith("test_evaluator.py:")


@pytest.mark.parametrize("labels", [torch.zeros(0).long(), torch.rand(3), torch.zeros(()).long()])
def test_labels_that_are_no_class_indices_are_refused(labels: Tensor) -> None:
    with pytest.raises(ProgramError):
        Probe(torch.zeros(3, 4), labels)


@pytest.mark.parametrize(("value", "expected"), [(0.5, False), (np.nan, True), (np.inf, True)])
def test_a_table_with_a_value_that_is_not_finite_has_diverged(value: float, expected: bool) -> None:
    assert has_non_finite({"": np.full((2, 2), value, np.float32)}) is expected


# Recalibrated BatchNorm


def test_recalibrated_statistics_are_the_average_over_the_batches() -> None:
    with tiny_session(parts="batchnorm") as session:
        trained(session, 1, 5)
        table = evaluate_probe(session, batches())["/recalibrated"]
        model: Any = session.program.model
        with torch.no_grad():
            hidden = [model.first(inputs) for inputs, _ in batches()]
            mean = torch.stack([part.mean(dim=0) for part in hidden]).mean(dim=0)
            variance = torch.stack([part.var(dim=0) for part in hidden]).mean(dim=0)
            model.norm.running_mean.copy_(mean)
            model.norm.running_var.copy_(variance)
            expected = evaluate_probe(session, [])[""]
    assert np.allclose(table, expected, atol=1e-6)


def test_recalibrated_tables_do_not_depend_on_the_statistics_as_they_are() -> None:
    with tiny_session() as session:
        trained(session, 1, 5)
        before = evaluate_probe(session, batches())
        model: Any = session.program.model
        model.norm.reset_running_stats()
        after = evaluate_probe(session, batches())
    assert before["/recalibrated"].tobytes() == after["/recalibrated"].tobytes()
    assert before[""].tobytes() != after[""].tobytes()


def test_only_a_model_with_batchnorm_needs_recalibration() -> None:
    with tiny_session() as session:
        assert needs_recalibration(session)
    with tiny_session(parts="dropout") as session:
        assert not needs_recalibration(session)


def enqueue(model: Any, batch: Any) -> Tensor:
    """A loss with a side effect, as MoCo's."""
    model.last.bias.data += 1
    return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])


def test_a_loss_that_writes_is_told_apart_from_the_probe() -> None:
    with (
        tiny_session(lambda program: replace(program, loss=enqueue)) as session,
        pytest.raises(ProbeDisturbance) as caught,
    ):
        evaluate_probe(session, batches())
    assert caught.value.message == "recalibrating BatchNorm changed the training state"
    assert (caught.value.hint or "").startswith("loss= must not train, draw or write; give a ")


def test_recalibrate_is_called_in_place_of_the_loss() -> None:
    def change(program: Program) -> Program:
        return replace(program, loss=enqueue, recalibrate=lambda model, batch: model(batch[0]))

    with tiny_session() as session:
        expected = evaluate_probe(session, batches())
    with tiny_session(change) as session:
        found = evaluate_probe(session, batches())
    assert found["/recalibrated"].tobytes() == expected["/recalibrated"].tobytes()


def test_a_step_of_its_own_has_batchnorm_recalibrated_where_it_says_how() -> None:
    def change(program: Program, **options: Any) -> Program:
        return replace(program, loss=None, step=lambda program, batch, t: None, **options)

    with tiny_session(change) as session:
        assert not needs_recalibration(session)
    with tiny_session(lambda p: change(p, recalibrate=lambda m, b: m(b[0]))) as session:
        assert needs_recalibration(session)


def test_a_recalibration_that_raises_is_told_with_its_name() -> None:
    def change(program: Program) -> Program:
        return replace(program, recalibrate=lambda model, batch: model(batch))

    with tiny_session(change) as session, pytest.raises(ProgramError) as caught:
        evaluate_probe(session, batches())
    assert "recalibrate(model, batch) raised" in caught.value.message


# An averaged copy in the model's place


def of_average(program: Program) -> Program:
    assert program.probe is not None
    return replace(program, probe=replace(program.probe, of="ema"))


def test_the_average_is_asked_in_evaluation_mode_and_its_flags_are_put_back() -> None:
    with tiny_session(of_average, parts="dropout+ema") as session:
        trained(session, 1, 5)
        average, probe = session.program.averaged["ema"], session.program.probe
        assert probe is not None
        before = [layer.training for layer in average.modules()]
        table = evaluate_probe(session, [])[""]
        assert [layer.training for layer in average.modules()] == before == [True] * len(before)
        with torch.no_grad():
            expected = average.eval()(probe.inputs).double().softmax(dim=1).float().numpy()
            of_model = session.program.model.eval()(probe.inputs).double().softmax(dim=1)
    assert table.tobytes() == expected.tobytes()
    assert not np.allclose(table, of_model.numpy())


def test_the_batchnorm_that_is_recalibrated_is_the_averages() -> None:
    with tiny_session(of_average, parts="batchnorm+ema") as session:
        trained(session, 1, 5)
        assert needs_recalibration(session)
        tables = evaluate_probe(session, batches())
    assert not np.allclose(tables[""], tables["/recalibrated"])


def test_a_probe_that_puts_an_average_into_evaluation_mode_leaves_no_trace() -> None:
    def change(program: Program) -> Program:
        average = program.averaged["ema"]
        return predicting(lambda model, inputs: average.eval()(inputs))(program)

    with tiny_session(change, parts="dropout+ema") as session:
        evaluate_probe(session, [])
        assert session.program.averaged["ema"].training


def test_a_probe_of_an_average_that_there_is_not_is_refused_with_the_names() -> None:
    with (
        pytest.raises(ProgramError, match=r"no averaged copy.*") as caught,
        tiny_session(of_average),
    ):
        pass
    assert (caught.value.expected, caught.value.found) == ("averaged={...}", "'ema'")


@pytest.mark.parametrize(
    ("row", "found"), [([0.5, 0.2, 0.2], "sums to 0.9"), ([1.2, -0.1, -0.1], "least -0.1")]
)
def test_what_is_said_to_be_probabilities_has_to_be_some(row: list[float], found: str) -> None:
    with pytest.raises(ProgramError, match=f"gives no probabilities .*row 1.*{found}"):
        look_with(
            lambda _, x: torch.tensor([[0.2, 0.3, 0.5], row]).repeat(len(x) // 2, 1),
            probabilities=True,
        )
    diverged = look_with(lambda _, x: torch.full((len(x), 3), torch.nan), probabilities=True)
    assert has_non_finite(diverged)
