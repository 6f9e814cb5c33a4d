"""What the recorder asks of a loop about its steps, whatever loop it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class LoopMetrics(Protocol):
    """What a loop itself knows of its steps: losses, accuracies, other metrics."""

    def wait(self) -> None:
        """Waits for the device to have done all steps so far."""

    def take(self, has_losses: bool) -> Mapping[int, Mapping[str, float]]:
        """The figures of the steps since the last mark, by step; waits for the device.

        Args:
            has_losses: Whether the rows have each step's own loss already.
        """
