"""Any network that a user can name, ready for a device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hwnas.errors import InputError, first_line
from hwnas.network import Network, Part, in_eval_mode, random_input
from hwnas.networks.intact import require_intact
from hwnas.onnx_sizes import require_bytes

CALIBRATION_BATCHES = 8
MOST_NOISE = 2**26  # numbers

if TYPE_CHECKING:
    from torch import nn

    from hwnas.networks.architecture import ReferenceSpec


def find_network(text: str, shape: tuple[int, ...] | None = None, *, has_batch: bool = False) -> Network:
    """A network from an ONNX file, a checkpoint directory, `module:function`, or a timm name.

    Weights and ranges do not change latencies: a timm model has random weights, so nothing is downloaded,
    and int8 is calibrated with noise.

    Args:
        shape: (C, H, W) that it shall take instead of what it says; an ONNX file takes it where it leaves
            sizes open.
        has_batch: an ONNX file's open first axis is a batch.

    Raises:
        InputError: nothing of that name, or it cannot be read; with the nearest names. An ONNX file that
            leaves other sizes open than were given, or fixes them to others.
    """
    if not text.isprintable():
        raise InputError(f"the name {text!a} is not text, and no document could hold it", "rename the file")
    return with_noise(_find(text, shape, has_batch))


def with_noise(network: Network) -> Network:
    """Return the network with noise to be calibrated with, where it takes images."""
    shape = network.input_shape
    if len(shape) == 4:
        batches = min(CALIBRATION_BATCHES, max(1, MOST_NOISE // math.prod(shape)))
        generator = np.random.default_rng(0)
        noise = generator.standard_normal((batches * shape[0], *shape[1:]))
        return network.calibrated(noise.astype(np.float32))
    return network


def _find(text: str, shape: tuple[int, ...] | None, has_batch: bool) -> Network:
    path = Path(text)
    require_intact(path)
    if path.suffix == ".onnx":
        return Network.from_onnx(path, shape, has_batch=has_batch)
    if (path / "model.onnx").is_file() and (path / "architecture.json").is_file():
        from hwnas.networks.serialize import load_module

        graph = Network.from_onnx(path / "model.onnx").onnx()
        part = Part(path.resolve().name, onnx=lambda: graph, module=lambda: load_module(path))
        return _reshaped(Network(part.name, [part]), shape)
    import torch

    from hwnas.networks.build import build_reference, find_reference

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same network has the same content hash every time
        spec = find_reference(text)
        module = build_reference(spec, allow_code=spec.source == "function")
    shape = (1, *(shape or input_shape(spec, module)))
    _require_one_way(module, shape)
    return Network.from_module(spec.name, module, shape)


def network_of_module(module: nn.Module, shape: tuple[int, ...] | None = None) -> Network:
    """Return the network of a torch module, in eval mode; the module itself is left as it is.

    Args:
        shape: (C, H, W) of an image; None for the module's attribute `input_shape` or timm's.

    Raises:
        InputError: it does not say what it takes, or cannot be measured as it is; see `find_network`.
    """
    from hwnas.networks.checks import copied, plain_module

    name = type(module).__name__
    config = getattr(module, "pretrained_cfg", None)
    known = getattr(module, "input_shape", config.get("input_size") if isinstance(config, dict) else None)
    if shape is None:
        if not isinstance(known, tuple) or len(known) != 3:
            raise InputError(
                f"{name} does not say what it takes", "give input_shape=(channels, height, width)"
            )
        shape = known
    plain = plain_module(copied(module, name), name)
    whole = (1, *shape)
    _require_one_way(plain, whole)
    return with_noise(Network.from_module(name, plain, whole))


def _require_one_way(module: nn.Module, shape: tuple[int, ...]) -> None:
    """Make sure that a module computes the same for every image, and leaves the image as it is.

    Raises:
        InputError: it cannot take such images, or branches on their values.
        NetworkFormError: memory does not hold such images.
    """
    from hwnas.networks.checks import keep_input, writes_to_input
    from hwnas.networks.control_flow import require_no_decisions
    from hwnas.networks.cut_points import input_fix

    require_bytes(f"the images for {type(module).__name__}", 4 * math.prod(shape))
    x = random_input(shape)
    try:
        if writes_to_input(module, x):
            keep_input(module)
    except InputError:
        raise
    except Exception as error:  # of whatever the network consists of
        raise InputError(
            f"{type(module).__name__} cannot take images of shape {shape[1:]}: {first_line(error)}",
            input_fix(module, shape[1:]),
        ) from None
    require_no_decisions(module, x)


def _reshaped(network: Network, shape: tuple[int, ...] | None) -> Network:
    if shape is None:
        return network
    module, shape = network.parts[0].module(), (network.input_shape[0], *shape)
    _require_one_way(module, shape)
    return Network.from_module(network.name, module, shape)


def open_model(text: str, image_size: int, *, allow_code: bool) -> tuple[nn.Module, tuple[int, int, int]]:
    """A model by its name, and the shape (C, H, W) of the images that it shall take.

    Args:
        image_size: side in pixels; 0 takes what the model is made for. A function's network that does not
            say what it takes then gets three channels.
        allow_code: let a checkpoint import the `module:function` that it names.

    Raises:
        InputError: nothing of that name, or it does not say what it takes.
    """
    from hwnas.networks.build import build_reference, find_reference

    spec = find_reference(text, image_size=image_size)
    module = build_reference(spec, allow_code=allow_code or spec.source == "function")
    try:
        shape = input_shape(spec, module)
    except InputError as error:
        if not image_size:
            raise InputError(
                error.cause,
                "say how large the images are: --image-size N, or set "
                "module.input_shape = (channels, height, width) in the function",
            ) from None
        shape = (3, image_size, image_size)
    return module, (shape[0], image_size, image_size) if image_size else shape


def image_size(text: str) -> int:
    """Side in pixels of the images that a model is made for.

    Raises:
        InputError: it does not say, or they are no squares.
    """
    from hwnas.networks.build import build_reference, find_reference

    spec = find_reference(text)
    fix = "say how large the images shall be: --image-size N"
    try:
        if spec.architecture is not None:
            _, height, width = spec.architecture.input_shape
        else:
            module = build_reference(spec, allow_code=spec.source == "function")
            _, height, width = input_shape(spec, module)
    except InputError as error:
        raise InputError(error.cause, fix) from None
    if height != width:
        raise InputError(f"{text} takes images of {width} × {height} pixels, which are no squares", fix)
    return height


def image_channels(text: str) -> int:
    """Channels of the images that a model is made for.

    They are those that it says; else those of its first convolution, if that takes one, else three.

    Raises:
        InputError: there is no such model, or its function fails.
    """
    from torch import nn

    from hwnas.networks.build import build_reference, find_reference

    spec = find_reference(text)
    if spec.architecture is not None:
        return spec.architecture.input_shape[0]
    if spec.source == "timm":
        return 3
    module = build_reference(spec, allow_code=True)
    try:
        return input_shape(spec, module)[0]
    except InputError:
        first = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
        return 1 if first is not None and first.in_channels == 1 else 3


def input_shape(spec: ReferenceSpec, module: nn.Module) -> tuple[int, int, int]:
    """(C, H, W) that a model is made for: a timm model's own, a function's attribute `input_shape`.

    torchvision's classifiers do not say it: (3, 224, 224).

    Raises:
        InputError: a function whose module does not say.
    """
    if spec.architecture is not None:
        return spec.architecture.input_shape
    if spec.source == "timm":
        channels, height, width = module.pretrained_cfg["input_size"]  # type: ignore[index]
        return channels, height, width
    shape = getattr(module, "input_shape", None)
    if shape is None and _is_of_torchvision(spec.name):
        return (3, 224, 224)
    if not isinstance(shape, tuple) or len(shape) != 3:
        raise InputError(
            f"{spec.name} does not say what it takes",
            "set module.input_shape = (channels, height, width) in it; hwnas profile takes --input-shape",
        )
    return shape


def _is_of_torchvision(name: str) -> bool:
    """Whether `module:function` builds one of torchvision's classifiers."""
    from hwnas.networks.build import TORCHVISION, torchvision_names

    module, _, function = name.partition(":")
    return f"{module}.".startswith(f"{TORCHVISION}.") and function in torchvision_names()


def block_networks(network: Network, cuts: Sequence[str] | None = None) -> list[Network]:
    """The network's parts (stem, blocks, head), each as a network of its own.

    A checkpoint has parts; any other module is cut by its stages.

    Args:
        cuts: names of the modules behind which to cut instead.

    Raises:
        NetworkFormError: it has no torch module.
        InputError: it has no parts and cannot be cut by its stages, or not where the cuts say.
    """
    import torch

    from hwnas.composed import Composed, run_parts
    from hwnas.networks.chosen_blocks import Blocks
    from hwnas.networks.partition import partition

    module = network.parts[0].module() if len(network.parts) == 1 else network.module()
    shape = network.input_shape
    if cuts is None and isinstance(module, Composed):
        pieces, wiring = dict(module.named_children()), module.wiring
    else:
        parts = partition(module, shape[1:], Blocks(cuts=tuple(cuts or ())))
        pieces, wiring = parts.ordered(parts.modules), parts.wiring
    with torch.no_grad():
        values = run_parts([in_eval_mode(piece) for piece in pieces.values()], wiring, torch.zeros(*shape))
    return [
        with_noise(
            Network.from_module(f"{network.name}: {name}", piece, *(values[each].shape for each in reads))
        )
        for (name, piece), reads in zip(pieces.items(), wiring.reads, strict=True)
    ]
