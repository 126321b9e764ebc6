"""The Dockerfile of a submission."""

import platform
from collections.abc import Sequence

from greenseg.settings import Settings

# Of a submission: everything is copied and installed, then the scripts may be called by any user, without network and
# with a file system that is read-only except for the mounts.
_TEXT = """\
# A submission to the E2MIP challenge, written by greenseg. Build it in this folder, with network:
#     docker build --tag {tag} .
# /submission/train.sh and /submission/inference.sh then need none. See README.md.
FROM python:{python}-slim-bookworm

# Without these, Docker and enroot hide NVIDIA's GPUs and their energy counters from an image that is not NVIDIA's.
ENV NVIDIA_VISIBLE_DEVICES=all
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility

WORKDIR /submission
{compiler}
COPY {wheel} constraints.txt ./
RUN pip install --no-cache-dir --root-user-action=ignore --constraint constraints.txt {install}
{weights}
COPY config.yaml environment.sh train.sh inference.sh figures.py README.md ./
RUN chmod -R a+rX . && chmod a+x train.sh inference.sh
RUN mkdir -p /mnt/training_data /mnt/training_results /mnt/query_data /mnt/predicted_data

CMD ["/submission/train.sh"]
"""

_COMPILER = """
# torch.compile translates the network with a C++ compiler.
RUN apt-get update \\
 && apt-get install --yes --no-install-recommends g++=4:12.2.* \\
 && rm -rf /var/lib/apt/lists/*
"""

_COPIED = """
# Pretrained weights of the encoder; the second line makes sure that they load without network.
COPY weights weights
RUN HF_HUB_OFFLINE=1 HF_HUB_CACHE=/submission/weights {load}
"""

_LOADED = """
# Pretrained weights of the encoder, from the Hugging Face hub.
RUN HF_HUB_CACHE=/submission/weights {load}
"""

_LOAD = """python -c "from segmentation_models_pytorch.encoders import get_encoder; \\
get_encoder('{encoder}', weights='{weights}')\""""


def dockerfile(settings: Settings, wheel: str, extras: Sequence[str], tag: str, weights_copied: bool) -> str:
    """The Dockerfile.

    Args:
        settings: settings of the training.
        wheel: file name of greenseg's wheel.
        extras: extras of greenseg to install.
        tag: name of the image.
        weights_copied: whether the pretrained weights are in the folder `weights`. If not, the build loads them.
    """
    weights = ""
    if settings.encoder_weights != "none":
        load = _LOAD.format(encoder=settings.encoder, weights=settings.encoder_weights)
        weights = (_COPIED if weights_copied else _LOADED).format(load=load)
    return _TEXT.format(
        tag=tag,
        python=platform.python_version(),
        compiler=_COMPILER if settings.compile else "",
        wheel=wheel,
        install=f"'./{wheel}[{','.join(extras)}]'" if extras else f"./{wheel}",
        weights=weights,
    )
