"""SparK on a masked-dense encoder in eager PyTorch, and a worker of its steps."""

import argparse

import torch
from torch import nn

import masked


class Spark(nn.Module):
    """Encoder, densification and light decoder, under the official names."""

    def __init__(self, encoder, width=768):
        super().__init__()
        self.sparse_encoder = nn.Module()
        self.sparse_encoder.sp_cnn = encoder
        self.densify_norms = nn.ModuleList()
        self.densify_projs = nn.ModuleList()
        self.mask_tokens = nn.ParameterList()
        for level, channels in enumerate(reversed(encoder.channels)):
            self.densify_norms.append(encoder.norm(channels))
            self.mask_tokens.append(nn.Parameter(torch.zeros(1, channels, 1, 1)))
            to, kernel = width >> level, 1 if level == 0 else 3
            if level == 0 and channels == to:
                self.densify_projs.append(nn.Identity())
            else:
                self.densify_projs.append(nn.Conv2d(channels, to, kernel, padding=kernel // 2))
        self.dense_decoder = Decoder(width)

    def forward(self, images, active):
        masked.set_active(active)
        levels = self.sparse_encoder.sp_cnn(images * masked.mask_at(*images.shape[2:]))
        dense = []
        for level, x in enumerate(reversed(levels)):
            x = self.densify_norms[level](x)
            x = torch.where(masked.mask_at(*x.shape[2:]), x, self.mask_tokens[level])
            dense.append(self.densify_projs[level](x))
        return loss(images, self.dense_decoder(dense), active)


class Decoder(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.dec = nn.ModuleList(UpBlock(width >> i, width >> i + 1) for i in range(5))
        self.proj = nn.Conv2d(width >> 5, 3, 1)

    def forward(self, levels):
        x = 0
        for index, block in enumerate(self.dec):
            x = block(x + levels[index] if index < len(levels) else x)
        return self.proj(x)


class UpBlock(nn.Module):
    def __init__(self, channels, out):
        super().__init__()
        self.up_sample = nn.ConvTranspose2d(channels, channels, 4, 2, 1)
        self.conv = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU6(inplace=True),
            nn.Conv2d(channels, out, 3, padding=1, bias=False),
            nn.BatchNorm2d(out),
        )

    def forward(self, x):
        return self.conv(self.up_sample(x))


def patchify(images, rows, columns):
    n, c, height, width = images.shape
    p, q = height // rows, width // columns
    x = images.reshape(n, c, rows, p, columns, q)
    return torch.einsum("ncrpsq->nrspqc", x).reshape(n, rows * columns, p * q * c)


def loss(images, prediction, active):
    """Squared error to the masked patches, each normalised by its own statistics."""
    rows, columns = active.shape[2:]
    target, prediction = (patchify(x, rows, columns) for x in (images, prediction))
    mean = target.mean(dim=-1, keepdim=True)
    deviation = (target.var(dim=-1, keepdim=True) + 1e-6).sqrt()
    error = (prediction - (target - mean) / deviation).square().mean(dim=2)
    hidden = active.logical_not().view(active.shape[0], -1)
    return error.mul(hidden).sum() / (hidden.sum() + 1e-8)


def parameter_groups(model, weight_decay):
    """Those whose weights decay, and those whose do not."""
    decayed, still = [], []
    for name, parameter in model.named_parameters():
        alone = parameter.ndim <= 1 or name.endswith(".bias")
        alone = alone or "gamma" in name or "mask_token" in name
        (still if alone else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": still, "weight_decay": 0.0},
    ]


def optimizer(model, beta2, lr, weight_decay):
    # Imported here: it takes a second, and who only wants the model does not need it.
    from timm.optim import Lamb

    groups = parameter_groups(model, weight_decay)
    return Lamb(groups, lr=lr, betas=(0.9, beta2), eps=1e-6, max_grad_norm=5.0)


def load(model, tensors):
    """Weights by our names; the batch norms' counters are none of the arithmetic."""
    state = {
        name.removeprefix("model.").replace("sp_cnn.norm.", "sp_cnn.unused_norm."): tensor
        for name, tensor in tensors.items()
        if name.startswith("model.")
    }
    model.load_state_dict(state)


def encoder(name, of_timm=False):
    """The masked-dense network, of timm or of ours by that name."""
    if of_timm:
        import masked_timm

        return masked_timm.build(name)
    return masked.build(name)


class Step:
    """One optimizer step on the same images whenever it is called."""

    def __init__(self, model, images, active, lr, weight_decay):
        self.spark, self.images, self.active = model.train(), images, active
        beta2 = 0.999 if isinstance(model.sparse_encoder.sp_cnn, masked.ConvNeXt) else 0.95
        self.optimizer = optimizer(model, beta2, lr, weight_decay)

    def __call__(self):
        self.optimizer.zero_grad(set_to_none=True)
        value = self.spark(self.images, self.active)
        value.backward()
        self.optimizer.step()
        return value.item()


def operations(model, images, active):
    """Those that a step needs: of the encoder the share of the patches that are visible, of the
    decoder all."""
    from operations import count

    # Of one image: all take as many, and as many of their patches are visible.
    image, mask = images[:1], active[:1]
    whole = count(lambda: model(image, mask).backward())
    encoder = model.sparse_encoder.sp_cnn
    dense = count(lambda: sum(level.sum() for level in encoder(image)).backward())
    model.zero_grad(set_to_none=True)
    return len(images) * (whole - (1 - mask.float().mean().item()) * dense)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--exported", action="store_true", help="the model is timm's")
    parser.add_argument("--inputs", required=True)
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--weight-decay", type=float, required=True)
    parser.add_argument("--steps", type=int, required=True, help="of a round")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--channels-last", action="store_true")
    arguments = parser.parse_args()

    import protocol
    import safetensors.torch
    import timm.optim  # noqa: F401, before memory is measured

    torch.set_num_threads(arguments.threads)
    memory = protocol.Memory()
    tensors = safetensors.torch.load_file(arguments.inputs)
    model = Spark(encoder(arguments.model, arguments.exported))
    load(model, tensors)
    images, active = tensors["images"].clone(), tensors["active"].clone()
    del tensors
    if arguments.channels_last:
        model = model.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    needed = operations(model, images, active)
    memory.forget_peak()
    step = Step(model, images, active, arguments.lr, arguments.weight_decay)
    # The second shows whether gradients and optimizer agree, too.
    losses = [step(), step()]

    def round():
        for _ in range(arguments.steps):
            step()

    protocol.serve({"loss": losses}, memory, arguments.steps, round, needed)


if __name__ == "__main__":
    main()
