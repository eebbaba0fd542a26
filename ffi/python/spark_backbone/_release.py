"""What this package is built from; `cargo xtask wheel` writes it anew."""

VERSION = "0.0.0"
LIBTORCH = "2.13.0"
