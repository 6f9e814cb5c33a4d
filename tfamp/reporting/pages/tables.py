"""The tables of a report, made from the document; both templates render the same ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfamp.reporting import seeds
from tfamp.reporting.pages import formatting

Json = Mapping[str, Any]

# Words of a verdict that say something good or bad; the others say neither.
_TONES = {
    "faster": "good",
    "smaller": "good",
    "higher": "good",
    "slower": "bad",
    "larger": "bad",
    "lower": "bad",
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: Its value.
        small: What stands beneath it: an interval or a remark.
        word: A verdict, such as `faster`.
        is_number: Whether it is set flush right.
    """

    text: str
    small: str = ""
    word: str = ""
    is_number: bool = True

    @property
    def tone(self) -> str:
        """Whether the verdict is `good`, `bad` or `neutral`."""
        return _TONES.get(self.word, "neutral")


@dataclasses.dataclass(frozen=True)
class Table:
    """A table with a header row, and a header in the first cell of each row.

    Attributes:
        caption: What it shows, a sentence.
        header: The first row.
        rows: A header text and cells, as many as the header has after its first; none in a row
            that is the title of those below it.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]

    @property
    def sides(self) -> list[bool]:
        """Whether each column after the first holds numbers."""
        full = next((row for _, row in self.rows if row), ())
        return [cell.is_number for cell in full]


def words(text: str) -> Cell:
    """A cell of text, which is set flush left."""
    return Cell(text, is_number=False)


def verdicts(document: Json) -> Table | None:
    """Speed, memory and accuracy of every comparison; None where there is none."""
    rows: list[tuple[str, tuple[Cell, ...]]] = []
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
                        Cell(seeds.in_words(comparison["seeds"])),
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


def _judged(estimate: Json | None, form: formatting.Format, unit: str) -> Cell:
    value, interval = formatting.estimate(estimate, form, unit)
    if estimate is None:
        return Cell(value, small="not measured")
    word = str(estimate.get("verdict") or "")
    return Cell(value, small=interval or "no interval", word=word)


def _cost(comparison: Json, name: str) -> Cell:
    """A ratio of times or of memory, which says nothing across compilers."""
    if not comparison.get("is_compiled_alike", True):
        return Cell("not compared", small="XLA compiled one of the two")
    return _judged(comparison[name], formatting.ratio, "×")  # noqa: RUF001


def figures(group: Json) -> Table:
    """Everything that was measured, a column a variant."""
    variants = group["variants"]
    settings = group["settings"]
    xla = {True: "on", False: "off"}

    def measured(name: str, form: formatting.Format, unit: str) -> list[Cell]:
        return [Cell(*formatting.estimate(v["figures"].get(name), form, unit)) for v in variants]

    def against(judged: Callable[[Json], Cell]) -> list[Cell]:
        return [
            Cell("baseline")
            if variant["is_baseline"]
            else (
                Cell(formatting.DASH)
                if variant["comparison"] is None
                else judged(variant["comparison"])
            )
            for variant in variants
        ]

    def cost(name: str) -> list[Cell]:
        return against(lambda comparison: _cost(comparison, name))

    def accuracy(comparison: Json) -> Cell:
        return _judged(comparison["accuracy_difference"], formatting.points, " points")

    epoch = [
        dataclasses.replace(cell, small=f"{cell.small} includes compiling".strip())
        if variant["epoch_time_includes_compile"] and cell.text != formatting.DASH
        else cell
        for variant, cell in zip(
            variants, measured("epoch_time_sec", formatting.rounded, " s"), strict=True
        )
    ]
    computes: list[tuple[str, Sequence[Cell]]] = []
    if any(v.get("computes_in") for v in variants):
        told = [Cell(formatting.listed(v.get("computes_in"))) for v in variants]
        computes.append(("Computes in 16 bits", told))
    device = f"on {group['device']}"
    rows: list[tuple[str, Sequence[Cell]]] = [
        ("Policy", [Cell(v["precision"]["policy"]) for v in variants]),
        *computes,
        ("TF32", [Cell("on" if v["precision"]["tf32"] else "off") for v in variants]),
        ("Loop", [Cell(str(settings.get("loop"))) for _ in variants]),
        ("XLA", [Cell(xla.get(v.get("jit_compile"), formatting.DASH)) for v in variants]),
        ("Seeds", [Cell(seeds.in_words(v["seeds"])) for v in variants]),
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


def _skipped(skipped: Json | None) -> Cell:
    if skipped is None:
        return Cell(formatting.DASH)
    total, of = (formatting.text(skipped[name], formatting.count) for name in ("total", "of"))
    return Cell(f"{total} of {of}", small=_per_run(skipped["per_run"]))


def _per_run(counts: Sequence[Any]) -> str:
    shown = [formatting.text(entry, formatting.count) for entry in counts]
    if len(shown) == 1:
        return ""
    if len(set(shown)) == 1:
        return f"{shown[0]} in each run"
    if len(shown) <= 5:
        return f"{', '.join(shown)} in the runs"
    return f"{min(counts)} to {max(counts)} in a run"


def _final_scale(final: Json | None) -> Cell:
    if final is None:
        return Cell(formatting.DASH)
    low, high = (formatting.text(final[end], formatting.scale) for end in ("min", "max"))
    return Cell(low if low == high else f"{low} to {high}")


def entries(found: Sequence[Json], caption: str) -> Table | None:
    """Folders and why they were not used; None for none."""
    if not found:
        return None
    rows = tuple((entry["directory"], (words(entry["why"]),)) for entry in found)
    return Table(caption, ("Folder", "Why"), rows)


def versions(provenance: Json) -> Table | None:
    """Packages and their versions, a row a package."""
    rows = tuple(
        (package, (words(formatting.listed(seen)),))
        for package, seen in provenance.get("versions", {}).items()
    )
    return Table("Versions that the runs used.", ("Package", "Version"), rows) if rows else None
