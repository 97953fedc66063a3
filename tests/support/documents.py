"""Parsing of README and the pages of docs/: links, files, commands and code."""

import dataclasses
import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
READMES = sorted((ROOT / "experiments").glob("*/README.md"))
TOP = ("ringrl", "envs", "conf", "docs", "experiments", "tests")
PLACEHOLDER = re.compile(r"[A-Z]{2,}")

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PATH = re.compile(rf"(?<![\w/.:=-])(?:{'|'.join(TOP)})/[\w./*-]*")
_NO_FILE = re.compile(r"[A-Z]|-v\d|^ringrl/dmc_|^docs/_build")  # placeholders, ids of environments and sets, outputs


@dataclasses.dataclass(frozen=True)
class CommandLine:
    """A `ringrl` command line of a page; `whole` if it is in a block, to be typed literally."""

    words: tuple[str, ...]  # without `ringrl`
    whole: bool

    def __str__(self) -> str:
        return shlex.join(("ringrl", *self.words))


def find_blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return [body for name, body in _FENCE.findall(text) if name == language]


def find_links(text: str) -> list[str]:
    """The targets of links and images that stay in the repository."""
    return [link for link in _LINK.findall(_FENCE.sub("", text)) if "://" not in link]


def find_cited_paths(text: str) -> set[str]:
    """Files and folders of the repository that a text names, from its root."""
    found = (path.rstrip(".") for path in _PATH.findall(text))
    return {path for path in found if not _NO_FILE.search(path)}


def find_anchors(text: str) -> set[str]:
    """The anchors that GitHub (and MyST) give the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def find_commands(text: str) -> list[CommandLine]:
    """The `ringrl` command lines of a page, in blocks and in the running text."""
    shown = [*find_blocks(text, "bash"), *find_blocks(text, "")]
    blocks = [line for block in shown for line in block.replace("\\\n", " ").splitlines()]
    inline = re.findall(r"`(ringrl [^`]+)`", _FENCE.sub("", text).replace("\n", " "))
    found = [*((line, True) for line in blocks), *((line, False) for line in inline)]
    commands = []
    for line, whole in found:
        if "ringrl " not in line:
            continue
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # variables of the environment
            words = words[1:]
        if words[:1] == ["ringrl"] and len(words) > 1 and words[1].islower() and words[1].isalpha():
            commands.append(CommandLine(tuple(word for word in words[1:] if "..." not in word), whole))
    return list(dict.fromkeys(commands))
