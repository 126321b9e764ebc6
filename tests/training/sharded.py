"""Two ranks step each optimizer on a sharded network and, beside it, with ddp; started by test_strategies as
torchrun does.

In float64, so that nothing but a mistake makes them differ. Half-way the sharded network goes on from a full state, as
from a checkpoint. Prints, as JSON, by how much the weights differ in the end, as a share of how far they have come.
"""

import functools
import json
from typing import Any

import timm.optim.muon
import torch
import torch.distributed
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from greenseg.optimizers import OPTIMIZERS
from greenseg.settings import Settings
from greenseg.training import optimization
from greenseg.training.module import Segmentation, shard

STEPS = 4


def made(settings: Settings, sharded: bool) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    network = Segmentation(settings, []).network.train().double()
    if sharded:
        shard(network, init_device_mesh("cpu", (2,)))
    return network, optimization.optimizer(network, settings, STEPS)


def went_on(
    settings: Settings, network: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """Others with the same state, which comes from rank 0."""
    whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state: list[Any] = [
        get_model_state_dict(network, options=whole),
        get_optimizer_state_dict(network, optimizer, options=whole),
    ]
    torch.distributed.broadcast_object_list(state)
    network, optimizer = made(settings, sharded=True)
    given = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(network, state[0], options=given)
    set_optimizer_state_dict(network, optimizer, optim_state_dict=state[1], options=given)
    return network, optimizer


def difference(name: str, images: torch.Tensor) -> float:
    settings = Settings.model_validate({"model": "contextnet", "width": 0.25, "optimizer": name, "lr": 0.01})
    network, optimizer = made(settings, sharded=True)
    whole, its_optimizer = made(settings, sharded=False)
    start = [p.detach().clone() for p in whole.parameters()]
    ddp = DistributedDataParallel(whole)
    # Lion steps by signs, of zeros as well: a gradient that is zero but for rounding says nothing (a bias before batch
    # normalisation).
    real = [torch.ones_like(p, dtype=torch.bool) for p in start]
    for step in range(STEPS):
        if step == STEPS // 2:
            network, optimizer = went_on(settings, network, optimizer)
        for net, its in ((network, optimizer), (ddp, its_optimizer)):
            its.zero_grad()
            net(images).pow(2).mean().backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            its.step()
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in whole.parameters()]
        real = [mask & (grad.abs() > 1e-9) for mask, grad in zip(real, gradients, strict=True)]
    full = [p.full_tensor() for p in network.parameters() if isinstance(p, DTensor)]
    ways = list(zip(full, whole.parameters(), start, real, strict=True))
    apart = sum(float((p - q)[mask].detach().pow(2).sum()) for p, q, _, mask in ways)
    way = sum(float((begin - q)[mask].detach().pow(2).sum()) for _, q, begin, mask in ways)
    return float((apart / way) ** 0.5)


if __name__ == "__main__":
    # Muon computes in bfloat16, which is no measure of anything else.
    exact = functools.partial(timm.optim.muon.zeropower_via_newtonschulz, dtype=torch.float64)
    timm.optim.muon.zeropower_via_newtonschulz = lambda *a, **k: exact(
        *a, **{n: v for n, v in k.items() if n != "dtype"}
    )
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    images = torch.randn(2, 4, 1, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))[rank]
    found = {name: difference(name, images) for name, known in OPTIMIZERS.items() if "shards" in known.works_on}
    if rank == 0:
        print(json.dumps(found), flush=True)
    torch.distributed.destroy_process_group()
