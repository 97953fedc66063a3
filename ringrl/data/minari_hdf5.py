"""Writing of episodes to the HDF5 file of a Minari set, in Minari's layout and in as little space as HDF5 allows.

Minari's own writer makes every array of every episode growable, which costs a chunk and an index each: some 15 KB an
episode, however short. Here small arrays are stored in their object's header, and larger ones contiguously.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

FILE_NAME = "main_data.hdf5"
COMPACT_BYTES = 32 << 10  # of an array; HDF5 allows headers of 64 KB


def write_minari_hdf5(
    path: Path, episodes: Iterable[tuple[Mapping[str, Any], Mapping[str, int | str]]], first: int = 0
) -> None:
    """Add episodes to the file, which is created if it is missing or empty.

    Args:
        path: the file.
        episodes: the arrays (nested in dictionaries and tuples like their spaces) and attributes of each episode.
        first: the number of the first episode.
    """
    import h5py

    new = not path.exists() or not path.stat().st_size
    with h5py.File(path, "w" if new else "r+", libver=("v108", "v110")) as file:
        for index, (arrays, attributes) in enumerate(episodes, first):
            group = h5py.h5g.create(file.id, f"episode_{index}".encode())
            for name, value in {"id": index, **attributes}.items():
                _write_attribute(group, name, value)
            _write_arrays(group, arrays)


def _write_arrays(group: Any, arrays: Mapping[str, Any]) -> None:
    import h5py

    for name, values in arrays.items():
        parts = {f"_index_{i}": part for i, part in enumerate(values)} if isinstance(values, tuple) else values
        if isinstance(parts, Mapping):
            _write_arrays(h5py.h5g.create(group, name.encode()), parts)
            continue
        array = np.asarray(values, order="C")
        if array.dtype.kind == "U":
            array = array.astype(h5py.string_dtype())
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_layout(h5py.h5d.COMPACT if array.nbytes <= COMPACT_BYTES else h5py.h5d.CONTIGUOUS)
        kind, space = h5py.h5t.py_create(array.dtype, logical=True), h5py.h5s.create_simple(array.shape)
        dataset = h5py.h5d.create(group, name.encode(), kind, space, dcpl=layout)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, array)


def _write_attribute(group: Any, name: str, value: int | str) -> None:
    import h5py

    array = np.array(value, h5py.string_dtype()) if isinstance(value, str) else np.array(value)
    kind, space = h5py.h5t.py_create(array.dtype, logical=True), h5py.h5s.create(h5py.h5s.SCALAR)
    h5py.h5a.create(group, name.encode(), kind, space).write(array)
