"""What the page tells of a model is what its fidelity.json says."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.loss_scaling import told_models
from tfamp.run.fidelity import FIDELITY, Histogram, Window

sys.path.insert(0, str(Path(__file__).parents[2] / "reporting"))
from made_fidelity import made


@pytest.fixture
def fidelities(tmp_path, monkeypatch):
    """A made fidelity of each model, where the page looks for it."""
    found = {}
    for model, size in (("resnet20", -16.0), ("vit_tiny", -24.0)):
        found[model] = made({"block1_conv1": size, "block1_relu2": size - 4, "head": size + 6})
        (tmp_path / model).mkdir()
        (tmp_path / model / FIDELITY).write_text(json.dumps(found[model].to_json()))
    monkeypatch.setattr(told_models, "RESULTS", tmp_path)
    told_models.fidelity_of.cache_clear()
    yield found
    told_models.fidelity_of.cache_clear()


HISTOGRAM = Histogram(first=-30, counts=(1, 0, 2, 0, 0, 1000 - 3), zeros=1000)


def test_scales_and_shares():
    assert told_models.scale_that_keeps(HISTOGRAM, 0.001) == 3
    assert told_models.scale_that_keeps(HISTOGRAM, 0.0) == 5
    assert told_models.scale_that_keeps(HISTOGRAM, 0.5) == 0
    assert told_models.largest_exponent(HISTOGRAM) == -25
    assert told_models.share_between(HISTOGRAM, -30, -27) == 3 / 2000


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("stage1_block2_conv1", "conv"),
        ("block3/attention_dropout", "dropout"),
        ("head", "head"),
        ("net/dense_12", "dense_12"),
    ],
)
def test_a_layers_kind(path, kind):
    assert told_models.kind_of(path) == kind


def test_a_window_is_told_by_its_ends():
    assert told_models.ends(Window(log2_min=4, log2_max=15)) == "2⁴ to 2¹⁵"
    assert told_models.ends(Window(log2_min=4, log2_max=24, is_open=True)) == "2⁴ to 2²⁴ or more"
    assert told_models.ends(None) == "none"


def test_the_published_form_is_counted_from_the_layers(fidelities):
    table = told_models.published_table().strip().splitlines()
    assert table[2].startswith("| Multibox SSD, published | 66.8 % | 31 % | 5.3 % |")
    assert [line.split(" | ")[0] for line in table[3:]] == ["| ResNet-20", "| ViT-Tiny"]
    for model in told_models.MODELS:
        histograms = [layer.activation_exponents for layer in fidelities[model].layers]
        entries = sum(h.zeros + sum(h.counts) for h in histograms)
        zeros = sum(h.zeros for h in histograms)
        lost = sum(
            count
            for h in histograms
            for exponent, count in enumerate(h.counts, h.first)
            if exponent < -25
        )
        values = told_models.values()
        name = told_models.MODELS[model]
        (row,) = (line for line in table if line.startswith(f"| {name} |"))
        assert row.startswith(f"| {name} | {told_models.share(zeros / entries)} |")
        assert values[f"{model}.lost"]() == told_models.share(lost / entries)


def test_every_value_has_a_text(fidelities):
    for name, value in told_models.values().items():
        assert value().strip(), name
    assert told_models.values()["published.sum"]() == "103.1 %"
    errors = told_models.errors_table().splitlines()
    assert sum(line.startswith("| ViT-Tiny, mixed_float16") for line in errors) == 9
    assert any("| none |" in line and "float32" in line for line in errors)


def test_a_kept_scale_is_the_casts():
    generator = np.random.default_rng(0)
    sizes = 2.0 ** generator.normal(-26, 4, 20_000)
    exponents = np.floor(np.log2(sizes)).astype(int)
    counts = tuple(np.bincount(exponents - exponents.min()).tolist())
    histogram = Histogram(first=int(exponents.min()), counts=counts, zeros=0)
    scale = told_models.scale_that_keeps(histogram, 0.001)
    lost = [np.mean((sizes * 2.0**k).astype(np.float16) == 0) for k in (scale - 1, scale)]
    assert lost[0] > 0.001 >= lost[1]
