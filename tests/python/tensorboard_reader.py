"""Decodes a TensorBoard event file by its published schema, and prints JSON.

usage: tensorboard_reader.py FILE

Independent of the writer: checksums by a bitwise CRC-32C, messages by a generic
protocol buffer decoder driven by the field numbers of event.proto and summary.proto.
"""

import json
import struct
import sys

SCALARS = {1: "<d", 5: "<f"}
SCHEMA = {
    "Event": {1: ("wall_time", None), 2: ("step", None), 3: ("file_version", str),
              5: ("summary", "Summary"), 7: ("session_log", "SessionLog")},
    "SessionLog": {1: ("status", None)},
    "Summary": {1: ("value", ["Value"])},
    "Value": {1: ("tag", str), 2: ("simple_value", None), 4: ("image", "Image"),
              8: ("tensor", "Tensor"), 9: ("metadata", "Metadata")},
    "Image": {1: ("height", None), 2: ("width", None), 3: ("colorspace", None),
              4: ("encoded", bytes)},
    "Tensor": {1: ("dtype", None), 2: ("shape", "Shape"), 8: ("string_val", [str])},
    "Shape": {2: ("dim", ["Dim"])},
    "Dim": {1: ("size", None)},
    "Metadata": {1: ("plugin_data", "Plugin")},
    "Plugin": {1: ("plugin_name", str)},
}


def masked_crc(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(data):
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        payload = data[12 : 12 + length]
        crcs = struct.unpack("<I", data[8:12]) + struct.unpack("<I", data[12 + length : 16 + length])
        assert crcs == (masked_crc(data[:8]), masked_crc(payload)), "checksum"
        yield payload
        data = data[16 + length :]


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            return value, at


def convert(kind, value):
    if kind is str:
        return value.decode()
    if kind is bytes:
        return value.hex()
    return value if kind is None else message(kind, value)


def message(name, data):
    fields, at = {}, 0
    while at < len(data):
        key, at = varint(data, at)
        field, wire = key >> 3, key & 7
        if wire == 0:
            value, at = varint(data, at)
        elif wire == 2:
            length, at = varint(data, at)
            value, at = data[at : at + length], at + length
            assert len(value) == length, "length"
        else:
            size = struct.calcsize(SCALARS[wire])
            (value,) = struct.unpack(SCALARS[wire], data[at : at + size])
            at += size
        label, kind = SCHEMA[name][field]
        if isinstance(kind, list):
            fields.setdefault(label, []).append(convert(kind[0], value))
        else:
            fields[label] = convert(kind, value)
    return fields


with open(sys.argv[1], "rb") as file:
    json.dump([message("Event", record) for record in records(file.read())], sys.stdout)
