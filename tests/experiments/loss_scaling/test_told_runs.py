"""What the page tells of the lab's runs is what their results say."""

import json

import pytest

from experiments.loss_scaling import told_runs


def spread(mean, low=None, high=None):
    low, high = (mean if end is None else end for end in (low, high))
    return {"mean": mean, "low": low, "high": high, "n": 1 if low == high else 3}


def row(scaling, kind, workload="detector", **changes):
    return {
        "workload": workload,
        "scaling": scaling,
        "settings": {"kind": kind},
        "skips": spread(0.0),
        "settled_after": spread(0.0),
        "gradient_error": spread(0.0312),
        "score": spread(0.54883),
    } | changes


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Results of each part, where the page looks for them."""
    strategies = [
        row("float32", "float32", gradient_error=None),
        row("none", "none", gradient_error=spread(0.376, 0.3, 0.5)),
        row("static 2^12", "static"),
        row("dynamic from 2^24, growth 200", "dynamic", settled_after=spread(14.0),
            skips=spread(15.0, 14.0, 16.0)),
        row("auto", "auto", settled_after=None),
        row("none", "none", workload="resnet20"),
    ]  # fmt: skip
    claim = [
        row("float32", "float32", gradient_error=None, score_minus_float32=spread(0.0)),
        row("static 2^4", "static", score_minus_float32=spread(-0.12, -0.2, -0.05),
            place_in_first_window="below", place_in_common_window="below",
            predicted_error=0.21, error_at_first_step=spread(0.2)),
        row("static 2^28", "static", score_minus_float32=spread(-0.5),
            place_in_first_window="above", place_in_common_window=None,
            predicted_error=None, error_at_first_step=None),
    ]  # fmt: skip
    window = {"log2_min": 11, "log2_max": 28, "is_open": True}
    windows = {
        "looks": [{"step": 0, "window": window}, {"step": 1500, "window": None}],
        "common": window | {"is_open": False},
    }
    failure = {
        "table": [*strategies[:2], row("float32", "float32", workload="detector, head alone")],
        "chance": {"untrained": spread(0.01), "constant": 0.08},
        "underflow_by_layer": {"none": {"steps": [0, 60], "all": [0.58175, 0.7], "layers": {}}},
    }
    claimed = {"table": claim, "windows": windows["looks"], "common_window": windows["common"]}
    for name, content in (
        ("strategies", {"table": strategies}),
        ("claim", claimed),
        ("failure", failure),
    ):  # fmt: skip
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    monkeypatch.setattr(told_runs, "RESULTS", tmp_path)
    told_runs.results.cache_clear()
    yield
    told_runs.results.cache_clear()


@pytest.mark.usefixtures("results")
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("strategies.detector", "| float32 | 0 | is fixed | not measured | 54.9 % |"),
        ("strategies.detector", "| no scale | 0 | is fixed | 37.6 % (30.0 % to 50.0 %) | 54.9 % |"),
        ("strategies.detector", "| static 2¹² | 0 | is fixed | 3.1 % | 54.9 % |"),
        ("strategies.detector",
         "| dynamic from 2²⁴, growth 200 | 15 (14 to 16) | 14 | 3.1 % | 54.9 % |"),
        ("strategies.detector", "| `--loss_scale=auto` | 0 | never | 3.1 % | 54.9 % |"),
        ("strategies.resnet20", "| no scale | 0 | is fixed | 3.1 % | 54.9 % |"),
        ("failure.table", "| no scale | 54.9 % | 0 | 37.6 % (30.0 % to 50.0 %) |"),
        ("failure.table", "| float32, head alone | 54.9 % | 0 | 3.1 % |"),
        ("claim.windows", "| 0 | 2¹¹ to 2²⁸ or more |"),
        ("claim.windows", "| 1,500 | none |"),
        ("claim.table", "| float32 |  |  |  |  | 0 | +0.0 |"),
        ("claim.table",
         "| static 2⁴ | below | below | 21.0 % | 20.0 % | 0 | -12.0 (-20.0 to -5.0) |"),
        ("claim.table", "| static 2²⁸ | above |  | not finite | not measured | 0 | -50.0 |"),
    ],
)  # fmt: skip
def test_a_row_of_a_table(name, line):
    lines = told_runs.values()[name]().strip().splitlines()
    assert line in lines
    assert len({entry.count("|") for entry in lines}) == 1


@pytest.mark.usefixtures("results")
def test_a_workload_has_its_own_rows():
    lines = told_runs.values()["strategies.resnet20"]().strip().splitlines()
    assert len(lines) == 3 and "validation accuracy" in lines[0]


@pytest.mark.usefixtures("results")
def test_single_numbers():
    told = {name: value() for name, value in told_runs.values().items() if "table" not in name}
    assert told["failure.untrained"] == "1.0 %"
    assert (told["failure.lost"], told["failure.lost_later"]) == ("58.2 %", "70.0 %")
    assert told["failure.later"] == "60"
    assert told["claim.common"] == "2¹¹ to 2²⁸"
