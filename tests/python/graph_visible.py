"""What a convolutional network computes on the visible positions of its grids alone.

`VisiblePositions` is a mode under which a module's own forward runs unchanged, on whole grids, but

* operators that look at neighbours (convolutions, pools, padding, interpolation) read 0 at masked
  positions,
* reductions over positions (batch and group norms, means, maxima, global pools) count visible
  positions only,

and every other operator computes each position for itself, so that what it leaves at masked
positions is of no account. An operator outside the tables, or one that has no such meaning
(attention over positions, a strip of one axis, a parameter a position), raises `Refused`.

A grid is known by its size: a tensor of the batch with two neighbouring axes that are the mask's
rows and columns times a power of two. The mask's sides should be numbers that channels do not
have, such as 3 and 5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any
from weakref import ref

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Every output position from the input's same position, whatever else they are given.
LOCAL = set(
    """
    relu relu_ relu6 silu gelu sigmoid sigmoid_ hardswish hardswish_ hardsigmoid hardsigmoid_
    hardtanh hardtanh_ leaky_relu leaky_relu_ elu elu_ selu celu tanh tanh_ mish prelu softplus
    softsign logsigmoid dropout dropout1d dropout2d dropout3d clone contiguous detach to type_as
    float double type pow pow_ __pow__ sqrt rsqrt square abs exp log neg __neg__ reciprocal
    clamp clamp_ clamp_min clamp_max erf
    add add_ __add__ __iadd__ __radd__ sub sub_ __sub__ __isub__ __rsub__ subtract mul mul_ __mul__
    __imul__ __rmul__ multiply div div_ __truediv__ __itruediv__ __rtruediv__ __rdiv__ divide
    maximum minimum addcmul addcdiv where lerp masked_fill copy_
    """.split()
)
# Other shapes of the same values.
SHAPES = set(
    """
    view reshape flatten unflatten permute transpose t mT movedim swapaxes squeeze unsqueeze expand
    expand_as broadcast_to repeat repeat_interleave cat concat stack split split_with_sizes chunk
    unbind pixel_shuffle pixel_unshuffle channel_shuffle view_as reshape_as
    """.split()
)
# Take a part of an axis; `__getitem__` of several.
PARTS = {"__getitem__", "select", "narrow"}
# What tensors tell about themselves, and new ones.
PLAIN = set(
    """
    __get__ size dim ndimension numel is_floating_point is_contiguous stride __len__ type dtype
    new_empty new_zeros new_ones new_full empty zeros ones full zeros_like ones_like empty_like
    stack_module_state is_complex get_device is_scripting is_grad_enabled is_autocast_enabled
    __contains__ _assert _is_view requires_grad_ is_autocast_available is_same_size is_cuda
    """.split()
)
WINDOWS = {"max_pool2d", "max_pool2d_with_indices", "avg_pool2d", "lp_pool2d"}
CONVOLUTIONS = {"conv2d", "conv_transpose2d"}
RESIZES = {"interpolate", "upsample", "grid_sample"}
REDUCTIONS = set("mean sum amax amin max min var std var_mean std_mean norm vector_norm".split())
# Along the axes `dim`, each of which must not be one of positions.
ALONG = set(
    "softmax log_softmax cumsum cumprod flip roll sort topk normalize glu argmax argmin".split()
)
PRODUCTS = set("matmul __matmul__ __rmatmul__ bmm mm baddbmm addmm einsum".split())
ATTENTION = {"scaled_dot_product_attention", "multi_head_attention_forward"}


class Refused(Exception):
    """An operator that has no meaning on visible positions, and why."""


def tensors_in(arguments: Any) -> Iterator[Tensor]:
    """The tensors among arguments, in order."""
    if isinstance(arguments, Tensor):
        yield arguments
    elif isinstance(arguments, dict):
        yield from tensors_in(list(arguments.values()))
    elif isinstance(arguments, (list, tuple)):
        for argument in arguments:
            yield from tensors_in(argument)


class VisiblePositions(TorchFunctionMode):
    """Runs what is inside on the visible positions of `active`, `[N, rows, columns]`, true where
    visible.

    `garbage`, if given, is written to the masked positions of all that is computed: a result that
    depends on it has read one.
    """

    def __init__(self, active: Tensor, garbage: float | None = None) -> None:
        super().__init__()
        self.active = active
        self.garbage = garbage
        self.batch, self.rows, self.columns = active.shape
        self.grids = {(self.rows << k, self.columns << k) for k in range(9)}
        # By its id, how many positions a tensor has whose two axes of them are one.
        self.flat: dict[int, tuple[ref[Tensor], int]] = {}

    # ---- Where the positions are ----

    def axes(self, tensor: Tensor) -> tuple[int, ...]:
        """The axes of positions: height and width, the one they are flattened to, or none."""
        if tensor.dim() < 2 or tensor.shape[0] != self.batch:
            return ()
        for axis in range(1, tensor.dim() - 1):
            if tuple(tensor.shape[axis : axis + 2]) in self.grids:
                return axis, axis + 1
        kept, count = self.flat.get(id(tensor), (None, 0))
        if kept is None or kept() is not tensor:
            return ()
        return (list(tensor.shape).index(count, 1),)

    def note_flat(self, tensor: Tensor, inputs: list[Tensor]) -> None:
        """Notes a result in which the positions of an input have become one axis."""
        if self.axes(tensor):
            return
        for given in inputs:
            axes = self.axes(given)
            count = math.prod(given.shape[axis] for axis in axes)
            if axes and tensor.shape[:1] == (self.batch,) and count in tensor.shape[1:]:
                self.flat[id(tensor)] = (ref(tensor), count)

    def visible(self, tensor: Tensor) -> Tensor:
        """Where `tensor`, a map, is visible; of a shape that broadcasts with it."""
        axes = self.axes(tensor)
        positions = math.prod(tensor.shape[axis] for axis in axes)
        times = math.isqrt(positions // (self.rows * self.columns))
        mask = self.active.repeat_interleave(times, 1).repeat_interleave(times, 2)
        shape = [1] * tensor.dim()
        shape[0] = self.batch
        for axis in axes:
            shape[axis] = tensor.shape[axis]
        return mask.reshape(shape)

    def filled(self, tensor: Tensor, value: float = 0.0) -> Tensor:
        """`tensor` with `value` at its masked positions; itself if it is no map."""
        if not self.axes(tensor):
            return tensor
        with torch._C.DisableTorchFunction():
            return torch.where(self.visible(tensor), tensor, value)

    # ---- The rules ----

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        inputs = list(tensors_in([args, kwargs]))
        if not any(map(self.axes, inputs)):
            result = func(*args, **kwargs)
            # A padded map is no grid of the mask's; what convolves or pools it must lead to one.
            if name in CONVOLUTIONS | WINDOWS and args[0].shape[0] == self.batch:
                self.check_grid(name, args[0], result)
            elif name in ("batch_norm", "group_norm", "instance_norm"):
                self.check_grid(name, args[0], result)
            return result
        result = self.on_maps(name, func, args, kwargs)
        if name in LOCAL | SHAPES | CONVOLUTIONS | ALONG:
            for tensor in tensors_in(result):
                self.note_flat(tensor, inputs)
        if self.garbage is not None and isinstance(result, Tensor) and name != "__get__":
            result = self.filled(result, self.garbage)
        return result

    def on_maps(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """`func` where an operand at least is a map."""
        first = next(tensors_in([args, kwargs]))
        if name in PLAIN:
            return func(*args, **kwargs)
        if name in LOCAL:
            self.refuse_parameters_by_position(name, [args, kwargs])
            return func(*args, **kwargs)
        if name in SHAPES:
            return func(*args, **kwargs)
        if name in PARTS:
            result = func(*args, **kwargs)
            if len(self.axes(first)) == 2 and not self.axes(result):
                raise Refused(f"{name}: takes some positions, {shapes(first, result)}")
            return result
        if name == "pad":
            return func(self.filled(first), *args[1:], **kwargs)
        if name in CONVOLUTIONS | RESIZES | WINDOWS:
            result = func(self.filled(first), *args[1:], **kwargs)
            if name in WINDOWS and tuple(result.shape[2:]) == (1, 1):
                return self.pooled("amax" if name.startswith("max") else "mean", first)
            self.check_grid(name, first, result)
            return result
        if name.startswith("adaptive_"):
            return self.adaptive(name, func, args, kwargs)
        if name == "batch_norm":
            return self.batch_norm(*args, **kwargs)
        if name == "group_norm":
            return self.group_norm(*args, **kwargs)
        if name == "instance_norm":
            return self.instance_norm(*args, **kwargs)
        if name in ("layer_norm", "rms_norm"):
            size = args[1] if len(args) > 1 else kwargs["normalized_shape"]
            self.refuse_axes(name, first, list(range(-len(size), 0)))
            return func(*args, **kwargs)
        if name in REDUCTIONS:
            return self.reduction(name, func, args, kwargs)
        if name in ALONG:
            dims = args[1] if len(args) > 1 else kwargs.get("dim", 1 if name == "normalize" else -1)
            self.refuse_axes(name, first, [dims] if isinstance(dims, int) else list(dims))
            return func(*args, **kwargs)
        if name == "linear":
            self.refuse_axes(name, first, [-1])
            return func(*args, **kwargs)
        if name in PRODUCTS:
            weight = args[1]
            if not (name in ("matmul", "__matmul__") and weight.dim() == 2) or self.axes(weight):
                raise Refused(f"{name}: a product over positions")
            self.refuse_axes(name, first, [-1])
            return func(*args, **kwargs)
        if name in ATTENTION:
            raise Refused(f"{name}: attention over positions")
        raise Refused(f"{name}: there is no rule for it")

    def check_grid(self, name: str, before: Tensor, result: Tensor) -> None:
        """Refuses a result with positions that are not those of a grid of the mask's."""
        if result.dim() != 4 or result.shape[0] != self.batch or self.axes(result):
            return
        if tuple(result.shape[2:]) != (1, 1):
            raise Refused(f"{name}: not a grid of the input by a stride, {shapes(before, result)}")

    def refuse_axes(self, name: str, tensor: Tensor, dims: list[int]) -> None:
        """Refuses an operator along an axis of positions."""
        if {dim % tensor.dim() for dim in dims} & set(self.axes(tensor)):
            raise Refused(f"{name}: along positions, {list(tensor.shape)} over {dims}")

    def refuse_parameters_by_position(self, name: str, arguments: Any) -> None:
        """Refuses operands that are the same for every image but not for every position."""
        for tensor in tensors_in(arguments):
            sizes = zip(tensor.shape, tensor.shape[1:], strict=False)
            if not self.axes(tensor) and any(pair in self.grids for pair in sizes):
                raise Refused(f"{name}: an operand with a value a position, {list(tensor.shape)}")

    # ---- Reductions over positions ----

    def counts(self, tensor: Tensor, dims: list[int]) -> Tensor:
        """How many visible values a reduction over `dims`, keeping them, takes."""
        mask = self.visible(tensor)
        count = mask.sum(dims, keepdim=True)
        others = [tensor.shape[dim] for dim in dims if mask.shape[dim] == 1]
        return count * math.prod(others)

    def moments(self, tensor: Tensor, dims: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, sum of squared deviations, and their count, over `dims`, which are kept."""
        with torch._C.DisableTorchFunction():
            count = self.counts(tensor, dims)
            mean = torch.where(self.visible(tensor), tensor, 0.0).sum(dims, keepdim=True) / count
            deviation = torch.where(self.visible(tensor), tensor - mean, 0.0)
            return mean, deviation.square().sum(dims, keepdim=True), count

    def reduction(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        tensor = args[0]
        if name in ("max", "min") and len(args) > 1 and isinstance(args[1], Tensor):
            return func(*args, **kwargs)
        rest, kwargs = list(args[1:]), dict(kwargs)
        if name in ("norm", "vector_norm"):
            order = rest.pop(0) if rest else kwargs.get("p", kwargs.get("ord", 2))
        dims = rest.pop(0) if rest else kwargs.get("dim", kwargs.get("axis"))
        keepdim = kwargs.get("keepdim", rest[-1] if rest and rest[-1] is True else False)
        if dims is None:
            raise Refused(f"{name}: over the whole batch")
        dims = [dim % tensor.dim() for dim in ([dims] if isinstance(dims, int) else dims)]
        axes = set(self.axes(tensor))
        if not axes & set(dims):
            return func(*args, **kwargs)
        if not axes <= set(dims) or 0 in dims:
            raise Refused(f"{name}: {list(tensor.shape)} over {dims}, not just all positions")

        def shaped(kept: Tensor) -> Tensor:
            return kept if keepdim else kept.squeeze(dims)

        if name in ("amax", "amin"):
            worst = -math.inf if name == "amax" else math.inf
            return getattr(torch, name)(self.filled(tensor, worst), dims, keepdim)
        if name == "sum":
            return self.filled(tensor).sum(dims, keepdim=keepdim)
        if name in ("norm", "vector_norm"):
            return torch.linalg.vector_norm(self.filled(tensor), order, dims, keepdim)
        mean, squares, count = self.moments(tensor, dims)
        if name == "mean":
            return shaped(mean)
        if name in ("max", "min"):
            raise Refused(f"{name}: the index of a position")
        unbiased = kwargs.get("correction", int(kwargs.get("unbiased", True)))
        spread = squares / (count - unbiased)
        spread = spread.sqrt() if name.startswith("std") else spread
        return (shaped(spread), shaped(mean)) if name.endswith("_mean") else shaped(spread)

    def pooled(self, how: str, tensor: Tensor) -> Tensor:
        """Mean or maximum of each channel of an image, `[N, C, 1, 1]`."""
        if how == "mean":
            return self.moments(tensor, [2, 3])[0]
        return self.filled(tensor, -math.inf).amax((2, 3), keepdim=True)

    def adaptive(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        tensor = args[0]
        result: Tensor = func(*args, **kwargs)
        if tuple(result.shape[2:]) == (1, 1) and result.dim() == 4:
            return self.pooled("amax" if "max" in name else "mean", tensor)
        if result.shape == tensor.shape:
            return result
        raise Refused(f"{name}: {shapes(tensor, result)}")

    def batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return F.batch_norm(input, running_mean, running_var, weight, bias, False, 0.0, eps)
        dims = [dim for dim in range(input.dim()) if dim != 1]
        mean, squares, count = self.moments(input, dims)
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean.flatten(), momentum)
                running_var.lerp_((squares / (count - 1)).flatten(), momentum)
        return by_channel((input - mean) / (squares / count + eps).sqrt(), weight, bias)

    def group_norm(
        self,
        input: Tensor,
        num_groups: int,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> Tensor:
        grouped = input.unflatten(1, (num_groups, -1))
        mean, squares, count = self.moments(grouped, list(range(2, grouped.dim())))
        normed = (grouped - mean) / (squares / count + eps).sqrt()
        return by_channel(normed.flatten(1, 2), weight, bias)

    def instance_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None = None,
        running_var: Tensor | None = None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        use_input_stats: bool = True,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not use_input_stats or running_mean is not None:
            raise Refused("instance_norm: running statistics")
        return self.group_norm(input, input.shape[1], weight, bias, eps)


def by_channel(tensor: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Scales and shifts the channels, axis 1."""
    shape = [1, -1] + [1] * (tensor.dim() - 2)
    if weight is not None:
        tensor = tensor * weight.view(shape)
    return tensor if bias is None else tensor + bias.view(shape)


def shapes(before: Tensor, after: Tensor) -> str:
    return f"{list(before.shape)} to {list(after.shape)}"
