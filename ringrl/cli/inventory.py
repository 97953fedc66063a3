"""Contents of the data cache: episode stores, Minari sets, ExoRL folders."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ringrl.data import EpisodeStore
from ringrl.data.sources.minari_sets import minari_root
from ringrl.errors import RingRLError

Row = dict[str, Any]  # name, as, bytes; episodes, steps and environment if known; fault if it is damaged


def list_data(root: Path) -> list[Row]:
    """One row per set, ordered by kind and name; a damaged set has a `fault`."""
    return [*_stores(root / "stores"), *_minari_sets(minari_root(root)), *_exorl_folders(root / "exorl")]


def _stores(root: Path) -> Iterator[Row]:
    for folder in sorted(root.glob("*")):
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        row: Row = {"name": folder.name, "as": "store", "bytes": _bytes(folder)}
        try:
            store = EpisodeStore.open(folder)
            row |= {"episodes": store.num_episodes, "steps": store.num_steps}
            row["environment"] = store.metadata.get("environment")
        except RingRLError as error:
            row["fault"] = str(error)
        yield row


def _minari_sets(root: Path) -> Iterator[Row]:
    for file in sorted(root.glob("**/data/metadata.json")):
        name = file.parent.parent.relative_to(root).as_posix()
        if any(part.startswith(".") for part in name.split("/")):
            continue
        row: Row = {"name": name, "as": "minari", "bytes": _bytes(file.parent)}
        try:
            told = json.loads(file.read_text())
            row |= {"episodes": int(told["total_episodes"]), "steps": int(told["total_steps"])}
            spec = told.get("env_spec")
            row["environment"] = (json.loads(spec) if isinstance(spec, str) else spec or {}).get("id")
        except OSError as error:
            row["fault"] = f"metadata.json cannot be read ({error.strerror})"
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            row["fault"] = f"metadata.json is damaged ({type(error).__name__}: {error})"
        yield row


def _exorl_folders(root: Path) -> Iterator[Row]:
    for folder in sorted(root.glob("*/*/buffer")):
        if any(part.startswith(".") for part in folder.relative_to(root).parts):
            continue
        files = [file for file in folder.glob("*.npz") if not file.name.startswith(".")]
        lengths = [file.stem.rpartition("_")[2] for file in files]
        steps = sum(int(length) for length in lengths if length.isdigit())
        name = folder.parent.relative_to(root).as_posix()
        yield {"name": name, "as": "exorl", "bytes": _bytes(folder), "episodes": len(files), "steps": steps}


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
