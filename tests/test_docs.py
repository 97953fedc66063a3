"""The statements of README and docs/ hold: files, links, commands and code in them exist, parse and run."""

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium
import hydra
import pytest
import yaml
from documents import (
    DOCS,
    PAGES,
    PLACEHOLDER,
    READMES,
    ROOT,
    CommandLine,
    find_anchors,
    find_blocks,
    find_cited_paths,
    find_commands,
    find_links,
)

import ringrl
from ringrl.cli.compose import build_command, find_conf_folder, register
from ringrl.cli.flags import parse_flags
from ringrl.cli.help import help_text
from ringrl.cli.overrides import Vocabulary, check_overrides, normalize_overrides, vocabulary
from ringrl.config import COMMANDS

COMPILES_FOR_LONG = ("library", "own_agent", "own_attention")  # pages whose code runs with the scale tests


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def pages_with(language: str) -> list[Path]:
    return [page for page in PAGES if find_blocks(page.read_text(), language)]


def test_pages_are_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
    assert [page.name for page in DOCS if len(page.read_text().splitlines()) > 200] == []


def test_the_way_of_a_batch_is_short() -> None:
    design = (ROOT / "docs" / "design.md").read_text()
    way = design.split("## From disk to gradient, file by file")[1].split("Before the first batch")[0]
    files = re.findall(r"^\| `(ringrl/\S+\.py)` \|", way, re.MULTILINE)
    assert len(files) == len(set(files)) == 20
    assert sum(len((ROOT / file).read_text().splitlines()) for file in files) <= 2000


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_cited_files_exist(page: Path) -> None:
    missing = [path for path in find_cited_paths(page.read_text()) if not any(ROOT.glob(path.rstrip("/")))]
    assert missing == []


@pytest.mark.parametrize("page", [*PAGES, *READMES], ids=name_of)
def test_links_resolve(page: Path) -> None:
    for link in find_links(page.read_text()):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in find_anchors(target.read_text()), link


def test_the_checks_see() -> None:
    text = "[a](b.md#c-d) `ringrl/none.py`, `conf/x/NAME.yaml`, `ringrl/D4RLAnt-v0`.\n# C: d\n"
    assert find_links(text) == ["b.md#c-d"]
    assert find_cited_paths(text) == {"ringrl/none.py"}
    assert find_anchors(text) == {"c-d"}
    text = "`ringrl data`\n```bash\nX_Y=1 ringrl train seed=1 \\\n  name=a # why\nmake\n```\n`ringrl COMMAND --help`"
    assert list(map(str, find_commands(text))) == ["ringrl train seed=1 name=a", "ringrl data"]


def test_code_cites_pages_and_headings_that_exist() -> None:
    """`docs/PAGE.md, Heading` in a docstring or comment; and nothing points to a design outside the repository."""
    files = [file for folder in ("ringrl", "envs", "experiments", "tests") for file in (ROOT / folder).rglob("*.py")]
    for file in files:
        text = file.read_text()
        assert "DESIGN" + ".md" not in text, file
        for page, heading in re.findall(r"docs/([a-z_]+\.md)(?:, ([A-Z]\w+))?", text):
            assert (ROOT / "docs" / page).is_file(), file
            anchors = find_anchors((ROOT / "docs" / page).read_text())
            assert not heading or heading.lower() in anchors, (file, heading)
    assert all("DESIGN" + ".md" not in page.read_text() for page in [*PAGES, *READMES])


def test_the_reference_has_all_public_names() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    assert sorted(re.findall(r"^\.\. auto\w+:: ringrl\.(\w+)$", text, re.MULTILINE)) == sorted(ringrl.__all__)


def test_every_page_is_in_a_table_of_contents() -> None:
    listed = (ROOT / "docs" / "index.md").read_text().splitlines()
    assert [page.stem for page in DOCS if page.stem != "index" and page.stem not in listed] == []


def test_the_design_knows_every_room() -> None:
    text = (ROOT / "docs" / "design.md").read_text()
    rooms = {file.parent.name for file in (ROOT / "ringrl").glob("*/__init__.py")}
    assert [room for room in rooms if f"`ringrl/{room}/`" not in text] == []


def test_every_experiment_is_listed() -> None:
    text = (ROOT / "docs" / "experiments.md").read_text()
    assert [readme.parent.name for readme in READMES if f"`experiments/{readme.parent.name}/`" not in text] == []


def test_the_citation_names_this_version() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == ringrl.__version__


@functools.cache
def vocabulary_of(command: str) -> Vocabulary:
    return vocabulary(command, [find_conf_folder()])


def read_command(line: CommandLine) -> tuple[str, list[str]]:
    """The command and its overrides as Hydra reads them; fails if `ringrl` would reject one."""
    command, *words = line.words
    known = vocabulary_of(command)
    words = normalize_overrides(command, words)
    words = [word for word in words if not (PLACEHOLDER.search(word) and word.partition("=")[0] in known.groups)]
    options = parse_flags(command, words, known.names)
    if options.help:
        help_text(command, "", [find_conf_folder()], [word for word in options.overrides if "=" not in word])
        return command, []
    overrides = check_overrides(options.overrides, known, options.multirun)
    return command, [first_value(override) for override in overrides]


def first_value(override) -> str:
    """An override without a sweep: the first of several values."""
    text = override.input_line or ""
    return text.split(",")[0] if override.is_sweep_override() else text


@pytest.mark.parametrize("page", [*PAGES, *READMES], ids=name_of)
def test_commands_have_keys_and_choices_that_exist(page: Path) -> None:
    for line in find_commands(page.read_text()):
        assert line.words[0] in COMMANDS, line
        read_command(line)


@pytest.mark.scale
@pytest.mark.parametrize("page", pages_with("bash"), ids=name_of)
def test_commands_in_blocks_compose(page: Path) -> None:
    register()
    for line in find_commands(page.read_text()):
        if line.whole and not {"--help", "resume=RUN"} & set(line.words):
            command, overrides = read_command(line)
            with hydra.initialize_config_dir(version_base="1.3", config_dir=str(find_conf_folder())):
                build_command(COMMANDS[command], hydra.compose(command, overrides=overrides))


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for the code of a page, which is removed with the modules and environments that the code creates."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    registered, modules = set(gymnasium.registry), set(sys.modules)
    yield tmp_path
    for name in set(gymnasium.registry) - registered:
        del gymnasium.registry[name]
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def run_code(page: Path, folder: Path) -> None:
    """Run the Python blocks of a page as one program; a block that begins with `# NAME.py` is saved as that file."""
    namespace = {"__name__": "page"}
    for block in find_blocks(page.read_text(), "python"):
        if name := re.match(r"# (\w+\.py)\n", block):
            (folder / name[1]).write_text(block)
        else:
            exec(compile(ast.parse(block), name_of(page), "exec"), namespace)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=[pytest.mark.scale] if page.stem in COMPILES_FOR_LONG else [])
        for page in pages_with("python")
    ],
)
def test_code_runs(page: Path, empty_folder: Path, compiled_once: None) -> None:
    run_code(page, empty_folder)
