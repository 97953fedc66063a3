"""Training metrics in TensorBoard's event format."""

import io
import itertools
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from PIL import Image
from tensorboardX import summary as summaries
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

from ringrl.errors import RingRLError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FLUSH_SECONDS = 10.0
_HISTOGRAM_BINS = 64
_serial = itertools.count()


class TensorBoardLogger:
    """Writes one event file in a directory; usable as a context manager. Steps are optimizer steps unless noted.

    `resumed_at` hides the entries of earlier files in the directory for that step and later ones. Raises RingRLError if
    the directory cannot be written, including a full disk.
    """

    # Events are written synchronously: a queue to another thread would fill up and block when the disk is full.
    def __init__(self, directory: Path | str, resumed_at: int | None = None) -> None:
        self.directory = Path(directory)
        self._flushed = time.monotonic()
        self._closed = False
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._events = EventsWriter(str(self.directory / "events"), f".{os.getpid()}.{next(_serial)}")
        except OSError as error:
            raise self._fault(error) from error
        if resumed_at is not None:
            self._write(Event(session_log=SessionLog(status=SessionLog.START)), resumed_at)

    def __enter__(self) -> "TensorBoardLogger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers by tag."""
        for tag, value in values.items():
            self._add(summaries.scalar(tag, float(value)), step)

    def histograms(self, tree: Any, step: int, prefix: str = "parameters") -> None:
        """Write the distribution of every array of a tree, tagged by its path; non-finite values are left out.

        An array sharded over several processes contributes this process's shards only.
        """
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            values = _own_values(leaf)
            values = values[np.isfinite(values)]
            if values.size:
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                self._add(summaries.histogram(f"{prefix}/{name}", values, bins=_HISTOGRAM_BINS), step)

    def text(self, tag: str, text: str, step: int = 0, language: str = "yaml") -> None:
        """Write text that is shown as code, for example the configuration."""
        self._add(summaries.text(tag, f"```{language}\n{text}\n```"), step)

    def figure(self, tag: str, figure: "Figure", step: int) -> None:
        """Write a matplotlib figure as an image; the figure is left open."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100)
        with Image.open(buffer) as image:
            width, height = image.size
        self._image(tag, buffer.getvalue(), height, width, step)

    def video(
        self, tag: str, frames: Sequence[np.ndarray] | np.ndarray, step: int, frames_per_second: int = 15
    ) -> None:
        """Write frames (T, height, width, 3) uint8 as an animation, which TensorBoard plays among the images."""
        images = [Image.fromarray(np.asarray(frame, np.uint8)) for frame in frames]
        buffer = io.BytesIO()
        images[0].save(
            buffer,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=round(1000 / frames_per_second),
            loop=0,
        )
        self._image(tag, buffer.getvalue(), images[0].height, images[0].width, step)

    def hparams(self, values: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
        """Write hyperparameters (nested mappings are flattened) with the final metrics, also as scalars of `step`.

        The list of all hyperparameters is not written, so TensorBoard derives one from all runs, sorted by what
        differs.
        """
        flat = {name: value if isinstance(value, bool | int | float) else str(value) for name, value in _flat(values)}
        metrics = {name: float(value) for name, value in metrics.items()}
        _, start, end = summaries.hparams(flat, metrics)  # the first would be read in place of a comparison of runs
        for summary in (start, end):
            self._add(summary, step)
        self.scalars(metrics, step)

    def layout(self, charts: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Define charts of several tags each, for the custom scalars tab: `{category: {title: [pattern of tags]}}`."""
        self._add(
            summaries.custom_scalars(
                {
                    category: {title: ["Multiline", list(tags)] for title, tags in titles.items()}
                    for category, titles in charts.items()
                }
            ),
            0,
        )

    def flush(self) -> None:
        """Write buffered events."""
        try:
            self._events.flush()
        except OSError as error:
            raise self._fault(error) from error
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Write buffered events and close the file; closing again has no effect."""
        if not self._closed:
            self._closed = True
            try:
                self._events.close()
            except OSError as error:
                raise self._fault(error) from error

    def _image(self, tag: str, encoded: bytes, height: int, width: int, step: int) -> None:
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded)
        self._add(Summary(value=[Summary.Value(tag=tag, image=image)]), step)

    def _add(self, summary: Any, step: int) -> None:
        self._write(Event(summary=summary), step)

    def _write(self, event: Any, step: int) -> None:
        event.wall_time, event.step = time.time(), int(step)
        try:
            self._events.write_event(event)
        except OSError as error:
            raise self._fault(error) from error
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def _fault(self, error: OSError) -> RingRLError:
        return RingRLError(f"Cannot write TensorBoard events in {self.directory}: {error.strerror}; free some space.")


def _own_values(array: Any) -> np.ndarray:
    """The values of an array on this process's devices, each once, in no particular order."""
    if not isinstance(array, jax.Array):
        return np.asarray(array, np.float32).ravel()
    parts = {str(shard.index): shard.data for shard in array.addressable_shards}  # replicas share an index
    return np.concatenate([np.asarray(part, np.float32).ravel() for part in jax.device_get(list(parts.values()))])


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as pairs with dotted names."""
    pairs: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", value))
    return pairs
