"""Packages that a plain installation does without, and the extra of hwnas that brings each."""

from __future__ import annotations

EXTRAS = {
    "torch": "compress",
    "torchvision": "compress",
    "timm": "compress",
    "onnxscript": "compress",
    "pymoo": "compress",
    "sklearn": "compress",
    "safetensors": "compress",
    "PIL": "compress",
    "numba": "simulator",
    "qai_hub": "aihub",
    "adbutils": "android",
    "plotly": "report",
}
"""By the name that is imported."""


def missing_package(error: BaseException) -> tuple[str, str] | None:
    """Cause and fix where an import failed for want of an extra; None for any other failure."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None
    package = error.name.partition(".")[0]
    if package not in EXTRAS:
        return None
    return f"this needs the package {package}, which is not installed", install(EXTRAS[package])


def install(extra: str) -> str:
    """The command that brings an extra."""
    return f"pip install 'hwnas[{extra}]'"
