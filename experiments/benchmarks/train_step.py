"""A Decision Transformer's training step against PyTorch code of the same size and work, on the CPU.

3 layers, 128 wide, 1 head, windows of K = 20 steps, batch 64, 3 tokens a step, dropout 0.1, AdamW with clipping; a
timestep embedding and no rotary positions on either side, as in the paper (with them, RingRL's default, the step does
more than PyTorch's: `rotary` in the results).
PyTorch is needed by this benchmark alone: `pip install torch` (a CPU build).
"""

import os
from pathlib import Path

import jax
import torch
from torch import nn
from torch.nn import functional as F

from experiments.lib.random_data import make_random_chain
from experiments.lib.results import make_goal, make_parser, print_goals, write_results
from experiments.lib.timing import measure_interleaved, measure_seconds
from ringrl.agents import ActionHead, AgentConfig, AgentName, make_agent
from ringrl.nn import ModelConfig
from ringrl.ops import AttentionConfig
from ringrl.training.config import OptimizerConfig, TrainingConfig
from ringrl.training.state import create_state
from ringrl.training.step import make_train_step
from ringrl.types import ActionKind, ActionSpec, Chain, Context, DataSpec

LAYERS, WIDTH, STEPS, BATCH, DROPOUT = 3, 128, 20, 64, 0.1
OBSERVATION, ACTION, EPISODE, CLIP = 17, 6, 1000, 0.25


def ringrl_step(batch: Chain, *, rope: bool = False):
    """A closure that makes one optimizer step and waits for it."""
    spec = DataSpec(OBSERVATION, ActionSpec(ActionKind.continuous, ACTION, (-1.0,) * ACTION, (1.0,) * ACTION), EPISODE)
    agent = make_agent(
        AgentConfig(
            name=AgentName.dt,
            token_layout="return_to_go|observation|action",
            action_head=ActionHead.deterministic,
        ),
        ModelConfig(
            layers=LAYERS, width=WIDTH, heads=1, attention_dropout=DROPOUT, residual_dropout=DROPOUT, rope=rope
        ),
        AttentionConfig(),
        spec,
        context=Context.trial,
    )
    training = TrainingConfig(steps=100_000, batch_size=BATCH, optimizer=OptimizerConfig(clip_norm=CLIP))
    state = create_state(agent, training, 0)
    step = make_train_step(agent, training)

    def run() -> None:
        nonlocal state
        state, _ = step(state, batch)
        jax.block_until_ready(state)

    return run


class Block(nn.Module):
    """The same pre-norm layer: attention and a feed-forward four times as wide."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)])
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.qkv(self.norms[0](x)).unsqueeze(1).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=DROPOUT, is_causal=True).squeeze(1)
        x = x + F.dropout(self.out(mixed), DROPOUT)
        fed = self.down(F.gelu(self.up(self.norms[1](x)), approximate="tanh"))
        return x + F.dropout(fed, DROPOUT)


class Model(nn.Module):
    """Three tokens a step, a timestep embedding, and the action read at the state."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList([nn.Linear(size, WIDTH) for size in (1, OBSERVATION, ACTION)])
        self.timestep, self.norm = nn.Embedding(EPISODE, WIDTH), nn.RMSNorm(WIDTH)
        self.blocks, self.action = nn.ModuleList([Block() for _ in range(LAYERS)]), nn.Linear(WIDTH, ACTION)

    def forward(self, returns, observations, actions, timesteps) -> torch.Tensor:
        fields = (returns, observations, actions)
        tokens = [layer(field) + self.timestep(timesteps) for layer, field in zip(self.embeddings, fields, strict=True)]
        x = torch.stack(tokens, dim=2).reshape(BATCH, 3 * STEPS, WIDTH)
        for block in self.blocks:
            x = block(x)
        return torch.tanh(self.action(self.norm(x).reshape(BATCH, STEPS, 3, WIDTH)[:, :, 1]))


def torch_step(batch: Chain):
    """A closure that makes one optimizer step."""
    torch.set_num_threads(os.cpu_count() or 1)
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=1e-4, foreach=True)
    actions = torch.tensor(batch.actions)
    inputs = (torch.tensor(batch.return_to_go)[..., None], torch.tensor(batch.observations), actions)
    timesteps = torch.tensor(batch.timesteps, dtype=torch.long)

    def run() -> None:
        loss = F.mse_loss(model(*inputs, timesteps), actions)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        loss.item()

    return run


def main() -> None:
    """Interleave both, and print how many times faster RingRL's step is."""
    options = make_parser(__doc__).parse_args()
    batch = make_random_chain(BATCH, STEPS, OBSERVATION, ACTION, EPISODE)
    steps = {"ringrl": ringrl_step(batch), "pytorch": torch_step(batch), "rotary": ringrl_step(batch, rope=True)}
    count, repeats = (1, 1) if options.smoke else (20, 9)
    for step in steps.values():
        step()  # compiles, warms up
    measure = {name: lambda step=step: measure_seconds(step, count) for name, step in steps.items()}
    seconds = measure_interleaved(measure, repeats)
    ratio = seconds["pytorch"]["median"] / seconds["ringrl"]["median"]
    goals = {"PyTorch's time over RingRL's": make_goal(ratio, 1.0, at_least=True)}
    print_goals("train_step", goals)
    if not options.smoke:
        results = Path(__file__).parent / "results" / "train_step.json"
        write_results(results, "train_step", goals=goals, seconds=seconds, torch=torch.__version__)


if __name__ == "__main__":
    main()
