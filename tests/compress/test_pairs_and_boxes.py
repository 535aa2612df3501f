"""Folders with targets: pairs of images, and boxes in COCO's format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pictures import Heard, picture
from PIL import Image

from hwnas.compress.data import Data, load_data
from hwnas.compress.data.coco import FILL
from hwnas.compress.data.images import Fit, to_pixels
from hwnas.errors import InputError


def load(
    folder: Path, size: int = 16, heard: Heard | None = None, enlarges: int = 1, channels: int = 3
) -> Data:
    return load_data(f"folder:{folder}", size, None, heard, enlarges=enlarges, channels=channels)


def pairs(folder: Path, count: int, scale: int = 1, size: tuple[int, int] = (21, 18)) -> Path:
    """Targets of noise, and each `scale`-th pixel of them as inputs."""
    for number in range(count):
        large = picture(folder / "target" / f"{number}.png", number, (size[0] * scale, size[1] * scale))
        (folder / "input").mkdir(exist_ok=True)
        small = np.asarray(Image.open(large))[::scale, ::scale]
        Image.fromarray(small).save(folder / "input" / f"{number}.png")
    return folder


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_pairs_lie_over_each_other(tmp_path: Path, scale: int) -> None:
    data = load(pairs(tmp_path / "photos", 10, scale), 16 * scale, enlarges=scale)
    assert [len(part) for part in (data.train, data.val, data.test)] == [7, 1, 2]
    for part in (data.train, data.val, data.test):
        assert part.pixels.shape[1:] == (3, 16, 16)
        assert part.labels.shape[1:] == (3, 16 * scale, 16 * scale)
        assert torch.equal(part.labels[:, :, ::scale, ::scale], part.pixels)
        (x, targets), *_ = data.batches(part, 64)
        assert torch.equal(targets, part.labels.float() / 255)
        assert torch.allclose(x, data.normalize(part.pixels))
    assert not data.flip
    assert data.shift_px == 0


def test_pairs_may_lie_in_parts(tmp_path: Path) -> None:
    for part, count in (("train", 4), ("val", 3), ("test", 2)):
        pairs(tmp_path / part, count)
    heard = Heard()
    data = load(tmp_path, heard=heard)
    assert [len(part) for part in (data.train, data.val, data.test)] == [4, 3, 2]
    assert any("4 pairs to train on, 3 to choose by, 2 to test" in text for text in heard.said)
    grey = load(tmp_path, channels=1)
    assert grey.train.pixels.shape[1:] == grey.train.labels.shape[1:] == (1, 16, 16)
    picture(tmp_path / "train/target/0.png", 999, (21, 18))
    assert load(tmp_path).hash != data.hash


PAIRS: dict[str, tuple[Callable[[Path], object], str]] = {
    "alone": (lambda p: (p / "input/3.png").unlink(), "3 is in target/ alone, and so are 0 others"),
    "two": (lambda p: picture(p / "input/3.jpg"), "holds 3.jpg and 3.png: which is meant"),
    "size": (lambda p: picture(p / "target/3.png", 1, (42, 36)), "its target 42 × 36, not 1 times"),
    "small": (
        lambda p: [picture(p / side / "3.png", 1, (21, 15)) for side in ("input", "target")],
        "21 × 15 pixels, 16 × 16 are cut out",
    ),
    "both": (lambda p: pairs(p / "train", 3), "and parts that hold them as well"),
    "broken": (lambda p: (p / "input/3.png").write_bytes(b"x"), "1 of 10 images cannot be read"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_bad_pairs_are_refused(tmp_path: Path, name: str) -> None:
    spoil, cause = PAIRS[name]
    folder = pairs(tmp_path / "photos", 10)
    spoil(folder)
    with pytest.raises(InputError, match=cause) as error:
        load(folder)
    assert error.value.fix


def test_a_size_that_is_no_multiple_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="images of 33 pixels cannot be 2 times as large") as error:
        load(pairs(tmp_path, 10, 2), 33, enlarges=2)
    assert "--image-size 32" in error.value.fix


BOXES = {0: [[0, 0, 8, 4], [10, 6, 30, 40]], 1: [], 2: [[5, 5, 10, 10]]}
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def coco(
    folder: Path, count: int = 10, size: tuple[int, int] = (32, 16), boxes: dict[int, Any] = BOXES
) -> dict[str, Any]:
    """Images of noise, and what is said of their boxes in `(x, y, width, height)`."""
    annotations: list[dict[str, Any]] = []
    for image, found in boxes.items():
        for box in found:
            category = CATEGORIES[len(annotations) % 2]["id"]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": box,
                    "iscrowd": 0,
                }
            )
    images = []
    for number in range(count):
        picture(folder / "images" / f"{number:03}.png", number, size)
        entry = {"id": number, "file_name": f"{number:03}.png", "width": size[0], "height": size[1]}
        images.append(entry | {"license": 1})
    return {"info": {}, "images": images, "annotations": annotations, "categories": CATEGORIES}


def write(folder: Path, plain: object, name: str = "instances.json") -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text(json.dumps(plain))
    return folder


def rows(data: Data) -> list[list[float]]:
    found = torch.cat([part.labels for part in (data.train, data.val, data.test)])
    return sorted(row for row in found.flatten(0, 1).tolist() if row[4] >= 0)


def test_boxes_are_scaled_as_their_image(tmp_path: Path) -> None:
    heard = Heard()
    data = load(write(tmp_path, coco(tmp_path)), 16, heard)
    assert data.train.labels.shape[1:] == (2, 5)
    assert data.class_names == ()
    assert rows(data) == [[0, 0, 4, 2, 1], [2.5, 2.5, 7.5, 7.5, 1], [5, 3, 16, 8, 0]]
    everywhere = torch.cat([part.labels for part in (data.train, data.val, data.test)])
    assert set(everywhere[everywhere[..., 4] < 0].flatten().tolist()) == {FILL}
    assert any("3 boxes of 2 classes, 16 × 16 pixels" in text for text in heard.said)
    assert bool((data.train.pixels[:, :, 8:] == 0).all())
    assert bool((data.train.pixels[:, :, :8] > 0).any())


def test_what_has_no_area_and_crowds_are_left_out(tmp_path: Path) -> None:
    boxes = {0: [[0, 0, 8, 0], [-5, 2, 4, 4], [2, 2, 4, 4], [40, 2, 4, 4]]}
    plain = coco(tmp_path, boxes=boxes)
    plain["annotations"].append(plain["annotations"][2] | {"iscrowd": 1})
    heard = Heard()
    assert rows(load(write(tmp_path, plain), 32, heard)) == [[2, 2, 6, 6, 1]]
    assert any("4 boxes without an area or of crowds are left out" in text for text in heard.said)


@pytest.mark.parametrize("layout", ["beside", "annotations", "folders"])
def test_boxes_may_lie_in_parts(tmp_path: Path, layout: str) -> None:
    for part, count in (("train", 5), ("val", 4), ("test", 3)):
        boxes = {number: [[number, 0, 8, 8]] for number in range(count)}
        if layout == "beside":
            plain = coco(tmp_path / part, count, boxes=boxes)
            for image in plain["images"]:
                old, new = image["file_name"], f"{part}_{image['file_name']}"
                (tmp_path / "images").mkdir(exist_ok=True)
                (tmp_path / part / "images" / old).rename(tmp_path / "images" / new)
                image["file_name"] = new
            (tmp_path / part / "images").rmdir()
            (tmp_path / part).rmdir()
            write(tmp_path, plain, f"instances_{part}.json")
        elif layout == "annotations":
            plain = coco(tmp_path / part, count, boxes=boxes)
            (tmp_path / part / "images").rename(tmp_path / f"{part}2017")
            (tmp_path / part).rmdir()
            write(tmp_path / "annotations", plain, f"instances_{part}2017.json")
        else:
            write(tmp_path / part, coco(tmp_path / part, count, boxes=boxes))
    data = load(tmp_path, 32)
    assert [len(part) for part in (data.train, data.val, data.test)] == [5, 4, 3]
    assert sorted(data.train.labels[:, 0, 0].tolist()) == [0, 1, 2, 3, 4]
    order = data.test.labels[:, 0, 0].long().tolist()
    for row, number in enumerate(order):
        name = next(
            path
            for path in tmp_path.rglob("*.png")
            if path.name in (f"test_{number:03}.png",)
            or (path.name == f"{number:03}.png" and "test" in str(path.parent.relative_to(tmp_path)))
        )
        expected = to_pixels(name, 32, "RGB", Fit("pad"))
        assert np.array_equal(data.test.pixels[row].numpy(), expected)


def changed(key: str, number: int, **values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda plain: plain[key][number].update(values)


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no images": (lambda p: p.pop("images"), "no COCO file with boxes: it has no images"),
    "captions": (lambda p: p.pop("categories"), "it has no categories"),
    "empty": (lambda p: p.update(images=[]), "lists no images"),
    "unknown image": (changed("annotations", 1, image_id=99), "annotation 1 is of the image 99"),
    "unknown category": (changed("annotations", 1, category_id=99), "annotation 1 has the category 99"),
    "id twice": (changed("images", 1, id=0), "two images have the id 0"),
    "category twice": (changed("categories", 1, id=7), "two categories have the id 7"),
    "name twice": (changed("images", 1, file_name="000.png"), "000.png is listed twice"),
    "missing file": (changed("images", 1, file_name="none.png"), "lists 1 images that are not there"),
    "outside": (changed("images", 1, file_name="../../x.png"), "leads out of the folder"),
    "absolute": (changed("images", 1, file_name="/etc/x.png"), "leads out of the folder"),
    "three numbers": (changed("annotations", 0, bbox=[1, 2, 3]), "annotations.0.bbox"),
    "text": (changed("annotations", 0, bbox=["1", 2, 3, 4]), "annotations.0.bbox.0"),
    "nan": (changed("annotations", 0, bbox=[float("nan"), 2, 3, 4]), "is no finite number"),
    "no width": (lambda p: p["images"][0].pop("width"), "images.0.width"),
    "other size": (changed("images", 0, width=16, height=16), "has 32 × 16 pixels, .* says 16 × 16"),
    "list": (lambda p: p.update(images={}), "images"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_files_are_refused_by_name(tmp_path: Path, name: str) -> None:
    spoil, cause = WRONG[name]
    plain = coco(tmp_path)
    plain["categories"] = [dict(each) for each in CATEGORIES]
    spoil(plain)
    with pytest.raises(InputError, match=cause) as error:
        load(write(tmp_path, plain))
    assert error.value.fix


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    plain = coco(tmp_path)
    with pytest.raises(InputError, match="holds a list"):
        load(write(tmp_path, [plain]))
    (tmp_path / "instances.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        load(tmp_path)
    write(tmp_path, plain)
    write(tmp_path / "train", plain)
    with pytest.raises(InputError, match=r"holds instances\.json beside lists of boxes"):
        load(tmp_path)
    write(tmp_path, plain, "instances_train.json")
    with pytest.raises(InputError, match="two lists of boxes for one part"):
        load(tmp_path)


def test_parts_have_the_same_categories(tmp_path: Path) -> None:
    for part in ("train", "test"):
        plain = coco(tmp_path / part)
        plain["categories"] = [
            {"id": 7, "name": "dog"},
            {"id": 3, "name": "cat" if part == "train" else "cow"},
        ]
        write(tmp_path / part, plain)
    with pytest.raises(InputError, match="have other categories: 3 is 'cat' in one"):
        load(tmp_path)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(4, 24))
def test_a_padded_image_keeps_its_proportions(width: int, height: int, size: int) -> None:
    image = Image.new("RGB", (width, height), "white")
    pixels = to_pixels(image, size, "RGB", Fit("pad"))
    assert pixels.shape == (3, size, size)
    columns, rows_ = (int((pixels[0] > 127).any(axis).sum()) for axis in (0, 1))
    assert max(columns, rows_) == size
    assert abs(columns - width * size / max(width, height)) <= 1
    assert abs(rows_ - height * size / max(width, height)) <= 1
