"""From what the user names to an open store: found, or built once and kept in the cache."""

import os
import shutil
from pathlib import Path

from ringrl.data.config import DataConfig, Source
from ringrl.data.sources.minari import Progress, build_from_minari, find_minari_set, minari_key, minari_root
from ringrl.data.store import EpisodeStore
from ringrl.errors import RingRLError


def data_root() -> Path:
    """The data cache: RINGRL_DATA where it is set, else ~/.cache/ringrl."""
    chosen = os.environ.get("RINGRL_DATA")
    return Path(chosen) if chosen else Path.home() / ".cache" / "ringrl"


def open_dataset(config: DataConfig, cache_root: Path | None = None, progress: Progress | None = None) -> EpisodeStore:
    """The episodes that `config` names, as a store (a view of the best when `top_fraction` is below 1).

    A Minari set is read once and kept as `cache_root/stores/<id>-<key>`; the key changes when the set does.
    `progress(done, total)` is called for each episode read. Raises `RingRLError` as the sources and the store do.
    """
    if not config.name:
        raise RingRLError("data.name is empty: give a Minari id, or with data.source=store the folder of a store.")
    if config.source is Source.store:
        return EpisodeStore.open(config.name).keep_top(config.top_fraction)
    root = data_root() if cache_root is None else Path(cache_root)
    folder = find_minari_set(config.name, minari_root(root), config.download)
    path = root / "stores" / f"{config.name.replace('/', '--')}-{minari_key(folder)}"
    return _open_or_build(config.name, folder, path, progress).keep_top(config.top_fraction)


def _open_or_build(name: str, folder: Path, path: Path, progress: Progress | None) -> EpisodeStore:
    if path.exists():
        try:
            return EpisodeStore.open(path)
        except RingRLError:
            # The cache is ours, and everything in it can be built again.
            shutil.rmtree(path)
    return build_from_minari(name, folder, path, progress)
