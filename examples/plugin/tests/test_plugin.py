"""The plug-in keeps Slimline's promises, and its own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from sklearn.datasets import load_wine
from sklearn.metrics import balanced_accuracy_score
from slimline_wine.method import WeakNeurons
from slimline_wine.metric import BalancedAccuracy
from slimline_wine.model import Mlp
from slimline_wine.preprocess import standardize
from slimline_wine.task import Wine

from slimline import params, pipeline, plugins
from slimline.errors import DataError, MethodError
from slimline.models.cnn import Cnn
from slimline.task import call, tensors
from slimline.testing import check_method, check_task


@pytest.fixture(scope="module")
def task() -> Wine:
    return Wine()


@pytest.fixture(scope="module")
def model(task: Wine) -> Mlp:
    """An MLP that has learnt its wines."""
    torch.manual_seed(0)
    model = Mlp(hidden=[32, 24])
    inputs, y = task.splits()["train"][slice(None)]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        task.loss(call(model, tensors(inputs)), torch.from_numpy(y)).backward()
        optimizer.step()
    return model


def test_the_task_keeps_its_promises(task: Wine) -> None:
    check_task(task, raw=load_wine().data[:5].tolist())


@pytest.mark.parametrize("ratio", [0.25, 0.75])
def test_the_method_keeps_its_promises(ratio: float, model: Mlp, task: Wine) -> None:
    check_method(WeakNeurons(ratio=ratio), model, task)


@pytest.mark.parametrize("name", ["structured", "linear", "symmetric"])
def test_built_in_methods_work_on_a_table(name: str, model: Mlp, task: Wine) -> None:
    check_method(plugins.find("methods", name)(), model, task)


def test_a_dead_neuron_goes_first_and_nothing_changes() -> None:
    dead = Mlp(hidden=[8, 8])
    with torch.no_grad():
        dead[0].weight[[1, 4]] = 0
        dead[0].bias[[1, 4]] = 0
        dead[2].weight[:, 6] = 0
        dead[2].weight[5] = 0
        dead[2].bias[5] = 0
        dead[4].weight[:, [0, 7]] = 0
    x = torch.randn(6, 13)
    expected = dead(x)
    plan = WeakNeurons(ratio=3 / 8).plan(dead, list, None)
    assert [each["kept"] for each in plan.edit.data["hidden"]] == [[0, 2, 3, 5, 7], [1, 2, 3, 4, 6]]
    torch.testing.assert_close(WeakNeurons.apply(dead, plan.edit)(x), expected)


def test_a_model_without_a_chain_of_linear_layers_is_refused() -> None:
    context = SimpleNamespace(where="params.yaml: prune.methods.0")
    with pytest.raises(MethodError, match=r"prune.methods.0: weak-neurons found no hidden layer"):
        WeakNeurons().plan(Cnn(), list, context)


def test_balanced_accuracy_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    answers, targets = rng.integers(0, 3, 50), rng.integers(0, 3, 50)
    assert BalancedAccuracy()(answers, targets) == pytest.approx(balanced_accuracy_score(targets, answers))


def test_standardize_gives_training_rows_mean_0_and_spread_1(task: Wine) -> None:
    features = task.splits()["train"].inputs["features"]
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(features.std(0), 1, atol=1e-3)


def test_standardize_names_the_row_that_is_too_short() -> None:
    with pytest.raises(DataError, match="row 1: 1 numbers, expected 2"):
        standardize([[1, 2], [3]], mean=[0, 0], std=[1, 1])


def test_params_yaml_is_valid() -> None:
    path = Path(__file__).parents[1] / "params.yaml"
    settings = params.load(path)
    for name, section in settings.compressions.items():
        for chosen in getattr(section, "methods", []):
            params.configure("methods", chosen, name)
    assert pipeline.check_order(yaml.safe_load(path.read_text()))[-1] == "factorize"
