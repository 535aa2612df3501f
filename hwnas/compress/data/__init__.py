"""Images to distil with: found, decoded once, kept as one uint8 array, split into three parts."""

from __future__ import annotations

from hwnas.compress.data.dataset import Data, Images
from hwnas.compress.data.load import load_data

__all__ = ["Data", "Images", "load_data"]
