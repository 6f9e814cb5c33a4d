"""The commands that make the results which experiments/loss_scaling.md tells."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from typing import NamedTuple

LOGDIR = "runs/loss_scaling"
RESULTS = "experiments/results/loss_scaling"
_LAB = "scripts/python.sh -m experiments.loss_scaling"


class Step(NamedTuple):
    """A command of the page.

    Attributes:
        command: As a reader types it, from the top folder.
        makes: What it writes, below `RESULTS` or the top folder.
        needs: A module that must be there, which tfamp does not install.
    """

    command: str
    makes: str
    needs: str = ""

    @property
    def arguments(self) -> list[str]:
        """The same with this Python, without making an environment first."""
        script, *rest = shlex.split(self.command)
        name = script.removeprefix("scripts/").removesuffix(".sh")
        return [sys.executable, *(rest if name == "python" else ["-m", f"tfamp.{name}", *rest])]

    def is_possible(self) -> bool:
        """Whether what it needs is there."""
        return not self.needs or importlib.util.find_spec(self.needs) is not None


def _train(model: str, flags: str = "") -> Step:
    # As the first exercise trains them.
    return Step(
        f"scripts/train.sh --flagfile=experiments/amp_vs_float32.flags --model={model}{flags} "
        f"--policy=mixed_float16 --logdir={LOGDIR} --run_name={model} --overwrite",
        f"{LOGDIR}/{model}",
    )


def _fidelity(model: str) -> Step:
    return Step(
        f"scripts/fidelity.sh --run={LOGDIR}/{model} --out={RESULTS}/{model}",
        f"{RESULTS}/{model}/fidelity.json",
    )


STEPS = {
    "train_resnet20": _train("resnet20"),
    "train_vit_tiny": _train("vit_tiny", " --image_size=8"),
    "fidelity_resnet20": _fidelity("resnet20"),
    "fidelity_vit_tiny": _fidelity("vit_tiny"),
    "scalers": Step(f"{_LAB} scalers --out={RESULTS}/scalers.json", f"{RESULTS}/scalers.json"),
    "scalers_torch": Step(
        f"{_LAB} scalers --scalers=torch --out={RESULTS}/scalers.json",
        f"{RESULTS}/scalers.json",
        needs="torch",
    ),
    "strategies": Step(f"{_LAB} strategies --overwrite", f"{RESULTS}/strategies.json"),
    "failure": Step(f"{_LAB} failure --overwrite", f"{RESULTS}/failure.json"),
    "claim": Step(f"{_LAB} claim --overwrite", f"{RESULTS}/claim.json"),
}
