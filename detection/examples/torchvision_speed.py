"""torchvision's side of torchvision_speed.rs: answers each line of standard input.

usage: torchvision_speed.py WEIGHTS INPUTS THREADS

`infer` and `train` run one round and print its seconds; `infer` prints the number
of detections, too.
"""

import sys
import time

import torch
from safetensors.torch import load_file
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d


def main() -> None:
    weights, inputs, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    # What maskrcnn_resnet50_fpn builds when it is given weights, all of it learned.
    backbone = resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=FrozenBatchNorm2d, trainable_layers=5
    )
    model = MaskRCNN(backbone, num_classes=91)
    model.load_state_dict(torch.load(weights, weights_only=True))
    # Images are taken as they are, and masks left in their cells, as ours.
    model.transform.resize = lambda image, target=None: (image, target)
    model.transform.postprocess = lambda result, sizes, original: result
    inputs = load_file(inputs)
    images = [inputs["image"]]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9, momentum=0.9)
    for line in sys.stdin:
        start = time.perf_counter()
        if line.strip() == "infer":
            model.eval()
            with torch.inference_mode():
                count = len(model(images)[0]["boxes"])
        else:
            model.train()
            optimizer.zero_grad()
            target = {key: inputs[key] for key in ("boxes", "labels", "masks")}
            sum(model(images, [target]).values()).backward()
            optimizer.step()
            count = 0
        print(time.perf_counter() - start, count, flush=True)


if __name__ == "__main__":
    main()
