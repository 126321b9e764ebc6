"""Measures the prediction of a finished run, and stores the result in its record."""

import time
from collections.abc import Callable
from contextlib import ExitStack

import torch

from greenseg.energy import Energy, EnergyMeter
from greenseg.energy.estimate import Model
from greenseg.energy.reading import SHARED
from greenseg.energy.sensors import visible_gpus
from greenseg.errors import UserError
from greenseg.inference.load import load
from greenseg.inference.predictor import Options, Predictor
from greenseg.machine import claims
from greenseg.machine.cores import usable_cores
from greenseg.measurement import SECONDS
from greenseg.measurement.alone import SHARE, Occupied, Others, alone, busy_cores
from greenseg.measurement.inputs import inputs_of
from greenseg.measurement.network import bytes_of, runtime_of, version_of
from greenseg.measurement.window import best_batch, window
from greenseg.runs.attempt import now
from greenseg.runs.directory import RunDirectory
from greenseg.runs.record import BadRecord, Measured, Record
from greenseg.settings import NEUTRAL, Settings
from greenseg.training.hardware import hardware, method

SHORT = "short"
"""Mark: a window was shorter than `SECONDS`."""

_BUSY_CORES = 0.1  # of other processes, above which the user gets a warning at once


def measure(
    run: RunDirectory,
    seconds: float = SECONDS,
    accelerator: str = "auto",
    tell: Callable[[str], None] = lambda text: None,
) -> Measured:
    """Measure prediction with the network of a finished run, and store the result in run.json.

    One window has batches of one slice. The other one has the number of slices per batch that takes the fewest joules
    per slice. Until the result is complete, the record is unchanged.

    Args:
        run: directory of the run.
        seconds: length of a window.
        accelerator: auto, cpu or gpu.
        tell: called with the present step in words, and with warnings.

    Raises:
        UserError: the run has no network or has not finished, its slices are missing, or it cannot run here.
        Occupied: another process of greenseg works on this machine, or on this run.
    """
    _finished(run)
    lost: list[bool] = []
    with alone(tell), run.claim(on_loss=lambda: lost.append(True)) as mine:
        if mine is None:
            raise Occupied(f"{run.path}: another process is working on this run")
        record = _finished(mine)
        measured = _measured(mine, record, seconds, accelerator, tell)
        if lost:
            raise Occupied(f"{run.path}: another host has taken over this run, since this one was silent")
        record = _finished(mine)
        record.measured = measured
        mine.write_record(record)
    return measured


def _finished(run: RunDirectory) -> Record:
    try:
        record = run.record()
    except BadRecord as error:
        raise UserError(str(error)) from None
    if record is None or record.status != "finished":
        status = run.status_by(record)
        raise UserError(f"{run.path}: the run is {status}; a measurement needs a finished run")
    return record


def _measured(
    run: RunDirectory, record: Record, seconds: float, accelerator: str, tell: Callable[[str], None]
) -> Measured:
    began = time.monotonic()
    torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))  # as in training
    tell("loading the network and the validation slices")
    predictor = load(run.path, Options(accelerator=accelerator))
    for note in predictor.notes:
        tell(f"warning: {note}")
    inputs = inputs_of(run, record)
    if (cores := busy_cores()) > _BUSY_CORES:
        tell(f"warning: other processes use {cores:.1f} cores of this machine; the joules may include theirs")
    with ExitStack() as stack:
        if predictor.device == "cuda":
            stack.enter_context(claims.limited({}, 1, []))  # no run may change its limits meanwhile
        meter = _meter(predictor, record)
        stack.callback(meter.close)
        tell("trying batch sizes")
        size, tried = best_batch(predictor, inputs.images, seconds, meter)
        others, own, windows = Others(), 0.0, {}
        for name, batch_size in (("batch_1", 1), ("best", size)):
            tell(f"measuring batches of {batch_size} for {seconds:g} s")
            windows[name] = window(predictor, inputs.images, batch_size, seconds, meter)
            own += windows[name].cpu_seconds
        marks = {mark for each in windows.values() for mark in Energy.from_json(each.energy).marks}
        share = others.share(own)
        about = method(meter)
    if share > SHARE:
        tell(
            f"warning: other processes used {share:.2g} times the CPU seconds of the measurement; it is marked {SHARED}"
        )
        marks.add(SHARED)
    if min(each.seconds for each in windows.values()) < SECONDS:
        marks.add(SHORT)
    runtime = runtime_of(predictor, record)
    return Measured(
        date=now(),
        seconds=time.monotonic() - began,
        hardware=hardware(),
        runtime=runtime,
        version=version_of(runtime),
        precision=predictor.precision,
        device=predictor.device,
        threads=torch.get_num_threads(),
        bytes=bytes_of(run, runtime),
        slices_per_volume=inputs.slices_per_volume,
        tried=tried,
        energy_method=about,
        marks=sorted(marks),
        **windows,
    )


def _meter(predictor: Predictor, record: Record) -> EnergyMeter:
    """A meter for the device of the network, with the constants of the run's accounting."""
    settings = Settings.of(NEUTRAL | record.settings)
    gpus = (0,) if predictor.device == "cuda" and visible_gpus() else ()
    meter = EnergyMeter(gpus, model=Model.of_this_machine(settings.cpu_watts, settings.dram_watts))
    if predictor.device not in ("cpu", "cuda"):
        meter.has_unmeasured_gpu(f"no sensor is known for a device of type {predictor.device}")
    return meter
