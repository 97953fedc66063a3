"""Plans and reports: what is read is what was written, devices add up, and chains are counted right."""

import dataclasses

import pytest

from ringrl.agents import AgentConfig
from ringrl.errors import RingRLError
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig
from ringrl.parallel.mesh import MeshConfig
from ringrl.planning.cluster.targets import Target
from ringrl.planning.plan import (
    Buffer,
    DataShape,
    Memory,
    Plan,
    Report,
    Transfer,
    plan_from_json,
    report_from_json,
    resolve_mesh_sizes,
)
from ringrl.training.config import OptimizerConfig, Precision, Schedule, TrainingConfig
from ringrl.types import ActionKind, Context

EIGHT = Target("mine", "v4:2x2x2", memory=2**30, peak_flops=1e12, bandwidth=1e9, source="a guess")


def test_a_plan_comes_back_as_it_was_written():
    plan = Plan(
        EIGHT,
        tokens=4096,
        agent=AgentConfig("dt", tokens_per_step=2, action_head="gaussian"),
        model=ModelConfig(layers=3, remat="layer", feedforward="swiglu"),
        attention=AttentionConfig("hybrid", "zigzag", "xla", 128, 256),
        mesh=MeshConfig(ring=4, head=2),
        training=TrainingConfig(
            batch_size=6,
            precision=Precision.bfloat16,
            optimizer=OptimizerConfig(schedule=Schedule.constant, clip_norm=0.0),
        ),
        data=DataShape(3, 5, discrete=True, max_episode_steps=7),
        context=Context.trial,
    )
    read = plan_from_json(plan.to_json())
    assert read == plan
    for section in dataclasses.fields(plan):
        written, found = getattr(plan, section.name), getattr(read, section.name)
        assert type(found) is type(written)
        if dataclasses.is_dataclass(written):
            assert [type(value) for value in vars(found).values()] == [type(value) for value in vars(written).values()]
    assert type(read.training.optimizer.schedule) is Schedule


def test_defaults_come_back_too():
    plan = Plan(EIGHT, 8)
    assert plan_from_json(plan.to_json()) == plan
    assert report_from_json(Report(8, accepted=False).to_json()) == Report(8, accepted=False)


def test_a_report_comes_back_as_it_was_written():
    report = Report(
        tokens=8,
        accepted=True,
        memory=Memory(arguments=10, outputs=9, aliased=8, temporaries=7, code=6, host=5),
        limit=100,
        buffers=(Buffer(4, "f32[1]", "somewhere", 2),),
        transfers=(Transfer("all-gather", "a/b", ("f32[2]", "s32[2]"), 3, 1.5, across=True),),
        device_kind="TPU v4",
        devices=8,
        compilers={"jax": "1", "libtpu": "2"},
        flags={"one": True, "two": 4},
        program="abc",
        seconds=1.5,
    )
    assert report_from_json(report.to_json()) == report
    assert report.memory.total == 10 + 9 - 8 + 7 + 6


def test_hops_that_lie_across_nothing_are_exposed_unless_nothing_is_left_to_compute():
    def transfer(kind, across, due=True, source="ring: keys and values, forward"):
        return Transfer(kind, source, (), 1, 1.0, across, due)

    hidden, bare = transfer("collective-permute", True), transfer("collective-permute", False)
    home, gathered = transfer("collective-permute", False, due=False), transfer("all-gather", False)
    no_hop = transfer("collective-permute", False, source="gradients of parameters of a layer")
    report = Report(8, True, transfers=(hidden, bare, home, gathered, no_hop))
    assert report.hops == (hidden, bare)
    assert report.exposed == (bare,)


@pytest.mark.parametrize(
    ("mesh", "sizes"),
    [
        (MeshConfig(ring=-1), (1, 1, 8, 1)),
        (MeshConfig(data=2, fsdp=-1), (2, 4, 1, 1)),
        (MeshConfig(ring=4, head=2), (1, 1, 4, 2)),
        (MeshConfig(fsdp=8, head=-1), (1, 8, 1, 1)),
    ],
)
def test_meshes_are_settled_to_all_devices(mesh, sizes):
    assert tuple(resolve_mesh_sizes(mesh, EIGHT).values()) == sizes


def test_meshes_that_do_not_make_up_the_target_are_refused_with_what_would():
    with pytest.raises(RingRLError, match=r"mesh.ring=4 takes 4 devices and v4:2x2x2 has 8"):
        resolve_mesh_sizes(MeshConfig(ring=4), EIGHT)
    with pytest.raises(RingRLError, match=r"mesh of one device takes 1 devices"):
        resolve_mesh_sizes(MeshConfig(), EIGHT)
    with pytest.raises(RingRLError, match=r"3 does not divide the 8 devices of v4:2x2x2; [24] would"):
        resolve_mesh_sizes(MeshConfig(data=3, ring=-1), EIGHT)


def test_chains_are_multiples_of_what_the_layout_deals():
    ring = Plan(EIGHT, 1000, agent=AgentConfig(tokens_per_step=4), attention=AttentionConfig("ring"))
    zigzag = dataclasses.replace(ring, attention=AttentionConfig("ring", "zigzag"))
    whole = dataclasses.replace(ring, attention=AttentionConfig("blockwise"), mesh=MeshConfig(fsdp=8))
    assert (ring.multiple, zigzag.multiple, whole.multiple) == (32, 64, 4)
    assert [plan.of(1000).tokens for plan in (ring, zigzag, whole)] == [1024, 1024, 1000]
    assert ring.of(1025).tokens == 1056
    assert ring.of(1024) == dataclasses.replace(ring, tokens=1024)


def test_tokens_of_a_device_and_trajectories_of_a_thousand_steps():
    four = Plan(EIGHT, 512_000, agent=AgentConfig(tokens_per_step=4), attention=AttentionConfig("ring"))
    assert four.trajectories == 128.0
    assert dataclasses.replace(four, agent=AgentConfig()).trajectories == 512.0
    explicit = dataclasses.replace(four, agent=AgentConfig(token_layout="return_to_go+observation|action"))
    assert explicit.trajectories == 256.0
    assert four.tokens_per_device == 64_000
    several = dataclasses.replace(four, mesh=MeshConfig(fsdp=2, ring=4), training=TrainingConfig(batch_size=6))
    assert several.tokens_per_device == 128_000 * 3
    whole = dataclasses.replace(several, attention=AttentionConfig("blockwise"), mesh=MeshConfig(fsdp=2, data=4))
    assert dataclasses.replace(whole, training=TrainingConfig(batch_size=16)).tokens_per_device == 512_000 * 2


def test_data_is_told_to_agents_as_its_shape_says():
    continuous, discrete = DataShape(3, 2).spec, DataShape(3, 4, discrete=True, max_episode_steps=9).spec
    assert (continuous.action.kind, continuous.action.size, len(continuous.action.low)) == (
        ActionKind.continuous,
        2,
        2,
    )
    assert (discrete.action.kind, discrete.action.size) == (ActionKind.discrete, 4)
    assert (continuous.observation_size, discrete.observation_size) == (3, 3)
