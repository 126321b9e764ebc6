"""The machine of this process and its way of measuring energy, for records."""

import platform
import socket
import sys

import psutil
import torch

from greenseg.energy import EnergyMeter
from greenseg.energy.estimate import cpu_name
from greenseg.machine.cores import usable_cores
from greenseg.runs.record import EnergyMethod, Hardware


def hardware() -> Hardware:
    """Processors and memory of this machine, as this process sees them."""
    return Hardware(
        host=socket.gethostname(),
        system=f"{platform.system()} {platform.machine()}",
        cpu=cpu_name() or platform.processor(),
        cores=usable_cores(),
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        gpus=[torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        python=sys.executable,
    )


def method(meter: EnergyMeter) -> EnergyMethod:
    """The way in which a meter measures."""
    return EnergyMethod(
        sensors_missing=meter.missing,
        unmeasured=meter.unmeasured,
        core_watts=list(meter.model.core_watts),
        gb_watts=list(meter.model.gb_watts),
        basis=meter.model.basis,
    )
