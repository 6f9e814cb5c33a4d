"""Which runs may be compared, and what the comparison says.

Precision settings are what a report compares: the policy, TF32, layers forced to float32 and how
the loss was scaled. Two runs are compared only if everything else in their configs is equal, and
the device too; runs of one precision that differ in the seed alone are repetitions of each other.
"""

from __future__ import annotations

import dataclasses
import json
import statistics as robust
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from tfamp.reporting import statistics
from tfamp.reporting.precision_settings import PRECISION_FIELDS, Precision
from tfamp.reporting.runs import PassedOver, Run
from tfamp.reporting.statistics import Estimate
from tfamp.run.config import POLICIES
from tfamp.run.errors import InputError, unknown_name

# What tells runs apart without changing what they compute.
_IDENTITY_FIELDS = ("seed", "logdir", "run_name", "overwrite")


def _result(name: str) -> Callable[[Run], float | None]:
    return lambda run: run.result.get(name)


def epoch_seconds(run: Run) -> float:
    """The median epoch after the first, which compiles; the first where it is the only one."""
    return robust.median(run.result["epoch_time_sec"][1:] or run.result["epoch_time_sec"])


def _step_time(statistic: str) -> Callable[[Run], float | None]:
    return lambda run: run.result["step_time_ms"] and run.result["step_time_ms"][statistic]


# The figures of a run that are averaged over seeds: name in report.json, and where it comes from.
FIGURES: dict[str, Callable[[Run], float | None]] = {
    "first_call_sec": _result("first_call_sec"),
    "epoch_time_sec": epoch_seconds,
    "step_time_ms": _step_time("median"),
    "step_time_p95_ms": _step_time("p95"),
    "examples_per_sec": _result("examples_per_sec"),
    "device_peak_bytes": _result("device_peak_bytes"),
    "host_peak_rss_bytes": _result("host_peak_rss_bytes"),
    "validation_accuracy": _result("validation_accuracy"),
    "validation_loss": _result("validation_loss"),
    "train_loss": _result("train_loss"),
}

# The figures that can be 0 or not finite; times, rates and sizes are above 0 and averaged as such.
_SIGNED = ("validation_accuracy", "validation_loss", "train_loss")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A variant against the baseline, run by run of the same seed.

    Attributes:
        seeds: The seeds that both have.
        step_speedup: The baseline's median step time over the variant's: above 1 is faster.
        epoch_speedup: The same of the epoch time.
        memory_ratio: The variant's device peak over the baseline's: below 1 is smaller.
        accuracy_difference: The variant's validation accuracy less the baseline's, from -1 to 1.
    """

    seeds: tuple[int, ...]
    step_speedup: Estimate | None
    epoch_speedup: Estimate | None
    memory_ratio: Estimate | None
    accuracy_difference: Estimate | None


@dataclasses.dataclass(frozen=True)
class Variant:
    """The runs of one precision in a group, one for each seed.

    Attributes:
        precision: How they computed.
        label: A name that no other variant of the group has.
        runs: Sorted by seed.
        comparison: Against the group's baseline; None for the baseline itself, and where there
            is none or no seed in common.
    """

    precision: Precision
    label: str
    runs: tuple[Run, ...]
    comparison: Comparison | None = None

    def figure(self, name: str) -> Estimate | None:
        """One of `FIGURES` over the seeds; None where no run measured it."""
        values = [x for x in map(FIGURES[name], self.runs) if x is not None]
        return (statistics.mean if name in _SIGNED else statistics.geometric_mean)(values)


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs whose configs differ in precision and seed only, on one device.

    Attributes:
        settings: What they have in common, by the flags' names.
        device: The device, as `CPU:0 (its name)`.
        variants: Sorted, the baseline first.
        baseline: The variant that the others are compared with, or None.
    """

    settings: dict[str, Any]
    device: str
    variants: tuple[Variant, ...]
    baseline: Variant | None

    @property
    def title(self) -> str:
        """What its runs have in common and a reader looks for."""
        settings = self.settings
        xla = "with XLA" if settings.get("jit_compile") else "without XLA"
        size = f" at {settings['image_size']} pixels" if settings.get("image_size") else ""
        parts = [f"{settings['model']} on {settings['dataset']}{size}", f"{settings['loop']} loop"]
        return ", ".join([*parts, xla, f"batch {settings['batch_size']}"])

    @property
    def runs(self) -> list[Run]:
        """All runs of the group."""
        return [run for variant in self.variants for run in variant.runs]

    @property
    def comparisons(self) -> list[tuple[Variant, Comparison]]:
        """The variants that are compared with the baseline."""
        return [(v, v.comparison) for v in self.variants if v.comparison is not None]


@dataclasses.dataclass(frozen=True)
class Comparisons:
    """Everything that a LOGDIR holds, in groups.

    Attributes:
        groups: The groups, those with a comparison first.
        unpaired: Completed runs that no other run may be compared with, and why.
    """

    groups: tuple[Group, ...]
    unpaired: tuple[PassedOver, ...]


def compare(runs: Sequence[Run], baseline: str) -> Comparisons:
    """Groups runs and compares each variant with the baseline of its group.

    Args:
        runs: Completed runs.
        baseline: The policy to compare with, or the label of one variant.

    Raises:
        InputError: No run has that policy or label though there are runs.
    """
    _check_baseline(runs, baseline)
    unpaired: list[PassedOver] = []
    members: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        members[json.dumps([settings_of(run), run.result["device"]], sort_keys=True)].append(run)
    groups = [_group(group, baseline, unpaired) for group in members.values()]
    groups.sort(key=lambda g: (not g.comparisons, g.runs[0].directory))
    for group in groups:
        unpaired += _why_unpaired(group, groups, baseline)
    return Comparisons(tuple(groups), tuple(unpaired))


def settings_of(run: Run) -> dict[str, Any]:
    """The part of a run's config that runs must share to be compared."""
    apart = (*PRECISION_FIELDS, *_IDENTITY_FIELDS)
    return {name: value for name, value in run.config.items() if name not in apart}


def _check_baseline(runs: Sequence[Run], baseline: str) -> None:
    precisions = [Precision.of(run) for run in runs]
    known = dict.fromkeys(p.policy for p in sorted(precisions, key=lambda p: p.order))
    if runs and baseline not in known and baseline not in {p.label for p in precisions}:
        if baseline in POLICIES:
            raise InputError(
                f"--baseline={baseline}: no completed run has this policy. There are runs of "
                f"{', '.join(known)}: set --baseline to one of them, or run that policy too."
            )
        raise unknown_name("baseline", baseline, known, "--baseline")


def _group(runs: Sequence[Run], baseline: str, unpaired: list[PassedOver]) -> Group:
    by_precision: dict[Precision, dict[int, Run]] = defaultdict(dict)
    for run in runs:
        seeds = by_precision[Precision.of(run)]
        if run.seed in seeds:
            why = f"It repeats {seeds[run.seed].directory}: the same settings and the same seed."
            unpaired.append(PassedOver(run.directory, why))
        else:
            seeds[run.seed] = run
    labels = [precision.label for precision in by_precision]
    variants = []
    for precision, seeds in by_precision.items():
        label = precision.label
        if labels.count(label) > 1:
            label += ", TF32 on" if precision.tf32 else ", TF32 off"
        ordered = tuple(seeds[seed] for seed in sorted(seeds))
        variants.append(Variant(precision, label, ordered))
    variants.sort(key=lambda variant: variant.precision.order)
    chosen = _baseline_of(variants, baseline)
    compared = [
        variant
        if chosen is None or variant is chosen
        else dataclasses.replace(variant, comparison=_comparison(variant, chosen))
        for variant in variants
    ]
    compared.sort(key=lambda variant: variant is not chosen)
    device = runs[0].result["device"]
    return Group(settings_of(runs[0]), device, tuple(compared), chosen)


def _baseline_of(variants: Sequence[Variant], baseline: str) -> Variant | None:
    # The variants come sorted: of one policy the plainest first, and TF32 off before on.
    for variant in variants:
        if variant.label == baseline:
            return variant
    return next((v for v in variants if v.precision.policy == baseline), None)


def _comparison(variant: Variant, baseline: Variant) -> Comparison | None:
    others = {run.seed: run for run in baseline.runs}
    pairs = [(run, others[run.seed]) for run in variant.runs if run.seed in others]
    if not pairs:
        return None

    def both(figure: str) -> tuple[list[float], list[float]]:
        read = FIGURES[figure]
        known = [(read(run), read(base)) for run, base in pairs]
        found = [(a, b) for a, b in known if a is not None and b is not None]
        return [a for a, _ in found], [b for _, b in found]

    steps, base_steps = both("step_time_ms")
    epochs, base_epochs = both("epoch_time_sec")
    peaks, base_peaks = both("device_peak_bytes")
    accuracies, base_accuracies = both("validation_accuracy")
    return Comparison(
        seeds=tuple(run.seed for run, _ in pairs),
        step_speedup=statistics.mean_ratio(base_steps, steps),
        epoch_speedup=statistics.mean_ratio(base_epochs, epochs),
        memory_ratio=statistics.mean_ratio(peaks, base_peaks),
        accuracy_difference=statistics.mean_difference(accuracies, base_accuracies),
    )


def _why_unpaired(group: Group, groups: Sequence[Group], baseline: str) -> list[PassedOver]:
    found = []
    if group.baseline is None:
        for run in group.runs:
            others = [r for g in groups if g.baseline is not None for r in g.baseline.runs]
            why = f"No {baseline} run shares its other settings. "
            found.append(PassedOver(run.directory, why + _nearest(run, others)))
        return found
    for variant in group.variants:
        seeds = {run.seed for run in group.baseline.runs}
        if variant is group.baseline:
            if len(group.variants) == 1:
                others = [r for g in groups if g is not group for r in g.runs]
                why = "No run of another precision shares its other settings. "
                found += [
                    PassedOver(run.directory, why + _nearest(run, others)) for run in group.runs
                ]
            continue
        found += [
            PassedOver(run.directory, f"{group.baseline.label} has no run of seed {run.seed}.")
            for run in variant.runs
            if run.seed not in seeds
        ]
    return found


def _nearest(run: Run, others: Sequence[Run]) -> str:
    """Says in what the most similar of `others` differs."""
    if not others:
        return "There is none to compare it with."

    def differences(other: Run) -> dict[str, tuple[Any, Any]]:
        here, there = settings_of(run), settings_of(other)
        here["device"], there["device"] = run.result["device"], other.result["device"]
        names = sorted(here.keys() | there.keys())
        return {n: (here.get(n), there.get(n)) for n in names if here.get(n) != there.get(n)}

    nearest = min(others, key=lambda other: (len(differences(other)), other.directory))
    parts = [f"{n} ({a} here, {b} there)" for n, (a, b) in differences(nearest).items()]
    return f"The nearest, {nearest.directory}, differs in {', '.join(parts)}."
