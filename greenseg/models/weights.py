"""Checks the availability of pretrained weights before anything starts. Imports no torch.

smp and timm load weights from the Hugging Face hub. Without a network connection, they fail only after half a minute.
"""

import threading
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path

from huggingface_hub import constants

from greenseg.errors import UserError
from greenseg.settings import Settings

_SECONDS = 3.0


def check(runs: Iterable[Settings]) -> None:
    """Make sure that every encoder's pretrained weights are in the hub's cache, or that the hub answers.

    Raises:
        UserError: within 5 seconds, if weights are not available; names them and the remedies.
    """
    wanted = {(run.encoder, run.encoder_weights) for run in runs if run.encoder_weights != "none"}
    missing = sorted(encoder for encoder, weights in wanted if not in_cache(encoder, weights))
    if not missing or _hub_answers():
        return
    cache = constants.HF_HUB_CACHE
    why = (
        "HF_HUB_OFFLINE is set"
        if constants.HF_HUB_OFFLINE
        else f"{constants.ENDPOINT} does not answer within {_SECONDS:.0f} s"
    )
    raise UserError(
        f"encoder_weights: the pretrained weights of {', '.join(missing)} are not in {cache}, and {why}.\n"
        f"  Either train from scratch (leave out --encoder-weights),\n"
        f"  or run the same command once with access to the hub, and copy its cache folder here,\n"
        f"  or set HF_HUB_CACHE to a folder with the weights, or HF_ENDPOINT to a mirror."
    )


def in_cache(encoder: str, weights: str) -> list[Path]:
    """The folders in the hub's cache with the pretrained weights of an encoder; empty if it has none."""
    if encoder.startswith("tu-"):
        name, _, tag = encoder[3:].partition(".")
        pattern = f"models--timm--{name}.{tag or '*'}"
    else:
        pattern = f"models--smp-hub--{encoder}.{weights}"
    folders = sorted(Path(constants.HF_HUB_CACHE).glob(pattern))
    return [folder for folder in folders if any(snapshot.is_dir() for snapshot in folder.glob("snapshots/*"))]


def _hub_answers() -> bool:
    if constants.HF_HUB_OFFLINE:
        return False
    answered = threading.Event()

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(constants.ENDPOINT, method="HEAD"), timeout=_SECONDS):
                answered.set()
        except urllib.error.HTTPError:
            answered.set()  # the hub answers, although with an error
        except OSError:
            pass

    # In a separate thread, because no timeout limits a DNS look-up.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_SECONDS + 0.5)
    return answered.is_set()
