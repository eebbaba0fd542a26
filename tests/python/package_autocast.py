"""bfloat16 autocast on the CPU.

A process of its own: ONEDNN_MAX_CPU_ISA must be set before torch is loaded where
a virtual machine announces AMX but cannot run it.
"""

import torch

from spark_backbone import Backbone

# bfloat16 keeps eight bits, 0.4 %; some twenty layers add up to a few per cent of
# a map's largest value.
TOLERANCE = 0.05

torch.manual_seed(0)
backbone = Backbone("resnet18").eval()
batch = torch.randn(2, 3, 64, 64)
plain = backbone(batch)
for images in (batch, batch.bfloat16()):
    with torch.autocast("cpu", torch.bfloat16):
        maps = backbone(images)
    for got, expected in zip(maps, plain, strict=True):
        assert got.dtype == torch.bfloat16, got.dtype
        off = ((got.float() - expected).abs().max() / expected.abs().max()).item()
        # Not the same numbers: it did compute in bfloat16.
        assert 0 < off <= TOLERANCE, off
torch.stack([level.float().square().mean() for level in maps]).sum().backward()
for name, parameter in backbone.named_parameters():
    assert parameter.grad.dtype == torch.float32 and parameter.grad.isfinite().all(), name
with torch.autocast("cpu", torch.bfloat16, enabled=False):
    assert torch.equal(backbone(batch)[-1], plain[-1])
print("ok  autocast")
