"""Runs side by side: the variants of a group, each a precision, beside their baseline."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfamp.reporting import measurements, pairing
from tfamp.reporting.estimates import Estimate
from tfamp.reporting.pairing import Unpaired
from tfamp.reporting.precision_settings import Precision
from tfamp.reporting.runs import FinishedRun


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
    runs: tuple[FinishedRun, ...]
    has_xla: bool | None
    comparison: Comparison | None = None

    @property
    def has_comparable_costs(self) -> bool:
        """Whether its times and memory may stand beside the baseline's."""
        return self.comparison is None or self.comparison.is_compiled_alike

    @property
    def why_no_costs(self) -> str:
        """What stands where its times or its memory are not shown."""
        return "not measured" if self.has_comparable_costs else "not compared: other compiler"

    def mean(self, name: str) -> Estimate | None:
        """One of `MEASUREMENTS` over the seeds; None where no run has it."""
        return measurements.mean(name, self.runs)


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
    def runs(self) -> list[FinishedRun]:
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
    unpaired: tuple[Unpaired, ...]


def xla_words(has_xla: bool | None) -> str:
    """Whether XLA compiled, in words."""
    return "with XLA" if has_xla else "without XLA"
