"""A fidelity in the run's TensorBoard: its pictures, its histograms, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tfamp.reporting import exponents
from tfamp.reporting.pages import fidelity_sentences, markdown
from tfamp.run.belongings import EVENT_SUFFIX
from tfamp.run.fidelity import Fidelity
from tfamp.telemetry import summaries
from tfamp.telemetry.tensorboard import ScalarWriter

# The file's name tells whose it is: the run's, and among its files this one's.
SUFFIX = f".fidelity{EVENT_SUFFIX}"


def write(fidelity: Fidelity, files: Sequence[Path], run_directory: Path, step: int = 0) -> Path:
    """Writes a fidelity beside the run's own events, in a file of its own in `train/`.

    What an earlier fidelity of this run wrote is replaced; nothing else is touched.

    >>> files = fidelity_page.write(fidelity, out)
    >>> fidelity_events.write(fidelity, files, run_directory)

    Args:
        fidelity: What to show: a summary under TEXT, two histograms under HISTOGRAMS.
        files: What `fidelity_page.write` wrote; its PNGs become images `fidelity/NAME`.
        run_directory: The folder of the run, whose `train/` TensorBoard lists.
        step: The training step that the model's weights are of.

    Returns:
        The event file.

    Raises:
        OSError: The folder cannot be written, or a picture not read.
    """
    folder = run_directory / "train"
    earlier = _written(folder)
    # Read before anything is written.
    images = [
        summaries.image(f"fidelity/{path.stem}", path.read_bytes())
        for path in files
        if path.suffix == ".png"
    ]
    writer = ScalarWriter(folder, SUFFIX)
    try:
        writer.write_summary(summaries.text("fidelity/summary", _text(fidelity)), step)
        for image in images:
            writer.write_summary(image, step)
        for tag, histograms in (
            ("activation_gradients", [layer.activation_exponents for layer in fidelity.layers]),
            ("weight_gradients", [layer.weight_exponents for layer in fidelity.layers]),
        ):
            total = exponents.total(histograms)
            if total is not None and total.counts:
                writer.write_summary(
                    summaries.exponents(
                        f"fidelity/log2_size_of_{tag}",
                        total.first,
                        total.counts,
                        f"In {fidelity.reference}, unscaled; {total.zeros:,} entries that are zero "
                        "are left out.",
                    ),
                    step,
                )
    finally:
        writer.close()
    # Once the new one is there: whoever looks meanwhile finds one of the two.
    for path in earlier:
        path.unlink()
    (written,) = _written(folder)
    return written


def _written(folder: Path) -> list[Path]:
    return [path for path in folder.glob(f"events.out.tfevents.*{SUFFIX}") if path.is_file()]


def _text(fidelity: Fidelity) -> str:
    sentences = [*fidelity_sentences.verdict(fidelity), *fidelity.limits]
    return "\n".join(f"- {markdown.escape(sentence)}" for sentence in sentences)
