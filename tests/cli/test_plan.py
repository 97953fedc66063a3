"""`ringrl plan`: from a command line to plan.json and plan.png, on this machine's own compiler; and what is refused."""

import json
from pathlib import Path

import pytest

from ringrl.cli import plan as plan_command

SMALL = ("plan", "target=cpu:2", "model=tiny", "model.remat=layer", "model.unroll_layers=false")
SIZES = ("attention.query_block_size=64", "attention.key_block_size=64", "agent.loss_block_size=64")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RINGRL_DATA", str(tmp_path / "data"))


@pytest.mark.scale
def test_one_plan_is_compiled_printed_drawn_and_kept(ringrl, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = (*SMALL, *SIZES, "tokens=1000", "attention.layout=zigzag", f"hydra.run.dir={run}")
    outcome = ringrl(*words)
    assert outcome.code == 0, outcome.err
    assert "1,000 tokens are planned as" not in outcome.out  # 1,000 is a multiple of 4
    assert "across compute" in outcome.out
    found = json.loads((run / "plan.json").read_text())
    [report] = found["reports"]
    assert report["accepted"]
    assert not report["cached"]
    assert report["tokens"] == 1000
    assert report["memory"]["temporaries"] > 0
    assert report["buffers"]
    assert report["transfers"]
    assert (run / "plan.png").read_bytes().startswith(b"\x89PNG")

    again = ringrl(*words[:-1], f"hydra.run.dir={tmp_path / 'again'}")
    assert again.code == 0, again.err
    [report] = json.loads((tmp_path / "again" / "plan.json").read_text())["reports"]
    assert report["cached"], "the same program and compiler: the answer is known"


def test_the_formula_alone_says_so_in_every_line_of_memory(ringrl, tmp_path: Path) -> None:
    run = tmp_path / "run"
    outcome = ringrl("plan", "target=a100x8", "compile=false", "search=context", f"hydra.run.dir={run}")
    assert outcome.code == 0, outcome.err
    gibibytes = [line for line in outcome.out.splitlines() if "%" in line and line.split()[-1].endswith("%")]
    assert gibibytes
    assert all("by the formula" in line for line in gibibytes)
    found = json.loads((run / "plan.json").read_text())
    assert found["reports"] == []
    assert found["formula"]["total"] > 0


def test_without_a_compiler_the_formula_answers(ringrl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(plan_command, "has_compiler", lambda target: False)
    outcome = ringrl("plan", "target=tpu_v4_1024", "tokens=1048576", f"hydra.run.dir={tmp_path / 'run'}")
    assert outcome.code == 0, outcome.err
    assert "No compiler for v4:8x8x8" in outcome.out
    assert "-m pip install --upgrade --no-deps --target" in outcome.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("target=tpu_v4_1000", "tokens=8"), "did you mean 'tpu_v4_1024'"),
        (("target=v9:2x2", "tokens=8"), "Unknown topology 'v9:2x2'"),
        (("target=custom", "tokens=8"), "target.topology"),
        (("target=a100x8", "tokens=8", "mesh.ring=3"), "3 devices"),
        (("target=a100x8", "tokens=8", "mesh.ring=-1", "mesh.fsdp=3"), "does not divide the 8 devices"),
        (("target=a100x8", "tokens=65536", "attention=ulysses", "model.heads=12", "model.width=768"), "heads"),
        (("target=a100x8",), "search=context"),
        (("target=a100x8", "tokens=8", "trajectories=1"), "one of them"),
        (("target=a100x8", "tokens=3000000000"), "32-bit"),
        (("target=a100x8", "tokens=2147483647"), "32-bit"),
        (("target=a100x8", "trajectories=100000000000"), "2,147,483,"),
        (("target=a100x8", "tokens=8", "bisect=true"), "search=context"),
        (("target=a100x8", "tokens=8", "target.peak_flops=nan"), "target.peak_flops=nan"),
        (("target=a100x8", "tokens=8", "target.bandwidth=1e-310"), "at least 1"),
        (("target=cpu:99999999999", "tokens=8"), "at most 18,432"),
        (("target=a100x8", "tokens=8", "shape.action_size=0"), "shape.action_size=0"),
        (("target=a100x8", "tokens=8", "target.memory=-1"), "target.memory=-1"),
        (("target=a100x8", "search=depth"), "expected one of"),
        (("target=a100x8", "tokens=8", "agent.name=dt"), "agent.name=at"),
        (("target=a100x8", "tokens=8", "compile=false", "search=blocks"), "leave compile=false out"),
    ],
)
def test_faults_are_one_line(ringrl, words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    outcome = ringrl("plan", *words, f"hydra.run.dir={tmp_path / 'run'}")
    assert outcome.code == 2
    assert said in outcome.err
    assert len(outcome.err.strip().splitlines()) == 1
    assert not (tmp_path / "run" / "plan.json").exists()


def test_tokens_are_rounded_to_what_the_layout_deals(ringrl, tmp_path: Path) -> None:
    words = ("plan", "target=a100x8", "attention.layout=zigzag", "agent.tokens_per_step=4", "compile=false")
    outcome = ringrl(*words, "tokens=1000001", f"hydra.run.dir={tmp_path / 'run'}")
    assert outcome.code == 0, outcome.err
    assert "1,000,001 tokens are planned as 1,000,064, a multiple of 64" in outcome.out
    trajectories = ringrl(*words, "trajectories=128", f"hydra.run.dir={tmp_path / 'other'}")
    assert "500K tokens are 128 trajectories of 1,000 steps" in trajectories.out


@pytest.mark.parametrize(
    ("words", "beside"),
    [
        ((), True),
        (("target.topology=v4:2x2x2",), False),  # no longer the paper's cluster
        (("target.name=tpu_v4_1024", "target.topology=v4:8x8x8"), True),
        (("attention=blockwise", "attention.layout=contiguous"), False),
        (("tokens=268435456",), False),  # nothing to be proud of: it does not fit
    ],
)
def test_the_papers_context_stands_beside_a_ring_of_its_cluster(ringrl, words, beside: bool, tmp_path: Path) -> None:
    command = ("plan", "model=7b", "target=tpu_v4_1024", "compile=false", f"hydra.run.dir={tmp_path / 'run'}")
    outcome = ringrl(*command, *(() if any("tokens" in word for word in words) else ("tokens=1048576",)), *words)
    assert outcome.code == 0, outcome.err
    assert ("The paper's Table 3 has 8,192K here" in outcome.out) == beside
