"""Resolution of a data set's name to an open store: found, or built once and cached; joined and filtered."""

import difflib
import os
from pathlib import Path

import numpy as np

from ringrl.data.columns import UnreadableFileError
from ringrl.data.config import DataConfig, Source
from ringrl.data.joined import join_stores
from ringrl.data.sources.minari import Progress, build_from_minari, minari_key
from ringrl.data.sources.minari_sets import find_minari_set, minari_root
from ringrl.data.store import EpisodeStore
from ringrl.errors import RingRLError


def data_root() -> Path:
    """The data cache: RINGRL_DATA where it is set, else ~/.cache/ringrl."""
    chosen = os.environ.get("RINGRL_DATA")
    return Path(chosen) if chosen else Path.home() / ".cache" / "ringrl"


def open_dataset(config: DataConfig, cache_root: Path | None = None, progress: Progress | None = None) -> EpisodeStore:
    """Open the episodes that `config` names and its filters keep, as a store or a view of one.

    With `also`, the sets are joined first. A Minari set is read once and cached as `cache_root/stores/<id>-<key>`; the
    key changes with the set.

    Args:
        config: the data set and filters.
        cache_root: folder in which sets are found and cached; by default RINGRL_DATA, else ~/.cache/ringrl.
        progress: called with the number of episodes read and their total.

    Returns:
        The store, read through memory maps.

    Raises:
        RingRLError: there is no such set, it is damaged, or the filters leave no episode.
    """
    if not config.name:
        raise RingRLError("data.name is empty: give a Minari id, or with data.source=store the folder of a store.")
    root = data_root() if cache_root is None else Path(cache_root)
    names = [config.name, *config.also]
    stores = [_open(config, name, root, progress) for name in names]
    return filter_episodes(join_stores(stores, names) if config.also else stores[0], config)


def filter_episodes(store: EpisodeStore, config: DataConfig) -> EpisodeStore:
    """A view of the episodes that the filters keep: by task, then length, then return, then the best of each task.

    Raises `RingRLError` naming the first filter that leaves no episode, and the range of the data before it.
    """
    if config.tasks:
        there = np.unique(store.task_ids)
        missing = [task for task in config.tasks if task not in there]
        if missing:
            listed = f"{', '.join(map(str, there[:8].tolist()))}{' and more' if len(there) > 8 else ''}"
            raise RingRLError(f"data.tasks={config.tasks}: {store.path} has no task {missing[0]}; it has {listed}.")
        store = store.select(np.isin(store.task_ids, config.tasks))
    store = _keep_between(store, "length", store.lengths, config.min_length or None, config.max_length)
    store = _keep_between(store, "return", store.returns, config.min_return, config.max_return)
    return store.keep_top(config.top_fraction)


def find_store(name: str, root: Path) -> Path:
    """The folder of the store `name`: under `root/stores`, else `name` as a path.

    Raises `RingRLError` with the nearest names of existing stores.
    """
    stores = root / "stores"
    if Path(name).name == name and (stores / name).is_dir():
        return stores / name
    path = Path(name).expanduser()
    if path.is_dir() or path.name != name:
        return path
    there = [entry.name for entry in sorted(stores.glob("*")) if entry.is_dir() and not entry.name.startswith(".")]
    nearest = difflib.get_close_matches(name, there, n=3, cutoff=0.0)
    listed = f"the nearest there are {', '.join(nearest)}" if nearest else "there are none: `ringrl import` makes them"
    raise RingRLError(f"data.name={name}: no such store in {stores}, nor a folder of that name; {listed}.")


def _open(config: DataConfig, name: str, root: Path, progress: Progress | None) -> EpisodeStore:
    if config.source is Source.store:
        return EpisodeStore.open(find_store(name, root))
    try:
        folder = find_minari_set(name, minari_root(root), config.download)
    except RingRLError as error:
        if "/" not in name and (root / "stores" / name).is_dir():
            raise RingRLError(f"data.name={name}: no Minari set, but a store has that name: add data=store.") from error
        raise
    path = root / "stores" / f"{name.replace('/', '--')}-{minari_key(folder)}"
    return _open_or_build(name, folder, path, progress)


def _open_or_build(name: str, folder: Path, path: Path, progress: Progress | None) -> EpisodeStore:
    damaged = False
    if path.exists():
        try:
            return EpisodeStore.open(path)
        except UnreadableFileError:
            raise
        except RingRLError:
            damaged = True  # the new store replaces it when complete
    try:
        return build_from_minari(name, folder, path, progress, overwrite=damaged)
    except RingRLError:
        if not path.is_dir():
            raise
        return EpisodeStore.open(path)  # another process has built it in the meantime


def _keep_between(
    store: EpisodeStore, what: str, values: np.ndarray, least: float | None, most: float | None
) -> EpisodeStore:
    if least is None and most is None:
        return store
    kept = np.ones(len(values), bool)
    for key, bound in ((f"min_{what}", least), (f"max_{what}", most)):
        if bound is None:
            continue
        left = values[kept]
        kept &= values >= bound if key == f"min_{what}" else values <= bound
        if not kept.any():
            raise RingRLError(
                f"data.{key}={bound:g} leaves no episode of {store.path}: the {what}s there are from {left.min():g} to "
                f"{left.max():g}."
            )
    return store if kept.all() else store.select(kept)
