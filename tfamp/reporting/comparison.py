"""Compares runs: gathers them into groups, and pairs each precision with its group's baseline.

Precision settings are what a report compares: the policy, TF32, layers forced to float32 and how
the loss was scaled. Runs of one precision that differ in the seed alone are repetitions of each
other; `pairing` says which runs may be compared at all.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

from tfamp.reporting import estimates, measurements, pairing
from tfamp.reporting.estimates import Estimate
from tfamp.reporting.groups import Comparison, Comparisons, Group, Variant, xla_words
from tfamp.reporting.pairing import Unpaired
from tfamp.reporting.precision_settings import Precision
from tfamp.reporting.runs import FinishedRun
from tfamp.reporting.seeds import by_seed
from tfamp.run.config import POLICIES
from tfamp.run.errors import InputError, setting, unknown_name


def compare(runs: Sequence[FinishedRun], baseline: str) -> Comparisons:
    """Groups runs and compares each variant with the baseline of its group.

    Args:
        runs: Completed runs.
        baseline: The policy to compare with, or the label of one variant.

    Raises:
        InputError: No run has that policy or label though there are runs.
    """
    _check_baseline(runs, baseline)
    unpaired: list[Unpaired] = []
    members = pairing.join_compilers(
        pairing.gather(runs), lambda run: baseline in (run.policy, Precision.of(run).label)
    )
    groups = [_group(group, baseline, unpaired) for group in members]
    groups.sort(key=lambda g: (not g.comparisons, g.runs[0].directory))
    for group in groups:
        unpaired += _why_unpaired(group, groups, baseline)
    return Comparisons(tuple(groups), tuple(unpaired))


def _check_baseline(runs: Sequence[FinishedRun], baseline: str) -> None:
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


def _group(runs: Sequence[FinishedRun], baseline: str, unpaired: list[Unpaired]) -> Group:
    by_precision: dict[tuple[Precision, bool | None], dict[int | None, FinishedRun]] = defaultdict(
        dict
    )
    for run in runs:
        seeds = by_precision[Precision.of(run), run.config.jit_compile]
        if run.seed in seeds:
            why = f"It repeats {seeds[run.seed].directory}: the same settings and the same seed."
            unpaired.append(Unpaired(run.directory, why))
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
    return Group(settings, runs[0].result.device, tuple(variants), chosen)


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

    is_alike = variant.has_xla == baseline.has_xla

    def ratio(name: str) -> Estimate | None:
        return estimates.mean_ratio(*measurements.pairs(name, pairs)) if is_alike else None

    def inverse(name: str) -> Estimate | None:
        own, bases = measurements.pairs(name, pairs)
        return estimates.mean_ratio(bases, own) if is_alike else None

    return Comparison(
        seeds=tuple(run.seed for run, _ in pairs),
        step_speedup=inverse("step_time_ms"),
        epoch_speedup=inverse("epoch_time_sec"),
        memory_ratio=ratio("device_peak_bytes"),
        accuracy_difference=estimates.mean_share_difference(
            *measurements.pairs("validation_accuracy", pairs)
        ),
        is_compiled_alike=is_alike,
    )


def _why_unpaired(group: Group, groups: Sequence[Group], baseline: str) -> list[Unpaired]:
    found = []
    if group.baseline is None:
        for run in group.runs:
            others = [r for g in groups if g.baseline is not None for r in g.baseline.runs]
            why = f"No {baseline} run shares its other settings."
            found.append(pairing.unpaired(run, why, others))
        return found
    for variant in group.variants:
        seeds = {run.seed for run in group.baseline.runs}
        if variant is group.baseline:
            if len(group.variants) == 1:
                others = [r for g in groups if g is not group for r in g.runs]
                why = "No run of another precision shares its other settings."
                found += [pairing.unpaired(run, why, others) for run in group.runs]
            continue
        found += [
            Unpaired(run.directory, f"{group.baseline.label} has no run of seed {run.seed}.")
            for run in variant.runs
            if run.seed not in seeds
        ]
    return found
