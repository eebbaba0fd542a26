"""Named checks, and what several of them need."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

Check = Callable[[Path], None]
CHECKS: list[Check] = []


def check(function: Check) -> Check:
    """Has `run` call the function with the folder of the test's files."""
    CHECKS.append(function)
    return function


def run(folder: Path) -> None:
    """Runs every check, says how each ended, and exits with 1 if one failed."""
    failed = []
    for function in CHECKS:
        start = time.perf_counter()
        # Each check draws the same numbers, whichever others run.
        torch.manual_seed(0)
        try:
            function(folder)
        except Exception:
            traceback.print_exc()
            failed.append(function.__name__)
            print(f"FAILED  {function.__name__}", flush=True)
        else:
            print(f"ok  {function.__name__} ({time.perf_counter() - start:.1f} s)", flush=True)
    if failed:
        sys.exit(f"{len(failed)} of {len(CHECKS)} checks failed: {', '.join(failed)}")


def refuses(action: Callable[[], object], *parts: str, kind: type[Exception] = RuntimeError) -> None:
    """`action` must raise `kind` with every one of `parts` in its text."""
    try:
        action()
    except kind as error:
        text = str(error)
        lacking = [part for part in parts if part not in text]
        assert not lacking, f"{lacking} not in {text!r}"
        # A sentence for the user: no C++ backtrace behind it.
        assert "Exception raised from" not in text, text
    else:
        raise AssertionError(f"nothing was raised, but {parts} were expected")


def equal(some: list[Tensor], others: list[Tensor]) -> bool:
    """Whether two pyramids are the same, bit for bit."""
    return len(some) == len(others) and all(map(torch.equal, some, others))


def images(count: int = 2, side: int = 64, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normalised images."""
    return torch.randn(count, 3, side, side, dtype=dtype)


def total(maps: list[Tensor]) -> Tensor:
    """A loss that every level has a part in."""
    return torch.stack([level.square().mean() for level in maps]).sum()
