#!/bin/sh
# Checks everything on this machine's CUDA devices; ./run.sh --help tells the arguments.
#
# Needs a Python with torch, of one of the series this bundle carries: python3, or the one that
# PYTHON names.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
python=${PYTHON:-python3}

fail() {
    echo "error: $*" >&2
    exit 1
}

found=$("$python" -c '
import os, torch
print(".".join(torch.__version__.split("+")[0].split(".")[:2]))
print(os.path.join(os.path.dirname(os.path.abspath(torch.__file__)), "lib"))
') || fail "$python has no torch: have PYTHON name a Python that has one"
series=$(printf '%s\n' "$found" | sed -n 1p)
lib=$(printf '%s\n' "$found" | sed -n 2p)

programs=$here/torch-$series
if [ ! -d "$programs" ]; then
    carried=$(cd "$here" && echo torch-*)
    fail "$python has torch $series, but this bundle carries programs for: $carried"
fi
[ -e "$lib/libtorch_cuda.so" ] ||
    fail "the torch of $python was built for processors alone: have PYTHON name one for CUDA"

# Where the programs would look first there is nothing.
LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
PYTHON=$python
export LD_LIBRARY_PATH PYTHON
exec "$programs/gpu-check" run "$@"
