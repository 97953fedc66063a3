"""Every Python block of README.md and docs/ runs, the blocks of a page in order, in one process of its own.

A block that is not to run begins with ```python no-run.
"""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ringrl

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LONG = ("docs/library.md",)  # pages that take more than 5 s
BLOCK = re.compile(r"^```python([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks_of(text: str) -> list[str]:
    """The blocks that are to run, each on the lines that it has in its page, so that a traceback leads there."""
    found = []
    for match in BLOCK.finditer(text):
        mark = match.group(1).strip()
        assert mark in ("", "no-run"), f"```python {mark}: only no-run is known"
        if not mark:
            found.append("\n" * text.count("\n", 0, match.start(2)) + match.group(2))
    return found


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def pages_with_blocks() -> list:
    named = [(page, name_of(page)) for page in PAGES if blocks_of(page.read_text())]
    return [pytest.param(page, id=name, marks=[pytest.mark.scale] if name in LONG else []) for page, name in named]


@pytest.mark.parametrize("page", pages_with_blocks())
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, compiled_programs: dict[str, str]) -> None:
    program = f"""
import sys
names = {{"__name__": "__main__"}}
for block in {blocks_of(page.read_text())!r}:
    exec(compile(block, {name_of(page)!r}, "exec"), names)
"""
    environment = {**os.environ, **compiled_programs, "JAX_NUM_CPU_DEVICES": "8", "RINGRL_DATA": str(tmp_path / "data")}
    (tmp_path / "here").mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path / "here",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_blocks_parse_and_name_what_is_public(page: Path) -> None:
    for block in blocks_of(page.read_text()):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ringrl":
                assert node.attr in ringrl.__all__, f"ringrl.{node.attr} is not public"


def test_the_library_page_names_all_that_is_public() -> None:
    text = (ROOT / "docs" / "library.md").read_text()
    assert [name for name in ringrl.__all__ if f"`{name}`" not in text] == []


def test_blocks_are_found_and_those_marked_are_left_out() -> None:
    text = "a\n```python\nx = 1\n```\n```python no-run\nfail()\n```\n```\nls\n```\n```python\nassert x\n```\n"
    first, second = blocks_of(text)
    assert (first, second) == ("\n\nx = 1\n", "\n" * 11 + "assert x\n")
    with pytest.raises(AssertionError, match="only no-run"):
        blocks_of("```python skip\n```\n")
