from __future__ import annotations

import pickle
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny import make_data, run_hwnas, write_record
from torch import nn
from torchvision import models
from workplace import tinynet

from hwnas.compress.data import Data
from hwnas.compress.library.candidates import find_candidates
from hwnas.compress.library.space import load_space
from hwnas.compress.reference.prepare import Initial, initial_reference
from hwnas.compress.settings import LibrarySettings
from hwnas.errors import InputError
from hwnas.networks.architecture import ArchitectureSpec, ReferenceSpec
from hwnas.networks.build import (
    build_reference,
    find_reference,
    load_pretrained,
    published_classes,
    torchvision_names,
)
from hwnas.networks.find import find_network, input_shape
from hwnas.networks.partition import partition
from hwnas.networks.serialize import load_module, save_module
from hwnas.networks.weights import load_weights, read_state


def settings(**changed: Any) -> LibrarySettings:
    values: dict[str, Any] = {
        "model": "tinynet:make",
        "weights": "none",
        "data": "digits",
        "cuts": (),
        "space": "compression",
        "per_block": 2,
        "loss": "nsr",
        "train_epochs": 1,
        "epochs": 1,
        "steps": 0,
        "batch_size": 16,
        "slice_size": 2,
        "seed": 0,
        "threads": 1,
    }
    return LibrarySettings(**(values | changed))


def initial(settings: LibrarySettings, data: Data, allow_code: bool = False) -> Initial:
    return initial_reference(settings, data, allow_code=allow_code)


def build(spec: ReferenceSpec) -> nn.Module:
    return build_reference(spec, allow_code=True)


def equal(a: nn.Module, b: nn.Module) -> bool:
    x, y = a.state_dict(), b.state_dict()
    return list(x) == list(y) and all(torch.equal(x[key], y[key]) for key in x)


def write_module(folder: Path, name: str, body: str) -> None:
    """A module of the user's; each test takes another name, since Python imports a name once."""
    (folder / f"{name}.py").write_text("import torch\nfrom torch import nn\n" + body)


def refusal(text: str) -> InputError:
    with pytest.raises(InputError) as caught:
        build(find_reference(text))
    assert caught.value.fix
    return caught.value


def test_a_timm_model_by_name() -> None:
    spec = find_reference("resnet18", classes=7)
    assert spec == ReferenceSpec(source="timm", name="resnet18", classes=7)
    module = build(spec)
    assert not module.training
    assert module.get_parameter("fc.weight").shape[0] == 7
    assert input_shape(spec, module) == (3, 224, 224)
    assert published_classes(find_reference("resnet18")) == 1000


def test_a_torchvision_classifier_by_name() -> None:
    spec = find_reference("shufflenet_v2_x0_5")
    assert (spec.source, spec.name) == ("function", "torchvision.models:shufflenet_v2_x0_5")
    module = build_reference(spec, allow_code=True)
    assert type(module) is type(models.shufflenet_v2_x0_5())
    assert input_shape(spec, module) == (3, 224, 224)
    assert find_network("shufflenet_v2_x0_5").input_shape == (1, 3, 224, 224)
    assert find_reference("resnet18").source == "timm"
    with pytest.raises(InputError, match="unknown model") as refused:
        find_reference("shufflenet_v2_x0_6")
    assert "shufflenet_v2_x0_5" in refused.value.fix


def test_every_classifier_of_torchvision_is_found() -> None:
    names = torchvision_names()
    assert {"alexnet", "resnet18", "swin_t"} <= {*names}
    for name in names:
        assert find_reference(name).name in (name, f"torchvision.models:{name}")
        assert callable(getattr(models, name))


def test_ones_own_function_from_the_current_folder(workplace: Path) -> None:
    write_module(workplace, "own_one", "def make():\n    return nn.Conv2d(3, 4, 1)\n")
    spec = find_reference("own_one:make")
    module = build(spec)
    assert isinstance(module, nn.Conv2d)
    assert not module.training
    with pytest.raises(InputError, match="does not say what it takes") as error:
        input_shape(spec, module)
    assert "input_shape" in error.value.fix


@pytest.mark.parametrize(
    ("name", "body", "says"),
    [
        ("own_number", "def make():\n    return 3\n", "gave a int, not a torch.nn.Module"),
        ("own_failing", "def make():\n    raise KeyError('boom')\n", "KeyError: 'boom'"),
        ("own_needing", "def make(size):\n    return nn.Identity()\n", "missing 1 required"),
        ("own_syntax", "def make(:\n", "SyntaxError"),
        ("own_raising", "raise RuntimeError('at import')\n", "RuntimeError: at import"),
        ("own_other", "def build():\n    return nn.Identity()\n", "has no attribute 'make'"),
        ("own_value", "make = 3\n", "is not a function"),
        ("own_leaving", "import sys\ndef make():\n    sys.exit(3)\n", "make ends the process"),
        ("own_script", "import sys\nsys.exit(3)\n", "own_script ends the process"),
    ],
)
def test_functions_that_do_not_work_are_told(workplace: Path, name: str, body: str, says: str) -> None:
    write_module(workplace, name, body)
    assert says in refusal(f"{name}:make").cause


def test_an_end_that_was_asked_for_is_none_of_the_functions(workplace: Path) -> None:
    body = (
        "import os, signal\ndef make():\n    os.kill(os.getpid(), signal.SIGTERM)\n    return nn.Identity()\n"
    )
    write_module(workplace, "own_killed", body)
    assert run_hwnas(workplace, "partition", "own_killed:make").returncode == 143


@pytest.mark.parametrize("text", ["no_such_module:make", ":make", ".x:make", "tinynet:", "a/b:make"])
def test_functions_that_are_not_there_are_told(workplace: Path, text: str) -> None:
    assert f"cannot import {text}" in refusal(text).cause


def test_unknown_names_are_told_with_near_ones() -> None:
    error = refusal("efficientnetb0")
    assert "unknown model 'efficientnetb0'" in error.cause
    assert "efficientnet_b0" in error.fix
    assert "did you mean" not in refusal("qqqqqqqq").fix
    assert (
        "did you mean efficientnet_b0 or efficientnet_b1 or efficientnet_b2? "
        in refusal("efficientnet_bo").fix
    )


def test_names_as_others_write_them() -> None:
    for hub in ("hf-hub", "hf_hub"):
        spec = find_reference(f"{hub}:timm/resnet18.a1_in1k")
        assert (spec.source, spec.name) == ("timm", "resnet18.a1_in1k")
        assert "--weights FILE" in refusal(f"{hub}:someone/else").fix
    assert "module:function" in refusal("microsoft/resnet-18").fix
    assert refusal("nets/own.py:make").fix == "write nets.own:make"


def test_weights_come_back_from_safetensors_and_pth(tmp_path: Path) -> None:
    trained = tinynet.seeded()
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    torch.save({"state_dict": trained.state_dict(), "epoch": 3}, tmp_path / "nested.pth")
    torch.save({"model": trained.state_dict()}, tmp_path / "model.pt")
    for name in ("w.safetensors", "w.pth", "nested.pth", "model.pt"):
        module = tinynet.make()
        assert not equal(module, trained)
        load_weights(module, tmp_path / name)
        assert equal(module, trained)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    evidence = tmp_path / "ran"
    state: dict[str, Any] = {**tinynet.seeded().state_dict(), "evil": Evil(evidence)}
    torch.save(state, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(state))
    for name in ("evil.pth", "plain.pth"):
        with pytest.raises(InputError, match="holds more than tensors") as error:
            read_state(tmp_path / name)
        assert "safetensors" in error.value.fix
        assert not evidence.exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert evidence.exists()  # it would have run


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x80\x02" * 50])
def test_corrupt_weights_are_told(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"cannot read weights from .*{name}|{name} holds more than"):
        read_state(tmp_path / name)


@pytest.mark.parametrize("cut", [10, 500])
def test_truncated_weights_are_told(tmp_path: Path, cut: int) -> None:
    save_file(tinynet.seeded().state_dict(), tmp_path / "w.safetensors")
    torch.save(tinynet.seeded().state_dict(), tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[:-cut])
        with pytest.raises(InputError, match="cannot read weights"):
            read_state(tmp_path / name)


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no weights file"):
        read_state(tmp_path / "absent.safetensors")
    with pytest.raises(InputError, match="is a folder") as error:
        read_state(tmp_path)
    assert "FILE.safetensors" in error.value.fix
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(InputError, match="is a folder") as error:
        read_state(tmp_path)
    assert f"{tmp_path}/model.safetensors" in error.value.fix


@pytest.mark.parametrize("content", [[1, 2], {"a": 3}, {"state_dict": 3}])
def test_a_file_without_a_state_dict_is_told(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match="holds no state dict"):
        read_state(tmp_path / "w.pth")


def test_tensors_that_do_not_fit_are_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    trained = tinynet.seeded()
    state = trained.state_dict()
    state["head.2.weight"] = torch.zeros(7, 16)
    del state["head.2.bias"]
    state["extra"] = torch.zeros(1)
    save_file(state, tmp_path / "w.safetensors")
    module = tinynet.make()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(InputError) as error:
        load_weights(module, tmp_path / "w.safetensors")
    for part in ("head.2.bias is missing", "extra is not in the model", "(7, 16) instead of (10, 16)"):
        assert part in error.value.cause
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_a_hub_that_cannot_be_reached_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(
        InputError, match=r"cannot get the pretrained weights of mobilenetv3_small_050"
    ) as error:
        load_pretrained(find_reference("mobilenetv3_small_050.lamb_in1k"))
    assert "--weights FILE" in error.value.fix
    with pytest.raises(InputError, match="not a timm model"):
        load_pretrained(ReferenceSpec(source="function", name="tinynet:make"))


def test_a_model_without_published_weights_is_told() -> None:
    spec = find_reference("efficientnet_b6")
    assert published_classes(spec) is None
    with pytest.raises(InputError, match="cannot get the pretrained weights"):
        load_pretrained(spec)


def test_the_number_of_classes_must_be_that_of_the_data(workplace: Path, data: Data) -> None:
    with pytest.raises(InputError, match="tells 7 classes apart, noise has 10"):
        initial(settings(model="tinynet:seven"), data)


def test_without_labels_nothing_can_be_trained(workplace: Path) -> None:
    unlabelled = make_data(labels=False)
    with pytest.raises(InputError, match="has no weights, and noise has no labels"):
        initial(settings(), unlabelled)
    assert not initial(settings(weights="given"), unlabelled).to_train


def test_the_same_seed_gives_the_same_initial_weights(workplace: Path, data: Data) -> None:
    hashes = [initial(settings(seed=seed), data).hash for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_where_the_weights_come_from(workplace: Path, data: Data) -> None:
    assert initial(settings(), data).to_train
    given = initial(settings(model="tinynet:seeded", weights="auto"), data)
    assert not given.to_train
    assert equal(given.module, tinynet.seeded())
    save_file(tinynet.seeded().state_dict(), workplace / "w.safetensors")
    loaded = initial(settings(weights="w.safetensors"), data)
    assert not loaded.to_train
    assert loaded.hash == given.hash
    unlabelled = initial(
        settings(model="resnet18", weights="auto"), data
    )  # published for 1,000 classes, not for ten
    assert unlabelled.to_train


def test_images_that_do_not_fit_and_outputs_that_are_no_logits_are_told(workplace: Path, data: Data) -> None:
    write_module(workplace, "own_map", "def make():\n    return nn.Conv2d(3, 10, 3)\n")
    write_module(workplace, "own_grey", "def make():\n    return nn.Conv2d(1, 10, 3)\n")
    with pytest.raises(InputError, match="does not give logits"):
        initial(settings(model="own_map:make"), data)
    with pytest.raises(InputError, match=r"cannot take images of shape \(3, 32, 32\)") as error:
        initial(settings(model="own_grey:make"), data)
    assert "keepdim=True" in error.value.fix


def test_a_network_that_views_a_map_is_told_what_to_write(workplace: Path, data: Data) -> None:
    text = """
        class Views(nn.Module):
            def __init__(self):
                super().__init__()
                self.body, self.head = nn.Conv2d(3, 4, 3, 8), nn.Linear(64, 10)

            def forward(self, x):
                y = self.body(x)
                return self.head(y.view(y.size(0), -1))

        def make():
            return Views()
    """
    write_module(workplace, "own_views", textwrap.dedent(text))
    with pytest.raises(InputError, match="cannot take maps with the channels last") as error:
        initial(settings(model="own_views:make"), data)
    assert "flatten(1)" in error.value.fix


def make_checkpoint(folder: Path, reference: ReferenceSpec, module: nn.Module) -> Path:
    """A checkpoint of a module whose second block is replaced."""
    parts = partition(module, (3, 32, 32))
    (candidate,) = (c for c in find_candidates(parts, load_space("compression"), 1) if c.part == 2)
    spec = ArchitectureSpec(
        reference=reference,
        regions=parts.regions,
        input_shape=(3, 32, 32),
        parts=(None, None, candidate.spec, None),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        class_names=tuple("0123456789"),
    )
    from hwnas.networks.build import build_module

    folder.mkdir()
    spec.save(folder / "architecture.json")
    torch.manual_seed(8)
    save_module(build_module(spec, allow_code=True), folder / "model.safetensors")
    write_record(folder)
    return folder


def test_a_checkpoint_is_a_reference_again_and_again(workplace: Path, data: Data) -> None:
    function = find_reference("tinynet:seeded")
    first = make_checkpoint(workplace / "first", function, tinynet.seeded())
    spec = find_reference(str(first))
    assert (spec.source, spec.name) == ("checkpoint", "first")
    found = initial(settings(model=str(first), weights="auto"), data, allow_code=True)
    assert not found.to_train
    assert equal(found.module, load_module(first, allow_code=True))
    second = make_checkpoint(workplace / "second", spec, load_module(first, allow_code=True))
    again = load_module(second, allow_code=True)
    assert again(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert find_reference(str(second)).architecture is not None
    third = make_checkpoint(workplace / "third", find_reference(str(second)), again)
    read = ArchitectureSpec.read(third / "architecture.json")
    nested = read.reference.architecture
    assert nested is not None
    assert nested.reference.architecture is not None
    assert nested.reference.architecture.reference == function
    assert input_shape(find_reference(str(third)), load_module(third, allow_code=True)) == (3, 32, 32)


def test_networks_are_found_by_function_name_and_file(workplace: Path) -> None:
    network = find_network("tinynet:seeded")
    (workplace / "some.onnx").write_bytes(network.onnx())
    assert find_network("some.onnx").name == "some"
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network.module()(x), tinynet.seeded()(x))
    assert find_network("resnet18").name == "resnet18"


def test_a_checkpoint_does_not_call_code_unless_it_is_allowed(workplace: Path, data: Data) -> None:
    body = "from pathlib import Path\nPath('ran').touch()\nfrom workplace.tinynet import seeded\n"
    write_module(workplace, "own_code", body)
    spec = ReferenceSpec(source="function", name="own_code:seeded")
    folder = make_checkpoint(workplace / "code", spec, tinynet.seeded())
    (workplace / "ran").unlink()
    sys.modules.pop("own_code")
    with pytest.raises(InputError, match="own_code:seeded") as error:
        load_module(folder)
    assert "allow" in error.value.fix
    with pytest.raises(InputError, match="own_code:seeded"):
        initial(settings(model=str(folder), weights="auto"), data)
    assert not (workplace / "ran").exists()
    assert load_module(folder, allow_code=True)(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert (workplace / "ran").exists()
