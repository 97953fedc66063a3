"""Checks overrides before Hydra does, so that a typo is reported in one line with the nearest valid name."""

import dataclasses
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override
from hydra.errors import OverrideParseException

from ringrl.cli.groups import choices_in, find_groups, format_choices
from ringrl.config import COMMANDS
from ringrl.config.schema import key_paths, list_paths, matches, nearest
from ringrl.data.known_sets import find_known_name
from ringrl.errors import RingRLError

SECTIONS = ("agent", "model", "attention", "chain", "data", "env", "training", "evaluation", "experiment")
AUTO = "auto"  # resume=auto: the same command starts a run and continues it
CONFIG_FILE = "config.yaml"  # in a run folder: the whole configuration


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The names a command accepts: dotted keys, and the choices of each config group."""

    command: str
    keys: tuple[str, ...]
    lists: tuple[str, ...]  # the keys whose values are lists
    groups: dict[str, tuple[str, ...]]
    others: dict[str, str]  # groups of other commands, with one command that has the group
    own: Path | None = None  # the user's folder of YAML files

    @property
    def names(self) -> list[str]:
        """Keys and groups."""
        return [*self.keys, *self.groups]


def vocabulary(command: str, folders: Sequence[Path]) -> Vocabulary:
    """The keys and groups of `command`; groups are those of `folders` of YAML files, RingRL's own first."""
    conf, *own = folders
    named = find_groups(command, conf)
    others = {group: other for other in COMMANDS for group in find_groups(other, conf) if group not in named}
    groups = {name: found for name, found in choices_in(folders).items() if name.split("/")[0] not in others}
    cls = COMMANDS[command]
    return Vocabulary(command, tuple(key_paths(cls)), tuple(list_paths(cls)), groups, others, own[0] if own else None)


FOLDER_KEYS = ("resume", "checkpoint", "hydra.run.dir", "hydra.sweep.dir")  # their values are single paths
FREE_MAPPINGS = ("env.kwargs.", "env.kwargs=", "behavior.")  # keys under these are arbitrary
GROUPS_ACROSS_SECTIONS = (
    "experiment",
    "cluster",
    "collection",
    "behavior",
)  # groups whose files set keys of any section


def normalize_overrides(command: str, arguments: Sequence[str]) -> list[str]:
    """Convert user input to Hydra's syntax.

    A key under a mapping with arbitrary keys needs no `+`; `video=true` is short for `evaluation.video=true`, `bench
    attention` for `bench benchmark=attention`, and `target=v4:4x4x4` for a custom target of that topology. Folders may
    have any name: those that Hydra would misread are quoted.
    """
    if command == "bench" and arguments and arguments[0].isidentifier():
        arguments = [f"benchmark={arguments[0]}", *arguments[1:]]
    texts = [f"evaluation.{text}" if text.startswith("video=") else text for text in arguments]
    texts = [word for text in texts for word in _expand_target(text)]
    texts = [_quote_folder(text) for text in texts]
    return [f"++{text}" if text.startswith(FREE_MAPPINGS) else text for text in texts]


def quote_value(text: str) -> str:
    """Quote a text so that Hydra and OmegaConf read it literally."""
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + (r"\'" if found[2] else ""), text)
    return "'" + escaped.replace("${", r"\${") + "'"


def _double_quote(text: str) -> str:
    """The same in double quotes, which stay readable inside a shell's single quotes."""
    return '"' + re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + (r"\"" if found[2] else ""), text) + '"'


def _quote_folder(text: str) -> str:
    """`key=FOLDER` with the folder quoted if needed; the user's own quotes and interpolations stay."""
    key, _, value = text.partition("=")
    if key.lstrip("+") not in FOLDER_KEYS or re.fullmatch(r"[\w./~@%+-]*", value, re.ASCII) or "${" in value:
        return text
    if key == "checkpoint" and "," in value and not Path(value).exists():  # a sweep
        return text
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return text if is_quoted else f"{key}={quote_value(value)}"


def _expand_target(text: str) -> list[str]:
    """Expand `target=TOPOLOGY`; a topology contains a colon and a name does not."""
    key, _, topology = text.partition("=")
    quoted = ",".join(f"'{name}'" for name in topology.split(","))  # several form a sweep
    return ["target=custom", f"target.topology={quoted}"] if key == "target" and ":" in topology else [text]


def check_overrides(texts: Sequence[str], known: Vocabulary, sweeping: bool = False) -> list[Override]:
    """Parse and check the overrides for Hydra.

    A `+` before an existing key is dropped: it is common with other programs, and has no other meaning.

    Raises:
        RingRLError: a key, group choice or form of a value is invalid; the first one is reported.
    """
    overrides = []
    for text in texts:
        override = _parse(text, known)
        name = override.key_or_group
        if text.startswith("+") and not text.startswith("++") and (name in known.groups or name in known.keys):
            override = _parse(text[1:], known)
        _check(override, known)
        _check_form(override, known, texts)
        if override.is_sweep_override() and not sweeping:
            raise _several_values(override, known)
        overrides.append(override)
    return overrides


def _check_form(override: Override, known: Vocabulary, texts: Sequence[str]) -> None:
    """Reject a value whose form (list, mapping or single value) does not match its key."""
    key, value = override.key_or_group, _unquoted(None if override.is_delete() else override.value())
    if key in known.lists and isinstance(value, str | int | float) and not str(value).startswith("${"):
        raise RingRLError(f"{key}={value}: a list is needed: '{key}=[{value}]'.")
    chosen = any(text.lstrip("+").startswith(("data=", "data.source=")) for text in texts)
    if key == "data.name" and value in known.groups.get("data", ()) and not chosen:
        raise RingRLError(f"{key}={value}: that is a choice of the group data: data={value}.")
    if key in ("resume", "checkpoint") and value == "":
        raise RingRLError(f"{key}= needs a value: {key}=FOLDER, of a run.")


def _parse(text: str, known: Vocabulary) -> Override:
    try:
        [override] = OverridesParser.create().parse_overrides([text])
        return override
    except OverrideParseException:
        pass
    key, equals, value = text.partition("=")
    if not equals:
        if key in known.groups:
            raise RingRLError(f"Cannot read {text!r}: write {key}=CHOICE, one of {format_choices(known.groups[key])}.")
        alike = nearest(key, known.names)[0]
        raise RingRLError(
            f"Cannot read {text!r}: write key=value (the key most like it is {alike}); a value with spaces is quoted "
            "twice: 'key=\"a b\"'."
        )
    if not key or key != key.strip() or not value.strip():
        raise RingRLError(f"Cannot read {text!r}: write key=value without spaces around the equals sign.")
    is_list = key in known.lists and value[:1] == "["
    items = [_double_quote(item) for item in (value.strip("[]").split(",") if is_list else [value])]
    remedy = shlex.quote(f"{key}=[{','.join(items)}]" if is_list else f"{key}={items[0]}")
    raise RingRLError(
        f"Cannot read {text!r}: quote a value with spaces, commas, colons, brackets, quotes or equals signs twice, for "
        f"the shell and for Hydra: {remedy}."
    )


def _several_values(override: Override, known: Vocabulary) -> RingRLError:
    key, _, value = (override.input_line or "").lstrip("+").partition("=")
    if key in known.lists:
        return RingRLError(f"{key}={value}: write a list as '{key}=[{value}]'; with -m it is a sweep over its values.")
    return RingRLError(f"{key}={value}: several values are a sweep: add -m, and each gets a run.")


def resume_folder(overrides: Iterable[Override], sweeping: bool) -> str | None:
    """The checked run folder of `resume=RUN`; None without it, and for resume=auto."""
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
    """The values in the run's configuration that the overrides of `ringrl train resume=RUN key=value` change."""
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
    if name.split("/")[0] in known.others:
        raise _foreign_group(name, known)
    value = None if override.is_delete() else override.value()
    choices = list(value.list) if isinstance(value, ChoiceSweep) else value if isinstance(value, list) else [value]
    names_choices = all(choice is None or isinstance(choice, str) for choice in map(_unquoted, choices))
    if name in known.groups and names_choices:
        for choice in map(_unquoted, choices):
            if choice in ("", None) and not override.is_delete():
                raise RingRLError(
                    f"{name}={'null' if choice is None else ''} needs a choice: {format_choices(known.groups[name])}."
                )
            if choice is not None and choice not in known.groups[name]:
                raise _make_choice_error(name, choice, known)
            if choice is not None:
                _check_package(name, choice, known)
    elif name not in known.groups and not matches(name, known.keys):
        raise RingRLError(f"Unknown key {name!r}: did you mean {nearest(name, known.names)[0]!r}?")


def _make_choice_error(group: str, choice: str, known: Vocabulary) -> RingRLError:
    """The error for a choice that does not exist, with the nearest existing ones; for a Minari set, with its id."""
    identity = find_known_name(choice) if group == "data" else None
    if identity is not None:
        return RingRLError(f"{group}={choice}: a Minari set is chosen by its id: data.name={identity}.")
    alike = nearest(choice, known.groups[group])
    return RingRLError(f"{group}={choice}: did you mean {alike[0]!r}? Choices: {format_choices(alike)}.")


def _foreign_group(name: str, known: Vocabulary) -> RingRLError:
    other = known.others[name.split("/")[0]]
    own = [group for group in known.groups if "/" not in group]
    has = f"its groups are {', '.join(own)}" if own else "it has none, but keys"
    if name == "experiment" and known.command == "plan":
        has = (
            "give what it would set, such as model=at_350m, agent.tokens_per_step=N, trajectories=N and "
            "shape.observation_size=N"
        )
    return RingRLError(
        f"{name}=... is a group of `ringrl {other}`, not of `ringrl {known.command}`: {has} "
        f"(`ringrl {known.command} --help`)."
    )


def _check_package(group: str, choice: str, known: Vocabulary) -> None:
    """Reject a user's file that sets keys of the whole configuration without a package directive in its first line."""
    file = None if known.own is None else known.own / group / f"{choice}.yaml"
    if group not in GROUPS_ACROSS_SECTIONS or file is None or not file.is_file():
        return
    if not re.search(r"^#\s*@package\s+_global_\s*$", file.read_text(), re.MULTILINE):
        raise RingRLError(
            f"{file}: make its first line `# @package _global_`; without it everything there goes under {group!r}, "
            "which is no key."
        )


def _unquoted(choice: Any) -> Any:
    return getattr(choice, "text", choice)
