"""A quick check that the host of Minari's public sets is reachable, before anything is fetched."""

import os

from ringrl.errors import RingRLError

TIMEOUT_SECONDS = 10.0  # seconds until the host's first answer


def check_minari_host(name: str, place: str) -> None:
    """Raise `RingRLError` unless the host of public sets answers.

    Minari's client retries an unreachable host six times over half a minute, with a line for each try.

    Args:
        name: the Minari id to fetch, for the message.
        place: the folder in which a manual copy would be found, for the message.
    """
    if not os.environ.get("MINARI_REMOTE", "hf://").startswith("hf://"):
        return
    try:
        from huggingface_hub import constants, get_session
    except ImportError as error:
        raise RingRLError(
            f"Minari set {name} cannot be downloaded: {error}. Public sets need one more package: "
            "pip install 'minari[hf]'."
        ) from error
    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT_SECONDS)
    except Exception as error:  # any error of the installed HTTP client
        told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise RingRLError(
            f"Minari set {name} cannot be downloaded: {constants.ENDPOINT} does not answer ({told}). Check the network "
            "(HTTPS_PROXY names a proxy, HF_ENDPOINT a mirror), or copy the set from a machine that has it to "
            f"{place}."
        ) from error
