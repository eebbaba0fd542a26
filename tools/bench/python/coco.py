"""A worker of COCO evaluations, by pycocotools or faster-coco-eval."""

import argparse
import contextlib
import os
from pathlib import Path

import protocol

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--by", choices=["pycocotools", "faster-coco-eval"], required=True)
parser.add_argument("--kind", choices=["bbox", "segm"], required=True)
parser.add_argument("--inputs", type=Path, required=True)
parser.add_argument("--threads", type=int, required=True, help="neither uses any")
arguments = parser.parse_args()

if arguments.by == "pycocotools":
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval
else:
    from faster_coco_eval import COCO
    from faster_coco_eval import COCOeval_faster as COCOeval

# Both print tables.
quiet = contextlib.redirect_stdout(open(os.devnull, "w"))
memory = protocol.Memory()
with quiet:
    truth = COCO(str(arguments.inputs / "gt.json"))
memory.forget_peak()


def figures():
    with quiet:
        found = truth.loadRes(str(arguments.inputs / f"{arguments.kind}.json"))
        evaluation = COCOeval(truth, found, arguments.kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(figure) for figure in evaluation.stats[:12]]


protocol.serve({"figures": figures()}, memory, 1, figures)
