"""The predictor against scikit-learn's own pipeline and cross-validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, LeaveOneOut, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from hwnas.compress.quality.model import describe
from hwnas.compress.quality.predictor import (
    PENALTIES,
    Predictor,
    fit_predictor,
    leave_one_out,
    score,
    second_order,
)
from hwnas.errors import InputError
from hwnas.files import encode, signed, write_json


def networks(
    amount: int, parts: int = 5, seed: int = 0, noise: float = 0.002
) -> tuple[np.ndarray, np.ndarray]:
    """Metrics of random networks, and accuracies that depend on them to the second order, with noise."""
    sensitivity = np.random.default_rng(7).uniform(0.02, 0.2, parts)
    generator = np.random.default_rng(seed)
    metrics = generator.uniform(0, 1, (amount, parts)) * generator.integers(0, 2, (amount, parts))
    drop = metrics @ sensitivity
    return metrics, 0.95 - drop - 0.3 * drop**2 + generator.normal(0, noise, amount)


def sklearn_pipeline(penalty: float) -> Pipeline:
    return make_pipeline(
        StandardScaler(), PolynomialFeatures(2, include_bias=False), StandardScaler(), Ridge(penalty)
    )


def test_terms_are_those_of_scikit_learn_in_some_order() -> None:
    x = np.random.default_rng(0).normal(size=(7, 4))
    expected = PolynomialFeatures(2, include_bias=False).fit_transform(x)
    ours = second_order(x)
    assert ours.shape == expected.shape == (7, 14)
    np.testing.assert_allclose(np.sort(ours, axis=1), np.sort(expected, axis=1))


def test_a_fit_is_scikit_learns_pipeline_with_the_same_penalty() -> None:
    metrics, accuracies = networks(25)
    unseen, _ = networks(50, seed=1)
    predictor = fit_predictor(metrics, accuracies)
    expected = sklearn_pipeline(predictor.penalty).fit(metrics, accuracies).predict(unseen)
    np.testing.assert_allclose(predictor.predict(unseen), expected, rtol=1e-9)


def test_the_penalty_is_the_one_that_leave_one_out_finds() -> None:
    metrics, accuracies = networks(24, seed=3)
    predictor = fit_predictor(metrics, accuracies)
    scale = StandardScaler().fit(metrics)
    terms = StandardScaler().fit_transform(
        PolynomialFeatures(2, include_bias=False).fit_transform(scale.transform(metrics))
    )
    grid = GridSearchCV(Ridge(), {"alpha": PENALTIES}, cv=LeaveOneOut(), scoring="neg_mean_squared_error")
    assert predictor.penalty == pytest.approx(grid.fit(terms, accuracies).best_params_["alpha"])


def test_left_out_scores_are_those_of_scikit_learns_cross_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one penalty to choose from, so that only the leaving out is compared."""
    monkeypatch.setattr("hwnas.compress.quality.predictor.PENALTIES", np.array([0.3]))
    metrics, accuracies = networks(22, seed=4)
    expected = cross_val_predict(sklearn_pipeline(0.3), metrics, accuracies, cv=LeaveOneOut())
    np.testing.assert_allclose(leave_one_out(metrics, accuracies), expected, rtol=1e-9)
    predictor = fit_predictor(metrics, accuracies)
    assert predictor.left_out.kendall_tau == score(expected, accuracies).kendall_tau
    assert predictor.left_out.mse_points2 == pytest.approx(1e4 * np.mean((expected - accuracies) ** 2))


def test_a_network_left_out_has_no_say_in_its_prediction() -> None:
    metrics, accuracies = networks(20)
    spoilt = accuracies.copy()
    spoilt[4] = 0.1
    assert leave_one_out(metrics, accuracies)[4] == leave_one_out(metrics, spoilt)[4]


def test_it_ranks_networks_better_than_the_sum_of_their_metrics() -> None:
    metrics, accuracies = networks(24)
    unseen, actual = networks(200, seed=9)
    found = score(fit_predictor(metrics, accuracies).predict(unseen), actual)
    by_sum = score(-unseen.sum(1), actual)
    assert found.kendall_tau is not None
    assert by_sum.kendall_tau is not None
    assert found.kendall_tau > 0.93 > by_sum.kendall_tau
    assert found.networks == 200


def test_it_is_saved_as_json_and_read_back_the_same(tmp_path: Path) -> None:
    metrics, accuracies = networks(20)
    predictor = fit_predictor(metrics, accuracies)
    predictor.save(tmp_path / "predictor.json")
    read = Predictor.read(tmp_path / "predictor.json")
    assert read == predictor
    np.testing.assert_array_equal(read.predict(metrics), predictor.predict(metrics))


@pytest.mark.parametrize("content", ["", "{}", '{"schema": "hwnas.predictor/1"}', '{"schema": "other/1"}'])
def test_a_damaged_file_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "predictor.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"predictor\.json"):
        Predictor.read(path)


def test_extrapolation_is_flagged() -> None:
    generator = np.random.default_rng(0)
    along = generator.uniform(0, 1, (30, 1))
    metrics = np.column_stack([along, along + generator.uniform(0, 0.05, (30, 1)), np.zeros(30)])
    predictor = fit_predictor(metrics, 0.9 - 0.1 * metrics.sum(1))
    assert not predictor.extrapolates(metrics).any()
    outside = [[1.5, 0.5, 0.0], [0.5, 0.5, 0.1]]  # a metric out of range; a part that never varied
    corner = [[0.95, 0.06, 0.0]]  # each metric within its range, the two together never seen
    assert predictor.extrapolates(np.array(outside + corner)).tolist() == [True] * 3
    assert not predictor.extrapolates(np.array([[0.5, 0.52, 0.0]]))[0]


def test_the_leverage_that_is_allowed_is_the_largest_of_a_network_left_out() -> None:
    metrics, accuracies = networks(20)
    predictor = fit_predictor(metrics, accuracies)
    terms = second_order((metrics - metrics.mean(0)) / metrics.std(0))
    scaled = (terms - terms.mean(0)) / terms.std(0)
    found = []
    for left in range(20):
        others = np.delete(scaled, left, axis=0)
        inverse = np.linalg.inv(others.T @ others + predictor.penalty * np.eye(scaled.shape[1]))
        found.append(scaled[left] @ inverse @ scaled[left])
    assert predictor.max_leverage == pytest.approx(max(found))
    assert not predictor.extrapolates(metrics).any()


def test_most_networks_like_the_fitted_ones_do_not_extrapolate() -> None:
    predictor = fit_predictor(*networks(30))
    alike = np.clip(networks(500, seed=1)[0], predictor.lowest, predictor.highest)
    assert 0 < predictor.extrapolates(alike).mean() < 0.2


def test_a_fit_that_is_no_better_than_the_mean_is_called_so() -> None:
    metrics, accuracies = networks(20)
    assert fit_predictor(metrics, accuracies).is_useful
    assert "no better than their mean" not in describe(fit_predictor(metrics, accuracies))
    noise = np.random.default_rng(3).uniform(0.2, 0.9, 20)
    fitted = fit_predictor(metrics, noise)
    by_mean = [100 * (np.delete(noise, i).mean() - noise[i]) for i in range(20)]
    assert fitted.mean_mse_points2 == pytest.approx(np.mean(np.square(by_mean)))
    assert not fitted.is_useful
    assert "no better than their mean: give more --predictor-networks" in describe(fitted)


@pytest.mark.parametrize(
    "changed",
    [{"parts": 7}, {"coefficients": [1.0]}, {"spread": [[1.0]]}, {"mean": []}, {"varying": [0, 1, 2, 3, 9]}],
)
def test_figures_that_do_not_belong_together_are_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "predictor.json"
    plain = encode(fit_predictor(*networks(20))) | changed
    write_json(path, {"schema": "hwnas.predictor/1", **signed(plain)})
    with pytest.raises(InputError, match=r"predictor\.json.*not of one predictor"):
        Predictor.read(path)


def test_networks_that_are_all_alike_give_their_mean() -> None:
    predictor = fit_predictor(np.zeros((5, 3)), np.array([0.8, 0.9, 0.8, 0.9, 0.85]))
    assert predictor.predict(np.zeros((2, 3))) == pytest.approx([0.85, 0.85])
    assert predictor.left_out.kendall_tau is None or abs(predictor.left_out.kendall_tau) <= 1
    assert predictor.extrapolates(np.array([[0.0, 0.0, 0.0], [0.0, 0.1, 0.0]])).tolist() == [False, True]


@pytest.mark.parametrize(
    ("metrics", "accuracies", "match"),
    [
        (np.zeros((3, 2)), np.zeros(3), "3 finetuned networks are too few"),
        (np.zeros((5, 2)), np.zeros(4), "do not belong together"),
        (np.full((5, 2), np.nan), np.zeros(5), "not finite"),
    ],
)
def test_what_cannot_be_fitted_is_told(metrics: np.ndarray, accuracies: np.ndarray, match: str) -> None:
    with pytest.raises(InputError, match=match):
        fit_predictor(metrics, accuracies)
