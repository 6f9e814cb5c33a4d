"""What every benchmark's result tells beside its figures, and where it goes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def measured_on() -> dict[str, Any]:
    """Machine, versions and revision; imports TensorFlow."""
    from tfamp.run import provenance
    from tfamp.telemetry import memory

    return {
        "device": memory.device_name(memory.training_device()),
        "cpu_count": os.cpu_count(),
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
    }


def write(report: dict[str, Any], out: str | None) -> None:
    """Writes a result as JSON, where `--out` is given."""
    if out:
        Path(out).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
