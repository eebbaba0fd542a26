"""SparK's training steps on a masked-dense encoder in eager PyTorch, timed on a device.

Tells one line of JSON, as our own side does. Needs torch alone: LAMB is timm's where timm is
installed, and otherwise the same arithmetic below.
"""

import argparse
import json
import os
import struct
import sys
import time

import torch

# In a bundle beside this file, in a checkout in the bench's folder.
_here = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(_here, "..", "..", "bench", "python"))

import masked  # noqa: E402
import spark  # noqa: E402

DTYPES = {"F64": torch.float64, "F32": torch.float32, "I64": torch.int64, "BOOL": torch.bool}


def read(path):
    """The tensors of a safetensors file, without the package of that name."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = bytearray(file.read())
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        dtype = DTYPES[entry["dtype"]]
        # A copy: the file's offsets need not be aligned.
        flat = torch.frombuffer(bytearray(data[start:end]) or bytearray(8), dtype=dtype)
        tensors[name] = flat[: (end - start) // dtype.itemsize].reshape(entry["shape"])
    return tensors


class Lamb(torch.optim.Optimizer):
    """timm's LAMB with its defaults: gradients clipped by their global norm, bias correction,
    decay in the update, a trust ratio where there is decay."""

    def __init__(self, groups, lr, betas, eps, max_grad_norm):
        super().__init__(groups, dict(lr=lr, betas=betas, eps=eps, max_grad_norm=max_grad_norm))
        self.steps = 0

    @torch.no_grad()
    def step(self):
        self.steps += 1
        every = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.stack(torch._foreach_norm([p.grad for p in every])).norm()
        clip = (norm / self.param_groups[0]["max_grad_norm"]).clamp(min=1.0)
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._update(group, parameters, clip)

    def _update(self, group, parameters, clip):
        beta1, beta2 = group["betas"]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["average"] = torch.zeros_like(parameter)
                self.state[parameter]["square"] = torch.zeros_like(parameter)
        average = [self.state[p]["average"] for p in parameters]
        square = [self.state[p]["square"] for p in parameters]
        gradients = torch._foreach_div([p.grad for p in parameters], clip)
        torch._foreach_mul_(average, beta1)
        torch._foreach_add_(average, gradients, alpha=1 - beta1)
        torch._foreach_mul_(square, beta2)
        torch._foreach_addcmul_(square, gradients, gradients, value=1 - beta2)
        below = torch._foreach_sqrt(square)
        torch._foreach_div_(below, (1 - beta2**self.steps) ** 0.5)
        torch._foreach_add_(below, group["eps"])
        update = torch._foreach_div(average, 1 - beta1**self.steps)
        torch._foreach_div_(update, below)
        if group["weight_decay"] != 0:
            torch._foreach_add_(update, parameters, alpha=group["weight_decay"])
            weights, updates = torch._foreach_norm(parameters), torch._foreach_norm(update)
            for step, weight, length in zip(update, weights, updates):
                one = torch.ones_like(weight)
                ratio = torch.where(length > 0, weight / length, one)
                step.mul_(torch.where(weight > 0, ratio, one))
        torch._foreach_add_(parameters, update, alpha=-group["lr"])


def optimizer(model, beta2, arguments):
    try:
        import timm.optim  # noqa: F401
    except ImportError:
        pass
    else:
        return spark.optimizer(model, beta2, arguments.lr, arguments.weight_decay), "timm's LAMB"
    groups = spark.parameter_groups(model, arguments.weight_decay)
    return Lamb(groups, arguments.lr, (0.9, beta2), 1e-6, 5.0), "LAMB of foreach operators"


class Steps:
    """The model, what updates it, and the batch it sees."""

    def __init__(self, arguments, tensors, channels_last):
        self.arguments, self.device = arguments, torch.device(arguments.device)
        model = spark.Spark(spark.encoder(arguments.model))
        spark.load(model, tensors)
        self.model = model.to(self.device).train()
        self.images = tensors["images"].to(self.device)
        self.active = tensors["active"].to(self.device)
        if channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
            self.images = self.images.to(memory_format=torch.channels_last)
        beta2 = 0.95 if isinstance(model.sparse_encoder.sp_cnn, masked.ResNet) else 0.999
        self.optimizer, self.how = optimizer(self.model, beta2, arguments)
        self.how += ", channels last" if channels_last else ", contiguous"

    def take(self):
        self.optimizer.zero_grad(set_to_none=True)
        on = self.arguments.precision != "float32"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=on):
            value = self.model(self.images, self.active)
        value.backward()
        self.optimizer.step()
        return value.item()

    def timed(self, steps):
        self.take()
        self.wait()
        start = time.perf_counter()
        for _ in range(steps):
            self.take()
        self.wait()
        return (time.perf_counter() - start) / steps

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def largest(self, most, memory_mb):
        found = None
        while True:
            batch = len(self.images)
            try:
                seconds = self.timed(2)
                found = {
                    "batch": batch,
                    "images_per_second": batch / seconds,
                    "memory_mb": memory_mb(),
                }
                if 2 * batch > most:
                    return found
                self.images = self.images.repeat(2, 1, 1, 1)
                self.active = self.active.repeat(2, 1, 1, 1)
            except torch.OutOfMemoryError:
                if found is None:
                    raise
                return found


def free_bytes(device):
    if device != "cuda":
        return None
    torch.zeros(1, device=device)
    return torch.cuda.mem_get_info()[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--weight-decay", type=float, required=True)
    parser.add_argument("--largest", type=int)
    arguments = parser.parse_args()

    torch.backends.cudnn.benchmark = True
    tensors = read(arguments.inputs)
    free = free_bytes(arguments.device)

    def memory_mb():
        return None if free is None else max(free - free_bytes(arguments.device), 0) / 1e6

    best = None
    for channels_last in (False, True):
        steps = Steps(arguments, tensors, channels_last)
        told = {
            "losses": [steps.take(), steps.take()],
            "seconds": steps.timed(arguments.steps),
            "memory_mb": memory_mb(),
            "how": steps.how,
        }
        if best is None or told["seconds"] < best[0]["seconds"]:
            best = (told, channels_last)
        del steps
        if free is not None:
            torch.cuda.empty_cache()
    told, channels_last = best
    told["largest"] = None
    if arguments.largest is not None:
        steps = Steps(arguments, tensors, channels_last)
        told["largest"] = steps.largest(arguments.largest, memory_mb)
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
