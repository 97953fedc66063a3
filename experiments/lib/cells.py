"""Results computed a cell at a time: cached by key and settings, so that a run that is cut short goes on."""

import argparse
import concurrent.futures
import datetime
import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from experiments.lib.machine import find_commit
from experiments.lib.results import make_parser, write_results

Settings = TypeVar("Settings")


def make_cell_parser(description: str | None) -> argparse.ArgumentParser:
    """`make_parser` with the options of `CellFile.fill`."""
    parser = make_parser(description)
    parser.add_argument("--only", default="", metavar="TEXT", help="cells whose key holds this text")
    parser.add_argument("--again", action="store_true", help="compute cells that are in the results too")
    parser.add_argument("--jobs", type=int, default=1, help="cells at once")
    return parser


class CellFile:
    """A JSON file of cells by key, each written as soon as it is there.

    A cell is kept with its settings and the commit that computed it. It is computed again where its settings have
    changed, or on request; one of an older commit counts, and is named.

    The file is read anew before each write, so that processes that fill different cells of one file keep each other's.
    """

    def __init__(self, path: Path, experiment: str) -> None:
        self._path, self._experiment, self._lock = path, experiment, threading.Lock()

    def read(self) -> dict[str, dict[str, Any]]:
        """The cells there are, by key."""
        return json.loads(self._path.read_text())["cells"] if self._path.is_file() else {}

    def put(self, key: str, cell: Mapping[str, Any], settings: Any = None) -> None:
        """Adds a cell, or replaces the one of that key."""
        about = {"settings": _make_plain(settings), "commit": find_commit(), "date": datetime.date.today().isoformat()}
        with self._lock:
            cells = {**self.read(), key: {**cell, "computed": about}}
            write_results(self._path, self._experiment, cells=cells)

    def fill(
        self,
        cells: Mapping[str, Settings],
        compute: Callable[[Settings], Mapping[str, Any]],
        options: argparse.Namespace,
        describe_settings: Callable[[Settings], Any] = lambda settings: None,
    ) -> dict[str, dict[str, Any]]:
        """Computes the cells that are not there.

        Args:
          cells: what to compute each cell from, by key, in order.
          compute: the cell of its settings; with several jobs it is called from several threads.
          options: of `make_cell_parser`.
          describe_settings: what of the settings decides the result, as plain JSON.

        Returns:
          The cells of these keys that there are, in order.
        """
        known = self.read()

        def is_missing(key: str) -> bool:
            if options.again or key not in known:
                return True
            recorded = known[key].get("computed", {}).get("settings")  # results older than this record count
            return recorded is not None and recorded != _make_plain(describe_settings(cells[key]))

        def run(key: str) -> None:
            cell = dict(compute(cells[key]))
            self.put(key, cell, describe_settings(cells[key]))
            print(f"{key}: {json.dumps(cell)}", flush=True)

        missing = [key for key in cells if options.only in key and is_missing(key)]
        with concurrent.futures.ThreadPoolExecutor(max(1, options.jobs)) as pool:
            for _ in pool.map(run, missing):
                pass
        found = self.read()
        commits = {found[key].get("computed", {}).get("commit", "an earlier one") for key in cells if key in found}
        if len(commits) > 1:
            print(f"{self._experiment}: cells of {len(commits)} commits stand side by side; --again computes all anew.")
        return {key: found[key] for key in cells if key in found}


def _make_plain(settings: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(settings))


def digest_settings(text: str) -> str:
    """A short name of settings that are long."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
