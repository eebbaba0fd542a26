"""What pycocotools makes of results files of other programs.

Usage: coco_foreign_reference.py FOLDER... Each folder holds case.json (kinds, max_detections),
gt.json and results.json. Written there for each kind: KIND.safetensors with the twelve figures.
"""

import contextlib
import io
import json
import pathlib
import sys

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from safetensors.numpy import save_file


def score(folder, kind, most):
    truth = COCO(str(folder / "gt.json"))
    evaluation = COCOeval(truth, truth.loadRes(str(folder / "results.json")), kind)
    evaluation.params.maxDets = [1, 10, most]
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    figures = np.asarray(evaluation.stats, dtype=np.float64)
    # summarize looks for 100 detections here, whatever maxDets is.
    precision = evaluation.eval["precision"][..., 0, 2]
    counted = precision[precision > -1]
    figures[0] = counted.mean() if counted.size else -1
    save_file({"figures": figures}, folder / f"{kind}.safetensors")


for name in sys.argv[1:]:
    folder = pathlib.Path(name)
    case = json.loads((folder / "case.json").read_text())
    for kind in case["kinds"]:
        with contextlib.redirect_stdout(io.StringIO()):
            score(folder, kind, case["max_detections"])
