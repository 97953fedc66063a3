"""The longest contexts that the Ring Attention paper reports (Liu, Zaharia and Abbeel 2023, arXiv 2310.01889, Table 3).

Its settings: full precision, full gradient checkpointing, parameters sharded over all devices, no tensor parallelism.
"""

from typing import NamedTuple

K = 1024  # tokens of the paper's "K"


class Contexts(NamedTuple):
    """Contexts of one cluster and model, in thousands of tokens (1,024 each), by method."""

    vanilla: int
    memory_efficient: int  # blockwise attention only
    blockwise: int  # blockwise attention and feed-forward
    ring: int


# By the cluster's name in `TARGETS` and the model's in conf/model; empty cells of the paper are omitted.
TABLE_3: dict[str, dict[str, Contexts]] = {
    "a100x8": {  # 80 GB each, NVLink
        "3b": Contexts(4, 32, 64, 512),
        "7b": Contexts(2, 16, 32, 256),
        "13b": Contexts(2, 4, 16, 128),
    },
    "a100x32": {  # 80 GB each, InfiniBand
        "7b": Contexts(4, 64, 128, 4096),
        "13b": Contexts(4, 32, 64, 2048),
    },
    "tpu_v3_512": {
        "7b": Contexts(1, 4, 8, 2048),
        "13b": Contexts(1, 2, 8, 1024),
    },
    "tpu_v4_1024": {
        "3b": Contexts(8, 16, 32, 16384),
        "7b": Contexts(4, 8, 16, 8192),
        "13b": Contexts(4, 8, 16, 4096),
        "30b": Contexts(2, 4, 8, 2048),
    },
    "tpu_v5e_256": {
        "3b": Contexts(4, 8, 32, 4096),
        "7b": Contexts(2, 8, 16, 2048),
    },
}


def paper_context(target_name: str, model_name: str) -> int | None:
    """Tokens that the paper reports for the ring, or None if it reports none."""
    row = TABLE_3.get(target_name, {}).get(model_name)
    return None if row is None else row.ring * K
