"""The named data sets: wherever they lie, in whichever packaging."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from pictures import Heard, picture, pictures
from safetensors.torch import save_file
from tiny import write_record

import hwnas
from hwnas.compress.data import Data, Images, load_data, sets
from hwnas.compress.data.download import Published
from hwnas.compress.reference.prepare import Reference, initial_reference
from hwnas.compress.settings import LibrarySettings
from hwnas.compress.training import loop
from hwnas.errors import InputError
from hwnas.networks.architecture import ArchitectureSpec
from hwnas.networks.partition import partition
from hwnas.networks.serialize import save_module

SHARED = Path(__file__).parents[3] / "shared" / "data"
LITE = "tf_efficientnet_lite0"
LIBRARY = LibrarySettings(
    model=LITE,
    weights="auto",
    data="imagenette",
    cuts=(),
    space="compression",
    per_block=1,
    loss="nsr",
    train_epochs=1,
    epochs=1,
    steps=1,
    batch_size=16,
    slice_size=2,
    seed=0,
    threads=1,
)


def shared(name: str) -> Path:
    if not (SHARED / name).is_file():
        pytest.skip(f"{SHARED / name} is not there")
    return SHARED / name


def few(part: Images, every: int) -> Images:
    assert part.labels is not None
    return Images(pixels=part.pixels[::every], labels=part.labels[::every])


@pytest.fixture
def fashion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The files of Fashion-MNIST with other pixels, and the loader told so."""
    generator = np.random.default_rng(0)
    contents = {}
    monkeypatch.setattr(sets, "FASHION_PARTS", {"train": ("train", 600), "test": ("t10k", 100)})
    for prefix, count in (("train", 600), ("t10k", 100)):
        images = generator.integers(0, 256, count * 784, dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        contents[f"{prefix}-images-idx3-ubyte"] = bytes(16) + images.tobytes()
        contents[f"{prefix}-labels-idx1-ubyte"] = bytes(8) + labels.tobytes()
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(sets, "FASHION_CONTENT", hashes)
    monkeypatch.setenv("HWNAS_DATA_DIR", str(tmp_path))
    return contents


def write(folder: Path, contents: Mapping[str, bytes], packed: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content, 0))
        else:
            (folder / name).write_bytes(content)


def test_fashion_mnist_from_idx_files(fashion: dict[str, bytes], tmp_path: Path) -> None:
    write(tmp_path / "fashion-mnist", fashion, packed=True)  # as Debian has it below /usr/share/datasets
    data = load_data("fashion-mnist")
    assert data.image_shape == (3, 32, 32)
    assert data.class_names[0] == "T-shirt/top"
    assert data.class_names[9] == "Ankle boot"
    assert [len(part) for part in (data.train, data.val, data.test)] == [540, 60, 100]
    assert data.test.labels is not None
    assert data.test.labels.tolist() == list(range(10)) * 10
    original = np.frombuffer(fashion["t10k-images-idx3-ubyte"], np.uint8, offset=16).reshape(-1, 28, 28)
    assert (data.test.pixels[:, :, 2:30, 2:30].numpy() == original[:, None]).all()
    assert data.test.pixels[:, :, :2].max() == 0
    (tmp_path / "fashion-mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    write(tmp_path / "fashion-mnist", {"t10k-labels-idx1-ubyte": bytes(108)}, packed=False)
    with pytest.raises(InputError, match="does not hold Fashion-MNIST's t10k-labels-idx1-ubyte"):
        load_data("fashion-mnist")


def cifar_batches() -> dict[str, bytes]:
    generator = np.random.default_rng(0)
    records = generator.integers(0, 256, (6, 100, sets.CIFAR_RECORD), dtype=np.uint8)
    records[:, :, 0] = np.arange(100) % 10
    return {name: batch.tobytes() for name, batch in zip(sets.CIFAR_BATCHES, records, strict=True)}


def test_cifar_from_its_binary_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = cifar_batches()
    monkeypatch.setattr(sets, "CIFAR_IMAGES", 100)
    archive = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for name, content in {"readme.html": b"hello", **batches}.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    monkeypatch.setenv("HWNAS_DATA_DIR", str(tmp_path))
    with pytest.raises(InputError, match="is not the published file"):
        load_data("cifar10")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(sets, "CIFAR_FILE", replace(sets.CIFAR_FILE, sha256=digest))
    data = load_data("cifar10")
    assert [len(part) for part in (data.train, data.val, data.test)] == [450, 50, 100]
    assert data.class_names[:2] == ("airplane", "automobile")
    test = np.frombuffer(batches["test_batch.bin"], np.uint8).reshape(-1, sets.CIFAR_RECORD)
    assert data.test.labels is not None
    assert (data.test.labels.numpy() == test[:, 0]).all()
    assert (data.test.pixels.numpy().reshape(100, -1) == test[:, 1:]).all()
    archive.unlink()
    write(tmp_path / "cifar-10-batches-bin", batches, packed=False)
    assert load_data("cifar10").hash == data.hash


def test_imagenette_is_downloaded_where_it_lies_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`file:` stands for the network, which test_downloads.py is about."""
    folder = pictures(tmp_path / "imagenette2-160", "train/n01440764", "train/n02102040", count=12)
    pictures(folder, "val/n01440764", "val/n02102040", count=3)
    archive = tmp_path / "imagenette2-160.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    content = archive.read_bytes()
    file = Published(url=archive.as_uri(), bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(sets, "IMAGENETTE_FILE", file)
    monkeypatch.setattr(sets, "SETS", {"imagenette": replace(sets.SETS["imagenette"], files=(file,))})
    monkeypatch.setattr("hwnas.compress.data.load.SETS", sets.SETS)
    heard = Heard()
    data = load_data("imagenette", progress=heard)
    assert "download imagenette2-160.tgz" in heard.steps
    assert data.class_names == ("tench", "English springer")
    assert data.imagenet == (0, 217)
    assert [len(part) for part in (data.train, data.val, data.test)] == [22, 2, 6]
    assert data.image_shape == (3, 160, 160)
    monkeypatch.setenv("HWNAS_DATA_DIR", str(tmp_path))
    archive.unlink()
    assert load_data("imagenette").hash == data.hash  # the unpacked folder


def test_a_place_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWNAS_DATA_DIR", "/nowhere/at/all")
    with pytest.raises(InputError, match="HWNAS_DATA_DIR is /nowhere/at/all"):
        load_data("imagenette")


def test_unknown_names() -> None:
    with pytest.raises(InputError) as caught:
        load_data("cifar-10")
    assert "did you mean cifar10?" in caught.value.fix
    with pytest.raises(InputError, match="32 pixels"):
        load_data("digits", 64)


def test_an_imagenet_classifier_is_narrowed_exactly(tmp_path: Path) -> None:
    """A model with 1,000 random classes: the rows of two of them, and their logits."""
    folder = pictures(tmp_path / "d", "n02102040", "n01440764", count=6)
    data = load_data(f"folder:{folder}", 32)
    torch.manual_seed(3)
    whole = timm.create_model("mobilenetv3_small_050").eval()
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    settings = replace(LIBRARY, model="mobilenetv3_small_050", weights=str(tmp_path / "w.safetensors"))
    initial = initial_reference(settings, data, allow_code=False)
    assert not initial.to_train
    assert (initial.mean, initial.std) == (whole.pretrained_cfg["mean"], whole.pretrained_cfg["std"])
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(initial.module(x), whole(x)[:, [0, 217]], atol=1e-6)
    narrowed, state = initial.module.state_dict(), whole.state_dict()
    for key, value in state.items():
        rows = [0, 217] if key.startswith("classifier.") else slice(None)
        assert torch.equal(narrowed[key], value[rows] if value.ndim else value)
    data = replace(data, mean=initial.mean, std=initial.std)
    parts = partition(initial.module, data.image_shape)
    reference = Reference(spec=initial.spec, parts=parts, data=data)
    out = tmp_path / "checkpoint"
    out.mkdir()
    save_module(reference.module(), out / "model.safetensors")
    reference.architecture([None] * len(parts.modules)).save(out / "architecture.json")
    write_record(out)
    with torch.no_grad():
        assert torch.allclose(hwnas.load(out)(x), whole(x)[:, [0, 217]], atol=1e-6)
    architecture = ArchitectureSpec.read(out / "architecture.json")
    assert architecture.class_names == ("tench", "English springer")


def test_weights_of_a_run_bring_their_normalisation(tmp_path: Path, data: Data) -> None:
    module = timm.create_model("mobilenetv3_small_050", num_classes=10).eval()
    weights = tmp_path / "model.safetensors"
    save_file(module.state_dict(), weights)
    settings = replace(LIBRARY, model="mobilenetv3_small_050", weights=str(weights))
    assert initial_reference(settings, data, allow_code=False).mean == module.pretrained_cfg["mean"]
    none = initial_reference(replace(settings, weights="none"), data, allow_code=False)
    assert (none.mean, none.std) == (data.mean, data.std)
    ArchitectureSpec(
        reference=none.spec,
        regions=(),
        input_shape=(3, 32, 32),
        parts=(),
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
    ).save(tmp_path / "architecture.json")
    write_record(tmp_path)
    found = initial_reference(settings, data, allow_code=False)
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_other_classes_than_imagenets_are_not_narrowed(tmp_path: Path) -> None:
    picture(tmp_path / "d" / "n00000001" / "x.png")
    data = load_data(f"folder:{pictures(tmp_path / 'd', 'n01440764', 'n00000001')}", 32)
    assert data.imagenet == ()
    assert data.class_names == ("n00000001", "n01440764")
    module = timm.create_model("mobilenetv3_small_050").eval()
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    settings = replace(LIBRARY, model="mobilenetv3_small_050", weights=str(tmp_path / "w.safetensors"))
    with pytest.raises(InputError, match="does not fit the model"):
        initial_reference(settings, data, allow_code=False)


@pytest.mark.slow
def test_shared_imagenette_and_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """97.2 % of the 1,000 test images; every eighth of them here."""
    weights = shared(f"{LITE}.safetensors")
    shared("imagenette.zip")
    monkeypatch.setenv("HWNAS_DATA_DIR", str(SHARED))
    data = load_data("imagenette")
    assert [len(part) for part in (data.train, data.val, data.test)] == [2_700, 300, 1_000]
    assert data.imagenet == (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)
    settings = replace(LIBRARY, weights=str(weights))
    initial = initial_reference(settings, data, allow_code=False)
    assert initial.mean == (0.5, 0.5, 0.5)
    data = replace(data, mean=initial.mean, std=initial.std, test=few(data.test, 8))
    correct = loop.scores(initial.module, data)
    assert correct is not None
    assert float(correct.float().mean()) > 0.95


@pytest.mark.slow
def test_shared_cifar(monkeypatch: pytest.MonkeyPatch) -> None:
    shared("cifar10.tar.xz")
    monkeypatch.setenv("HWNAS_DATA_DIR", str(SHARED))
    data = load_data("cifar10")
    assert [len(part) for part in (data.train, data.val, data.test)] == [45_000, 5_000, 10_000]
    assert data.class_names[0] == "airplane"
    assert data.test.labels is not None
    assert data.test.labels.bincount().tolist() == [1_000] * 10
