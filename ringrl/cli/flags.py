"""Parsing of a command line into flags and overrides; an invalid flag is reported in one line with the remedy."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from ringrl.config.schema import nearest
from ringrl.errors import RingRLError

PRINTING = ("cfg", "help", "hydra_help", "info")  # nothing runs


def parse_flags(command: str, words: Sequence[str], known: Callable[[], Iterable[str]]) -> argparse.Namespace:
    """Split `words` into Hydra's flags and overrides.

    Args:
        command: the RingRL command.
        words: words of the command line, without the command.
        known: looks up keys and groups, for a word such as `--training.steps`.

    Raises:
        RingRLError: a flag does not exist, lacks its value, or conflicts with another.
    """
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    parser.prog, parser.allow_abbrev = f"ringrl {command}", False
    flags = set(parser._option_string_actions)
    for word, after in zip(words, [*words, ""][1:], strict=True):
        if word.startswith("-") and word.partition("=")[0] not in flags:
            raise _unknown_flag(command, word, after, known(), flags)

    def refuse(message: str) -> NoReturn:
        raise RingRLError(f"ringrl {command}: {message}; `ringrl {command} --help` lists flags and keys.")

    parser.error = refuse  # type: ignore[method-assign]
    options = parser.parse_intermixed_args(words)
    asked = [flag for flag in ("run", "multirun", "cfg", "info") if getattr(options, flag)]
    if len(asked) > 1:
        one, other = (f"--{flag}" for flag in asked[:2])
        raise RingRLError(f"{one} and {other} do not go together: leave one of them out.")
    if options.package and not options.cfg:
        raise RingRLError(f"--package {options.package} goes with --cfg job.")
    if options.resolve and not options.cfg:
        raise RingRLError("--resolve goes with --cfg job.")
    if options.config_dir and not Path(options.config_dir).is_dir():
        raise RingRLError(f"--config-dir {options.config_dir}: there is no such folder.")
    for flag in ("config_path", "config_name", "experimental_rerun"):
        if getattr(options, flag):
            name = f"--{flag.replace('_', '-')}"
            raise RingRLError(f"{name} is not for RingRL: --config-dir FOLDER adds a folder of your own YAML files.")
    return options


def _unknown_flag(command: str, word: str, after: str, known: Iterable[str], flags: Iterable[str]) -> RingRLError:
    name, _, value = word.lstrip("-").partition("=")
    value = value or ("" if "=" in after or after.startswith("-") else after)
    key = name.replace("-", "_")
    known = list(known)
    if key in known or (value and "." in key):
        return RingRLError(f"{word}: keys are written without dashes: {key}={value or 'VALUE'}.")
    alike = nearest(word, flags)[0]
    near = nearest(key, known)[0] if known else ""
    remedy = f"did you mean {alike}" + (f", or {near}=VALUE?" if near else "?")
    return RingRLError(f"Unknown flag {word}: {remedy} `ringrl {command} --help` lists flags and keys.")
