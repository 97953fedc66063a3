"""Episodes on disk, chains of them, and batches of chains."""

from ringrl.data.chains import ChainSampler
from ringrl.data.checks import Violation, check_store
from ringrl.data.datasets import data_root, open_dataset
from ringrl.data.exorl_writer import ExorlWriter
from ringrl.data.joined import in_environment, join_stores
from ringrl.data.loader import Loader, make_loader
from ringrl.data.minari_writer import CollectedEpisode, write_minari_dataset
from ringrl.data.normalization import fit_normalization
from ringrl.data.statistics import store_statistics
from ringrl.data.store import EpisodeStore, default_target_return
from ringrl.data.store_writer import EpisodeStoreWriter

__all__ = [
    "ChainSampler",
    "CollectedEpisode",
    "EpisodeStore",
    "EpisodeStoreWriter",
    "ExorlWriter",
    "Loader",
    "Violation",
    "check_store",
    "data_root",
    "default_target_return",
    "fit_normalization",
    "in_environment",
    "join_stores",
    "make_loader",
    "open_dataset",
    "store_statistics",
    "write_minari_dataset",
]
