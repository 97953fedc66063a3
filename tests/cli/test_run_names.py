"""Names of run folders: what is in them, that they are safe, and that they tell jobs apart."""

import itertools
import re

from ringrl.cli.compose import find_conf_folder
from ringrl.cli.overrides import check_overrides, vocabulary
from ringrl.cli.run_names import LONGEST, constant_keys, job_name, run_label, safe_name


def name(*overrides, same=(), agent="at", seed=0, number=3):
    return job_name(agent, seed, overrides, same, number)


def test_jobs_are_named_by_agent_seed_and_what_varies():
    assert name("agent=at", "seed=4", seed=4) == "at_seed4"
    assert name("training.optimizer.learning_rate=1e-3", "seed=0") == "at_seed0_learning_rate-1e-3"
    assert name("model.width=64", "chain.trajectories=4") == "at_seed0_trajectories-4_width-64"
    assert name("chain.trajectories=4", "model.width=64") == name("model.width=64", "chain.trajectories=4")
    assert name("a.size=1", "b.size=2") == "at_seed0_a.size-1_b.size-2", "short names where they are unambiguous"
    assert name("experiment=x", "seed=1", "training.steps=5", same=["experiment", "training.steps"]) == "at_seed0"
    assert name("agent=mine") == "at_seed0_agent-mine", "another file of the same agent"
    assert name("resume=auto", "debug=true", "hydra.verbose=true") == "at_seed0"
    assert name("checkpoint=a/b", agent=None, seed=None) == "checkpoint-a-b"
    assert name(agent=None, seed=None) == "3"
    assert name("seed=7", agent=None, seed=7) == "seed-7"


def test_names_are_safe_short_and_distinct():
    values = [
        "[1,2]",
        "[1, 2]",
        "a b",
        "a/b c",
        "'a b'",
        "x" * 300,
        "x" * 299 + "y",
        "..",
        "{a:1}",
        "ü",
        "",
        "a,b",
        "a;b",
    ]
    names = [name(f"label={value}") for value in values]
    assert len(set(names)) == len(values)
    for one in names:
        assert re.fullmatch(r"[A-Za-z0-9._+-]+", one)
        assert len(one) <= LONGEST
    assert safe_name("../..") not in ("", ".", "..")


def test_a_name_can_be_typed_as_a_value():
    known = vocabulary("eval", [find_conf_folder()])
    folder = f"runs/{name('training.optimizer.learning_rate=1e-3', 'label=a b')}"
    [override] = check_overrides([f"checkpoint={folder}"], known)
    assert override.value() == folder


def test_constant_keys_are_left_out():
    words = ["seed=0,1", "agent=at,dt", "experiment=x", "model.width=range(1,3)", "a.b=[1,2]", "training.steps=5"]
    assert constant_keys(words) == ["experiment", "a.b", "training.steps"]
    assert constant_keys(["training.steps=5", "training.steps=6,7"]) == [], "given once for all, then swept"


def test_a_single_run_is_named_by_agent_seed_and_label():
    assert run_label("at", 0, "") == "_at_seed0"
    assert run_label("dt", 3, "DT short") == f"_dt_seed3_{safe_name('DT short')}"
    assert run_label(None, 0, "x") == ""
    assert run_label("at", None, None) == "", "a plan has an agent but no seed"


def test_every_job_of_a_sweep_has_a_folder_of_its_own():
    jobs = list(itertools.product(("1e-3", "1e-2"), ("at", "dt"), range(3)))
    names = [
        name(f"o.rate={rate}", f"agent={agent}", f"seed={seed}", agent=agent, seed=seed) for rate, agent, seed in jobs
    ]
    assert len(set(names)) == len(jobs)
