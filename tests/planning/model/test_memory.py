"""The memory formula: hand-worked sums, parameter counts against the agent's own, and what compilers reported."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import pytest
import yaml

from ringrl.agents import AgentConfig, make_agent
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig
from ringrl.parallel import make_mesh
from ringrl.parallel.mesh import MeshConfig
from ringrl.parallel.sharding import bytes_per_device
from ringrl.planning.cluster.targets import Target, fill_specification
from ringrl.planning.compile.step import compile_step
from ringrl.planning.model.memory import largest_context, predict_memory
from ringrl.planning.model.parameters import parameter_counts, parameter_shapes
from ringrl.planning.plan import DataShape, Plan
from ringrl.training.config import TrainingConfig
from ringrl.types import Context

ROOT = Path(__file__).resolve().parents[3]
POINTS = list(json.loads((ROOT / "experiments/memory_formula/results/points.json").read_text())["cells"].values())
MODELS = sorted(path.stem for path in (ROOT / "conf/model").glob("*.yaml"))
TINY = ModelConfig(remat="layer", feedforward_block_size=512, unroll_layers=False)
BOUND = 0.10  # the goal, met by every recorded point


def size_of(name: str, **changes: Any) -> ModelConfig:
    found = yaml.safe_load((ROOT / f"conf/model/{name}.yaml").read_text())
    return ModelConfig(**{"feedforward_block_size": 1024, "remat": "layer", **found, **changes})


def plan_of(
    topology: str = "a100:1x8",
    tokens: int = 2**17,
    model: ModelConfig | None = None,
    *,
    strategy: str = "ring",
    mesh: MeshConfig | None = None,
    data: DataShape | None = None,
    block: int = 1024,
    agent: AgentConfig | None = None,
    **training: Any,
) -> Plan:
    axis = {"ring": "ring", "hybrid": "ring", "ulysses": "head"}.get(strategy, "fsdp")
    return Plan(
        target=fill_specification(Target(topology=topology)),
        tokens=tokens,
        agent=agent or AgentConfig(loss_block_size=512),
        model=model or size_of("7b", layers=2),
        attention=AttentionConfig(strategy, query_block_size=block, key_block_size=block),  # pyright: ignore
        mesh=mesh or MeshConfig(**{axis: -1}),  # pyright: ignore
        training=TrainingConfig(**{"batch_size": 1, "precision": "bfloat16", **training}),
        data=data or DataShape(),
    )


def point_plan(row: dict[str, Any]) -> Plan:
    blocks = row["block"] if row["blocks"] else 0
    model = size_of(row["model"], remat=row["remat"], feedforward_block_size=blocks, unroll_layers=False)
    plan = plan_of(
        row["topology"],
        row["tokens"],
        dataclasses.replace(model, layers=row["layers"] or model.layers),
        strategy=row["strategy"],
        mesh=MeshConfig(**dict(row["mesh"])) if row["mesh"] else None,
        agent=AgentConfig(tokens_per_step=row["tokens_per_step"], loss_block_size=512 if row["blocks"] else 0),
        block=row["block"],
        batch_size=row["chains"],
        precision=row["dtype"],
        gradient_precision=row["gradients"],
    )
    return dataclasses.replace(plan, attention=dataclasses.replace(plan.attention, kernel=row["kernel"]))


@pytest.mark.parametrize("agent", [AgentConfig(), AgentConfig(tokens_per_step=4, trajectory_embedding=True)])
@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_the_agents_own(name: str, agent: AgentConfig) -> None:
    plan = plan_of(model=size_of(name), agent=agent, data=DataShape(17, 5, discrete=agent.tokens_per_step == 4))
    own = make_agent(plan.agent, plan.model, plan.attention, plan.data.spec, context=Context.chain)
    shapes = jax.eval_shape(own.init, jax.random.key(0))
    paths = jax.tree_util.tree_leaves_with_path(shapes)
    found = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in paths}
    assert parameter_shapes(plan) == found
    assert parameter_counts(plan).total == sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize("sizes", [{"ring": 8}, {"fsdp": 2, "ring": 4}, {"data": 2, "ring": 2, "head": 2}])
def test_parameters_on_a_device_are_as_the_trainer_places_them(sizes: dict[str, int]) -> None:
    plan = plan_of("cpu:8", model=size_of("tiny", width=48), mesh=MeshConfig(**sizes), batch_size=4)
    own = make_agent(plan.agent, plan.model, plan.attention, plan.data.spec, context=Context.chain)
    shapes = jax.eval_shape(own.init, jax.random.key(0))
    assert 4 * parameter_counts(plan).on_device == bytes_per_device(shapes, make_mesh(**sizes))


def test_a_sum_worked_by_hand() -> None:
    """7B's layers over eight A100, 32K tokens each: T M = 32,768 x 4,096 numbers, 2 bytes each: 256 MiB."""
    mebibyte, activation = 2**20, 256
    terms = predict_memory(plan_of(tokens=2**18, model=size_of("7b", layers=4))).temporary_terms
    assert terms["layer inputs"] == 4 * activation * mebibyte
    assert terms["activations"] == 8 * activation * mebibyte
    assert terms["keys and values"] == 4 * activation * mebibyte
    assert terms["query gradients"] == 3 * 2 * activation * mebibyte  # float32
    assert terms["gradients of keys in flight"] == 7 * 2 * activation // 4 * mebibyte  # in four pieces
    assert terms["keys in flight"] == 4 * activation // 4 * mebibyte
    assert terms["scores of a block"] == 32 * (2 * 4 + 2 * 2) * mebibyte  # 32 heads, 1,024 x 1,024
    attention, feedforward = 4 * 4096**2, 3 * 4096 * 11008
    assert terms["layer's gradients"] == 4 * (2 * feedforward + attention)
    assert terms["parameters gathered"] == 2 * attention
    assert terms["rotation"] == 2 * 4 * 32768 * 128


def test_arguments_worked_by_hand() -> None:
    plan = plan_of("h200:1", 4096, size_of("at_350m"), strategy="blockwise")
    layer = 4 * 1024**2 + 2 * 1024 * 4096 + 2 * 1024  # gelu's two matrices, two norms
    inputs = 24 + (6 + 1) + 1 + 1 + 1  # observation, action and whether there is one, reward, completion, return
    parameters = 24 * layer + 1024 * (inputs + 1 + 1000 + 1) + 1025 * 30
    said = predict_memory(plan)
    assert said.arguments == 12 * parameters + 4 * 4096 * (24 + 6 + 6 + 8)
    assert said.total == said.arguments + said.temporaries == sum(said.terms.values())


@pytest.mark.parametrize("row", [row for row in POINTS if row["memory"]], ids=lambda row: row["name"])
def test_recorded_compilations_are_met(row: dict[str, Any]) -> None:
    memory = row["memory"]
    reserved = sum(memory[kind] for kind in ("arguments", "outputs", "temporaries", "code")) - memory["aliased"]
    assert predict_memory(point_plan(row)).total == pytest.approx(reserved, rel=BOUND)


def test_more_of_anything_takes_more() -> None:
    plan = plan_of(tokens=2**17)
    for more in (
        plan.of(2**18),
        dataclasses.replace(plan, model=size_of("7b", layers=3)),
        dataclasses.replace(plan, model=size_of("13b", layers=2)),
        dataclasses.replace(plan, model=size_of("7b", layers=2, remat="attention")),
        dataclasses.replace(plan, training=dataclasses.replace(plan.training, batch_size=2)),
        dataclasses.replace(plan, training=dataclasses.replace(plan.training, precision="float32")),
        dataclasses.replace(plan, model=size_of("7b", layers=2, feedforward_block_size=0)),
        plan_of("a100:1x4", 2**17),
    ):
        assert predict_memory(more).total > predict_memory(plan).total


def test_less_is_kept() -> None:
    plan = plan_of(tokens=2**19, model=size_of("7b"))
    offloaded = dataclasses.replace(plan, model=size_of("7b", remat="offload"))
    narrow = dataclasses.replace(plan, training=dataclasses.replace(plan.training, gradient_precision="bfloat16"))
    inputs = predict_memory(plan).terms["layer inputs"]
    assert predict_memory(plan).total - predict_memory(offloaded).total == inputs
    assert predict_memory(narrow).terms["gradients"] == predict_memory(plan).terms["gradients"] // 2


@pytest.mark.parametrize("strategy", ["dense", "blockwise", "ring", "ulysses", "hybrid"])
def test_every_strategy_has_a_largest_context(strategy: str) -> None:
    mesh = MeshConfig(ring=4, head=2) if strategy == "hybrid" else None
    chains = 1 if strategy in ("ring", "ulysses", "hybrid") else 8
    plan = plan_of(strategy=strategy, mesh=mesh, batch_size=chains)
    tokens = largest_context(plan)
    assert tokens > 0
    assert predict_memory(plan.of(tokens)).total <= plan.target.memory < predict_memory(plan.of(2 * tokens)).total


def test_nothing_fits_a_device_too_small() -> None:
    plan = plan_of()
    assert largest_context(dataclasses.replace(plan, target=dataclasses.replace(plan.target, memory=2**20))) == 0


@pytest.mark.scale
def test_the_cpu_compiler_agrees() -> None:
    plan = plan_of("cpu:1", 2**14, TINY, strategy="blockwise", block=512, precision="float32")
    agent = make_agent(plan.agent, plan.model, plan.attention, plan.data.spec, context=Context.chain)
    quick = {"xla_backend_optimization_level": 0}
    found = compile_step(agent, plan.training, 1, plan.tokens, quick).memory_analysis()
    said = predict_memory(plan)
    assert said.arguments == pytest.approx(found.argument_size_in_bytes, rel=0.01)
    assert said.temporaries == pytest.approx(found.temp_size_in_bytes, rel=BOUND)


def test_the_scaling_experiment_is_met() -> None:
    """Its rows are compiled for a CPU; under 40 MiB a device the arrays that the formula leaves out count for more."""
    rows = json.loads((ROOT / "experiments/scaling/results/memory.json").read_text())["rows"]
    rows = [row for row in rows if "temp_bytes" in row]
    assert len(rows) > 60
    for row in rows:
        blocks = 512 if row["blocks"] else 0
        model = size_of(row["model"], remat=row["remat"], feedforward_block_size=blocks)
        plan = plan_of(
            f"cpu:{row['devices']}", row["tokens"], model, block=512, mesh=MeshConfig(ring=-1), precision=row["dtype"]
        )
        bound = 0.11 if row["temp_bytes"] > 40 * 2**20 else 0.15
        assert predict_memory(plan).total == pytest.approx(row["temp_bytes"] + row["argument_bytes"], rel=bound), row
