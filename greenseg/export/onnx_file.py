"""Export as ONNX."""

from pathlib import Path

import greenseg
from greenseg.compress.program import onnx_program
from greenseg.export import description
from greenseg.export.beside import write_beside
from greenseg.export.formats import Request
from greenseg.export.network import REMEDY, Network
from greenseg.inference import described
from greenseg.inference.of_onnx import run, session_of


def write(request: Request, out: Path) -> list[str]:
    """Write the network of a run as an .onnx file; see `Write` in `greenseg.export.formats`.

    Raises:
        UserError: the run has no network, torch.onnx cannot export it, it is too large for a single file, or the copy
            differs from it.
    """
    network = Network.of(request.run)
    value = description.description(network)
    made = onnx_program(network.predictor, REMEDY)
    made.model.metadata_props[described.KEY] = description.as_text(value)
    made.model.producer_name, made.model.producer_version = "greenseg", greenseg.__version__
    made.save(out, external_data=False)
    session = session_of(out)
    difference = network.difference(lambda images: run(session, images))
    value["file"] = {
        "name": out.name,
        "sha256": described.digest(out),
        "opset": made.model.opset_imports[""],
        "ir_version": made.model.ir_version,
    }
    value["check"] = description.checked(difference, "the file, in onnxruntime on the CPU")
    loading = f"It has opset {value['file']['opset']} and runs in onnxruntime and other engines for ONNX."
    return write_beside(out, value, network, loading)
