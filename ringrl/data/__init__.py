"""Episode stores, chains of episodes, and batches of chains."""

from typing import TYPE_CHECKING

from ringrl.lazy import on_demand

if TYPE_CHECKING:
    from ringrl.data.chains import ChainSampler as ChainSampler
    from ringrl.data.checks import Violation as Violation
    from ringrl.data.checks import check_store as check_store
    from ringrl.data.datasets import data_root as data_root
    from ringrl.data.datasets import open_dataset as open_dataset
    from ringrl.data.exorl_writer import ExorlWriter as ExorlWriter
    from ringrl.data.joined import in_environment as in_environment
    from ringrl.data.joined import join_stores as join_stores
    from ringrl.data.loader import Loader as Loader
    from ringrl.data.loader import make_loader as make_loader
    from ringrl.data.minari_writer import CollectedEpisode as CollectedEpisode
    from ringrl.data.minari_writer import write_minari_dataset as write_minari_dataset
    from ringrl.data.normalization import fit_normalization as fit_normalization
    from ringrl.data.statistics import default_target_return as default_target_return
    from ringrl.data.statistics import store_statistics as store_statistics
    from ringrl.data.store import EpisodeStore as EpisodeStore
    from ringrl.data.store_writer import EpisodeStoreWriter as EpisodeStoreWriter

__getattr__ = on_demand(
    globals(),
    {
        "chains": "ChainSampler",
        "checks": "Violation check_store",
        "datasets": "data_root open_dataset",
        "exorl_writer": "ExorlWriter",
        "joined": "in_environment join_stores",
        "loader": "Loader make_loader",
        "minari_writer": "CollectedEpisode write_minari_dataset",
        "normalization": "fit_normalization",
        "statistics": "store_statistics default_target_return",
        "store": "EpisodeStore",
        "store_writer": "EpisodeStoreWriter",
    },
)
