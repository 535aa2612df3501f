"""Which networks a device refuses for the ONNX operators that its profile forbids."""

from __future__ import annotations

from collections.abc import Sequence

from hwnas.errors import InputError
from hwnas.measurement import DeviceProfile
from hwnas.network import Network
from hwnas.onnx_file import operators_of
from hwnas.spelling import did_you_mean


def check_forbidden(profile: DeviceProfile) -> None:
    """Refuse a profile that forbids what is no ONNX operator: it would silently forbid nothing.

    Raises:
        InputError: names the operator and the nearest one.
    """
    if not profile.forbidden_operators:
        return
    from onnx import defs

    known = sorted({schema.name for schema in defs.get_all_schemas()})
    for name in profile.forbidden_operators:
        if name not in known:
            raise InputError(
                f"device profile {profile.name}: forbidden_operators: ONNX has no operator {name!r}",
                f"{did_you_mean(name, known, 3)}names are those of https://onnx.ai/onnx/operators/",
            )


def require_accepted(profile: DeviceProfile, networks: Sequence[Network]) -> None:
    """Refuse networks that hold operators which a device's profile forbids.

    Raises:
        InputError: names the first such network and the operators.
    """
    if not profile.forbidden_operators:
        return
    check_forbidden(profile)
    for network in networks:
        held = set(operators_of(network.onnx())) & set(profile.forbidden_operators)
        if held:
            raise InputError(
                f"{profile.name} forbids {', '.join(sorted(held))}, which {network.name} holds",
                "take another device, compress the network for this one, "
                f"or strike them from forbidden_operators of the profile {profile.name}",
            )
