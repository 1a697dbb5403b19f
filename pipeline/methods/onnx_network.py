"""Networks in ONNX: the answer of a method to one image as a file, and methods that ask onnxruntime for that answer.

A file answers for one image, since some operations of torch are exported with the batch size that they were traced
with. The rows of a batch are independent by contract, and a row alone takes about as long as within a batch.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from pipeline import durable
from pipeline.errors import ArtefactError, ConfigError
from pipeline.methods.base import Method
from pipeline.methods.capabilities import AnomalyMapper, Reconstructor, ScanScorer
from pipeline.methods.method_registry import parse_method
from pipeline.nn.rng import Rng, SeedPart

AnswerKind = Literal["reconstruction", "map", "score"]
OPSET = 18  # of the files; onnxruntime has read it since its release 1.14
INSTALL = "Install it with: pip install 'nightread[export]'"


def export_network(method: Method, path: Path) -> AnswerKind:
    """Write the method's answer to one image as an ONNX file; return what the answer is.

    Raises:
        ConfigError: the method cannot be exported, or the package onnx is not installed.
    """
    _refuse_other_inputs(method)
    kind, ask = _answer_of(method)
    image = torch.zeros(1, *method.image_shape)
    with durable.writing(path) as part:
        _write(_Answer(method, ask), image, part)
    return kind


def _refuse_other_inputs(method: Method) -> None:
    """Refuse methods whose answer is not one function of the image alone (ConfigError)."""
    obstacle = None
    if method.conditional:
        obstacle = "it also asks for attributes of the scan"
    elif getattr(method.config, "restoration", None) is not None:
        obstacle = "it descends a gradient for each image"
    elif method.passes is None:
        obstacle = "the number of its passes depends on the image"
    if obstacle is not None:
        _refuse(method, obstacle)


def _refuse(method: Method, obstacle: str) -> NoReturn:
    raise ConfigError(
        f"{method.config.name} cannot be exported: {obstacle}. Score it with Nightread, or export a run of a method "
        "that answers with one fixed network, such as gated_dae, ladder_vq or synthetic_lesion."
    )


def _answer_of(method: Method) -> tuple[AnswerKind, Callable[[Tensor, Rng], Tensor]]:
    if isinstance(method, AnomalyMapper):
        return "map", method.anomaly_map
    if isinstance(method, Reconstructor):
        return "reconstruction", method.reconstruct
    if isinstance(method, ScanScorer):
        return "score", method.score
    _refuse(method, "it neither reconstructs, nor maps, nor scores")


class _Answer(nn.Module):
    """The method as a function of the image alone."""

    def __init__(self, method: Method, ask: Callable[[Tensor, Rng], Tensor]) -> None:
        super().__init__()
        self.method, self.ask = method, ask

    def forward(self, image: Tensor) -> Tensor:
        return self.ask(image, _NoDraws(self.method)).float()


class _NoDraws(Rng):
    """Randomness that refuses to be drawn: the exporter would turn a draw into a constant, the same for every scan."""

    def __init__(self, method: Method) -> None:
        super().__init__(())
        self.method = method

    def fork(self, name: SeedPart) -> Rng:
        return self

    def _fill(self, *_: object) -> Tensor:
        _refuse(self.method, "it draws random numbers")

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        _refuse(self.method, "it draws random numbers")


def _write(answer: _Answer, image: Tensor, path: Path) -> None:
    """Trace the answer into a file; what the exporter prints about operations that it lacks is left out."""
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # of traced conditions, which are checks of the input
            torch.onnx.export(
                answer.eval(),
                (image,),
                path,
                dynamo=False,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["answer"],
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, TypeError) as error:
        if "onnx is not installed" in str(error):
            raise ConfigError(f"Exporting needs the package onnx, which is not installed. {INSTALL}") from None
        _refuse(answer.method, f"the exporter stopped ({str(error).splitlines()[0][:200].rstrip('.')})")


class _OnnxMethod(Method):
    """The trained method in a file; its configuration is the trained one's.

    Args:
        spec: JSON of the trained method (`method_spec`).
        path: the ONNX file, which the caller has checked.
    """

    def __init__(self, spec: dict[str, Any], path: Path) -> None:
        super().__init__(parse_method(spec["config"]), spec["image_size"], spec["channels"], spec["spatial_dims"])
        self.session = start_session(path)

    def ask(self, x: Tensor) -> Tensor:
        """Return the answers to the images, on their device."""
        images = self.check(x).detach().float().cpu().contiguous().numpy()
        answers = [self.session.run(None, {"image": image[None]})[0] for image in images]
        return torch.from_numpy(np.concatenate(answers)).to(x.device)


class OnnxReconstructor(_OnnxMethod):
    """A reconstructor in a file."""

    def reconstruct(self, x: Tensor, rng: Rng, body: Tensor | None = None) -> Tensor:
        """Return x_hat; no randomness."""
        return self.ask(x).to(x.dtype)


class OnnxMapper(_OnnxMethod):
    """A method with a map of its own, in a file."""

    def anomaly_map(self, x: Tensor, rng: Rng) -> Tensor:
        """Return the map [B, 1, *spatial]; no randomness."""
        return self.ask(x)


class OnnxScanScorer(_OnnxMethod):
    """A method that gives one number per image, in a file."""

    def score(self, x: Tensor, rng: Rng) -> Tensor:
        """Return the scores [B]; no randomness."""
        return self.ask(x)


ONNX_METHODS: dict[AnswerKind, type[_OnnxMethod]] = {
    "reconstruction": OnnxReconstructor,
    "map": OnnxMapper,
    "score": OnnxScanScorer,
}


def start_session(path: Path) -> Any:
    """Return an onnxruntime session of a file on the CPU, with as many threads as torch has.

    Raises:
        ConfigError: onnxruntime is not installed.
        ArtefactError: the file is not a network that this onnxruntime can run.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise ConfigError(f"An exported detector needs onnxruntime, which is not installed. {INSTALL}") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base of their own
        raise ArtefactError(
            f"{path.name} cannot be run by onnxruntime {onnxruntime.__version__} ({type(error).__name__}). Export the "
            "detector again, or install the release that is named in export.json."
        ) from None
