"""What programs give as data: Pillow's images as a folder takes them, arrays and labels of every kind."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from handmade import REFUSED, SIDE, png, random_values
from hypothesis import given
from hypothesis import strategies as st
from pictures import load, pictures
from PIL import Image, UnidentifiedImageError
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from hwnas.compress.data import Data
from hwnas.compress.data.given import MAX_CLASSES, as_data
from hwnas.errors import InputError

COUNT = 20
BYTES = torch.randint(0, 256, (COUNT, 3, SIDE, SIDE), dtype=torch.uint8)
CLASSES = np.arange(COUNT) % 2


class Items(Dataset[Any]):
    """A Dataset of what a function gives for each number."""

    def __init__(self, item: Callable[[int], Any], count: int = COUNT) -> None:
        self.item, self.count = item, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Any:
        return self.item(number)


def of_image(image: Callable[[], object]) -> Data:
    return as_data(Items(lambda number: (image(), number % 2)))


def refusal(data: object) -> InputError:
    with pytest.raises(InputError) as caught:
        as_data(data)
    assert "mean" not in caught.value.cause  # nobody gave one
    return caught.value


def opened(content: bytes, loaded: bool) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    if loaded:
        image.load()
    return image


def saved(mode: str, suffix: str, orientation: int, transparent: bool) -> bytes:
    noise = Image.effect_noise((SIDE, SIDE), 90)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(noise).astype(np.uint16) * 257)
    else:
        image = noise.convert("RGB").convert(mode)
    if mode in ("LA", "RGBA") and transparent:
        image.putalpha(0)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, suffix, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16", "RGB", "RGBA", "P", "CMYK"])
@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("transparent", [False, True])
def test_images_of_pillow_become_what_a_folder_makes_of_them(
    tmp_path: Path, mode: str, loaded: bool, transparent: bool
) -> None:
    suffix = "TIFF" if mode == "CMYK" else "PNG"
    content = saved(mode, suffix, orientation=6, transparent=transparent)
    for group in ("cat", "dog"):
        (tmp_path / group).mkdir()
        for number in range(6):
            (tmp_path / group / f"{number}.{suffix.lower()}").write_bytes(content)
    folder = load(tmp_path, SIDE).train.pixels[0]
    found = of_image(lambda: opened(content, loaded)).train.pixels
    assert (found == folder).all()


def opens(content: bytes) -> bool:
    try:
        Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        return False
    return not content.startswith(b"%!PS")  # a program, which Ghostscript draws for whom asks Pillow


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("name", [name for name, (content, _) in REFUSED.items() if opens(content)])
def test_images_that_a_folder_refuses_are_refused_for_the_same_reason(name: str, loaded: bool) -> None:
    content, kind = REFUSED[name]
    error = refusal(Items(lambda number: (opened(content, loaded), number % 2)))
    assert error.cause.startswith("image 0 of the data cannot be read: ")
    assert kind in error.cause


@given(st.integers(0, 2**16), st.sampled_from([2, 4]))
def test_transparent_greys_of_few_bits_are_white(seed: int, bits: int) -> None:
    values = random_values(seed, 1, bits)
    content = png(values, 0, [int(values[1, 2, 0])], bits)
    expected = values[..., 0].astype(int) * (255 // (2**bits - 1))
    expected[values[..., 0] == values[1, 2, 0]] = 255
    assert (of_image(lambda: opened(content, loaded=False)).train.pixels.numpy() == expected).all()


def test_an_image_that_is_cut_off_is_refused() -> None:
    content = saved("RGB", "PNG", 1, False)[:-30]
    error = refusal(Items(lambda number: (opened(content, loaded=False), number % 2)))
    assert "image 0 of the data cannot be read: " in error.cause


def test_more_files_than_a_process_may_open_are_read(tmp_path: Path) -> None:
    import resource

    paths = sorted(pictures(tmp_path, "a", count=60).rglob("*.png"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (held + 30, hard))
    try:
        data = as_data(Items(lambda number: (Image.open(paths[number]), number % 2), len(paths)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(data.train) == 42


ROWS = BYTES[0].numpy()

TAKEN: dict[str, Any] = {
    "tensor": BYTES[0],
    "tensor of floats": BYTES[0] / 255,
    "half": (BYTES[0] / 255).half(),
    "channels first": ROWS,
    "channels last": ROWS.transpose(1, 2, 0),
    "floats": ROWS / 255,
    "big-endian floats": (ROWS / 255).astype(">f4"),
    "pillow": Image.fromarray(ROWS.transpose(1, 2, 0)),
    "turned back": ROWS[:, ::-1][:, ::-1],
}


@pytest.mark.parametrize("name", TAKEN)
def test_the_same_image_in_other_words_is_taken(name: str) -> None:
    assert (of_image(lambda: TAKEN[name]).train.pixels == BYTES[0]).all()
    in_pairs = as_data(([TAKEN[name]] * COUNT, CLASSES))
    assert in_pairs.hash == of_image(lambda: TAKEN[name]).hash


@pytest.mark.parametrize("image", [BYTES[0, 0], BYTES[0, :1], BYTES[0, 0].numpy(), ROWS[0][..., None]])
def test_grey_images_are_taken(image: Any) -> None:
    assert (of_image(lambda: image).train.pixels == BYTES[0, 0]).all()


@pytest.mark.parametrize(
    ("image", "cause", "fix"),
    [
        (ROWS.astype(np.uint16) * 257, r"torch\.uint16 from \d+ to \d\d\d\d\d", ">> 8"),
        (ROWS[0].astype(np.int32), "torch.int32 from", r"to\(torch.uint8\)"),
        (ROWS.astype(float), "torch.float64 from", "convert"),
        (ROWS > 100, "torch.bool from 0 to 1", r"\* 255"),
        (BYTES[0].long(), "torch.int64 from", "convert"),
        (BYTES[0] / 255 - 0.5, "torch.float32 from -0", "normalisation"),
        (torch.full((3, 4, 4), torch.nan), "NaN", "correct"),
        ((BYTES[0] / 255).to(torch.float8_e5m2), "float8", "convert"),
        (torch.zeros(3, 4, 4, dtype=torch.complex64), "complex64", "files"),
        (BYTES[0].permute(1, 2, 0)[:, :, :].repeat(2, 2, 1), r"\(20, 8, 8, 3\)", "permute"),
        (ROWS.transpose(1, 2, 0)[..., [0, 1, 2, 0]], r"\(20, 4, 4, 4\)", r"\[:, :3\]"),
        (torch.zeros(5, 6, 7), r"\(20, 5, 6, 7\)", "channels second"),
        (BYTES[0].to_sparse(), "image 0 .* sparse", "dense"),
        (torch.empty(3, 4, 4, device="meta"), "image 0 .* without values", "dense"),
        (BYTES[0, :, :0], "are empty", "one image"),
        (7, "torch.int64 from 7 to 7", "convert"),
        (np.array([None] * 3), "image 0 of the data: an array of object", "numbers"),
        (ROWS.view("V1"), r"image 0 of the data: an array of \|V1", "numbers"),
        ("a.png", "image 0 of the data: a str", "numbers"),
        (None, "image 0 of the data: a NoneType", "numbers"),
    ],
)
def test_images_of_other_kinds_are_refused(image: Any, cause: str, fix: str) -> None:
    error = refusal(Items(lambda number: (image, number % 2)))
    with pytest.raises(InputError, match=cause):
        raise error
    with pytest.raises(InputError, match=fix):
        raise error


ARRAYS = BYTES.numpy()


def test_arrays_of_foreign_byte_order_are_taken() -> None:
    plain = as_data((ARRAYS / 255, CLASSES))
    assert as_data(((ARRAYS / 255).astype(">f8"), CLASSES.astype(">i4"))).hash == plain.hash


@pytest.mark.parametrize(
    "labels",
    [
        CLASSES.tolist(),
        CLASSES.astype(np.uint8),
        CLASSES.astype(np.uint64),
        CLASSES.astype(bool),
        CLASSES[:, None],
        torch.from_numpy(CLASSES).to(torch.uint16),
        list(torch.from_numpy(CLASSES)),
        list(CLASSES),
        CLASSES.astype(object),
    ],
)
def test_classes_in_other_words_are_taken(labels: Any) -> None:
    found = as_data((BYTES, labels))
    assert found.hash == as_data((BYTES, CLASSES)).hash
    assert found.class_names == ("0", "1")
    assert as_data(Items(lambda number: (BYTES[number], labels[number]))).hash == found.hash


WRONG_LABELS: dict[str, tuple[Any, str, str]] = {
    "values": (np.linspace(0, 1.9, COUNT), r"float64 such as 0\.1, which is no class", "hwnas.Data"),
    "whole floats": (CLASSES.astype(np.float32), "float32, classes are numbered", r"astype\(int\)"),
    "list of floats": ((CLASSES / 11).tolist(), r"such as 0\.09", "hwnas.Data"),
    "bfloat16": (torch.from_numpy(CLASSES).bfloat16(), "classes are numbered", "long()"),
    "nan": (np.where(CLASSES, np.nan, 1.0), "NaN or infinity", "leave those"),
    "infinity": (np.where(CLASSES, np.inf, 1.0), "NaN or infinity", "leave those"),
    "complex": (CLASSES * 1j, "complex128", "integers"),
    "words": (np.array(["cat", "dog"] * 10), "image 0 is 'cat'", "numpy.unique"),
    "bytes": (np.array([b"cat", b"dog"] * 10), "image 0 is b'cat'", "numpy.unique"),
    "one word": ([0, 1] * 9 + [0, "dog"], "image 19 is 'dog'", "numpy.unique"),
    "none": ([0, 1] * 9 + [0, None], "image 19 is none", "one"),
    "dicts": ([{"boxes": []}] * COUNT, "image 0 is a dict", "task"),
    "pictures": ([Image.new("L", (4, 4))] * COUNT, "image 0 is a Image", "task"),
    "ragged": ([[1, 2], [3]] * 10, "the labels: a list", "numbers"),
    "dates": (np.full(COUNT, "2020-01-01", dtype="datetime64[D]"), "the labels: ", "numbers"),
    "masks": (np.zeros((COUNT, 4, 4), dtype=int), r"\(20, 4, 4\), they must be one class", "task"),
    "one-hot": (np.eye(COUNT, dtype=int), r"\(20, 20\)", r"argmax\(1\)"),
    "negative": (CLASSES * 2 - 1, "hold -1, classes are counted from 0", "from 0"),
    "huge": (CLASSES * 10**12, r"1000000000000, which would make 1,000,000,000,001 classes", "gaps"),
    "most": (CLASSES * MAX_CLASSES, "100,000 are the most", "gaps"),
    "beyond 64 bits": ([0, 10**30] * 10, "which would make", "gaps"),
    "unsigned": (CLASSES.astype(np.uint64) * np.uint64(2**64 - 1), "which would make", "gaps"),
    "one class": (CLASSES * 0, "all labels are 0", "two classes"),
    "sparse": (torch.from_numpy(CLASSES).to_sparse(), "sparse", "dense"),
    "sparse ones": ([torch.ones(1).to_sparse()] * COUNT, "image 0 is sparse", "dense"),
}


@pytest.mark.parametrize("name", WRONG_LABELS)
def test_labels_that_are_no_classes_are_refused(name: str) -> None:
    labels, cause, fix = WRONG_LABELS[name]
    ways: list[object] = [(BYTES, labels)]
    if not isinstance(labels, torch.Tensor):
        ways.append(Items(lambda number: (BYTES[number], labels[number])))
    for data in ways:
        error = refusal(data)
        with pytest.raises(InputError, match=cause):
            raise error
        with pytest.raises(InputError, match=fix):
            raise error


def test_the_most_classes_are_taken() -> None:
    assert len(as_data((BYTES, CLASSES * (MAX_CLASSES - 1))).class_names) == MAX_CLASSES


@pytest.mark.parametrize("count", [0, 1, 19, 21])
def test_other_than_a_label_an_image_is_refused(count: int) -> None:
    assert refusal((BYTES, np.arange(count) % 2)).cause == f"the data have 20 images and {count} labels"
    assert "one label" in refusal((BYTES, 3)).cause


class Streamed(IterableDataset[Any]):
    """Has no order and no length."""

    def __iter__(self) -> Iterator[Any]:
        return iter(())


class Broken(Items):
    """Fails like a user's code at the last item."""

    def __getitem__(self, number: int) -> Any:
        if number == COUNT - 1:
            raise FileNotFoundError("no such file: a.png")
        return BYTES[number], number % 2


class Uncounted(Items):
    """Does not know how many it has."""

    def __len__(self) -> int:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (Items(lambda number: 1, 0), "the data hold no images"),
        (([], []), "the data hold no images"),
        (BYTES[:0], "the data hold no images"),
        ((BYTES[:9], CLASSES[:9]), "too few images to set some aside: 9"),
        (Items(lambda number: {"image": 1, "label": 2}), "item 0 of the data is a dict of image, label"),
        (Items(lambda number: ()), "item 0 of the data is empty"),
        (Items(lambda number: 1 // 0), "item 0 of the data cannot be read: ZeroDivisionError"),
        (Broken(int), "item 19 of the data cannot be read: FileNotFoundError: no such file: a.png"),
        (Uncounted(int), "the data cannot be counted: NotImplementedError"),
        (Streamed(), "the data are a Streamed"),
        (DataLoader(TensorDataset(BYTES)), "the data are a DataLoader"),
        ({"pixels": BYTES}, "the data are a dict"),
        (Path("photos"), "the data are a PosixPath"),
        ((np.array([None] * COUNT), CLASSES), "the pixels: an array of object"),
        ((None, CLASSES), "the pixels: a NoneType"),
        ((Image.new("RGB", (4, 4)), CLASSES), r"the data have 4 images|the shape"),
        (Items(lambda n: BYTES[n] if n else BYTES[n] / 255), "the images have 2 types"),
    ],
)
def test_what_is_no_data_is_refused(data: object, cause: str) -> None:
    with pytest.raises(InputError, match=cause):
        raise refusal(data)


@pytest.mark.parametrize(
    "data",
    [
        BYTES,
        (BYTES, None),
        TensorDataset(BYTES),
        Items(lambda n: (BYTES[n], None)),
        Items(lambda n: BYTES[n]),
    ],
)
def test_images_without_labels_are_taken(data: object) -> None:
    found = as_data(data)
    assert found.train.labels is None
    assert found.class_names == ()
    assert found.hash == as_data((BYTES, None)).hash


@pytest.mark.parametrize(
    ("classes", "cause"),
    [
        (2, "`classes` of the Dataset is 2"),
        ("ab", "`classes` of the Dataset is 'ab'"),
        ({"cat": 0}, "`classes` of the Dataset is"),
        (["cat"], "hold 1, `classes` of the Dataset names 1"),
    ],
)
def test_names_of_classes_that_do_not_fit_are_refused(classes: Any, cause: str) -> None:
    dataset = Items(lambda number: (BYTES[number], number % 2))
    dataset.classes = classes  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=cause):
        raise refusal(dataset)


@pytest.mark.parametrize("classes", [["cat", "dog", "owl"], np.array(["cat", "dog", "owl"])])
def test_names_of_classes_are_taken(classes: Any) -> None:
    dataset = Items(lambda number: (BYTES[number], number % 2))
    dataset.classes = classes  # type: ignore[attr-defined]
    assert as_data(dataset).class_names == ("cat", "dog", "owl")


@given(
    st.sampled_from(["u1", "i2", ">u2", "f4", ">f8", "c8", "?", "O", "U3", "M8[D]", "V2"]),
    st.lists(st.integers(0, 5), max_size=5),
    st.booleans(),
)
def test_any_array_is_taken_or_refused(kind: str, shape: list[int], as_labels: bool) -> None:
    array = np.zeros(shape, dtype=kind)
    for data in ((BYTES, array) if as_labels else (array, CLASSES), Items(lambda _: array)):
        try:
            as_data(data)
        except InputError as error:
            assert error.fix
