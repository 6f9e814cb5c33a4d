"""What the underflow meter found in one step, on the host."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tfamp.precision.underflow_counts import BINS, FACTOR, FIRST_EXPONENT
from tfamp.run import records


@dataclasses.dataclass(frozen=True)
class LayerCounts:
    """What was counted of one layer's gradient in one step, over all replicas.

    Attributes:
        entries: Entries of the gradient.
        zeros: Those that are zero.
        lost: Those of them that float16 lost: not zero at `FACTOR` times the scale.
        non_finite: Entries that are NaN or infinite.
        unjudged: Zeros that are NaN at `FACTOR` times the scale: nobody can tell.
        exponents: Finite entries by floor(log2 |gradient without the scale|), from
            `underflow_counts.FIRST_EXPONENT` upwards.
    """

    entries: int
    zeros: int
    lost: int
    non_finite: int
    unjudged: int
    exponents: tuple[int, ...]

    @classmethod
    def of(cls, columns: Sequence[int]) -> LayerCounts:
        """What `underflow_counts.counted` counted, summed."""
        zero_anyway, lost, unjudged, non_finite = columns[BINS:]
        return cls(
            entries=sum(columns),
            zeros=zero_anyway + lost + unjudged,
            lost=lost,
            non_finite=non_finite,
            unjudged=unjudged,
            exponents=tuple(columns[:BINS]),
        )

    @property
    def lost_fraction(self) -> float | None:
        """The share that float16 lost; None where that cannot be told of every entry."""
        is_judged = self.entries > self.non_finite and self.unjudged == 0
        return self.lost / self.entries if is_judged else None

    def to_json(self) -> dict[str, Any]:
        """As in a row: an exponent without entries, and a share that is not known, are absent."""
        counts = dataclasses.asdict(self)
        named = enumerate(counts.pop("exponents"), FIRST_EXPONENT)
        counts["exponents"] = {str(exponent): count for exponent, count in named if count}
        fraction = self.lost_fraction
        return counts if fraction is None else counts | {"lost_fraction": fraction}


@dataclasses.dataclass(frozen=True)
class Measured:
    """One measurement.

    Attributes:
        step: The step whose batch and weights it was.
        of: What it was of, `"weights"` or `"activations"`.
        scales: The loss scale of each optimizer, by its name; one alone has the name "".
        layers: What was counted, by layer; only layers that have a gradient.
    """

    step: int
    of: str
    scales: dict[str, float]
    layers: dict[str, LayerCounts]

    @property
    def lost_fraction(self) -> float | None:
        """The share lost of all layers that can be judged; None where none can."""
        judged = [each for each in self.layers.values() if each.lost_fraction is not None]
        entries = sum(each.entries for each in judged)
        return sum(each.lost for each in judged) / entries if entries else None

    def figures(self) -> dict[str, float]:
        """What a step's row has of it."""
        fraction = self.lost_fraction
        return {} if fraction is None else {records.UNDERFLOW: fraction}

    def row(self) -> dict[str, Any]:
        """A row of its own, layer by layer; CONTRIBUTING.md describes it."""
        return {
            "of": self.of,
            "factor": FACTOR,
            **{records.of_optimizer(records.SCALE, name): v for name, v in self.scales.items()},
            **self.figures(),
            "layers": {name: each.to_json() for name, each in self.layers.items()},
        }
