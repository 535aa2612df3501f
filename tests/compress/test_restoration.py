"""Super-resolution and denoising: what networks are given, how they are judged, and whole runs."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pictures import Heard, picture, pictures
from PIL import Image
from shortest_run import LIBRARY, SEARCH
from tiny import make_data, run_hwnas, run_job
from torch import Tensor

import hwnas
from hwnas.compress.data import Images, load_data
from hwnas.compress.data.channels import with_channels
from hwnas.compress.data.stored import load_stored, store_data
from hwnas.compress.reference.prepare import open_data
from hwnas.compress.tasks import load_task
from hwnas.compress.tasks.checks import check_output, for_task
from hwnas.compress.tasks.restoration import eight_bits, luma, psnr, ssim
from hwnas.compress.training import loop
from hwnas.compress.training.intervals import measured
from hwnas.errors import InputError, RunDirectoryError
from hwnas.progress import Progress

GREY_AND_COLOUR = ((1, 20, 31), (3, 32, 24))


def two_images(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Images in 0 … 1, and the same with noise that goes beyond."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(3, *shape, generator=generator)
    return images + torch.randn(images.shape, generator=generator) * 0.1, images


@pytest.mark.parametrize("shape", GREY_AND_COLOUR)
def test_psnr_and_ssim_are_scikit_images(shape: tuple[int, ...]) -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    color = pytest.importorskip("skimage.color")
    output, targets = two_images(shape)
    found, wanted = eight_bits(output), eight_bits(targets)
    assert float(found.min()) == 0
    assert float(found.max()) == 255
    for index in range(len(output)):
        ours, other = found[index].numpy().astype(np.uint8), wanted[index].numpy().astype(np.uint8)
        assert float(psnr(found, wanted)[index]) == pytest.approx(
            metrics.peak_signal_noise_ratio(other, ours, data_range=255)
        )
        how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
        assert float(ssim(found, wanted)[index]) == pytest.approx(
            metrics.structural_similarity(other.astype(float), ours.astype(float), channel_axis=0, **how)
        )
        if shape[0] == 3:
            y = color.rgb2ycbcr(ours, channel_axis=0)[0]
            assert np.allclose(luma(found)[index, 0].numpy(), y)


@pytest.mark.parametrize("shape", GREY_AND_COLOUR)
def test_the_border_does_not_count(shape: tuple[int, ...]) -> None:
    output, targets = two_images(shape)
    task = load_task("super-resolution:3")
    spoilt = output.clone()
    spoilt[:, :, :3] = spoilt[:, :, -3:] = spoilt[:, :, :, :3] = spoilt[:, :, :, -3:] = 0
    assert torch.equal(task.score(spoilt, targets), task.score(output, targets))
    spoilt[:, :, 3] = 0
    assert not torch.equal(task.score(spoilt, targets), task.score(output, targets))
    denoising = load_task("denoising:25")
    inner = (slice(None), slice(None), slice(3, -3), slice(3, -3))
    assert torch.equal(denoising.score(output[inner], targets[inner]), task.score(output, targets))
    names = [
        measure.metric.name
        for measure in (task.measure, *task.further_metrics)
        if measured(task.score(output, targets), measure) is not None
    ]
    both = ["PSNR of Y in dB", "SSIM of Y", "PSNR in dB", "SSIM"]
    assert names == (both if shape[0] == 3 else [both[0], both[3]])


def test_equal_images_have_a_finite_figure() -> None:
    _, images = two_images((3, 16, 16))
    task = load_task("denoising:25")
    assert torch.equal(task.agreement(images, images), torch.full((3,), 100.0, dtype=torch.float64))
    figures = task.score(images, images)
    assert torch.equal(figures[:, 0], torch.full((3,), 100.0, dtype=torch.float64))
    assert torch.allclose(figures[:, 1], torch.ones(3, dtype=torch.float64))


def data_of(task: str, data: hwnas.Data | None = None) -> hwnas.Data:
    return for_task(load_task(task), data or load_data("digits"), Progress())


def test_noise_is_of_the_image_and_in_training_of_the_epoch() -> None:
    data = data_of("denoising:25")
    assert data.given is not None
    assert (data.mean, data.std) == ((0.0,) * 3, (1.0,) * 3)
    clean = data.test.pixels[:64].float() / 255
    (x, targets), *_ = data.batches(data.test, 64)
    assert torch.equal(targets, clean)
    noise = (x - clean) * 255
    assert float(noise.std()) == pytest.approx(25, rel=0.01)
    assert float(noise.mean()) == pytest.approx(0, abs=0.3)
    assert x.min() < 0
    assert x.max() > 1  # nothing is clipped
    assert abs(float(torch.corrcoef(noise.flatten(1))[0, 1])) < 0.1  # each image has its own
    again = data.inputs(data.test, torch.arange(63, -1, -1))
    assert torch.equal(again.flip(0), x)  # whatever the batch is
    assert not torch.equal(data.inputs(data.train, slice(64)) - data.train.pixels[:64] / 255, x - clean)

    def first(epoch: int, augment: bool, seed: int = 0) -> Tensor:
        indices = next(data.train_order(8, seed, epoch))
        batch, targets = next(data.train_batches(8, seed, epoch, augment=augment))
        assert augment or torch.equal(batch, data.inputs(data.train, indices))
        noise: Tensor = batch - targets
        return noise

    assert torch.equal(first(0, True), first(0, True))
    fresh = [first(0, True), first(1, True), first(0, True, seed=1), first(0, False)]
    assert all(not torch.allclose(a, b) for n, a in enumerate(fresh) for b in fresh[:n])


@given(st.integers(2, 4), st.integers(5, 9), st.integers(5, 9), st.sampled_from([1, 3]))
def test_images_are_made_smaller_as_pillow_does(scale: int, height: int, width: int, channels: int) -> None:
    task = load_task(f"super-resolution:{scale}")
    assert task.given is not None
    generator = torch.Generator().manual_seed(height * 10 + width)
    image = torch.rand(channels, height * scale, width * scale, generator=generator)
    small = task.given(image, generator)
    assert small.shape == (channels, height, width)
    for found, channel in zip(small, image, strict=True):
        floats = Image.fromarray(channel.numpy())
        expected = np.asarray(floats.resize((width, height), Image.Resampling.BICUBIC))
        assert np.abs(found.numpy() - np.clip(expected, 0, 1)).max() <= 0.5 / 255 + 1e-5
    assert torch.equal(small, eight_bits(small).float() / 255)


@pytest.mark.parametrize(
    ("text", "cause", "fix"),
    [
        ("super-resolution:1", "no whole number from 2 to 16", "super-resolution:2"),
        ("super-resolution:two", "no whole number", "super-resolution:2"),
        ("super-resolution:2.0", "no whole number", "super-resolution:2"),
        ("super-resolution:17", "from 2 to 16", "super-resolution:2"),
        ("denoising:0", "no number above 0, 255 at most", "denoising:25"),
        ("denoising:-1", "no number above 0", "denoising:25"),
        ("denoising:nan", "no number above 0", "denoising:25"),
        ("denoising:inf", "255 at most", "denoising:25"),
        ("denoising:much", "no number above 0", "denoising:25"),
        ("denoisng:25", "cannot import denoisng:25", "denoisng"),
    ],
)
def test_bad_arguments_are_refused(text: str, cause: str, fix: str) -> None:
    with pytest.raises(InputError, match=cause) as error:
        load_task(text)
    assert fix in error.value.fix


def test_outputs_and_targets_that_do_not_fit_are_refused() -> None:
    data = data_of("super-resolution:2")
    assert data.image_shape == (3, 16, 16)
    task = load_task("super-resolution:2")
    check_output(task, torch.zeros(2, 3, 32, 32), data, "net")
    with pytest.raises(InputError, match=r"gives images of 3 × 64 × 64 .* the targets are 3 × 32 × 32"):
        check_output(task, torch.zeros(2, 3, 64, 64), data, "net")
    with pytest.raises(InputError, match="gives images of 1 × 32 × 32"):
        check_output(task, torch.zeros(2, 1, 32, 32), data, "net")
    with pytest.raises(InputError, match="does not give images"):
        check_output(task, torch.zeros(2, 3), data, "net")
    pixels = make_data().train.pixels[:, :, :8, :8]
    small = replace(make_data(), train=Images(pixels=pixels, labels=None), given=lambda image, _: image)
    with pytest.raises(InputError, match="8 × 8 pixels, SSIM wants 11"):
        check_output(
            load_task("denoising:9"), torch.zeros(2, 3, 8, 8), replace(small, given=lambda x, g: x), "n"
        )
    classes = replace(make_data(), class_names=(), shift_px=0, flip=False)
    with pytest.raises(InputError, match="the targets of noise are no images"):
        check_output(load_task("denoising"), torch.zeros(2, 3, 32, 32), classes, "net")


def test_the_hash_knows_what_the_network_is_given() -> None:
    tasks = ("classification", "denoising:25", "denoising:24", "super-resolution:2", "super-resolution:4")
    hashes = [data_of(task).hash for task in tasks]
    assert len(set(hashes)) == len(hashes)
    assert hashes == [data_of(task).hash for task in tasks]
    own = replace(load_task("denoising:25"), given=lambda image, generator: image.flip(0))
    assert for_task(own, load_data("digits"), Progress()).hash not in hashes


@pytest.mark.parametrize(
    ("made", "cause"),
    [
        (lambda image, _: image[:, :, :, None].matmul(3), "makes nothing of an image of shape"),
        (lambda image, _: 3, "makes no image of an image: `given` returns <class 'int'>"),
        (lambda image, _: image[0], r"returns torch.float32 \(32, 32\)"),
        (lambda image, _: image.double(), r"returns torch.float64 \(3, 32, 32\)"),
    ],
)
def test_what_a_task_of_ones_own_makes_is_checked(made: Any, cause: str) -> None:
    own = replace(load_task("denoising"), given=made)
    with pytest.raises(InputError, match=cause) as error:
        _ = for_task(own, load_data("digits"), Progress()).image_shape
    assert "docs/tasks.md" in error.value.fix


def test_an_answer_that_is_no_number_is_judged() -> None:
    _, images = two_images((3, 16, 16))
    figures = load_task("denoising:25").score(torch.full_like(images, torch.nan), images)
    assert bool(figures.isfinite().all())


def settings(**changed: Any) -> Any:
    return replace(LIBRARY, **({"weights": "none"} | changed))


@pytest.mark.parametrize(("model", "channels"), [("restorers:denoiser", 1), ("restorers:enlarger", 3)])
def test_the_network_says_the_channels(workplace: Path, model: str, channels: int) -> None:
    pictures(workplace / "photos", "", count=12)
    task = "denoising:25" if channels == 1 else "super-resolution:2"
    for data in ("folder:photos", "digits"):
        size = 0 if data.startswith("folder") else 32
        found = open_data(settings(model=model, data=data, task=task, image_size=size), Progress())
        assert found.image_shape == ((1, 32, 32) if channels == 1 else (3, 16, 16))
        assert len(found.mean) == channels
        assert found.train.pixels.shape[1:] == (channels, 32, 32)
    with pytest.raises(InputError, match="cannot import restorers:nothing"):
        open_data(settings(model="restorers:nothing", data="digits", task=task), Progress())


def test_the_first_convolution_says_them_where_the_network_does_not(workplace: Path) -> None:
    pictures(workplace / "photos", "", count=12)
    found = open_data(
        settings(model="restorers:silent", data="folder:photos", task="denoising:9"), Progress()
    )
    assert found.image_shape == (1, 32, 32)


def test_three_equal_channels_are_one() -> None:
    digits = load_data("digits")
    one = with_channels(digits, 1)
    assert one.image_shape == (1, 32, 32)
    assert (one.mean, one.std) == ((0.5,), (0.5,))
    again = with_channels(one, 3)
    assert torch.equal(again.train.pixels, digits.train.pixels)
    assert again.mean == digits.mean
    coloured = make_data()
    assert with_channels(coloured, 1) is with_channels(coloured, 3) is coloured


def test_data_of_floats_and_trees_are_stored_and_found(tmp_path: Path) -> None:
    def images(count: int) -> Images:
        generator = torch.Generator().manual_seed(count)
        pixels = torch.randn(count, 1, 12, 16, generator=generator) * 0.1 + 0.5
        return Images(pixels=pixels, labels={"clean": pixels.clamp(0, 1), "boxes": torch.zeros(count, 2, 5)})

    several = [torch.rand(1, side, 20) for side in (15, 18, 15)]
    test = Images(
        pixels=several, labels={"clean": [x.clone() for x in several], "boxes": torch.zeros(3, 2, 5)}
    )
    data = hwnas.Data(name="floats", train=images(8), val=images(4), test=test, mean=(0.0,), std=(1.0,))
    found = load_stored(store_data(data))
    assert found.train.pixels.dtype == torch.float32
    assert torch.equal(found.train.pixels, data.train.pixels)
    assert torch.equal(found.val.labels["clean"], data.val.labels["clean"])
    assert [tuple(x.shape) for x in found.test.pixels] == [(1, 15, 20), (1, 18, 20), (1, 15, 20)]
    batches = list(found.batches(found.test, 64))
    assert [x.shape[0] for x, _ in batches] == [1, 1, 1]
    for (x, targets), image in zip(batches, several, strict=True):
        assert torch.equal(x[0], image)
        assert torch.equal(targets["clean"][0], image)
        assert targets["boxes"].shape == (1, 2, 5)
    (x, targets), *_ = found.train_batches(4, 0, 0, augment=False)
    assert torch.equal(targets["clean"], x.clamp(0, 1))
    changed = replace(data, val=replace(data.val, labels=data.val.labels | {"boxes": torch.ones(4, 2, 5)}))
    assert load_stored(store_data(changed)).hash != found.hash
    swapped = dict(reversed(found.val.labels.items()))
    assert replace(found, val=replace(found.val, labels=swapped)).hash == found.hash


@pytest.mark.parametrize(
    ("labels", "cause"),
    [
        (
            {"boxes": torch.zeros(20, 2, 5)},
            "a dictionary of boxes, those of train a dictionary of boxes, clean",
        ),
        (
            {"boxes": torch.zeros(20, 2, 5), "clean": torch.zeros(19, 1)},
            r"\['clean'\] 20 images and 19 labels",
        ),
        (
            {"boxes": torch.zeros(20, 3, 5), "clean": torch.zeros(20, 1)},
            r"\['boxes'\] are torch.float32 \(3, 5\)",
        ),
        ({"boxes": torch.full((20, 2, 5), torch.nan), "clean": torch.zeros(20, 1)}, "hold NaN"),
        ({"boxes": [1], "clean": torch.zeros(20, 1)}, r"\['boxes'\] are a list"),
        (torch.zeros(20, 2, 5), "val.labels are a Tensor, those of train a dictionary of boxes, clean"),
    ],
)
def test_targets_by_name_are_checked(labels: Any, cause: str) -> None:
    data = make_data()
    whole: dict[str, Any] = {
        name: replace(
            part, labels={"boxes": torch.zeros(len(part), 2, 5), "clean": torch.zeros(len(part), 1)}
        )
        for name, part in (("train", data.train), ("val", data.val), ("test", data.test))
    }
    own = replace(data, **whole, class_names=(), flip=False, shift_px=0)
    store_data(own)
    with pytest.raises(InputError, match=cause):
        store_data(replace(own, val=replace(own.val, labels=labels)))


def run(place: Path, out: str, **changed: Any) -> tuple[dict[str, Any], Heard]:
    heard, options = (
        Heard(),
        {"train_epochs": 6, "steps": 20, "batch_size": 16, "per_block": 2, "image_size": 0},
    )
    library = replace(LIBRARY, **(options | changed))
    search = replace(SEARCH, finetune_epochs=2)
    return run_job(library, search, place / out, "hwnas compress …", heard, allow_code=True), heard


def test_images_of_a_folder_are_cut_out_and_not_scaled(workplace: Path) -> None:
    how = settings(model="restorers:enlarger", data="folder:photos", task="super-resolution:2", image_size=48)
    for number in range(10):
        picture(workplace / f"photos/{number}.png", number, size=(100, 80 + number))
    found = open_data(how, Progress())
    files = [np.asarray(Image.open(file)) for file in sorted((workplace / "photos").iterdir())]
    for cut_out in torch.cat([found.train.pixels, found.val.pixels, found.test.pixels]):
        wanted = cut_out.permute(1, 2, 0).numpy()
        assert any(np.array_equal(image[(len(image) - 48) // 2 :][:48, 26:74], wanted) for image in files)
    picture(workplace / "photos/small.png", size=(100, 47))
    with pytest.raises(InputError, match="100 × 47 pixels, 48 × 48 are cut out of each image"):
        open_data(how, Progress())


def smooth_pictures(folder: Path, count: int, size: int) -> None:
    """Images that are no noise: a network can learn to tell noise from them."""
    folder.mkdir()
    for number in range(count):
        generator = np.random.default_rng(number)
        coarse = Image.fromarray(generator.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(folder / f"{number}.png")


@pytest.mark.slow
def test_denoising_goes_all_the_way_with_a_folder_alone(workplace: Path) -> None:
    smooth_pictures(workplace / "photos", 120, 32)
    job = {"model": "restorers:denoiser", "data": "folder:photos", "task": "denoising:25"}
    result, _ = run(workplace, "run", train_epochs=20, space="compression", **job)
    (checkpoint,) = result["checkpoints"]
    assert checkpoint["metric"]["name"] == "PSNR in dB"
    assert [each["metric"]["name"] for each in checkpoint["further_metrics"]] == ["SSIM"]
    data = open_data(settings(image_size=0, **job), Progress())
    (noisy, clean), *_ = data.batches(data.test, 256)
    noisy_db = float(psnr(eight_bits(noisy), eight_bits(clean)).mean())
    assert noisy_db == pytest.approx(20.3, abs=0.3)
    assert result["reference"]["accuracy"]["value"] > noisy_db + 2
    module = hwnas.load(checkpoint["path"], allow_code=True)
    with torch.no_grad():
        cleaned = module(noisy)
    found = float(psnr(eight_bits(cleaned), eight_bits(clean)).mean())
    assert found == pytest.approx(checkpoint["accuracy"]["value"], abs=1e-3)
    assert found > noisy_db + 1
    card = (Path(checkpoint["path"]) / "README.md").read_text()
    assert "| PSNR in dB | " in card
    assert "PSNR to the reference in dB" in card
    with pytest.raises(RunDirectoryError, match="was made with task = 'denoising:25'"):
        run(workplace, "run", train_epochs=20, space="compression", **job | {"task": "denoising:15"})


@pytest.mark.slow
def test_super_resolution_goes_all_the_way_with_a_folder_alone(workplace: Path) -> None:
    smooth_pictures(workplace / "photos", 60, 32)
    job = {"model": "restorers:enlarger", "data": "folder:photos", "task": "super-resolution:2"}
    result, _ = run(workplace, "run", space="compression", **job)
    (checkpoint,) = result["checkpoints"]
    assert checkpoint["metric"]["name"] == "PSNR of Y in dB"
    names = [each["metric"]["name"] for each in checkpoint["further_metrics"]]
    assert names == ["SSIM of Y", "PSNR in dB", "SSIM"]
    assert checkpoint["accuracy"]["value"] > 10
    summary = json.loads((Path(checkpoint["path"]) / "measurement.json").read_text())["summary"]
    assert summary["agreement_metric"]["name"] == "PSNR to the reference in dB"


SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "weights", "shape", "task", "least_db"),
    [
        ("DnCnn", "dncnn_gray_sigma25", (1, 32, 32), "denoising:25", 24.0),
        ("UpConv7", "waifu2x_upconv7_photo_x2", (3, 24, 24), "super-resolution:2", 22.0),
    ],
)
def test_real_networks_go_all_the_way(
    workplace: Path, name: str, weights: str, shape: tuple[int, ...], task: str, least_db: float
) -> None:
    if not (SHARED / "networks.py").is_file():
        pytest.skip(f"{SHARED} is not there")
    (workplace / "networks.py").write_text((SHARED / "networks.py").read_text())
    (workplace / f"real_{name}.py").write_text(
        f"import networks\ndef make():\n    net = networks.{name}()\n    net.input_shape = {shape}\n"
        "    return net\n"
    )
    with zipfile.ZipFile(SHARED / "imagenette.zip") as archive:
        photos = [each for each in sorted(archive.namelist()) if "val/" in each and each.endswith("g")]
        (workplace / "photos").mkdir()
        for number, photo in enumerate(photos[::25]):
            (workplace / "photos" / f"{number}.jpg").write_bytes(archive.read(photo))
    job = {"model": f"real_{name}:make", "weights": str(SHARED / f"{weights}.safetensors"), "task": task}
    result, _ = run(
        workplace, "run", data="folder:photos", space="restoration", per_block=1, steps=4, batch_size=8, **job
    )
    (checkpoint,) = result["checkpoints"]
    assert result["reference"]["accuracy"]["value"] > least_db
    assert checkpoint["macs"] < checkpoint["macs_reference"]
    module = hwnas.load(checkpoint["path"], allow_code=True)
    data = open_data(settings(**{**job, "data": "folder:photos", "image_size": 0}), Progress())
    found = loop.scores(module, data, load_task(task))
    value = measured(found, load_task(task).measure)
    assert value is not None
    assert value.value == pytest.approx(checkpoint["accuracy"]["value"], abs=1e-3)


@pytest.mark.slow
def test_images_of_several_sizes_are_judged_one_by_one(workplace: Path) -> None:
    job = {"model": "restorers:denoiser", "data": "restorers:several_sizes", "task": "denoising:25"}
    result, _ = run(workplace, "run", space="compression", **job)
    (checkpoint,) = result["checkpoints"]
    data = open_data(settings(image_size=0, **job), Progress())
    module = hwnas.load(checkpoint["path"], allow_code=True)
    figures = []
    for x, clean in data.batches(data.test, 64):
        with torch.no_grad():
            figures.append(float(psnr(eight_bits(module(x)), eight_bits(clean))))
    assert len(figures) == 3
    assert checkpoint["accuracy"]["value"] == pytest.approx(np.mean(figures), abs=1e-3)


def test_sizes_that_a_network_does_not_take_are_refused(workplace: Path) -> None:
    (workplace / "rigid.py").write_text(
        "import restorers, torch\nfrom torch import nn\n"
        "def make():\n"
        "    module = restorers.Denoiser()\n"
        "    module.head = nn.Sequential(module.head, nn.Flatten(), nn.Linear(1024, 1024), "
        "nn.Unflatten(1, (1, 32, 32)))\n"
        "    return module\n"
    )
    job = {"model": "rigid:make", "data": "restorers:several_sizes", "task": "denoising:25"}
    with pytest.raises(InputError, match="does not do with test images of 24 × 40 pixels") as error:
        run(workplace, "run", **job)
    assert "as one tensor" in error.value.fix
    odd = {"model": "restorers:enlarger", "data": "restorers:odd_sizes", "task": "super-resolution:2"}
    with pytest.raises(InputError, match="does not do with test images of 12 × 20 pixels"):
        run(workplace, "run", **odd)


@pytest.mark.slow
def test_without_targets_only_the_reference_is_followed(workplace: Path) -> None:
    smooth_pictures(workplace / "photos", 40, 32)
    job = {"model": "restorers:denoiser", "data": "folder:photos", "task": "denoising"}
    with pytest.raises(InputError, match="has no weights, and folder:photos has no labels"):
        run(workplace, "refused", **job)
    first, _ = run(workplace, "first", train_epochs=2, space="compression", **job | {"task": "denoising:25"})
    again = job | {"model": "first/reference", "weights": "given"}
    result, _ = run(workplace, "run", space="compression", **again)
    (checkpoint,) = result["checkpoints"]
    assert checkpoint["accuracy"] is None
    assert checkpoint["further_metrics"] == []
    assert 0 < checkpoint["agreement"]["value"] < 100
    assert first["reference"]["accuracy"] is not None


@pytest.mark.slow
def test_the_command_line_takes_tasks_with_an_argument(workplace: Path) -> None:
    smooth_pictures(workplace / "photos", 30, 32)
    arguments = [
        "compress", "restorers:denoiser", "--data=folder:photos", "--device=steady.toml",
        "--preset=quick", "--weights=none", "--candidates=1", "--train-epochs=1", "--epochs=1", "--steps=2",
        "--population=4", "--generations=1", "--finetune-epochs=1", "--threads=1",
    ]  # fmt: skip
    done = run_hwnas(workplace, *arguments, "--task=denoising:25", "--out=out")
    assert done.returncode == 0, done.stderr
    assert "PSNR in dB" in done.stdout
    assert "SSIM" in done.stdout
    done = run_hwnas(workplace, *arguments, "--task=super-resolution:x", "--out=other")
    assert done.returncode == 2
    assert "no whole number from 2 to 16" in done.stderr
    assert "Traceback" not in done.stderr
