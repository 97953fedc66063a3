"""Minari sets on this machine: their location, a listing, and downloads of public sets on request."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from ringrl.data.building import BuildFolder, remove_leftovers
from ringrl.data.column_writer import make_write_error
from ringrl.data.sources.minari_host import check_minari_host
from ringrl.errors import RingRLError

OWN_NAMESPACE = "ringrl/"  # of conf/collection
PUBLIC_NAMESPACES = ("D4RL/", "mujoco/", "minigrid/", "atari/")


def minari_root(cache_root: Path) -> Path:
    """The folder of Minari sets: MINARI_DATASETS_PATH if it is set, else `cache_root/minari`."""
    chosen = os.environ.get("MINARI_DATASETS_PATH")
    return Path(chosen) if chosen else cache_root / "minari"


@contextlib.contextmanager
def minari_environment(root: Path) -> Iterator[None]:
    """Context in which Minari's own functions use `root`."""
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(root)
    try:
        yield
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before


def check_minari_id(name: str) -> None:
    """Raise `RingRLError` unless `name` has the form that Minari accepts."""
    from minari.dataset.minari_dataset import parse_dataset_id

    try:
        parse_dataset_id(name)
    except (ValueError, TypeError) as error:
        raise RingRLError(
            f"{name!r} is not a Minari id: write namespace/name-v0, the namespace of 2 letters or more."
        ) from error


def find_minari_set(name: str, root: Path, download: bool) -> Path:
    """The set's data folder; downloads a public set if `download` is true, raises `RingRLError` if there is none.

    Only `download` uses the network, and a download that fails or is interrupted leaves nothing behind.
    """
    check_minari_id(name)
    folder = root / name / "data"
    if not folder.parent.exists():
        if not download:
            raise RingRLError(f"Minari set {name} is not in {root}: {_where_from(name)}.")
        try:
            _download(name, root)
        except OSError as error:
            if error.errno is None or isinstance(error, ConnectionError | TimeoutError):  # requests' errors too
                raise _not_downloaded(name, error) from error
            raise make_write_error(folder.parent, error) from error
    if not (folder / "metadata.json").is_file():
        raise damaged_set(name, folder, "metadata.json is missing")
    return folder


def _where_from(name: str) -> str:
    """How to obtain a set that is not on this machine."""
    if name.startswith(OWN_NAMESPACE):
        collection = name.removeprefix(OWN_NAMESPACE).rpartition("-v")[0]
        return f"it is no public set; `ringrl collect collection={collection}` makes it, if it is one of RingRL's own"
    public = "data.download=true fetches it (of `ringrl import`: download=true)"
    if name.startswith(PUBLIC_NAMESPACES):
        return f"it is a public set, and {public}"
    return (
        f"`ringrl collect dataset={name} env.id=ENVIRONMENT_ID` collects a set of that name; if it is public, {public}"
    )


def _download(name: str, root: Path) -> None:
    """Download the set to a hidden folder beside its location, and move it there when complete."""
    import minari

    check_minari_host(name, str(root / name))
    remove_leftovers(root / name)
    missing = [parent for parent in (root / name).parents if not parent.exists()]
    build = BuildFolder(root / name)
    try:
        fetched = build.folder / "fetched"
        fetched.mkdir()
        try:
            # Minari prints its progress on standard output, which is for results.
            with minari_environment(fetched), contextlib.redirect_stdout(sys.stderr):
                minari.download_dataset(name)
        except Exception as error:  # Minari passes on any error of its hosts' clients
            raise _not_downloaded(name, error) from error
        if not (fetched / name / "data" / "metadata.json").is_file():
            raise RingRLError(f"Minari set {name} cannot be downloaded: its host sent no metadata.json; try again.")
        for parent in (Path(name).parents)[:-1]:  # by which Minari recognizes a namespace
            told = fetched / parent / "namespace_metadata.json"
            if told.is_file() and not (root / parent / told.name).exists():
                os.rename(told, root / parent / told.name)
        os.rename(fetched / name / "data", build.folder / "data")
        shutil.rmtree(fetched)
        try:
            build.place()
        except OSError:
            if not (root / name / "data" / "metadata.json").is_file():
                raise  # otherwise another process has downloaded it in the meantime
    finally:
        build.remove()
        for parent in missing:  # innermost first
            with contextlib.suppress(OSError):
                parent.rmdir()  # fails unless it is empty


def _not_downloaded(name: str, error: BaseException) -> RingRLError:
    return RingRLError(f"Minari set {name} cannot be downloaded: {format_error(error)}.")


def damaged_set(name: str, folder: Path, what: str) -> RingRLError:
    """The error for a set whose files are incomplete."""
    return RingRLError(
        f"Minari set {name} in {folder} is damaged or half-downloaded ({what}): move that folder away, "
        "then collect or download it again."
    )


def format_error(error: BaseException) -> str:
    """Kind and message of an error, shortened."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
