"""Points and layers that are picked out of a fidelity."""

from __future__ import annotations

import dataclasses

from tests.reporting import made_fidelity
from tfamp.reporting import fidelity_points


def test_scales_come_in_order_and_the_best_is_the_smallest_error():
    fidelity = made_fidelity.made({"a": -24.0}, spread=1.0, log2_scales=(8, 0, 24, -2))
    scaled = fidelity_points.scaled(fidelity.precisions)
    assert [point.log2_scale for point in scaled] == [-2, 0, 8, 24]
    errors = [point.relative_error for point in scaled]
    assert errors[0] > errors[1] > errors[2]
    best = fidelity_points.best(fidelity.precisions)
    assert best.relative_error == min(errors) and best.log2_scale in (8, 24)
    assert fidelity_points.at(fidelity.precisions, 8.0) is scaled[2]
    assert fidelity_points.at(fidelity.precisions, 9.0) is None
    names = [point.precision for point in fidelity_points.unscaled(fidelity.precisions)]
    assert names == ["float32", "mixed_bfloat16"]


def test_an_error_of_zero_is_the_best_and_what_is_not_finite_is_none():
    points = made_fidelity.healthy().precisions
    none = dataclasses.replace(points[-1], relative_error=0.0, log2_scale=3.0)
    assert fidelity_points.best((*points, none)) is none
    assert fidelity_points.best(made_fidelity.forward_overflow().precisions) is None


def test_telling_layers_are_those_that_contradict_each_other():
    paths = [x.path for x in fidelity_points.telling_layers(made_fidelity.contradiction())]
    assert paths == ["block1", "block2"]
    assert fidelity_points.telling_layers(made_fidelity.without_float16()) == []


def test_the_ranked_first_is_told_besides_where_it_bounds_nothing():
    fidelity = made_fidelity.contradiction()
    ranked = dataclasses.replace(fidelity.error_budget.layers[0], path="block3")
    budget = dataclasses.replace(fidelity.error_budget, layers=(ranked,))
    told = fidelity_points.telling_layers(dataclasses.replace(fidelity, error_budget=budget))
    assert [layer.path for layer in told] == ["block1", "block2", "block3"]


def test_the_advised_scale_is_the_static_one_else_the_initial_one():
    fidelity = made_fidelity.healthy()
    advice = dataclasses.replace(fidelity.advice, static_scale=1024.0, initial_scale=2.0**15)

    def advised(**changes):
        changed = dataclasses.replace(advice, **changes)
        return fidelity_points.advised_log2_scale(dataclasses.replace(fidelity, advice=changed))

    assert advised() == 10
    assert advised(static_scale=None) == 15
    assert advised(static_scale=None, initial_scale=None) is None
    assert fidelity_points.advised_log2_scale(made_fidelity.without_float16()) is None
    assert fidelity_points.default_log2_scale() == 15
