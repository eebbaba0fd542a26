"""Tags the wheel: it carries a shared library of one platform, but no extension
module of one Python."""

from __future__ import annotations

import os

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel


class PlatformWheel(bdist_wheel):
    """A wheel for any Python 3 on this platform."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self) -> tuple[str, str, str]:
        _, _, platform = super().get_tag()
        # `cargo xtask wheel` knows which glibc what is carried needs.
        return "py3", "none", os.environ.get("SPARK_WHEEL_PLATFORM", platform)


class PlatformDistribution(Distribution):
    """Installed among platform-dependent packages, as torch is: the library
    looks for its neighbour `torch/lib`."""

    def has_ext_modules(self) -> bool:
        return True


setup(cmdclass={"bdist_wheel": PlatformWheel}, distclass=PlatformDistribution)
