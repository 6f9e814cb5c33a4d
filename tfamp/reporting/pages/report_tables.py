"""The tables of a report, made from its document."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfamp.reporting import seeds, verdict
from tfamp.reporting.pages import formatting
from tfamp.reporting.pages.table import Table, TableCell, words

Json = Mapping[str, Any]


def verdicts(document: Json) -> Table | None:
    """Speed, memory and accuracy of every comparison; None where there is none."""
    rows: list[tuple[str, tuple[TableCell, ...]]] = []
    for group in document["groups"]:
        compared = [v for v in group["variants"] if v["comparison"] is not None]
        if compared and len(document["groups"]) > 1:
            rows.append((f"{group['title']}, on {group['device']}", ()))
        for variant in compared:
            comparison = variant["comparison"]
            rows.append(
                (
                    variant["label"],
                    (
                        _cost(comparison, "step_speedup"),
                        _cost(comparison, "memory_ratio"),
                        _judged(comparison["accuracy_difference"], formatting.points, " points"),
                        TableCell(seeds.in_words(comparison["seeds"])),
                    ),
                )
            )
    if not rows:
        return None
    return Table(
        "Each variant against its baseline: training speed and peak memory as multiples of the "
        "baseline's, validation accuracy as a difference, with 95% intervals.",
        ("Variant", "Speed", "Memory", "Accuracy", "Seeds"),
        tuple(rows),
    )


def _judged(estimate: Json | None, form: formatting.Format, unit: str) -> TableCell:
    value, interval = formatting.estimate(estimate, form, unit)
    if estimate is None:
        return TableCell(value, small="not measured")
    word = str(estimate.get("verdict") or "")
    return TableCell(value, small=interval or "no interval", word=word, tone=verdict.tone(word))


def _cost(comparison: Json, name: str) -> TableCell:
    """A ratio of times or of memory, which says nothing across compilers."""
    if not comparison.get("is_compiled_alike", True):
        return TableCell("not compared", small="XLA compiled one of the two")
    return _judged(comparison[name], formatting.ratio, "×")  # noqa: RUF001


def measurements(group: Json) -> Table:
    """Everything that was measured, a column a variant."""
    variants = group["variants"]
    settings = group["settings"]
    xla = {True: "on", False: "off"}

    def measured(name: str, form: formatting.Format, unit: str) -> list[TableCell]:
        return [
            TableCell(*formatting.estimate(v["figures"].get(name), form, unit)) for v in variants
        ]

    def against(judged: Callable[[Json], TableCell]) -> list[TableCell]:
        return [
            TableCell("baseline")
            if variant["is_baseline"]
            else (
                TableCell(formatting.DASH)
                if variant["comparison"] is None
                else judged(variant["comparison"])
            )
            for variant in variants
        ]

    def cost(name: str) -> list[TableCell]:
        return against(lambda comparison: _cost(comparison, name))

    def accuracy(comparison: Json) -> TableCell:
        return _judged(comparison["accuracy_difference"], formatting.points, " points")

    epoch = [
        dataclasses.replace(cell, small=f"{cell.small} includes compiling".strip())
        if variant["epoch_time_includes_compile"] and cell.text != formatting.DASH
        else cell
        for variant, cell in zip(
            variants, measured("epoch_time_sec", formatting.rounded, " s"), strict=True
        )
    ]
    computes: list[tuple[str, Sequence[TableCell]]] = []
    if any(v.get("computes_in") for v in variants):
        told = [TableCell(formatting.listed(v.get("computes_in"))) for v in variants]
        computes.append(("Computes in 16 bits", told))
    device = f"on {group['device']}"
    rows: list[tuple[str, Sequence[TableCell]]] = [
        ("Policy", [TableCell(v["precision"]["policy"]) for v in variants]),
        *computes,
        ("TF32", [TableCell("on" if v["precision"]["tf32"] else "off") for v in variants]),
        ("Loop", [TableCell(str(settings.get("loop"))) for _ in variants]),
        ("XLA", [TableCell(xla.get(v.get("jit_compile"), formatting.DASH)) for v in variants]),
        ("Seeds", [TableCell(seeds.in_words(v["seeds"])) for v in variants]),
        ("Compiling and the first step", measured("first_call_sec", formatting.rounded, " s")),
        ("Time per epoch", epoch),
        ("Time per step, median", measured("step_time_ms", formatting.rounded, " ms")),
        ("Time per step, 95th percentile", measured("step_time_p95_ms", formatting.rounded, " ms")),
        ("Examples per second", measured("examples_per_sec", formatting.rounded, "")),
        ("Speed-up per step", cost("step_speedup")),
        ("Speed-up per epoch", cost("epoch_speedup")),
        (f"Peak memory {device}", measured("device_peak_bytes", formatting.mebibytes, " MiB")),
        ("Peak memory, ratio", cost("memory_ratio")),
        ("Validation accuracy", measured("validation_accuracy", formatting.percent, " %")),
        ("Accuracy difference", against(accuracy)),
        ("Validation loss", measured("validation_loss", formatting.loss, "")),
        ("Skipped steps", [_skipped(v["skipped_steps"]) for v in variants]),
        ("Final loss scale", [_final_scale(v["final_scale"]) for v in variants]),
    ]
    return Table(
        "Means over the seeds, with 95% intervals beneath; a dash is what was not measured.",
        ("", *(_heading(variant) for variant in variants)),
        tuple((name, tuple(row)) for name, row in rows),
    )


def _heading(variant: Json) -> str:
    return variant["label"] + (" (baseline)" if variant["is_baseline"] else "")


def _skipped(skipped: Json | None) -> TableCell:
    if skipped is None:
        return TableCell(formatting.DASH)
    total, of = (formatting.text(skipped[name], formatting.count) for name in ("total", "of"))
    return TableCell(f"{total} of {of}", small=_per_run(skipped["per_run"]))


def _per_run(counts: Sequence[Any]) -> str:
    shown = [formatting.text(entry, formatting.count) for entry in counts]
    if len(shown) == 1:
        return ""
    if len(set(shown)) == 1:
        return f"{shown[0]} in each run"
    if len(shown) <= 5:
        return f"{', '.join(shown)} in the runs"
    return f"{min(counts)} to {max(counts)} in a run"


def _final_scale(final: Json | None) -> TableCell:
    if final is None:
        return TableCell(formatting.DASH)
    low, high = (formatting.text(final[end], formatting.scale) for end in ("min", "max"))
    return TableCell(low if low == high else f"{low} to {high}")


def entries(found: Sequence[Json], caption: str) -> Table | None:
    """Folders and why they were not used; None for none."""
    if not found:
        return None
    rows = tuple((entry["directory"], (words(entry["why"]),)) for entry in found)
    return Table(caption, ("Folder", "Why"), rows)
