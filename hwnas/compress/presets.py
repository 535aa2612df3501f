"""What a user leaves open is filled in, from presets, run directory, device profiles and this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hwnas.compress.options import CompressOptions, SpaceOptions, parse_cuts, parse_size
from hwnas.compress.settings import MEASURED, Filter, LibrarySettings, Loss, SearchSettings
from hwnas.errors import InputError
from hwnas.spelling import did_you_mean


@dataclass(frozen=True, kw_only=True)
class _Preset:
    """What a preset fills in.

    Attributes:
        filter: None leaves it to the objectives.
    """

    candidates: int
    epochs: int
    train_epochs: int
    protocol: str
    population: int
    generations: int
    finetune_epochs: int
    checkpoint_protocol: str = SearchSettings.checkpoint_protocol
    predictor_networks: int = SearchSettings.predictor_networks
    predictor_epochs: int = SearchSettings.predictor_epochs
    space: str = SpaceOptions.space
    loss: Loss = "nsr"
    quality: str = SearchSettings.quality
    filter: Filter | None = None


PRESETS: Mapping[str, _Preset] = {
    "quick": _Preset(
        candidates=6,
        epochs=3,
        train_epochs=24,
        protocol="quick",
        population=20,
        generations=5,
        finetune_epochs=10,
        checkpoint_protocol="adaptive",
        predictor_networks=20,
        predictor_epochs=5,
    ),
    "standard": _Preset(
        candidates=0,
        epochs=10,
        train_epochs=60,
        protocol="search",
        population=32,
        generations=16,
        finetune_epochs=40,
    ),
    # DONNA 3 and 4.1: 450 + 1,920 + 30 × 50 epochs for the predictor, NSGA-II until it converges.
    "donna": _Preset(
        space="donna",
        quality="predictor",
        filter="none",
        candidates=0,
        epochs=1,
        train_epochs=450,
        protocol="search",
        population=100,
        generations=1000,
        finetune_epochs=50,
        predictor_networks=30,
        predictor_epochs=50,
    ),
    # DONNAv2 3 and 4.1: MSE for training and as the surrogate, blocks filtered by cost, 100 × 50 networks.
    "donnav2": _Preset(
        space="donnav2",
        loss="mse",
        candidates=0,
        epochs=1,
        train_epochs=450,
        protocol="search",
        population=100,
        generations=50,
        finetune_epochs=50,
    ),
}


def resolve(
    options: CompressOptions, model: str, devices: Sequence[str], out: Path
) -> tuple[LibrarySettings, list[SearchSettings]]:
    """Fill in what the options leave open, from preset, run directory, device profiles and this machine.

    Args:
        out: the run directory, which may be there already.

    Returns:
        The settings of the library, and of each device's search.

    Raises:
        InputError: a value that is none, or does not go with another.
    """
    from hwnas.compress.run.directory import recorded_settings
    from hwnas.compress.training.placement import find_place
    from hwnas.devices.host.machine import usable_cores
    from hwnas.profiles.catalogue import load_profile, parse_options

    if options.preset not in PRESETS:
        hint = did_you_mean(options.preset, PRESETS)
        raise InputError(f"unknown preset {options.preset!r}", f"{hint}presets: {', '.join(PRESETS)}")
    preset, known = PRESETS[options.preset], recorded_settings(out)

    def given(name: str) -> Any:
        value = getattr(options, name)
        return getattr(preset, name) if value is None else value

    library = LibrarySettings(
        model=model,
        weights=options.weights,
        data=options.data,
        image_size=options.image_size,
        measure_size=parse_size(options.measure_size),
        task=options.task,
        cuts=parse_cuts(options.cut),
        regions=options.region,
        only=options.only,
        layers=options.layers,
        space=given("space"),
        per_block=given("candidates"),
        loss=given("loss"),
        train_epochs=given("train_epochs"),
        epochs=given("epochs"),
        steps=options.steps,
        batch_size=options.batch_size,
        slice_size=options.slice_size,
        seed=options.seed,
        trainer=options.trainer,
        threads=options.threads or (known.threads if known else usable_cores()),
        train_on=options.train_on or (known.train_on if known else find_place()),
    )
    measures = any(name in MEASURED for name in options.objective)
    by_objectives: Filter = "device" if measures else "macs"
    search = SearchSettings(
        device="",
        objectives=options.objective,
        filter=given("filter") or by_objectives,
        filter_threshold=options.filter_threshold,
        protocol=preset.protocol,
        checkpoint_protocol=preset.checkpoint_protocol,
        population=given("population"),
        generations=given("generations"),
        finetune_epochs=given("finetune_epochs"),
        picks=options.rules,
        batch=options.batch,
        device_options=parse_options(options.device_option),
        max_measurements=options.max_measurements,
        quality=given("quality"),
        predictor_networks=given("predictor_networks"),
        predictor_epochs=given("predictor_epochs"),
        strategy=options.strategy,
    )
    protocols = [options.protocol or load_profile(name).protocol or preset.protocol for name in devices]
    return library, [
        replace(search, device=name, protocol=protocol)
        for name, protocol in zip(devices, protocols, strict=True)
    ]
