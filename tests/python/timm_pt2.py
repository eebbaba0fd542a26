"""timm_pt2.py SOURCE FILE: a network in train mode as a `.pt2` file, and what it makes of an image.

SOURCE is timm's name of it, or `torchvision:NAME`. Beside FILE, `.safetensors` instead of `.pt2` has
`image`, and `logits` of it in evaluation.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

source, file = sys.argv[1], Path(sys.argv[2])
torch.manual_seed(0)
library, _, name = source.rpartition(":")
# Either takes seconds to import.
if library == "torchvision":
    from torchvision.models import get_model as make
else:
    from timm import create_model as make
model = make(name).train()
example = torch.randn(2, 3, 96, 96)
torch.export.save(torch.export.export(model, (example,)), file)
image = torch.randn(3, 3, 160, 128)
with torch.no_grad():
    logits = model.eval()(image)
save_file({"image": image, "logits": logits}, file.with_suffix(".safetensors"))
