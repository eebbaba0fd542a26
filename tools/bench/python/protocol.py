"""A worker's side of the protocol: lines of JSON on the standard streams.

The worker sets up and tells {"ready": {"checks": {...}, "operations": n}}; for every line `go`
it does a round and tells its seconds, its work and its peak memory; at the end
of its input it exits.
"""

import json
import os
import sys
import time

# What libraries print must not mix with the protocol.
_out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def _tell(message):
    _out.write(json.dumps(message) + "\n")
    _out.flush()


def _kilobytes(field, file="status", process="self"):
    with open(f"/proc/{process}/{file}") as lines:
        for line in lines:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    raise SystemExit(f"/proc/{process}/{file} has no {field}")


def _children():
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return file.read().split()


class Memory:
    """Growth of this process beyond what it held when this was made."""

    def __init__(self):
        self.kilobytes = _kilobytes("VmRSS")

    def forget_peak(self):
        """Forgets peaks so far, such as that of reading a weight file."""
        try:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
        except OSError:
            pass  # Then they count, as on the other side.

    def peak_mb(self):
        """Of this process, with what those it forked have of their own now."""
        grown = max(_kilobytes("VmHWM") - self.kilobytes, 0)
        forked = (_kilobytes("Private_Dirty", "smaps_rollup", child) for child in _children())
        return (grown + sum(forked)) * 1024 / 1e6


def serve(checks, memory, work, round, operations=None):
    """Tells `checks` and the operations of a unit of work, if they were counted, then runs `round`
    whenever told to; it does `work` units."""
    _tell({"ready": {"checks": checks, "operations": operations}})
    for line in sys.stdin:
        if line.strip() != "go":
            raise SystemExit(f"a worker is told {line!r}, but it only knows 'go'")
        start = time.perf_counter()
        round()
        seconds = time.perf_counter() - start
        _tell({"seconds": seconds, "work": work, "peak_mb": memory.peak_mb()})
