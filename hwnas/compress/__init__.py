"""From a reference to checkpoints: partition, space, distill, library, search, stitch, finetune."""

from __future__ import annotations

import sys

from hwnas.callable_package import CallablePackage

sys.modules[__name__].__class__ = CallablePackage
