"""Writes to the folder argv[1] checkpoints as other people's programs leave them, and
to `expected/` what PyTorch reads from the same file: tensors by their dotted names. In
`expected.json` stand the names of those that are no weights."""

import argparse
import collections
import copyreg
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import io
import json
import pathlib
import pickle
import struct
import sys
import tarfile
import types
import warnings
import zipfile
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

warnings.simplefilter("ignore")
folder = Path(sys.argv[1])
(folder / "expected").mkdir()
torch.manual_seed(0)


class CfgNode(dict):
    """As yacs and detectron2 have it: attributes beside the content."""

    def __init__(self, content=()):
        super().__init__(content)
        self.__dict__["__immutable__"] = True


class EasyDict(dict):
    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        super().__setitem__(name, value)


class Reduced(dict):
    """Says by itself how it is made."""

    def __reduce__(self):
        return Reduced, (dict(self),)


class WithArguments(dict):
    def __getnewargs__(self):
        return tuple(self.items())


class History(list):
    pass


class Flags(enum.Flag):
    A = 1
    B = 2


@dataclasses.dataclass
class Settings:
    lr: float = 0.1
    more: dict = dataclasses.field(default_factory=lambda: {"x": torch.ones(2)})


class Slots:
    __slots__ = ("a", "b")

    def __init__(self):
        self.a, self.b = 1, [2]


class Executes:
    """What it would do when it is unpickled normally is never done."""

    def __reduce__(self):
        return (open, (str(folder / "executed"), "w"))


class Own(torch.Tensor):
    pass


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 4, 3, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(4)
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(4, 2), torch.nn.Linear(2, 2)])
        self.register_buffer("scratch", torch.zeros(3), persistent=False)
        self.register_buffer("none", None)
        self.hyper = CfgNode({"a": torch.ones(1)})


net = Net()
state = net.state_dict()
extras = {
    "cfg": CfgNode({"MODEL": CfgNode({"WEIGHTS": ""}), "LIST": [1, 2]}),
    "easy": EasyDict(a=1),
    "default": collections.defaultdict(list, a=[1]),
    "deque": collections.deque([1, 2], maxlen=5),
    "counter": collections.Counter("aab"),
    "args": argparse.Namespace(lr=0.1, data=pathlib.PurePosixPath("/data")),
    "space": types.SimpleNamespace(a=1),
    "settings": Settings(),
    "slots": Slots(),
    "flags": Flags.A | Flags.B,
    "history": History([1.0, {"loss": 2.0}]),
    "when": datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone.utc),
    "partial": functools.partial(int, base=2),
    "scalar": np.float32(0.5),
    "numpy_type": np.dtype("float32"),
    "generator": np.random.default_rng(0),
    "text": np.array(["a", "bb"]),
    "objects": np.array([None, "x"], dtype=object),
    "record": np.zeros(2, dtype=[("a", "f4"), ("b", "i8")]),
    "tuples": {(0, 1): 0.5, ("a", 2, "b"): 1, None: 2, True: 3, 1.5: 4, b"bytes": 5},
    "sets": [{1, 2}, frozenset({3})],
    "numbers": [2**100, -(2**70), 1 + 2j, decimal.Decimal("1.5"), fractions.Fraction(1, 3)],
    "others": [..., NotImplemented, range(3), slice(1, 2), bytearray(b"ab"), b"", ""],
    "classes": [int, torch.float32, torch.device("cpu"), torch.Size([1, 2]), torch.strided],
    "function": json.dumps,
    "text ": "ü\ud800\\n\n",
}
extras["itself"] = extras


def is_weight(tensor):
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        return False
    return not tensor.is_complex() and not tensor.is_nested


WIDER = {
    torch.uint16: torch.int32,
    torch.uint32: torch.int64,
    torch.uint64: torch.int64,
    **{t: torch.float32 for t in vars(torch).values() if str(t).startswith("torch.float8")},
}


def flatten(value, found, left_out, path=(), above=()):
    """The tensors in dictionaries of any kind, by the dotted names of their keys."""
    name = ".".join(path)
    if isinstance(value, torch.nn.Module):
        value = value.state_dict()
    if isinstance(value, np.ndarray):
        try:
            native = np.ascontiguousarray(value.astype(value.dtype.newbyteorder("=")))
            value = torch.from_numpy(native.reshape(value.shape))
        except TypeError:
            left_out.append(name)
            return
    if isinstance(value, torch.Tensor):
        if is_weight(value):
            value = value.detach().to(WIDER.get(value.dtype, value.dtype))
            plain = torch.empty(value.shape, dtype=value.dtype)
            found[name] = plain.copy_(value.as_subclass(torch.Tensor))
        else:
            left_out.append(name)
    elif isinstance(value, dict) and id(value) not in above:
        for key, item in value.items():
            parts = key if isinstance(key, tuple) else (key,)
            if all(type(part) in (str, int, bytes) for part in parts):
                parts = tuple(p.decode("latin1") if isinstance(p, bytes) else str(p) for p in parts)
                flatten(item, found, left_out, (*path, *parts), (*above, id(value)))


expected = {}


def expect(name, content):
    found, left_out = {}, []
    flatten(content, found, left_out)
    expected[name] = left_out
    safetensors.torch.save_file(found, folder / "expected" / f"{name}.safetensors")


def case(name, content, **options):
    """Saves, and lets PyTorch read."""
    torch.save(content, folder / name, **options)
    expect(name, torch.load(folder / name, weights_only=False))


# Whatever lies beside the weights, in every form that torch.save has.
for protocol in range(2, 6):
    for zipped in (True, False):
        options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
        name = f"extras{protocol}{'' if zipped else '_old'}.pth"
        case(name, {"state_dict": state, **extras}, **options)

# Weights in dictionaries of any class.
case("cfgnode.pth", {"model": CfgNode(state), "cfg": extras["cfg"]})
case("easydict.pth", {"model": EasyDict(state)})
case("reduced.pth", {"model": Reduced(state)})
case("arguments.pth", {"model": WithArguments(state)})
case("defaultdict.pth", collections.defaultdict(dict, {"model": dict(state)}))
case("tuple_keys.pth", {("conv1", "weight"): torch.ones(2), ("bn", 1): torch.zeros(3)})
copyreg.pickle(CfgNode, lambda node: (copyreg._reconstructor, (CfgNode, dict, dict(node))))
case("reconstructor.pth", {"model": CfgNode(state)})
del copyreg.dispatch_table[CfgNode]

# Element types and kinds of tensor.
numbers = torch.tensor([0.0, 1.0, 2.5, 100.0])
kinds = {str(d)[6:]: numbers.to(d) for d in WIDER if d != torch.float8_e8m0fnu}
kinds |= {"complex64": numbers.to(torch.complex64), "complex128": numbers.to(torch.complex128)}
kinds |= {"extremes8": torch.tensor([0x7E, 0x01], dtype=torch.uint8).view(torch.float8_e4m3fn)}
kinds |= {"sparse": numbers.to_sparse(), "csr": numbers.reshape(2, 2).to_sparse_csr()}
kinds |= {"quantised": torch.quantize_per_tensor(numbers, 0.1, 0, torch.qint8)}
kinds |= {"meta": torch.zeros(3, device="meta"), "bool": numbers > 1, "w": numbers}
kinds |= {"nested": torch.nested.nested_tensor([numbers, numbers[:2]])}
case("kinds.pth", kinds)
del kinds["nested"], kinds["quantised"]  # these alone are refused by safetensors
plain = {k: v for k, v in kinds.items() if is_weight(v) or k == "complex64"}
safetensors.torch.save_file(plain, folder / "kinds.safetensors")
expect("kinds.safetensors", safetensors.torch.load_file(folder / "kinds.safetensors"))

# Views, and what stands around tensors.
base = torch.arange(24.0).reshape(2, 3, 4)
attributed = torch.nn.Parameter(base[1])
attributed.note = "beside"
views = {
    "offset": base[1, 1:],
    "strided": base[:, ::2, 1::2],
    "transposed": base.permute(2, 0, 1),
    "expanded": torch.tensor([5.0]).expand(3, 2),
    "empty": torch.zeros(0, 4),
    "empty_view": base[:, 3:],
    "scalar": base[1, 2, 3],
    "one_side": base[:, :1, :1],
    "channels_last": base[None].contiguous(memory_format=torch.channels_last),
    "double_of_same": base.double(),
    "parameter": torch.nn.Parameter(base[0], requires_grad=False),
    "attributed": attributed,
    "subclass": base[0].as_subclass(Own),
    "buffer": torch.nn.Buffer(base[0]),
    "array": np.asfortranarray(base.numpy()),
}
case("views.pth", views)
case("views_old.pth", views, _use_new_zipfile_serialization=False)

# Whole modules, alone and in a dictionary.
case("module.pth", net)
case("module_old.pth", net, _use_new_zipfile_serialization=False)
case("modules.pth", {"epoch": 1, "model": net, "ema": Net()})

# Where no dictionary holds a tensor: lists and objects.
torch.save([state, 3], folder / "list.pth")
expect("list.pth", {"0": state})
torch.save((1, state), folder / "tuple.pth")
expect("tuple.pth", {"1": state})
torch.save(types.SimpleNamespace(weights=state), folder / "namespace.pth")
expect("namespace.pth", {"weights": state})
torch.save(collections.UserDict(state), folder / "userdict.pth")
expect("userdict.pth", {"data": state})

# Pickles that stand alone.
for protocol in range(2, 6):
    (folder / f"tensors{protocol}.pkl").write_bytes(pickle.dumps(dict(state), protocol))
    expect(f"tensors{protocol}.pkl", state)
arrays = {name: tensor.numpy() for name, tensor in state.items()}
arrays |= {"unsigned": np.arange(3, dtype="u2"), "big": np.arange(3, dtype=">u4")}
arrays |= {"complex": np.zeros(2, "c8"), "ü\n\\": np.zeros(2, "f4")}
for protocol in (0, 1, 2):
    (folder / f"arrays{protocol}.pkl").write_bytes(pickle.dumps({"model": arrays}, protocol))
    with open(folder / f"arrays{protocol}.pkl", "rb") as file:
        expect(f"arrays{protocol}.pkl", pickle.load(file))

# Without checksums.
torch.serialization.set_crc32_options(False)
case("no_checksums.pth", {"model": state})
torch.serialization.set_crc32_options(True)

# Zip archives that others packed, and one of a big-endian machine.
torch.save({"model": {"a": base, "b": base[1], "c": torch.arange(3)}}, folder / "packed.pth")


def repack(name, change, compression):
    with zipfile.ZipFile(folder / "packed.pth") as old, zipfile.ZipFile(folder / name, "w") as new:
        for entry in old.namelist():
            content = change(entry, old.read(entry))
            new.writestr(entry.replace("packed/", "other folder/", 1), content, compression)
    expect(name, torch.load(folder / name, weights_only=False))


def swapped(entry, content):
    if entry.endswith("byteorder"):
        return b"big"
    if "/data/" in entry:
        width = 8 if len(content) == 24 else 4
        return np.frombuffer(content, f"u{width}").byteswap().tobytes()
    return content


repack("deflated.pth", lambda _, content: content, zipfile.ZIP_DEFLATED)
repack("big_endian.pth", swapped, zipfile.ZIP_STORED)


# Before PyTorch 0.1.10: a tar archive of tables.
def write_tar(name):
    def of_torch(*items, kind):
        return pickle.dumps((*items, getattr(torch, kind)), 2)

    values = np.arange(12, dtype="f4")
    storages = pickle.dumps(2, 2)
    storages += of_torch(10, "cpu", kind="FloatStorage") + struct.pack("<q", 12) + values.tobytes()
    storages += of_torch(11, "cpu", kind="LongStorage") + struct.pack("<qqq", 2, 5, -6)
    storages += pickle.dumps([(12, 10, 4, 6)], 2)
    tensors = pickle.dumps(3, 2)
    for key, storage, kind, size, stride, offset in (
        (20, 10, "FloatTensor", (4, 3), (3, 1), 0),
        (21, 12, "FloatTensor", (2, 2), (1, 3), 1),
        (22, 11, "LongTensor", (2,), (1,), 0),
    ):
        tensors += of_torch(key, storage, kind=kind) + struct.pack("<ii", len(size), 0)
        tensors += struct.pack(f"<{2 * len(size) + 1}q", *size, *stride, offset)

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            is_id = isinstance(value, tuple) and value[:1] == ("id",)
            return value[1] if is_id else None

    content = io.BytesIO()
    ids = {"a": ("id", "20"), "b": ("id", "21"), "n": ("id", "22")}
    Pickler(content, 2).dump(collections.OrderedDict(ids))
    system = {"protocol_version": 1000, "little_endian": True, "type_sizes": {}}
    members = {"sys_info": pickle.dumps(system, 2), "storages": storages}
    members |= {"tensors": tensors, "pickle": content.getvalue()}
    with tarfile.open(folder / name, "w", format=tarfile.PAX_FORMAT) as tar:
        for member, bytes_ in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(bytes_)
            tar.addfile(info, io.BytesIO(bytes_))
    expect(name, torch.load(folder / name, weights_only=False))


write_tar("tables.pth")

torch.save({"model": state, "hook": Executes()}, folder / "executes.pth")
expect("executes.pth", {"model": state})
(folder / "expected.json").write_text(json.dumps(expected))
