"""What the underflow meter found over all phases of a run."""

from __future__ import annotations

import dataclasses

from tfamp.precision.underflow_found import Measured
from tfamp.run.result import Underflow


@dataclasses.dataclass
class UnderflowTotals:
    """What was found so far; small, and of plain Python, as the run's other figures.

    Attributes:
        of: What the gradients are of; empty before the first measurement.
        measured: Steps that were measured.
        judged: Those of them in which a layer could be judged.
        sum: The sum of their shares.
        highest: The largest of their shares.
        lost: Entries lost of each layer, where it could be judged.
        entries: Its entries in those steps.
        unjudged: Layers that could not be judged in some step.
    """

    of: str = ""
    measured: int = 0
    judged: int = 0
    sum: float = 0.0
    highest: float = 0.0
    lost: dict[str, int] = dataclasses.field(default_factory=dict)
    entries: dict[str, int] = dataclasses.field(default_factory=dict)
    unjudged: list[str] = dataclasses.field(default_factory=list)

    def add(self, found: Measured) -> None:
        """Takes in a measurement."""
        self.of = found.of
        self.measured += 1
        fraction = found.lost_fraction
        if fraction is not None:
            self.judged += 1
            self.sum += fraction
            self.highest = max(self.highest, fraction)
        for name, layer in found.layers.items():
            if layer.lost_fraction is not None:
                self.lost[name] = self.lost.get(name, 0) + layer.lost
                self.entries[name] = self.entries.get(name, 0) + layer.entries
            elif name not in self.unjudged:
                self.unjudged.append(name)

    def result(self) -> Underflow | None:
        """What result.json says; None where nothing was measured."""
        if not self.measured:
            return None
        shares = {name: self.lost[name] / self.entries[name] for name in self.lost}
        worst = max(shares, key=lambda name: shares[name]) if shares else None
        return Underflow(
            of=self.of,
            measured=self.measured,
            mean_lost_fraction=self.sum / self.judged if self.judged else None,
            max_lost_fraction=self.highest if self.judged else None,
            worst_layer=worst if worst and shares[worst] else None,
            worst_layer_lost_fraction=shares[worst] if worst and shares[worst] else None,
            unjudged_layers=len(self.unjudged),
        )
