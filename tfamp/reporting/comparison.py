"""What the comparison of runs says: figures of each precision, and its ratios to a baseline.

Precision settings are what a report compares: the policy, TF32, layers forced to float32 and how
the loss was scaled. Runs of one precision that differ in the seed alone are repetitions of each
other; `pairing` says which runs may be compared at all.
"""

from __future__ import annotations

import dataclasses
import statistics as robust
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from tfamp.reporting import pairing, statistics
from tfamp.reporting.precision_settings import Precision
from tfamp.reporting.runs import PassedOver, Run, by_seed
from tfamp.reporting.statistics import Estimate
from tfamp.run.config import POLICIES
from tfamp.run.errors import InputError, setting, unknown_name


def _result(name: str) -> Callable[[Run], float | None]:
    return lambda run: run.result.get(name)


def epoch_seconds(run: Run) -> float | None:
    """The median epoch after the first, which compiles; the first where it is the only one."""
    seconds = run.result["epoch_time_sec"]
    return robust.median(seconds[1:] or seconds) if seconds else None


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

# How each is averaged; times, rates and sizes, which are above 0, by their logarithms.
_MEANS: dict[str, Callable[[Sequence[float]], Estimate | None]] = {
    "validation_accuracy": statistics.mean_share,
    "validation_loss": statistics.mean,
    "train_loss": statistics.mean,
}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A variant against the baseline, run by run of the same seed.

    Attributes:
        seeds: The seeds that both have.
        step_speedup: The baseline's median step time over the variant's: above 1 is faster.
        epoch_speedup: The same of the epoch time.
        memory_ratio: The variant's device peak over the baseline's: below 1 is smaller.
        accuracy_difference: The variant's validation accuracy less the baseline's, from -1 to 1.
        is_compiled_alike: Whether XLA compiled both or neither; where not, what they cost is not
            compared, and ratios of time and memory are None.
    """

    seeds: tuple[int | None, ...]
    step_speedup: Estimate | None
    epoch_speedup: Estimate | None
    memory_ratio: Estimate | None
    accuracy_difference: Estimate | None
    is_compiled_alike: bool = True


@dataclasses.dataclass(frozen=True)
class Variant:
    """The runs of one precision in a group, one for each seed.

    Attributes:
        precision: How they computed.
        label: A name that no other variant of the group has.
        runs: Sorted by seed.
        has_xla: Whether XLA compiled them; None where it was not recorded.
        comparison: Against the group's baseline; None for the baseline itself, and where there
            is none or no seed in common.
    """

    precision: Precision
    label: str
    runs: tuple[Run, ...]
    has_xla: bool | None
    comparison: Comparison | None = None

    @property
    def has_comparable_costs(self) -> bool:
        """Whether its times and memory may stand beside the baseline's."""
        return self.comparison is None or self.comparison.is_compiled_alike

    def figure(self, name: str) -> Estimate | None:
        """One of `FIGURES` over the seeds; None where no run measured it."""
        values = [x for x in map(FIGURES[name], self.runs) if x is not None]
        return _MEANS.get(name, statistics.geometric_mean)(values)


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs whose configs differ in precision and seed only, or in the compiler too, on one device.

    Attributes:
        settings: What they have in common, by the flags' names; without `jit_compile` where they
            differ in it.
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
        xla = xla_words(settings.get(pairing.COMPILER))
        if pairing.COMPILER not in settings:
            xla = "with and without XLA"
        size = f" at {settings['image_size']} pixels" if settings.get("image_size") else ""
        data = f" on {settings['dataset']}{size}" if settings.get("dataset") else ""
        parts = [f"{settings['model'] or 'a model'}{data}", f"{settings['loop']} loop", xla]
        if settings.get("batch_size"):
            parts.append(f"batch {settings['batch_size']}")
        return ", ".join(parts)

    @property
    def unlike(self) -> list[tuple[Variant, Comparison]]:
        """The variants that are compared with a baseline of another compiler."""
        return [(v, c) for v, c in self.comparisons if not c.is_compiled_alike]

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
    members = pairing.join_compilers(
        pairing.gather(runs), lambda run: baseline in (run.policy, Precision.of(run).label)
    )
    groups = [_group(group, baseline, unpaired) for group in members]
    groups.sort(key=lambda g: (not g.comparisons, g.runs[0].directory))
    for group in groups:
        unpaired += _why_unpaired(group, groups, baseline)
    return Comparisons(tuple(groups), tuple(unpaired))


def xla_words(has_xla: bool | None) -> str:
    """Whether XLA compiled, in words."""
    return "with XLA" if has_xla else "without XLA"


def _check_baseline(runs: Sequence[Run], baseline: str) -> None:
    precisions = [Precision.of(run) for run in runs]
    known = dict.fromkeys(p.policy for p in sorted(precisions, key=lambda p: p.order))
    if runs and baseline not in known and baseline not in {p.label for p in precisions}:
        if baseline in POLICIES:
            raise InputError(
                f"{setting('baseline', baseline)}: no completed run has this policy. There are "
                f"runs of {', '.join(known)}: set {setting('baseline')} to one of them, or run "
                "that policy too."
            )
        raise unknown_name("baseline", baseline, known, "baseline")


def _group(runs: Sequence[Run], baseline: str, unpaired: list[PassedOver]) -> Group:
    by_precision: dict[tuple[Precision, bool | None], dict[int | None, Run]] = defaultdict(dict)
    for run in runs:
        seeds = by_precision[Precision.of(run), run.config.get(pairing.COMPILER)]
        if run.seed in seeds:
            why = f"It repeats {seeds[run.seed].directory}: the same settings and the same seed."
            unpaired.append(PassedOver(run.directory, why))
        else:
            seeds[run.seed] = run
    labels = [precision.label for precision in dict.fromkeys(p for p, _ in by_precision)]
    variants = []
    for (precision, has_xla), seeds in by_precision.items():
        label = precision.label
        if labels.count(label) > 1:
            label += ", TF32 on" if precision.tf32 else ", TF32 off"
        ordered = tuple(seeds[seed] for seed in sorted(seeds, key=by_seed))
        variants.append(Variant(precision, label, ordered, has_xla))
    variants.sort(key=lambda variant: variant.precision.order)
    chosen = _baseline_of(variants, baseline)
    if chosen is not None:
        variants = [_against(variant, chosen) for variant in variants]
    variants.sort(key=lambda variant: variant is not chosen)
    settings = pairing.settings_of(runs[0])
    if len({variant.has_xla for variant in variants}) > 1:
        del settings[pairing.COMPILER]
    return Group(settings, runs[0].result["device"], tuple(variants), chosen)


def _against(variant: Variant, baseline: Variant) -> Variant:
    """A variant with its comparison, and with its compiler in its label where that differs."""
    if variant is baseline:
        return variant
    label = variant.label
    if variant.has_xla != baseline.has_xla:
        label += f" {xla_words(variant.has_xla)}"
    comparison = _comparison(variant, baseline)
    return dataclasses.replace(variant, label=label, comparison=comparison)


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

    is_alike = variant.has_xla == baseline.has_xla

    def ratio(figure: str) -> Estimate | None:
        return statistics.mean_ratio(*both(figure)) if is_alike else None

    def inverse(figure: str) -> Estimate | None:
        return statistics.mean_ratio(*reversed(both(figure))) if is_alike else None

    return Comparison(
        seeds=tuple(run.seed for run, _ in pairs),
        step_speedup=inverse("step_time_ms"),
        epoch_speedup=inverse("epoch_time_sec"),
        memory_ratio=ratio("device_peak_bytes"),
        accuracy_difference=statistics.mean_share_difference(*both("validation_accuracy")),
        is_compiled_alike=is_alike,
    )


def _why_unpaired(group: Group, groups: Sequence[Group], baseline: str) -> list[PassedOver]:
    found = []
    if group.baseline is None:
        for run in group.runs:
            others = [r for g in groups if g.baseline is not None for r in g.baseline.runs]
            why = f"No {baseline} run shares its other settings. "
            found.append(PassedOver(run.directory, why + pairing.nearest(run, others)))
        return found
    for variant in group.variants:
        seeds = {run.seed for run in group.baseline.runs}
        if variant is group.baseline:
            if len(group.variants) == 1:
                others = [r for g in groups if g is not group for r in g.runs]
                why = "No run of another precision shares its other settings. "
                found += [
                    PassedOver(run.directory, why + pairing.nearest(run, others))
                    for run in group.runs
                ]
            continue
        found += [
            PassedOver(run.directory, f"{group.baseline.label} has no run of seed {run.seed}.")
            for run in variant.runs
            if run.seed not in seeds
        ]
    return found
