"""The tables of what the loss scale did, and of float16 gradients with and without one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tfamp.reporting import seeds
from tfamp.reporting.pages import formatting
from tfamp.reporting.pages.tables import Cell, Json, Table, words


def scales(group: Json) -> Table | None:
    """What the loss scale did; seeds with one story share a row. None where nothing scaled."""
    stories = _stories(group["variants"], "loss_scale")
    # What older runs did not record, or what happened to none of them, takes no column.
    counts_losses = any(s.get("skipped_non_finite_loss") is not None for _, _, s in stories)
    collapsed = any(s.get("collapsed_at") is not None for _, _, s in stories)
    rows = []
    for variant, runs, story in stories:
        found = [
            words(_seeds(runs)),
            words(str(story["mode"])),
            *(Cell(formatting.text(story[n], formatting.scale)) for n in _SCALES),
            Cell(formatting.text(story["growths"], formatting.count)),
            Cell(
                f"{formatting.text(story['skipped'], formatting.count)} of "
                f"{formatting.text(story['steps'], formatting.count)}"
            ),
        ]
        if counts_losses:
            found.append(
                Cell(formatting.text(story.get("skipped_non_finite_loss"), formatting.count))
            )
        found.append(Cell(_step(story["first_overflow_step"])))
        if collapsed:
            found.append(Cell(_step(story.get("collapsed_at"))))
        rows.append((variant["label"], tuple(found)))
    if not rows:
        return None
    return Table(
        "The loss scale of each run that had one.",
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
        ),
        tuple(rows),
    )


_SCALES = ("initial", "settled", "final")


def gradients(group: Json) -> Table | None:
    """What became of float16 gradients; None where no run computed in float16."""
    rows = []
    for variant, runs, health in _stories(group["variants"], "gradients"):
        rows.append(
            (
                variant["label"],
                (
                    words(_seeds(runs)),
                    words(_scaling(variant)),
                    words("yes" if health["has_trained"] else "no"),
                    Cell(formatting.text(health["first_loss"], formatting.loss)),
                    Cell(formatting.text(health["last_loss"], formatting.loss)),
                    Cell(
                        f"{formatting.text(health['non_finite_steps'], formatting.count)} of "
                        f"{formatting.text(health['steps'], formatting.count)}",
                        small=""
                        if health["first_non_finite_step"] is None
                        else f"first at {_step(health['first_non_finite_step'])}",
                    ),
                    Cell(_share(health["zero_share"])),
                    Cell(_share(health["non_finite_share"])),
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


def _stories(variants: Iterable[Json], name: str) -> list[tuple[Json, list[Json], Json]]:
    """Each variant's different stories, with the runs that tell them."""
    found: list[tuple[Json, list[Json], Json]] = []
    for variant in variants:
        own: list[tuple[Json, list[Json], Json]] = []
        for run in variant["runs"]:
            story = run.get(name)
            if story is None:
                continue
            same = next((runs for _, runs, other in own if other == story), None)
            if same is None:
                own.append((variant, [run], story))
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
        health = [run["gradients"] for run in variant["runs"] if run.get("gradients") is not None]
        if not health or _is_scaled(variant):
            continue
        trained = sum(bool(entry["has_trained"]) for entry in health)
        bad = sum(entry["non_finite_steps"] for entry in health)
        steps = sum(entry["steps"] for entry in health)
        sentence = (
            f"{variant['label']} trained in {trained} of {len(health)} runs; {bad:,} of "
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
