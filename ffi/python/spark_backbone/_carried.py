"""Which of the libraries that the wheel carries fits a torch.

Imports nothing of the package, since `spark_programs` runs this file by itself.
"""

from __future__ import annotations


def series_of(torch: str, carried: dict[str, str]) -> str:
    """The series of the release `torch`, within which libtorch keeps its C++ interface.

    Raises ImportError if it is none of `carried`: series, and the release that each library is
    built against.
    """
    series = ".".join(torch.partition("+")[0].split(".")[:2])
    if series in carried:
        return series
    if not carried:
        raise ImportError(
            "this spark_backbone carries no library: install the wheel that `cargo xtask wheel` "
            "builds"
        )
    newest = list(carried)[-1]
    raise ImportError(
        f"torch {torch} is installed, but this spark_backbone is built against torch "
        f"{', '.join(carried.values())}: install one of these "
        f"(pip install 'torch=={newest}.*'), or a spark_backbone built with "
        f"`cargo xtask wheel --torch {series}`"
    )


def folder_name(series: str) -> str:
    """The folder in the package that holds what is built for a series."""
    return f"torch-{series}"
