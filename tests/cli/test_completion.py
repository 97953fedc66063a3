"""Tab completion, asked as the shells' scripts ask, and overrides that are printed to be pasted."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from ringrl.cli.__main__ import SUMMARIES
from ringrl.cli.completion import candidates, completion
from ringrl.cli.typed import format_override


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ringrl ", list(SUMMARIES)),
        ("ringrl co", ["collect"]),
        ("ringrl train agent=b", ["agent=bc", "agent=bc10"]),
        ("ringrl train  seed=1 agent.act", ["agent.action_head=auto", "agent.action_head=deterministic"]),
        ("ringrl train experiment=quick", ["experiment=quickstart", "experiment=quickstart_smoke"]),
        ("ringrl train +experiment=quickstart_", ["+experiment=quickstart_smoke"]),
        ("ringrl data data.name=D4RL/pen/h", ["data.name=D4RL/pen/human-v2"]),
        ("ringrl train data=point", ["data=point_maze"]),
        ("ringrl train training.save_every=", ["training.save_every="]),
        ("ringrl train env.kw", ["env.kwargs."]),
        ("ringrl trian ", []),
        ("ringrl plan experi", []),
    ],
)
def test_candidates(line: str, expected: list[str]) -> None:
    assert candidates(line, SUMMARIES)[: len(expected)] == expected
    if not expected:
        assert candidates(line, SUMMARIES) == []


def test_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert completion(["query=bash"], SUMMARIES, {"COMP_LINE": "ringrl bench p"}) == "published=true\npublished=false"
    for shell in ("bash", "zsh", "fish"):
        assert "ringrl -sc query=" in completion([f"install={shell}"], SUMMARIES)
        assert "complete" in completion([f"uninstall={shell}"], SUMMARIES)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_in_bash(tmp_path: Path) -> None:
    """The script completes what is behind an equals sign, where bash begins a word of its own."""
    program = tmp_path / "ringrl"
    program.write_text('#!/bin/bash\n[ "$*" = "-sc query=bash" ] && echo agent=bc && echo agent=bc10\n')
    program.chmod(0o755)
    script = completion(["install=bash"], SUMMARIES)
    ask = 'COMP_LINE="ringrl train agent=b and"; COMP_POINT=20; _ringrl_completion; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{ask}"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["bc", "bc10"]


@pytest.mark.parametrize(
    "value",
    ["runs/train/a", "/a b/c", "it's", "a,b=[c]{d}", "x:y", '(1) "q"', "back\\slash", "ends\\", "$HOME", "ünï", "~/x"],
)
def test_typed_overrides_come_back(value: str) -> None:
    """Through a shell's rules and through Hydra's."""
    [word] = shlex.split(format_override("resume", value))
    [override] = OverridesParser.create().parse_overrides([word])
    read = override.value()
    assert getattr(read, "text", read) == value


def test_plain_ones_stay_plain() -> None:
    assert (
        format_override("resume", "runs/train/run/2026-01-01_00-00-00") == "resume=runs/train/run/2026-01-01_00-00-00"
    )
