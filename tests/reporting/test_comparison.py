"""What is compared with what, what is not and why, and the figures of a comparison."""

import math

import pytest
from made_runs import write_run, write_sweep

from tests.messages import says
from tfamp.reporting import comparison, groups, runs
from tfamp.run.errors import InputError, as_flag


def compare(logdir, baseline="float32"):
    found, _ = runs.find(logdir, logdir / "report")
    return comparison.compare(found, baseline)


def labels(group):
    return [variant.label for variant in group.variants]


def reasons(compared):
    return {entry.directory: entry.why for entry in compared.unpaired}


def test_a_sweep_falls_into_a_group_for_each_loop(tmp_path):
    write_sweep(tmp_path)
    compared = compare(tmp_path)
    assert not compared.unpaired
    assert [group.settings["loop"] for group in compared.groups] == ["custom", "fit"]
    for group in compared.groups:
        assert labels(group) == [
            "float32",
            "mixed_float16",
            "mixed_float16 without loss scaling",
            "mixed_bfloat16",
        ]
        assert group.baseline is group.variants[0]
        assert group.baseline.comparison is None
        assert [variant.runs[i].seed for variant in group.variants for i in range(3)] == 4 * [
            0,
            1,
            2,
        ]


def test_the_figures_of_a_comparison(tmp_path):
    for seed, (base, mixed) in enumerate([(100.0, 50.0), (120.0, 40.0)]):
        write_run(tmp_path, policy="float32", seed=seed, step_ms=base, accuracy=0.8, peak=400)
        write_run(tmp_path, policy="mixed_float16", seed=seed, step_ms=mixed,
                  accuracy=0.81 + 0.02 * seed, peak=100)  # fmt: skip
    (group,) = compare(tmp_path).groups
    ((variant, found),) = group.comparisons
    assert variant.label == "mixed_float16" and found.seeds == (0, 1)
    assert found.step_speedup.value == pytest.approx(math.sqrt(2 * 3))
    # Epochs of 20 steps, the first with 20 s of compiling, which must not count.
    assert found.epoch_speedup.value == pytest.approx(math.sqrt(2 * 3))
    assert found.memory_ratio.value == pytest.approx(0.25)
    assert found.memory_ratio.low == pytest.approx(0.25)
    assert found.accuracy_difference.value == pytest.approx(0.02)
    assert found.accuracy_difference.high == pytest.approx(0.02 + 12.706205 * 0.01, rel=1e-5)
    assert variant.mean("step_time_ms").value == pytest.approx(math.sqrt(50 * 40))
    assert variant.mean("step_time_p95_ms").value == pytest.approx(1.1 * math.sqrt(50 * 40))
    assert variant.mean("epoch_time_sec").value == pytest.approx(math.sqrt(1.0 * 0.8))
    assert variant.mean("examples_per_sec").value == pytest.approx(64 / math.sqrt(0.05 * 0.04))
    assert variant.mean("validation_accuracy").value == pytest.approx(0.82)


def test_one_epoch_is_all_there_is(tmp_path):
    write_run(tmp_path, epochs=1, step_ms=100.0)
    (group,) = compare(tmp_path).groups
    assert group.baseline.mean("epoch_time_sec").value == pytest.approx(22.0)


def test_only_common_seeds_are_paired_and_the_rest_is_named(tmp_path):
    for seed in (0, 1, 2):
        write_run(tmp_path, policy="float32", seed=seed)
    for seed in (1, 2, 5):
        write_run(tmp_path, policy="mixed_bfloat16", seed=seed)
    compared = compare(tmp_path)
    (group,) = compared.groups
    ((_, found),) = group.comparisons
    assert found.seeds == (1, 2)
    assert found.step_speedup.n == 2
    ((directory, why),) = reasons(compared).items()
    assert directory == "resnet20-fashion_mnist_mini-mixed_bfloat16-fit-seed5"
    assert says(why, "float32", "no run", "seed 5")


DIFFERENT = {
    "batch_size": 32,
    "epochs": 2,
    "steps_per_epoch": 25,
    "learning_rate": 0.05,
    "model": "resnet18",
    "dataset": "cifar10",
    "loop": "custom",
    "optimizer": "adamw",
    "augment": "flip_crop",
    "accumulation_steps": 2,
    "clip_global_norm": 1.0,
    "ema_momentum": 0.9,
    "label_smoothing": 0.1,
    "log_every": 10,
    "image_size": 16,
    "deterministic": True,
    "steps_per_execution": 2,
    "warmup_steps": 5,
    "lr_schedule": "constant",
    "weight_decay": 0.1,
    "momentum": 0.5,
}


@pytest.mark.parametrize("field", DIFFERENT)
def test_runs_that_differ_in_anything_but_precision_are_never_paired(field, tmp_path):
    write_run(tmp_path, name="base", policy="float32")
    write_run(tmp_path, name="other", policy="mixed_bfloat16", **{field: DIFFERENT[field]})
    compared = compare(tmp_path)
    assert len(compared.groups) == 2
    assert not any(group.comparisons for group in compared.groups)
    why = reasons(compared)
    assert set(why) == {"base", "other"}
    assert says(why["other"], "float32", "nearest, base", f"{field} (", "here", "there")
    assert says(why["base"], "another precision", "nearest, other", f"{field} (", "here", "there")


def test_another_device_is_never_paired(tmp_path):
    write_run(tmp_path, name="base", policy="float32")
    write_run(tmp_path, name="other", policy="mixed_bfloat16", device="GPU:0 (H200)")
    compared = compare(tmp_path)
    assert "device (GPU:0 (H200) here, CPU:0 (a test's CPU) there)" in reasons(compared)["other"]


def test_a_lonely_run_says_that_there_is_nothing_else(tmp_path):
    write_run(tmp_path, name="base", policy="float32")
    ((directory, why),) = reasons(compare(tmp_path)).items()
    assert directory == "base" and says(why, "another precision", "none to compare")


def test_the_nearest_is_the_one_with_the_fewest_differences(tmp_path):
    write_run(tmp_path, name="far", policy="float32", batch_size=32, epochs=5)
    write_run(tmp_path, name="near", policy="float32", batch_size=32)
    write_run(tmp_path, name="other", policy="mixed_bfloat16")
    why = reasons(compare(tmp_path))["other"]
    assert says(why, "nearest, near", "batch_size (64 here, 32 there).")


def test_what_the_nearest_differs_in_is_named_in_the_order_of_the_alphabet(tmp_path):
    write_run(tmp_path, name="base", policy="float32")
    changes = {"warmup_steps": 5, "epochs": 2, "momentum": 0.5, "batch_size": 32, "loop": "custom"}
    write_run(tmp_path, name="other", policy="mixed_bfloat16", **changes)
    (entry,) = [entry for entry in compare(tmp_path).unpaired if entry.directory == "other"]
    assert entry.differs_in == ("batch_size", "epochs", "loop", "momentum", "warmup_steps")
    places = [entry.why.index(f"{name} (") for name in entry.differs_in]
    assert places == sorted(places)


def test_the_same_run_twice_is_counted_once(tmp_path):
    write_run(tmp_path, name="a", policy="float32")
    write_run(tmp_path, name="b", policy="float32")
    write_run(tmp_path, name="c", policy="mixed_bfloat16")
    compared = compare(tmp_path)
    (group,) = compared.groups
    assert [len(variant.runs) for variant in group.variants] == [1, 1]
    ((directory, why),) = reasons(compared).items()
    assert directory == "b" and says(why, "repeats a")


PRECISIONS = [
    ({"policy": "mixed_float16", "loss_scale": "none"}, "mixed_float16 without loss scaling"),
    ({"policy": "mixed_float16", "loss_scale": "1024"}, "mixed_float16 with loss scale 1024"),
    # Where it began is what it chose, by seed: not what tells it from another.
    (
        {
            "policy": "mixed_float16",
            "loss_scale": "auto",
            "initial_loss_scale": 64.0,
            "max_loss_scale": 2.0**20,
        },
        "mixed_float16 with loss scale auto with max_loss_scale=1048576",
    ),
    (
        {"policy": "mixed_float16", "initial_loss_scale": 2.0**24},
        "mixed_float16 with initial_loss_scale=16777216",
    ),
    (
        {"policy": "mixed_float16", "loss_scale_recovery_steps": None},
        "mixed_float16 with loss_scale_recovery_steps=none",
    ),
    (
        {"policy": "mixed_float16", "float32_layers": ("norm", "head")},
        "mixed_float16 with float32 layers norm head",
    ),
    ({"policy": "float16"}, "float16"),
    ({"policy": "mixed_bfloat16", "tf32_in_effect": True}, "mixed_bfloat16"),
]


@pytest.mark.parametrize(("values", "label"), PRECISIONS)
def test_each_precision_is_a_variant_of_its_own(values, label, tmp_path):
    write_run(tmp_path, name="base", policy="float32")
    write_run(tmp_path, name="plain", policy="mixed_float16")
    write_run(tmp_path, name="other", **values)
    (group,) = compare(tmp_path).groups
    assert set(labels(group)) == {"float32", "mixed_float16", label}
    assert len(group.comparisons) == 2


def test_float32_in_tf32_is_another_precision_and_true_float32_the_baseline(tmp_path):
    for name, in_effect in (("a", True), ("b", False)):
        write_run(tmp_path, name=name, policy="float32", tf32=in_effect, tf32_in_effect=in_effect)
    (group,) = compare(tmp_path).groups
    assert labels(group) == ["float32", "float32 in TF32"]
    assert group.baseline.label == "float32"
    (group,) = compare(tmp_path, "float32 in TF32").groups
    assert group.baseline.label == "float32 in TF32"


def test_labels_of_one_group_are_unique(tmp_path):
    write_run(tmp_path, name="base", policy="float32")
    for name, in_effect in (("a", True), ("b", False)):
        write_run(tmp_path, name=name, policy="mixed_float16", tf32_in_effect=in_effect)
    (group,) = compare(tmp_path).groups
    assert labels(group) == ["float32", "mixed_float16, TF32 off", "mixed_float16, TF32 on"]


def test_loss_scale_flags_mean_nothing_where_nothing_is_scaled(tmp_path):
    write_run(tmp_path, name="a", policy="float32", seed=0)
    write_run(tmp_path, name="b", policy="float32", seed=1, loss_scale="none")
    (group,) = compare(tmp_path).groups
    assert labels(group) == ["float32"]
    assert len(group.variants[0].runs) == 2


def test_another_baseline(tmp_path):
    write_run(tmp_path, policy="mixed_bfloat16", step_ms=50.0)
    write_run(tmp_path, policy="mixed_float16", step_ms=100.0)
    (group,) = compare(tmp_path, "mixed_bfloat16").groups
    assert labels(group) == ["mixed_bfloat16", "mixed_float16"]
    assert group.comparisons[0][1].step_speedup.value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        ("float16", ("--baseline=float16", "float32", "--baseline")),
        ("flot32", ("baseline 'flot32'", "'float32'")),
    ],
)  # fmt: skip
def test_a_baseline_that_is_not_there(baseline, message, tmp_path):
    write_run(tmp_path, policy="float32")
    with pytest.raises(InputError) as caught:
        compare(tmp_path, baseline)
    assert says(caught.value.told(as_flag), *message)


def test_no_runs_at_all(tmp_path):
    assert compare(tmp_path, "float32") == groups.Comparisons((), ())


def test_a_figure_that_was_not_measured_is_absent(tmp_path):
    write_run(tmp_path, policy="float32", peak=None)
    write_run(tmp_path, policy="mixed_bfloat16", peak=None)
    (group,) = compare(tmp_path).groups
    ((variant, found),) = group.comparisons
    assert found.memory_ratio is None
    assert variant.mean("device_peak_bytes") is None
