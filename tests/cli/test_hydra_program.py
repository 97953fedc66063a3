"""How often Hydra composes a job, and that nothing of what it was asked for is lost by it."""

from pathlib import Path

import pytest
import yaml
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra

from ringrl.cli.compose import find_conf_folder


def test_a_job_is_composed_once(ringrl, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, load, get_mode = [], ConfigLoaderImpl.load_configuration, Hydra.get_mode

    def counted(self, *arguments, **named):
        calls.append(named)
        return load(self, *arguments, **named)

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counted)
    assert "No run in" in ringrl("report").error
    assert len(calls) == 1
    assert Hydra.get_mode is get_mode


def test_no_file_of_ringrls_own_sets_the_mode() -> None:
    """`ringrl.cli.hydra_program` spares Hydra the composition that would find hydra.mode."""
    for file in find_conf_folder().rglob("*.yaml"):
        assert "mode" not in ((yaml.safe_load(file.read_text()) or {}).get("hydra") or {}), file


def test_a_users_own_yaml_may_ask_for_a_sweep(ringrl, tmp_path: Path) -> None:
    own = tmp_path / "own" / "experiment"
    own.mkdir(parents=True)
    text = "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      model.heads: 3,5\n"
    (own / "mine.yaml").write_text(text)
    outcome = ringrl("train", "--config-dir", str(tmp_path / "own"), "experiment=mine")
    assert [f"job model.heads={heads} " in outcome.err for heads in (3, 5)] == [True, True], outcome.err


def test_the_mode_may_be_given(ringrl) -> None:
    assert "(job bootstrap_samples=-1" in ringrl("report", "hydra.mode=MULTIRUN", "bootstrap_samples=-1").error
    assert "(job" not in ringrl("report", "hydra.mode=RUN", "bootstrap_samples=-1").error
