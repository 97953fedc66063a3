"""Token layouts: which fields of a step form which token, and which token predicts the action."""

import dataclasses

from ringrl.agents.config import AgentConfig
from ringrl.errors import RingRLError

PRESETS = {
    4: "return_to_go|observation|action|reward+completion",
    2: "return_to_go+observation|action+reward+completion",
    1: "return_to_go+observation+previous_action+previous_reward+previous_completion",
}
KNOWN_BEFORE_ACTING = ("return_to_go", "observation", "previous_action", "previous_reward", "previous_completion")
KNOWN_AFTER_ACTING = ("action", "reward", "completion")


@dataclasses.dataclass(frozen=True)
class TokenLayout:
    """The slots (tokens) of a step in order, each a tuple of field names; the action is predicted at `action_slot`."""

    slots: tuple[tuple[str, ...], ...]

    @property
    def tokens_per_step(self) -> int:
        """Number of tokens per step."""
        return len(self.slots)

    @property
    def action_slot(self) -> int:
        """The slot of the observation, whose token has attended to all inputs available when the action is chosen."""
        return next(index for index, slot in enumerate(self.slots) if "observation" in slot)


def token_layout(config: AgentConfig) -> TokenLayout:
    """The layout that a config describes: a preset or an explicit `token_layout`, without the disabled fields.

    Raises:
        RingRLError: a field is unknown or repeated, the observation is missing, or a token would contain the action
            before it is chosen.
    """
    text = config.token_layout or PRESETS[config.tokens_per_step]
    absent = set()
    if not config.return_to_go:
        absent |= {"return_to_go"}
    if not config.completion:
        absent |= {"completion", "previous_completion"}
    slots = [tuple(field.strip() for field in slot.split("+")) for slot in text.split("|")]
    fields = [field for slot in slots for field in slot]
    for field in fields:
        if field not in KNOWN_BEFORE_ACTING + KNOWN_AFTER_ACTING:
            known = ", ".join(KNOWN_BEFORE_ACTING + KNOWN_AFTER_ACTING)
            raise RingRLError(f"agent.token_layout={text}: unknown field '{field}'; choose from {known}.")
        if fields.count(field) > 1:
            raise RingRLError(f"agent.token_layout={text}: field '{field}' stands twice; name it once.")
    if "observation" not in fields:
        raise RingRLError(f"agent.token_layout={text}: no slot holds the observation, where the action is read.")
    kept = (tuple(field for field in slot if field not in absent) for slot in slots)
    layout = TokenLayout(tuple(slot for slot in kept if slot))
    for slot in layout.slots[: layout.action_slot + 1]:
        early = [field for field in slot if field in KNOWN_AFTER_ACTING]
        if early:
            raise RingRLError(
                f"agent.token_layout={text}: '{early[0]}' stands no later than the observation, so the model would "
                f"see it before acting; move it to a later slot, or use 'previous_{early[0]}'."
            )
    return layout
