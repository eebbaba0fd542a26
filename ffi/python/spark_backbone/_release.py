"""What this package is built from; `cargo xtask wheel` writes it anew."""

VERSION = "0.0.0"
# Series of torch that there is a library for, and the release each is built against.
LIBTORCH: dict[str, str] = {}
