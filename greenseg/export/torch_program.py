"""Export as a program of torch.export, which plain torch loads."""

from pathlib import Path

import torch

from greenseg.export import description
from greenseg.export.beside import write_beside
from greenseg.export.formats import Request
from greenseg.export.network import Network
from greenseg.inference import described
from greenseg.inference.of_torch import program_of, run


def write(request: Request, out: Path) -> list[str]:
    """Write the network of a run as a .pt2 file; see `Write` in `greenseg.export.formats`.

    Raises:
        UserError: the run has no network, torch.export cannot export it, or the copy differs from it.
    """
    network = Network.of(request.run)
    value = description.description(network)
    torch.export.save(network.program(), out, extra_files={described.FILE: description.as_text(value)})
    module = program_of(out)[0].module()
    difference = network.difference(lambda images: run(module, images, torch.device("cpu")))
    value["file"] = {"name": out.name, "sha256": described.digest(out), "torch": torch.__version__}
    value["check"] = description.checked(difference, "the program, loaded from the file")
    loading = f"Load it with `torch.export.load({out.name!r}).module()`, torch {torch.__version__} or later."
    return write_beside(out, value, network, loading)
