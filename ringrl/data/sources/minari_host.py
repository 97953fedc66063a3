"""Whether the host of Minari's public sets can be reached, asked once and briefly before anything is fetched."""

import os

from ringrl.errors import RingRLError

PATIENCE = 10.0  # seconds for the host's first answer


def check_minari_host(name: str, place: str) -> None:
    """Raise `RingRLError` unless the host of public sets answers.

    Minari's client tries a host that cannot be reached six times over half a minute, with a line for each try.

    Args:
        name: the Minari id that is to be fetched, for the message.
        place: the folder in which a copy made by hand would be found, for the message.
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
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception as error:  # whatever the installed HTTP client raises
        told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise RingRLError(
            f"Minari set {name} cannot be downloaded: {constants.ENDPOINT} does not answer ({told}). Check the network "
            "(HTTPS_PROXY names a proxy, HF_ENDPOINT a mirror), or copy the set from a machine that has it to "
            f"{place}."
        ) from error
