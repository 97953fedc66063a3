"""A MuJoCo model changed in memory, for environments that only read model files."""

import contextlib
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def model_file(model: ElementTree.Element) -> Iterator[str]:
    """Path of a file with this model, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ringrl-model-") as folder:
        path = Path(folder) / "model.xml"
        ElementTree.ElementTree(model).write(path)
        yield str(path)


def only(model: ElementTree.Element, place: str) -> ElementTree.Element:
    """The element at `place`."""
    element = model.find(place)
    assert element is not None, f"the model has no {place}"
    return element
