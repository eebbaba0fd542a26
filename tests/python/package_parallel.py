"""Two processes train a backbone with DistributedDataParallel over Gloo on the
loopback interface; their gradients must be those of the whole batch.

Evaluation mode throughout: batch norms of two processes have statistics of their
own, as in any module.
"""

import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.parallel import DistributedDataParallel

from spark_backbone import Backbone

# Summed in two halves instead of one: float64 rounds to 1e-16, and some eighteen
# layers multiply that by no more than 1e4.
TOLERANCE = 1e-12
WORLD = 2


def loss(maps: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([level.square().mean() for level in maps]).sum()


def batch() -> torch.Tensor:
    return torch.randn(2 * WORLD, 3, 64, 64, dtype=torch.float64)


def fresh(seed: int) -> Backbone:
    """Not as initialised: there the last norm of each block is 0, and with it the
    gradients before it."""
    torch.manual_seed(seed)
    backbone = Backbone("resnet18", dtype=torch.float64, freeze_at=1).eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return backbone


def every_parameter_is_used() -> None:
    """DDP's second step fails where a parameter had no gradient in the first."""
    for name, indices in (("convnext_atto", None), ("convnext_atto", (1,)), ("resnet18", (0, 1))):
        parallel = DistributedDataParallel(Backbone(name, out_indices=indices).eval())
        for _ in range(2):
            loss(parallel(torch.randn(1, 3, 64, 64))).backward()


def sharding_leaves_it_out() -> None:
    backbone = Backbone("resnet18")
    settings = {"device_id": torch.device("cpu")}
    try:
        FullyShardedDataParallel(backbone, **settings)
    except RuntimeError as error:
        assert "ignored_modules" in str(error) and "DistributedDataParallel" in str(error), error
    else:
        raise AssertionError("FSDP took the backbone's tensors")
    detector = torch.nn.Sequential(backbone, torch.nn.Identity())
    sharded = FullyShardedDataParallel(detector, ignored_modules=[backbone], **settings)
    loss(sharded(torch.randn(2, 3, 64, 64))).backward()
    assert backbone.conv1.weight.grad is not None


def worker(rank: int, port: int) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    dist.init_process_group("gloo", rank=rank, world_size=WORLD)
    torch.set_num_threads(1)
    # Other weights in each process: DDP starts from those of rank 0.
    backbone = fresh(rank)
    parallel = DistributedDataParallel(backbone)
    torch.manual_seed(100)
    whole = batch()
    loss(parallel(whole[rank::WORLD])).backward()

    alone = fresh(0)
    loss(alone(whole)).backward()
    compared = 0
    for (name, got), (_, expected) in zip(
        backbone.named_parameters(), alone.named_parameters(), strict=True
    ):
        assert torch.equal(got, expected), f"rank {rank}: weights of {name}"
        if expected.grad is None:
            assert got.grad is None and name.startswith(("conv1.", "bn1.")), name
            continue
        off = ((got.grad - expected.grad).abs().max() / expected.grad.abs().max()).item()
        assert off <= TOLERANCE, f"rank {rank}, {name}: {off:.1e}"
        compared += 1
    assert compared > 50
    every_parameter_is_used()
    sharding_leaves_it_out()
    torch.optim.SGD(parallel.parameters(), lr=0.1).step()
    weight = backbone.layer4.get_parameter("1.conv2.weight").detach().clone()
    dist.broadcast(weight, 0)
    assert torch.equal(weight, backbone.layer4.get_parameter("1.conv2.weight"))
    dist.destroy_process_group()
    print(f"ok  rank {rank}: {compared} gradients of the whole batch", flush=True)


if __name__ == "__main__":
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes.spawn(worker, (port,), nprocs=WORLD)
