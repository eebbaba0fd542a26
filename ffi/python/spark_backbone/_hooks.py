"""Exceptions of PyTorch's Python hooks, carried past the library.

Autograd calls hooks of Python from inside libtorch's operators, and gradient
checkpointing ends its second forward by an exception raised in one. The library
turns what its operators throw into sentences, in which an exception of Python
would be lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


def with_hooks_heard(function: Callable[[], Result]) -> Result:
    """Calls `function`; an exception raised in a hook for saved tensors comes out
    as it was raised."""
    # torch.compile cannot trace the question; it traces no such hooks either.
    if torch.compiler.is_compiling():
        return function()
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    if hooks is None:
        return function()
    pack, unpack = hooks
    raised: list[BaseException] = []

    def hear(tensor: Tensor) -> Any:
        try:
            return pack(tensor)
        except BaseException as error:
            raised.append(error)
            raise

    try:
        with torch.autograd.graph.saved_tensors_hooks(hear, unpack):
            return function()
    except RuntimeError:
        if raised:
            raise raised[0] from None
        raise
