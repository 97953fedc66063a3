"""`ringrl data` without a set: the sets that need not be here yet."""

import json
from pathlib import Path


def test_known_sets_are_listed_with_how_to_get_them(ringrl, tmp_path: Path) -> None:
    outcome = ringrl("data")
    assert outcome.code == 0, outcome.err
    told = " ".join(outcome.out.split())
    assert "data.name=NAME data.download=true: D4RL/antmaze/" in told
    assert "D4RL/kitchen/{complete," in told
    assert "an arm in a kitchen" in told
    assert "`ringrl collect collection=NAME` makes, each by data=NAME: adroit_pen" in told
    [summary] = (tmp_path / "runs" / "data").rglob("summary.json")
    assert {"D4RL/pen/human-v2", "ringrl/dark_room-v0"} <= set(json.loads(summary.read_text())["known"])
