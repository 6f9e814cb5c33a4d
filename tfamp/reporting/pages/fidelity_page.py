"""The page of a fidelity: fidelity.html, fidelity.md, fidelity.json and the pictures."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from tfamp.reporting import fidelity_points, sources
from tfamp.reporting.figures import fidelity_pictures
from tfamp.reporting.figures.picture import Picture
from tfamp.reporting.pages import fidelity_sentences, fidelity_tables, page_files, table
from tfamp.reporting.pages.page import Page, Source
from tfamp.run.fidelity import Fidelity

NAME = "fidelity"
# Of layers, above which their table is folded.
_FOLDED_FROM = 40


def write(fidelity: Fidelity, out: Path) -> list[Path]:
    """Writes fidelity.html in one file, fidelity.md, fidelity.json and the pictures.

    Args:
        fidelity: What to show; needs no TensorFlow.
        out: The folder, made where it is not there. What tfamp did not write stays.

    Returns:
        The files that were written: the three texts, then the pictures in the page's order.

    Raises:
        InputError: As for `page_files.write`.
    """

    def draw(folder: Path) -> dict[str, list[Picture]]:
        (folder / NAME).mkdir(parents=True, exist_ok=True)
        return {NAME: fidelity_pictures.draw(fidelity, folder / NAME)}

    return page_files.write(page_of(fidelity), out, draw)


def check(out: Path) -> None:
    """Refuses early what `write` would refuse; changes nothing.

    Raises:
        InputError: As for `page_files.check`.
    """
    page_files.check(NAME, _pictures(), out)


def _pictures() -> list[str]:
    return [f"{NAME}/{name}" for name in fidelity_pictures.FILES]


def page_of(fidelity: Fidelity) -> Page:
    """The page of a fidelity."""
    layers = fidelity_tables.layers(fidelity)
    batches = "batch" if fidelity.num_batches == 1 else "batches"
    line = sources.command(list(fidelity.command_line or ()))
    return Page(
        name=NAME,
        title="Gradient fidelity",
        subject=fidelity.model,
        document=fidelity.to_json(),
        next_steps=_next_steps(fidelity),
        sources=[
            Source("Device", [fidelity.device]),
            Source("XLA", ["on" if fidelity.jit_compile else "off"]),
            Source("Data", [_data(fidelity)]),
            Source(
                "Mode",
                [
                    "training: dropout drops, BatchNormalization takes the batch's values"
                    if fidelity.training
                    else "inference: no dropout, BatchNormalization takes its moving averages"
                ],
            ),
            Source("Seed", [str(fidelity.seed)]),
            Source("Reference", [fidelity.reference]),
        ],
        versions=table.of_versions(
            {package: [version] for package, version in fidelity.versions.items()},
            "Versions that it was measured with.",
        ),
        commands={} if line is None else {fidelity.model: line},
        context={
            "fidelity": fidelity,
            "batches": f"{fidelity.num_batches} {batches} of {fidelity.batch_size} examples",
            "sentences": fidelity_sentences.verdict(fidelity),
            "precisions": fidelity_tables.precisions(fidelity),
            "layers": layers,
            "is_folded": layers is not None and len(layers.rows) >= _FOLDED_FROM,
            "ranked": fidelity_tables.ranked(fidelity),
            "meanings": fidelity_tables.meanings(),
            "is_asked": fidelity_points.is_asked(fidelity),
        },
        pictures=_pictures(),
    )


def _data(fidelity: Fidelity) -> str:
    return fidelity.dataset or "a script's own; it does not tell its name"


def _next_steps(fidelity: Fidelity) -> Sequence[dict[str, object]]:
    if fidelity.advice is None or not fidelity.advice.flags:
        return ()
    return [
        {
            "why": "To train as advised, with tfamp.train:",
            "commands": [shlex.join(fidelity.advice.flags)],
        }
    ]
