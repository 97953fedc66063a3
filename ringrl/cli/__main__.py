"""`ringrl COMMAND ...`: dispatch to one module per command, and conversion of errors to one line and an exit code."""

import gc
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import ringrl

SUMMARIES = {
    "collect": "make a data set from an environment and a mix of behavior policies, or by learning there",
    "import": "bring in D4RL's HDF5 files, ExoRL's npz folders, Minari sets",
    "data": "list the data there are, or show what is in a set",
    "train": "train an agent on a data set, evaluating as it goes",
    "eval": "roll out n trials of a trained agent",
    "plan": "compile the training step for a named cluster, without having it",
    "report": "gather runs into a table with intervals and a figure",
    "bench": "measure attention on this machine, beside others: ringrl bench attention",
}
SEVERAL_PROCESSES = ("train", "eval")  # the commands that support several processes
_WITHOUT_FOLDER = (  # of several processes only the first writes
    "hydra.job_logging.root.handlers=[]",
    "hydra.job_logging.root.level=WARNING",
    "~hydra.job_logging.handlers.file",
    "hydra.output_subdir=null",
    "hydra.run.dir=.",
)
USAGE = "usage: ringrl COMMAND [group=choice] [key=value] [-m for sweeps] [--debug]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    0; 1 for a bug; 2 for an error in the input; 75 if the run should be requeued; 130 when interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"ringrl {ringrl.__version__}")
        return 0
    from ringrl.cli.preemption import ExitOnPreemption

    with ExitOnPreemption():
        return _guarded(words)


def _guarded(words: list[str]) -> int:
    from ringrl.cli import failures

    wants_full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
    debug = "--debug" in words or "debug=true" in words or wants_full_error
    words = [word for word in words if word != "--debug"] or ["--debug"]
    return failures.guard(lambda: _run(words[0], words[1:]), debug)


def _usage() -> str:
    rows = "\n".join(f"  {name:9}{summary}" for name, summary in SUMMARIES.items())
    last = "`ringrl COMMAND --help` lists its groups and keys, `ringrl COMMAND --cfg job` their values."
    return f"{USAGE}\n\n{rows}\n\n{last}"


def _run(command: str, words: list[str]) -> int:
    from ringrl.cli import failures
    from ringrl.cli.completion import FLAGS, completion
    from ringrl.config.schema import nearest
    from ringrl.errors import RingRLError

    if any(word in FLAGS for word in (command, *words)):
        print(completion(words, SUMMARIES))
        return failures.SUCCESS
    if command not in SUMMARIES:
        if command.startswith("-") and words and words[0] in SUMMARIES:
            raise RingRLError(f"The command comes first: ringrl {words[0]} {command} ...")
        alike = nearest(command, SUMMARIES)
        raise RingRLError(f"Unknown command {command!r}: did you mean {alike[0]!r}? Commands: {', '.join(SUMMARIES)}.")
    failures.forget_sweeps()
    _hydra(command, words)
    lines = failures.sweep_failures()
    for line in lines:
        failures.say(line)
    return failures.USER_ERROR if lines else failures.SUCCESS


def _hydra(command: str, words: list[str]) -> None:
    """Check the overrides, then let Hydra compose the configuration and call the command (once per sweep job)."""
    from omegaconf import DictConfig

    from ringrl.cli.compose import find_conf_folder, register
    from ringrl.cli.flags import PRINTING, parse_flags
    from ringrl.cli.help import help_text
    from ringrl.cli.hydra_program import call_hydra
    from ringrl.cli.job import find_module, run_job
    from ringrl.cli.overrides import check_overrides, normalize_overrides, quote_value, resume_folder, vocabulary
    from ringrl.parallel.ranks import is_follower

    conf = find_conf_folder()
    words = normalize_overrides(command, words)
    options = parse_flags(command, words, lambda: vocabulary(command, [conf]).names)
    folders = [conf, *([Path(options.config_dir)] if options.config_dir else [])]
    if options.help:
        sections = [word for word in options.overrides if "=" not in word]
        return print(help_text(command, SUMMARIES[command], folders, sections))
    flags = list(words)
    for override in options.overrides:
        flags.remove(override)
    if options.cfg == "job" and not options.resolve:
        flags.append("--resolve")  # shows the resolved values of what an agent changes in an experiment
    overrides = check_overrides(options.overrides, vocabulary(command, folders), options.multirun)
    words = [*flags, *(override.input_line or "" for override in overrides)]  # Hydra accepts no flags between overrides
    folder = resume_folder(overrides, sweeping=options.multirun)
    follower = command in SEVERAL_PROCESSES and is_follower(words)
    if follower:
        words = [*words, *_WITHOUT_FOLDER]
    elif folder is not None:
        words = [*words, f"hydra.run.dir={quote_value(folder)}"]
    # Hydra would write its record to a folder before it is known whether the command may write there.
    keeps_record = not follower and not any(override.key_or_group == "hydra.output_subdir" for override in overrides)
    if keeps_record:
        words = [*words, "hydra.output_subdir=null"]

    register([command], folders[1:])

    failed: list[Exception] = []  # kept from Hydra, which would print more than one line

    def job(config: DictConfig) -> None:
        error = run_job(command, config, keeps_record)
        if error is not None:
            failed.append(error)

    if not any(getattr(options, flag) for flag in PRINTING):
        importlib.import_module(find_module(command))  # a broken installation fails before the folder is created
    call_hydra(command, words, conf, job)
    if failed:
        raise failed[0]


def entry() -> None:
    """The `ringrl` command."""
    # Startup creates millions of long-lived objects: scanning them repeatedly took a sixth of its time.
    gc.set_threshold(50_000, 20, 20)
    if sys.argv[1:2] and sys.argv[1] in ("train", "eval", "collect", "import", "data", "bench"):
        from ringrl.cli.huge_pages import restart_with_huge_pages

        restart_with_huge_pages()
    sys.exit(main())


if __name__ == "__main__":
    entry()
