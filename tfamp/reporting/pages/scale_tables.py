"""The tables of what the loss scale did, and of float16 gradients with and without one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfamp.reporting import seeds
from tfamp.reporting.pages import formatting
from tfamp.reporting.pages.table import Table, TableCell, words
from tfamp.run.fidelity import Window

Json = Mapping[str, Any]


def scales(group: Json) -> Table | None:
    """What the loss scale did; seeds that agree share a row. None where nothing scaled."""
    summaries = _alike(group["variants"], "loss_scale")
    # What older runs did not record, or what happened to none of them, takes no column.
    counts_losses = any(s.get("skipped_non_finite_loss") is not None for _, _, s in summaries)
    collapsed = any(s.get("collapsed_at") is not None for _, _, s in summaries)
    windows = any(s.get("window") is not None for _, _, s in summaries)
    rows = []
    for variant, runs, summary in summaries:
        found = [
            words(_seeds(runs)),
            words(str(summary["mode"])),
            *(TableCell(formatting.text(summary[n], formatting.scale)) for n in _SCALES),
            TableCell(formatting.text(summary["growths"], formatting.count)),
            TableCell(
                f"{formatting.text(summary['skipped'], formatting.count)} of "
                f"{formatting.text(summary['steps'], formatting.count)}"
            ),
        ]
        if counts_losses:
            found.append(
                TableCell(formatting.text(summary.get("skipped_non_finite_loss"), formatting.count))
            )
        found.append(TableCell(_step(summary["first_overflow_step"])))
        if collapsed:
            found.append(TableCell(_step(summary.get("collapsed_at"))))
        if windows:
            found += _window(summary)
        rows.append((variant["label"], tuple(found)))
    if not rows:
        return None
    about = "The loss scale of each run that had one."
    if windows:
        about += (
            " A safe window is where, on the first batch, gradients in float16 are as good as they "
            "get: --loss_scale=auto found it and began in it."
        )
    return Table(
        about,
        (
            "Variant",
            "Seeds",
            "Mode",
            "Initial",
            "Settled",
            "Final",
            "Growths",
            "Skipped steps",
            *(["With a bad loss"] if counts_losses else []),
            "First skip",
            *(["Collapsed"] if collapsed else []),
            *(["Safe window", "Steps outside"] if windows else []),
        ),
        tuple(rows),
    )


_SCALES = ("initial", "settled", "final")


def _window(summary: Json) -> list[TableCell]:
    window = summary.get("window")
    if window is None:
        return [words(formatting.DASH), TableCell(formatting.DASH)]
    shown = {
        name: formatting.text(summary[f"steps_{name}"], formatting.count)
        for name in ("below", "above")
    }
    told = ", ".join(f"{count} {name}" for name, count in shown.items() if count != "0")
    return [words(str(Window(**window))), TableCell(told or "none")]


def gradients(group: Json) -> Table | None:
    """What became of float16 gradients; None where no run computed in float16."""
    rows = []
    for variant, runs, summary in _alike(group["variants"], "gradients"):
        rows.append(
            (
                variant["label"],
                (
                    words(_seeds(runs)),
                    words(_scaling(variant)),
                    words("yes" if summary["has_trained"] else "no"),
                    TableCell(formatting.text(summary["first_loss"], formatting.loss)),
                    TableCell(formatting.text(summary["last_loss"], formatting.loss)),
                    TableCell(
                        f"{formatting.text(summary['non_finite_steps'], formatting.count)} of "
                        f"{formatting.text(summary['steps'], formatting.count)}",
                        small=""
                        if summary["first_non_finite_step"] is None
                        else f"first at {_step(summary['first_non_finite_step'])}",
                    ),
                    TableCell(_share(summary["zero_share"])),
                    TableCell(_share(summary["non_finite_share"])),
                ),
            )
        )
    if not rows:
        return None
    return Table(
        "Gradients of every run that computed in float16.",
        (
            "Variant",
            "Seeds",
            "Loss scale",
            "Trained",
            "First loss",
            "Last loss",
            "Steps with a non-finite gradient",
            "Zero entries",
            "Non-finite entries",
        ),
        tuple(rows),
    )


def _share(value: Any) -> str:
    shown = formatting.text(value, formatting.percent)
    return shown if shown in (formatting.DASH, "NaN") else f"{shown} %"


def _step(value: Any) -> str:
    shown = formatting.text(value, formatting.count)
    return shown if shown == formatting.DASH else f"step {shown}"


def _scaling(variant: Json) -> str:
    scaling = variant["precision"].get("loss_scale")
    return {None: formatting.DASH, "none": "none", "dynamic": "dynamic"}.get(scaling, f"{scaling}")


def _alike(variants: Iterable[Json], name: str) -> list[tuple[Json, list[Json], Json]]:
    """Each variant's different summaries, with the runs that agree in each."""
    found: list[tuple[Json, list[Json], Json]] = []
    for variant in variants:
        own: list[tuple[Json, list[Json], Json]] = []
        for run in variant["runs"]:
            summary = run.get(name)
            if summary is None:
                continue
            same = next((runs for _, runs, other in own if other == summary), None)
            if same is None:
                own.append((variant, [run], summary))
            else:
                same.append(run)
        found += own
    return found


def _seeds(runs: Sequence[Json]) -> str:
    return seeds.in_words([run["seed"] for run in runs])


def gradient_sentences(group: Json) -> list[str]:
    """A sentence on each float16 variant without loss scaling, beside those that scaled."""
    scaled = [v for v in group["variants"] if _is_scaled(v)]
    found = []
    for variant in group["variants"]:
        summary = [run["gradients"] for run in variant["runs"] if run.get("gradients") is not None]
        if not summary or _is_scaled(variant):
            continue
        trained = sum(bool(entry["has_trained"]) for entry in summary)
        bad = sum(entry["non_finite_steps"] for entry in summary)
        steps = sum(entry["steps"] for entry in summary)
        sentence = (
            f"{variant['label']} trained in {trained} of {len(summary)} runs; {bad:,} of "
            f"{steps:,} steps had a non-finite gradient"
        )
        shares = _mean_shares(variant)
        if shares is not None:
            sentence += f", and {shares} of the gradient entries were zero"
            beside = [f"{_mean_shares(v)} under {v['label']}" for v in scaled if _mean_shares(v)]
            if beside:
                sentence += f", beside {', '.join(beside)}"
        found.append(f"{sentence}.")
    return found


def _is_scaled(variant: Json) -> bool:
    return any(run.get("loss_scale") is not None for run in variant["runs"])


def _mean_shares(variant: Json) -> str | None:
    shares = [
        formatting.number(run["gradients"]["zero_share"])
        for run in variant["runs"]
        if run.get("gradients") is not None
    ]
    known = [share for share in shares if share is not None]
    return _share(sum(known) / len(known)) if known else None
