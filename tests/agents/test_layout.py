"""Layouts of tokens: presets, layouts spelled out, and the lines that refuse wrong ones."""

import pytest

from ringrl.agents import AgentConfig
from ringrl.agents.layout import token_layout
from ringrl.errors import RingRLError


def slots(**options):
    return ["+".join(slot) for slot in token_layout(AgentConfig(**options)).slots]


def test_presets():
    assert slots(tokens_per_step=4) == ["return_to_go", "observation", "action", "reward+completion"]
    assert slots(tokens_per_step=2) == ["return_to_go+observation", "action+reward+completion"]
    merged = "return_to_go+observation+previous_action+previous_reward+previous_completion"
    assert slots(tokens_per_step=1) == [merged]
    read_at = [token_layout(AgentConfig(tokens_per_step=count)).action_slot for count in (4, 2, 1)]
    assert read_at == [1, 0, 0]


def test_fields_switched_off_leave_no_empty_slot():
    assert slots(tokens_per_step=4, return_to_go=False) == ["observation", "action", "reward+completion"]
    assert slots(tokens_per_step=2, completion=False) == ["return_to_go+observation", "action+reward"]
    assert slots(return_to_go=False, completion=False) == ["observation+previous_action+previous_reward"]


def test_a_layout_spelled_out():
    layout = token_layout(AgentConfig(token_layout="return_to_go | observation + previous_reward | action"))
    assert layout.slots == (("return_to_go",), ("observation", "previous_reward"), ("action",))
    assert layout.tokens_per_step == 3
    assert layout.action_slot == 1


@pytest.mark.parametrize(
    ("layout", "line"),
    [
        ("observation|rewrad", r"unknown field 'rewrad'; choose from return_to_go, observation, .*completion\.$"),
        ("observation|", "unknown field ''; choose from"),
        ("observation|action|action", r"field 'action' stands twice; name it once\.$"),
        ("return_to_go|action", r"no slot holds the observation, where the action is read\.$"),
        ("action|observation", r"'action' stands no later than the observation.*or use 'previous_action'\.$"),
        ("observation+reward", r"'reward' stands no later than the observation.*or use 'previous_reward'\.$"),
    ],
)
def test_wrong_layouts_are_refused(layout, line):
    with pytest.raises(RingRLError, match=line) as error:
        token_layout(AgentConfig(token_layout=layout))
    assert str(error.value).startswith(f"agent.token_layout={layout}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"tokens_per_step": 3}, r"agent\.tokens_per_step=3: choose 1, 2 or 4, or spell out agent\.token_layout\."),
        ({"action_bins": 1}, r"agent\.action_bins=1: use at least 2\."),
        ({"name": "td3"}, r"agent\.name=td3 is unknown: choose at, dt, bc, bc10\."),
        ({"action_head": "mean"}, r"agent\.action_head=mean is unknown: choose auto, deterministic"),
    ],
)
def test_wrong_options_are_refused(options, line):
    with pytest.raises(RingRLError, match=line):
        AgentConfig(**options)
