"""What pycocotools makes of results files.

Usage: coco_eval_reference.py FOLDER... Each folder holds gt.json and bbox.json
and segm.json. Written there for each of the two: KIND.safetensors with the
twelve figures and the precision and recall arrays, KIND.txt with the printed
table, and KIND.seconds, the time from the results file to the figures."""

import contextlib
import io
import json
import pathlib
import sys
import time

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from safetensors.numpy import save_file


def load_results(truth, path):
    if json.loads(path.read_text() if path.stat().st_size < 10 else "[0]"):
        return truth.loadRes(str(path))
    # loadRes cannot read an empty list.
    results = COCO()
    results.dataset = {**truth.dataset, "annotations": []}
    results.createIndex()
    return results


def score(folder, kind):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "gt.json"))
        start = time.perf_counter()
        evaluation = COCOeval(truth, load_results(truth, folder / f"{kind}.json"), kind)
        evaluation.evaluate()
        evaluation.accumulate()
    table = io.StringIO()
    with contextlib.redirect_stdout(table):
        evaluation.summarize()
    seconds = time.perf_counter() - start
    arrays = {
        "figures": np.asarray(evaluation.stats, dtype=np.float64),
        "precision": evaluation.eval["precision"],
        "recall": evaluation.eval["recall"],
    }
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / f"{kind}.safetensors")
    (folder / f"{kind}.txt").write_text(table.getvalue())
    (folder / f"{kind}.seconds").write_text(str(seconds))


for name in sys.argv[1:]:
    for kind in ("bbox", "segm"):
        score(pathlib.Path(name), kind)
