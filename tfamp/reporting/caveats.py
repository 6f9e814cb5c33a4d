"""What may mislead a reader of a comparison: the warnings of a report."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path, PurePath
from typing import Any

from tfamp.reporting import seeds, sources
from tfamp.reporting.groups import Comparisons, Group
from tfamp.reporting.runs import PassedOver
from tfamp.run import records

_FEWEST_SEEDS = 3
# A window of steps this many times the median holds something that is no step.
_OUTLIER = 10.0


def warnings(
    logdir: Path, comparisons: Comparisons, passed_over: Sequence[PassedOver]
) -> list[str]:
    """What may mislead a reader of these numbers, one sentence each, the gravest first."""
    found = _of_groups([group for group in comparisons.groups if group.comparisons])
    found += _broken(comparisons)
    found += _slow_windows(comparisons)
    found += [
        f"{entry.directory} did not finish. {entry.why}"
        for entry in passed_over
        if entry.is_unfinished
    ]
    names = {run.directory for group in comparisons.groups for run in group.runs}
    names |= {entry.directory for entry in [*passed_over, *comparisons.unpaired]}
    for folder, sweep in sources.read_sweeps(logdir):
        found += _of_sweep(folder, sweep, names)
    found += [
        f"The batch size differs: {entry.directory} is not compared. {entry.why}"
        for entry in comparisons.unpaired
        if "batch_size" in entry.differs_in
    ]
    return sources.distinct(found)


def _of_groups(groups: Sequence[Group]) -> list[str]:
    """What is doubtful about comparisons; what is true of several is said once."""
    found: dict[str, list[str]] = {}
    for group in groups:
        for statement in _of_group(group):
            found.setdefault(statement, []).append(group.title)
    return [
        f"{'All comparisons' if len(titles) == len(groups) else '; '.join(titles)}: {statement}"
        for statement, titles in found.items()
    ]


def _of_group(group: Group) -> list[str]:
    found = []
    if group.device.startswith("CPU"):
        found.append(
            "this ran on a CPU, which has no fast float16. Times and memory here do not show what "
            "a GPU gains; accuracy and loss scale do carry over."
        )
    if group.baseline is not None and group.baseline.precision.tf32:
        found.append(
            f"the baseline {group.baseline.label} ran in TF32, which is mixed precision already. "
            "Train it with --notf32 to compare with float32."
        )
    if any(run.seed is None for run in group.runs):
        found.append(
            "a script set no seed (keras.utils.set_random_seed), so the two runs of a pair began "
            "with different weights."
        )
    few = [
        f"{variant.label} ({seeds.in_words(comparison.seeds)})"
        for variant, comparison in group.comparisons
        if len(comparison.seeds) < _FEWEST_SEEDS
    ]
    if few:
        found.append(
            f"fewer than {_FEWEST_SEEDS} seeds are paired, so intervals are very wide or none: "
            f"{', '.join(few)}."
        )
    if any(len(run.figures.epoch_time_sec) == 1 for run in group.runs):
        found.append("a run has one epoch, so its time per epoch includes compiling.")
    return found + _differing(group)


def _differing(group: Group) -> list[str]:
    found = []
    versions = sources.versions(group.runs)
    several = [f"{package} {', '.join(seen)}" for package, seen in versions.items() if seen[1:]]
    if several:
        found.append(f"the runs used different versions of {'; '.join(several)}.")
    revisions = sources.distinct(run.git_revision or "unknown" for run in group.runs)
    if revisions[1:]:
        found.append(f"the runs are of different revisions: {', '.join(revisions)}.")
    if any(revision.endswith("-dirty") for revision in revisions):
        found.append("a run was made from a checkout with changes that no commit holds.")
    return found


def _broken(comparisons: Comparisons) -> list[str]:
    """Runs that came to their end although their figures or their loss scale broke."""
    found = []
    for run in (run for group in comparisons.groups for run in group.runs):
        broken, scale = run.figures.non_finite, run.figures.loss_scale
        if broken is not None:
            text = f"{run.directory}: a {broken.what or 'figure'} was NaN or infinite"
            text += f" in {broken.steps:,} steps" if (broken.steps or 0) > 1 else ""
            text += f", first at step {broken.first_step}" if broken.first_step is not None else ""
            also = f"; the weight {broken.weight} is so too." if broken.weight else "."
            found.append(text + also)
        if scale is not None and scale.collapsed_at is not None:
            found.append(f"{run.directory}: its loss scale collapsed at step {scale.collapsed_at}.")
    return found


def _slow_windows(comparisons: Comparisons) -> list[str]:
    found = []
    for run in (run for group in comparisons.groups for run in group.runs):
        typical = run.figures.step_time_ms and run.figures.step_time_ms.median
        times = run.series(records.STEP_TIME)
        slow = [step for step, ms in times if typical and ms > _OUTLIER * typical]
        if slow:
            found.append(
                f"{run.directory}: the steps up to step {slow[0]} took over {_OUTLIER:g} times the "
                "median: something was compiled there, or the machine paused."
            )
    return found


def _of_sweep(folder: PurePath, sweep: dict[str, Any], names: Collection[str]) -> list[str]:
    where = "The sweep" if folder == PurePath() else f"The sweep in {folder.as_posix()}"
    found = []
    jobs, cells = sweep.get("jobs"), sweep.get("cells")
    if isinstance(jobs, int) and jobs > 1:
        found.append(
            f"{where} ran {jobs} cells at a time: they slowed each other, so times and "
            "throughput cannot be compared."
        )
    if isinstance(cells, list):
        missing = [str(cell) for cell in cells if (folder / str(cell)).as_posix() not in names]
        if missing:
            found.append(f"{where} has not run {', '.join(missing)}.")
    return found
