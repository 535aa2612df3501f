"""Where the reference comes from: a timm name, one's own function, or a checkpoint that hwnas emitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from hwnas.composed import Composed
from hwnas.errors import InputError, first_line
from hwnas.network import in_eval_mode
from hwnas.networks.architecture import ArchitectureSpec, ReferenceSpec
from hwnas.networks.blocks.cut import CutSpec, build_cut
from hwnas.networks.blocks.families import CandidateSpec, build_replacement
from hwnas.networks.blocks.family import FamilySpec
from hwnas.networks.blocks.places import in_places
from hwnas.networks.blocks.variants import VariantSpec, build_variant
from hwnas.networks.checks import plain_module
from hwnas.networks.intact import require_intact
from hwnas.networks.partition import Partition, partition
from hwnas.networks.user_code import call_function, import_function
from hwnas.networks.weights import narrow_classifier, whole_classifier
from hwnas.spelling import did_you_mean

HUB = "hf-hub:", "hf_hub:"
TORCHVISION = "torchvision.models"


def find_reference(text: str, classes: int | None = None, image_size: int = 0) -> ReferenceSpec:
    """What the user means by a model: a checkpoint directory, `module:function`, or a name.

    A name is timm's, or one of torchvision's that timm does not know.

    Args:
        classes: of a timm model; None leaves its own.
        image_size: of the data in pixels, for timm models that are built for one size; 0 leaves their own.

    Raises:
        InputError: none of them, with the nearest names; an ONNX file.
    """
    for hub in HUB:
        text = text.removeprefix(f"{hub}timm/")  # timm knows its own by their names
    path = Path(text)
    if (path / "architecture.json").is_file():
        require_intact(path)
        architecture = ArchitectureSpec.read(path / "architecture.json")
        return ReferenceSpec(source="checkpoint", name=path.resolve().name, architecture=architecture)
    if path.is_dir():
        raise InputError(
            f"{text} is a folder without architecture.json, so it is no checkpoint",
            "give a directory such as runs/demo/checkpoints/cpu-knee, with all of its files",
        )
    if path.suffix == ".onnx":
        raise InputError(
            f"{text} is an ONNX file, which can be measured and not cut or trained",
            "give its torch network: a timm name, module:function or a checkpoint directory",
        )
    if ":" in text and text.startswith(HUB):
        raise InputError(
            f"{text} is on the Hugging Face hub, which is asked for timm's own weights alone",
            "name the architecture as timm does, and the file that the hub has of it: --weights FILE",
        )
    if ":" in text:
        import_function(text)
        return ReferenceSpec(source="function", name=text)
    import timm

    if timm.is_model(text):
        config = timm.get_pretrained_cfg(text)
        fixed = config is not None and config.fixed_input_size and config.input_size[1:] != (image_size,) * 2
        size = image_size if fixed and image_size else None
        return ReferenceSpec(source="timm", name=text, classes=classes, image_size=size)
    of_torchvision = torchvision_names()
    if text in of_torchvision:
        return ReferenceSpec(source="function", name=f"{TORCHVISION}:{text}")
    fix = "all names: python -c 'import timm; print(*timm.list_models())'"
    if "/" in text:
        fix = (
            "of a network that transformers or another package builds, name a function of your own that "
            "returns it: module:function (docs/networks.md)"
        )
    raise InputError(
        f"unknown model {text!r}: no model of timm or torchvision, no module:function, no checkpoint",
        did_you_mean(text, [*timm.list_models(), *of_torchvision], 3) * ("/" not in text) + fix,
    )


def torchvision_names() -> list[str]:
    """The names of torchvision's classifiers, which are functions of `torchvision.models`."""
    from torchvision import models

    return list(models.list_models(module=models))


def build_reference(spec: ReferenceSpec, *, allow_code: bool) -> nn.Module:
    """The reference's module with fresh weights (a function's: with those it gives), in eval mode.

    Args:
        allow_code: import and call the function that the spec names; True where the user named it, not
            where a file did.

    Raises:
        InputError: the function is not allowed, cannot be imported, fails, or does not give a module.
    """
    if spec.source == "checkpoint":
        assert spec.architecture is not None
        return build_module(spec.architecture, allow_code=allow_code)
    if spec.source == "timm":
        import timm

        try:
            model: nn.Module = timm.create_model(spec.name, **_options(spec))
        except Exception as error:
            raise InputError(
                f"timm cannot build {spec.name!r}: {first_line(error)}",
                "pip install --upgrade timm, or name another model",
            ) from error
        return in_eval_mode(model)
    if not allow_code:
        raise InputError(
            f"the checkpoint builds its network by importing {spec.name} and calling it",
            "where you trust that code: hwnas.load(PATH, allow_code=True), or --allow-code",
        )
    module = call_function(spec.name, "name a function that builds the network without arguments")
    if not isinstance(module, nn.Module):
        raise InputError(
            f"{spec.name} gave a {type(module).__name__}, not a torch.nn.Module",
            "let the function build and return the network",
        )
    return plain_module(module, spec.name)


def _options(spec: ReferenceSpec) -> dict[str, int]:
    options = {"num_classes": spec.classes, "img_size": spec.image_size}
    return {name: value for name, value in options.items() if value is not None}


def published_classes(spec: ReferenceSpec) -> int | None:
    """The classes that a timm model's published weights tell apart; None where there are no weights."""
    if spec.source != "timm":
        return None
    import timm

    config = timm.get_pretrained_cfg(spec.name, allow_unregistered=False)
    return config.num_classes if config is not None and config.has_weights else None


def load_pretrained(spec: ReferenceSpec, classes: Sequence[int] = ()) -> tuple[nn.Module, dict[str, Tensor]]:
    """A timm model with the weights of the hub; another number of classes gets a fresh classifier.

    Args:
        classes: of ImageNet's classes, to which the classifier is narrowed instead.

    Returns:
        The model, and what was narrowed, as it was: `whole_classifier`.

    Raises:
        InputError: not a timm model, no weights published, or the hub cannot be reached.
    """
    import timm

    fix = "give a file: --weights FILE.safetensors, or train it on the data: --weights none"
    if spec.source != "timm":
        raise InputError(f"{spec.name} is not a timm model, the hub has no weights for it", fix)
    try:
        model: nn.Module = timm.create_model(
            spec.name, pretrained=True, **_options(replace(spec, classes=None) if classes else spec)
        )
    except Exception as error:
        raise InputError(
            f"cannot get the pretrained weights of {spec.name}: {first_line(error)}", fix
        ) from None
    if classes:
        narrowed = build_reference(spec, allow_code=False)
        narrowed.load_state_dict(narrow_classifier(model.state_dict(), narrowed, classes))
        return narrowed, whole_classifier(model.state_dict(), narrowed)
    return model.eval(), {}


def build_module(spec: ArchitectureSpec, *, allow_code: bool) -> Composed:
    """The network with fresh weights, parts by name (`stem`, `block1` …, `head`), in eval mode.

    Args:
        allow_code: import and call the `module:function` that the reference may name.

    Raises:
        InputError: the reference names code that is not allowed, or cannot be built.
    """
    reference = build_reference(spec.reference, allow_code=allow_code)
    parts = partition(reference, spec.input_shape, spec.regions)
    if len(spec.parts) != len(parts.modules):
        raise InputError(
            f"parts: the architecture names {len(spec.parts)}, its regions make {len(parts.modules)}",
            "restore architecture.json as it was emitted",
        )
    return assemble(parts, [build_part(parts, n, part) for n, part in enumerate(spec.parts)])


def build_part(parts: Partition, part: int, spec: CandidateSpec | None) -> nn.Module:
    """The untrained module of a candidate of part 0 … N + 1; the reference's own where `spec` is None.

    Raises:
        InputError: the candidate cannot stand there.
    """
    if spec is None:
        return parts.modules[part]
    if isinstance(spec, VariantSpec):
        return build_variant(spec, parts.modules[part])
    return in_places(build_block(parts, part, spec), len(parts.regions[part - 1]))


def build_block(parts: Partition, block: int, spec: FamilySpec | CutSpec) -> nn.Module:
    """The untrained module of a candidate of block 1 … N, as it stands in its first place.

    Raises:
        InputError: the candidate cannot stand there.
    """
    if isinstance(spec, CutSpec):
        return build_cut(spec, parts.first[block], parts.part_shapes(block)[0])
    with torch.random.fork_rng(devices=[]):
        return build_replacement(spec, *parts.part_shapes(block))


def assemble(parts: Partition, modules: Sequence[nn.Module], joints: Sequence[nn.Module] = ()) -> Composed:
    """The given modules, one for each part with a number, as one module in eval mode.

    Args:
        joints: in the place of the reference's own.
    """
    return in_eval_mode(Composed(parts.ordered(modules, joints), parts.wiring))
