"""Tab completion of commands, groups, choices and keys: `eval "$(ringrl -sc install=bash)"`, as in Hydra's programs."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ringrl.errors import RingRLError

FLAGS = ("-sc", "--shell-completion")
_BASH = """\
_ringrl_completion() {
  local line="${COMP_LINE:0:$COMP_POINT}" prefix="" IFS=$'\\n'
  local word="${line##* }"
  case "$word" in *=*) prefix="${word%"${word##*=}"}" ;; esac
  COMPREPLY=($(COMP_LINE="$line" ringrl -sc query=bash 2>/dev/null))
  COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
}
complete -o nospace -o default -F _ringrl_completion ringrl"""
_SCRIPTS = {
    ("install", "bash"): _BASH,
    ("uninstall", "bash"): "complete -r ringrl; unset -f _ringrl_completion",
    ("install", "zsh"): f"autoload -Uz bashcompinit && bashcompinit\n{_BASH}",
    ("uninstall", "zsh"): "complete -r ringrl; unset -f _ringrl_completion",
    ("install", "fish"): "complete -c ringrl -f -a '(env COMP_LINE=(commandline -cp) ringrl -sc query=fish)'",
    ("uninstall", "fish"): "complete -c ringrl -e",
}


def completion(words: Sequence[str], commands: Iterable[str], environment: Mapping[str, str] = os.environ) -> str:
    """The output of `ringrl -sc ACTION=SHELL`: a shell script, or the completions of COMP_LINE, one per line.

    Raises:
        RingRLError: the action or shell is unknown.
    """
    asked = next((word for word in words if "=" in word), "")
    action, _, shell = asked.partition("=")
    if (action, shell) in _SCRIPTS:
        return _SCRIPTS[action, shell]
    if action != "query":
        raise RingRLError('Tab completion: eval "$(ringrl -sc install=bash)", or zsh; uninstall=bash takes it away.')
    return "\n".join(candidates(environment.get("COMP_LINE", ""), commands))


def candidates(line: str, commands: Iterable[str]) -> list[str]:
    """Possible completions of the last word of a command line, up to the cursor."""
    words = line.split(" ")
    before, word = [text for text in words[1:-1] if text], words[-1]
    commands = list(commands)
    if not before:
        return [name for name in commands if name.startswith(word)]
    command = before[0]
    if command not in commands:
        return []
    mark = "+" if word.startswith("+") else ""
    start = word.removeprefix("+")
    return [f"{mark}{text}" for text in _possible(command) if text.startswith(start)]


def _possible(command: str) -> list[str]:
    from ringrl.cli.compose import find_conf_folder
    from ringrl.cli.groups import choices_in, find_groups
    from ringrl.cli.keys import list_sections
    from ringrl.config import COMMANDS
    from ringrl.data.known_sets import known_names

    folders: list[Path] = [find_conf_folder()]
    choices = choices_in(folders)
    found = [f"{group}={choice}" for group in find_groups(command, folders[0]) for choice in choices.get(group, ())]
    if "data" in find_groups(command, folders[0]):
        found += [f"data.name={name}" for name in known_names()]
    for section in list_sections(COMMANDS[command]):
        for key in section.keys:
            kinds = key.kind.split("|") if "|" in key.kind and not key.kind.startswith("[") else [""]
            found += [
                f"{key.path.removesuffix('NAME')}{'' if key.path.endswith('NAME') else '='}{kind}" for kind in kinds
            ]
    return found
