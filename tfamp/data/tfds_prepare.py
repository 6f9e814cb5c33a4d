"""Finds a TFDS set, and downloads and prepares it where that is needed and can be done.

What cannot work is said at once: TFDS itself retries for minutes where there is no network.
"""

from __future__ import annotations

import pathlib
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterable
from typing import Any

import numpy as np

from tfamp.run import errors
from tfamp.run.errors import setting

# Per host; a blocked port answers nothing at all.
_CONNECT_TIMEOUT_SEC = 10.0


def find_builder(name: str, data_dir: str | None, other_names: Iterable[str] = ()) -> Any:
    """Finds the TFDS builder of a name.

    Args:
        name: `set`, `set/config` or `set/config:version`.
        data_dir: Where prepared sets lie; None for TFDS's default.
        other_names: Names that are no TFDS sets but may have been meant.

    Returns:
        A `tfds.core.DatasetBuilder`, not necessarily prepared.

    Raises:
        InputError: TFDS knows no such set or configuration, or it is no image classification set.
    """
    import tensorflow_datasets as tfds

    set_name = re.split("[/:]", name, maxsplit=1)[0]
    directory = None if data_dir is None else str(pathlib.Path(data_dir).expanduser())
    try:
        builder = tfds.builder(name, data_dir=directory, try_gcs=False)
    except tfds.core.registered.DatasetNotFoundError:
        known = [*other_names, *tfds.list_builders(with_community_datasets=False)]
        near = errors.nearest_names(set_name.lower(), known)
        guess = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise errors.InputError(
            f"Unknown dataset {name!r}.{guess} {setting('dataset')} takes {', '.join(other_names)} "
            f"or one of TFDS's {len(known)} sets (https://www.tensorflow.org/datasets/catalog), or "
            f"a set prepared under {setting('data_dir')}."
        ) from None
    except (ValueError, AssertionError) as error:  # The latter for an unknown version.
        raise errors.InputError(
            f"TFDS cannot build {setting('dataset', name)}: {' '.join(str(error).split())} Set "
            f"{setting('dataset')} to set, set/config or "
            f"set/config:version.{_known_configs(set_name)}"
        ) from error
    _check_features(name, builder)
    return builder


def prepare(builder: Any) -> None:
    """Downloads and prepares a set unless that has been done; TFDS shows its progress bars.

    Raises:
        InputError: The files are not there and cannot be had; says what to put where.
    """
    import tensorflow_datasets as tfds

    # Written last. `builder.is_prepared()` would log a warning where it is not there.
    if (builder.data_path / "dataset_info.json").exists():
        return
    name = builder.info.full_name
    # <data_dir>/<set>[/<config>]/<version>
    root = pathlib.Path(str(builder.data_path))
    for _ in name.split("/"):
        root = root.parent
    manual = root / "downloads" / "manual"
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and not (manual.is_dir() and any(manual.iterdir())):
        raise errors.InputError(
            f"{setting('dataset', name)} is not prepared in {builder.data_path}, and TFDS cannot "
            f"download it. Put its files into {manual} and start again, or set "
            f"{setting('data_dir')}. TFDS says: "
            f"{' '.join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())}"
        )
    missing = _missing_urls(builder.url_infos, root / "downloads", manual)
    is_any_there = len(missing) < len(builder.url_infos)
    unreachable = _unreachable_hosts(missing)
    if unreachable and not is_any_there:
        raise _not_downloadable(builder, root, missing, f"cannot reach {', '.join(unreachable)}")
    try:
        builder.download_and_prepare()
    except (OSError, tfds.core.download.DownloadError) as error:
        # requests' exceptions are OSErrors; so are a full disk and a missing permission.
        raise _not_downloadable(
            builder, root, missing, f"{type(error).__name__}: {error}"
        ) from error
    except tfds.core.download.download_manager.NonMatchingChecksumError as error:
        raise errors.InputError(
            f"A download file of {setting('dataset', name)} is not the one that TFDS knows. "
            f"Replace it in {manual}, or remove it so that TFDS downloads it, or set "
            f"{setting('data_dir')}. TFDS says: {error}"
        ) from error


def _known_configs(set_name: str) -> str:
    import tensorflow_datasets as tfds

    configs = tfds.builder_cls(set_name).builder_configs
    return f" The configurations of {set_name}: {', '.join(configs)}." if configs else ""


def _check_features(name: str, builder: Any) -> None:
    import tensorflow_datasets as tfds

    features = builder.info.features
    is_dict = isinstance(features, tfds.features.FeaturesDict)
    image = features["image"] if is_dict and "image" in features else None
    label = features["label"] if is_dict and "label" in features else None
    if (
        isinstance(image, tfds.features.Image)
        and isinstance(label, tfds.features.ClassLabel)
        and builder.info.supervised_keys == ("image", "label")
        and image.shape[-1] in (1, 3)
        and image.np_dtype == np.uint8
    ):
        return
    described = (
        ", ".join(f"{key}: {type(value).__name__}" for key, value in sorted(features.items()))
        if is_dict
        else repr(features)
    )
    raise errors.InputError(
        f"{setting('dataset', name)} is no image classification set: its features are {described}; "
        f"its supervised keys {builder.info.supervised_keys}. tfamp needs a uint8 Image 'image' of "
        "1 or 3 channels and a ClassLabel 'label' as the supervised keys. Set "
        f"{setting('dataset')} to such a set, for example cifar100 or imagenette/160px-v2."
    )


def _missing_urls(
    url_infos: dict[str, Any], downloads: pathlib.Path, manual: pathlib.Path
) -> list[str]:
    """Returns the addresses whose file TFDS would find neither in its cache nor by hand."""
    from tensorflow_datasets.core.download import resource

    return [
        url
        for url, info in url_infos.items()
        if not (downloads / resource.get_dl_fname(url, info.checksum)).exists()
        and not (info.filename and (manual / info.filename).exists())
    ]


def _unreachable_hosts(urls: Iterable[str]) -> list[str]:
    """Returns the hosts of `urls` (or their proxies) to which no connection can be made."""
    proxies = urllib.request.getproxies()
    hosts: dict[str, tuple[str, int]] = {}
    for url in urls:
        parts = urllib.parse.urlsplit(url)
        if not parts.hostname:
            continue
        proxy = proxies.get(parts.scheme) or proxies.get("all")
        via = parts
        if proxy and not urllib.request.proxy_bypass(parts.hostname):
            via = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        port = via.port or (443 if via.scheme == "https" else 80)
        hosts[parts.hostname] = (via.hostname or "", port)
    reachable = {address: _is_reachable(*address) for address in set(hosts.values())}
    return sorted(host for host, address in hosts.items() if not reachable[address])


def _is_reachable(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT_SEC).close()
    except OSError:
        return False
    return True


def _not_downloadable(
    builder: Any, root: pathlib.Path, missing: list[str], reason: str
) -> errors.InputError:
    name = builder.info.full_name
    files = ", ".join(builder.url_infos[url].filename or url.rsplit("/", 1)[-1] for url in missing)
    set_and_config = name.rsplit("/", 1)[0]
    return errors.InputError(
        f"{setting('dataset', name)} is not prepared in {builder.data_path} and cannot be "
        f"downloaded ({reason}). Do one of these: put the prepared directory there; put the "
        f"download files ({files or 'see the TFDS catalogue'}) into "
        f"{root / 'downloads' / 'manual'}; run `tfds build {set_and_config} --data_dir={root}` on "
        f"a machine with network and copy {root / name.split('/')[0]}; or set "
        f"{setting('data_dir')} to where the set is prepared. "
        f"{setting('dataset', 'fashion_mnist_mini')} and {setting('dataset', 'synthetic')} need no "
        "files."
    )
