"""Reads the command line's overrides before Hydra does, so that a slip gets one line with the nearest valid name."""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import OverrideParseException

from ringrl.cli.schema import key_paths, matches, nearest
from ringrl.errors import RingRLError

SECTIONS = ("agent", "model", "attention", "chain", "data", "env", "training", "evaluation", "experiment", "tuning")
AUTO = "auto"  # resume=auto: the same command starts a run and continues it
CONFIG_FILE = "config.yaml"  # in a run folder: the whole configuration


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The names a command accepts: dotted keys, and the choices of each config group."""

    keys: tuple[str, ...]
    groups: dict[str, tuple[str, ...]]


def vocabulary(command: type, folders: Iterable[Path]) -> Vocabulary:
    """What `command` accepts, with the groups found in `folders` of YAML files."""
    groups: dict[str, set[str]] = {}
    for folder in folders:
        for file in sorted(folder.rglob("*.yaml")):
            choice = file.relative_to(folder).with_suffix("").as_posix()
            for cut in (index for index, character in enumerate(choice) if character == "/"):  # data=d4rl/pen_human too
                groups.setdefault(choice[:cut], set()).add(choice[cut + 1 :])
    return Vocabulary(tuple(key_paths(command)), {name: tuple(sorted(found)) for name, found in groups.items()})


FOLDER_KEYS = ("resume", "checkpoint", "hydra.run.dir", "hydra.sweep.dir")  # their values are one path each
FREE_MAPPINGS = ("env.kwargs.", "behavior.")  # keys under these are the user's own


def normalise(command: str, arguments: Sequence[str]) -> list[str]:
    """What users type, as Hydra wants it.

    `+experiment=NAME` is Hydra's habit, but RingRL's defaults list already holds the group, before the agent; a
    key under a mapping with free keys needs no `+`; `video=true` is short for `evaluation.video=true`, `bench
    attention` for `bench benchmark=attention`, and `target=v4:4x4x4` for a custom target of that topology. Folders may
    have any name: those that Hydra would read otherwise are quoted for it.
    """
    if command == "bench" and arguments and arguments[0].isidentifier():
        arguments = [f"benchmark={arguments[0]}", *arguments[1:]]
    texts = [text[1:] if text.startswith("+experiment=") else text for text in arguments]
    texts = [f"evaluation.{text}" if text.startswith("video=") else text for text in texts]
    texts = [word for text in texts for word in _target(text)]
    texts = [_quoted_folder(text) for text in texts]
    return [f"++{text}" if text.startswith(FREE_MAPPINGS) else text for text in texts]


def quoted(text: str) -> str:
    """A text as a value that Hydra and OmegaConf read as just this text, whatever is in it."""
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + (r"\'" if found[2] else ""), text)
    return "'" + escaped.replace("${", r"\${") + "'"


def _quoted_folder(text: str) -> str:
    """`key=FOLDER` with the folder quoted where that is needed; quotes and interpolations of the user's own stay."""
    key, _, value = text.partition("=")
    if key.lstrip("+") not in FOLDER_KEYS or re.fullmatch(r"[\w./~@%+-]*", value, re.ASCII) or "${" in value:
        return text
    if key == "checkpoint" and "," in value:  # a sweep
        return text
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return text if is_quoted else f"{key}={quoted(value)}"


def _target(text: str) -> list[str]:
    """`target=TOPOLOGY`, where a topology has a colon and a name has none."""
    key, _, topology = text.partition("=")
    quoted = ",".join(f"'{name}'" for name in topology.split(","))  # several are a sweep
    return ["target=custom", f"target.topology={quoted}"] if key == "target" and ":" in topology else [text]


def check_overrides(texts: Sequence[str], known: Vocabulary) -> list[Override]:
    """The parsed overrides; raises RingRLError on the first key or group choice that does not exist."""
    overrides = []
    for text in texts:
        try:
            [override] = OverridesParser.create().parse_overrides([text])
        except OverrideParseException:
            raise RingRLError(
                f"Cannot read {text!r}: write key=value, quoted 'key=\"a b\"' where it has spaces."
            ) from None
        _check(override, known)
        overrides.append(override)
    return overrides


def resume_folder(overrides: Iterable[Override], sweeping: bool) -> str | None:
    """The run folder that `resume=RUN` names, checked; None without it, and for resume=auto."""
    overrides = list(overrides)
    values = [_unquoted(override.value()) for override in overrides if override.key_or_group == "resume"]
    if not values or values[-1] is None:
        return None
    if values[-1] == AUTO:
        folder_key = "hydra.sweep.dir" if sweeping else "hydra.run.dir"
        if not any(override.key_or_group == folder_key for override in overrides):
            raise RingRLError(f"resume=auto needs {folder_key}=FOLDER, so that the same command finds its run again.")
        return None
    folder = Path(str(values[-1]))
    if sweeping:
        raise RingRLError(f"resume={folder} continues one run: leave -m out.")
    if not (folder / CONFIG_FILE).is_file():
        raise RingRLError(f"resume={folder}: no {CONFIG_FILE} there; give the folder of a `ringrl train` run.")
    return str(folder.absolute())


def changes(texts: Iterable[str]) -> dict[str, Any]:
    """The values that the overrides of `ringrl train resume=RUN key=value` change in the run's configuration."""
    overrides = OverridesParser.create().parse_overrides(list(texts))
    changed = {}
    for override in overrides:
        if override.is_delete() or ("." not in override.key_or_group and override.key_or_group in SECTIONS):
            raise RingRLError(
                f"{override.input_line}: resume=RUN keeps the configuration of the run; give single keys."
            )
        if override.key_or_group != "resume":
            changed[override.key_or_group] = _unquoted(override.value())
    return changed


def _check(override: Override, known: Vocabulary) -> None:
    name = override.key_or_group
    if name.split("/")[0].split(".")[0] == "hydra":  # Hydra checks its own keys
        return
    value = None if override.is_delete() else override.value()
    choices = list(value.list) if isinstance(value, ChoiceSweep) else value if isinstance(value, list) else [value]
    names_choices = all(choice is None or isinstance(choice, str) for choice in map(_unquoted, choices))
    if name in known.groups and names_choices:
        for choice in map(_unquoted, choices):
            if choice is not None and choice not in known.groups[name]:
                alike = nearest(choice, known.groups[name])
                raise RingRLError(f"{name}={choice}: did you mean {alike[0]!r}? Choices: {', '.join(alike)}.")
    elif name not in known.groups and not matches(name, known.keys):
        alike = nearest(name, [*known.keys, *known.groups])
        raise RingRLError(f"Unknown key {name!r}: did you mean {alike[0]!r}?")


def _unquoted(choice: Any) -> Any:
    return getattr(choice, "text", choice)
