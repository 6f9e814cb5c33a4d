"""Prepares the real TFDS set `fashion_mnist` from Debian's package, with no network.

    apt-get install dataset-fashion-mnist
    python tests/data/debian_fashion_mnist.py DATA_DIR

Takes about 15 seconds and 90 MB. Debian compressed the files anew, so that their checksums are not
those that TFDS knows: they are computed from the files.
"""

from __future__ import annotations

import pathlib
import sys

SOURCE = pathlib.Path("/usr/share/datasets/fashion-mnist")


def prepare_fashion_mnist(data_dir: str | pathlib.Path) -> None:
    """Prepares `fashion_mnist` (60,000 + 10,000 images) under `data_dir`."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import checksums

    builder = tfds.builder("fashion_mnist", data_dir=str(data_dir))
    local = {
        url: checksums.compute_url_info(SOURCE / info.filename)
        for url, info in builder.url_infos.items()
    }
    builder.url_infos.clear()
    builder.url_infos.update(local)
    config = tfds.download.DownloadConfig(manual_dir=str(SOURCE))
    builder.download_and_prepare(download_config=config)


if __name__ == "__main__":
    prepare_fashion_mnist(sys.argv[1])
