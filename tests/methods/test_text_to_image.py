"""Images from words: guidance and negative prompts as the formula says, strength 0 and masks exact, errors by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pipeline.data.images.captions import parse_caption
from pipeline.errors import ConfigError
from pipeline.methods import build_method
from pipeline.methods.text_to_image import CLASSES, TextToImage, TextToImageConfig
from pipeline.nn.prompt_encoder import TextConfig
from pipeline.nn.rng import Rng
from pipeline.types import Batch

LEFT, RIGHT = "MR brain, lesion left", "MR brain, lesion right"
SIZE = 16


def build(**values: object) -> TextToImage:
    """A small model whose last layer is not zero and which has learned every word."""
    config = {"denoiser": {"widths": (8, 16), "attention": (False, True)}, "steps": 2} | values
    text = {"kind": "words", "width": 8} | values.pop("text", {}) if "text" in values else {"kind": "words", "width": 8}
    method = build_method(TextToImageConfig.model_validate({**config, "text": text}), SIZE)
    assert isinstance(method, TextToImage)
    generator = torch.Generator().manual_seed(1)
    for parameter in method.network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    if "seen" in method.prompts.state_dict():
        method.prompts.seen.fill_(0.1)
    return method.eval()


@pytest.fixture(scope="module")
def method() -> TextToImage:
    """The small model."""
    return build()


@pytest.fixture
def x() -> Tensor:
    """Two images."""
    return torch.rand(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(2)) - 0.5


def rng(rows: int = 2) -> Rng:
    return Rng(range(rows))


@torch.no_grad()
@pytest.mark.parametrize("s", [0.0, 1.0, 3.5])
@pytest.mark.parametrize("negative", ["", RIGHT])
def test_guidance_combines_prompt_and_negative_prompt(method: TextToImage, x: Tensor, s: float, negative: str) -> None:
    t = torch.tensor([0.3, 0.8])
    combined = method.towards([LEFT, LEFT], negative, s)(x, t)
    conditional, other = (method(x, t, method.encode([text] * 2)) for text in (LEFT, negative))
    assert_close(combined, other + s * (conditional - other), rtol=1e-4, atol=1e-5)
    assert (conditional - other).abs().max() > 1e-3, "the prompt has an effect"


@torch.no_grad()
def test_a_negative_prompt_equal_to_the_prompt_cancels_guidance(method: TextToImage, x: Tensor) -> None:
    t = torch.tensor([0.3, 0.8])
    assert_close(method.towards([LEFT] * 2, LEFT, 7.0)(x, t), method.towards([LEFT] * 2, "", 1.0)(x, t))


def test_guidance_of_one_costs_one_pass_and_draws_the_conditional_model(method: TextToImage) -> None:
    sizes: list[int] = []
    hook = method.network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    one = method.sample(rng(), steps=2, prompt=LEFT, guidance=1.0)
    assert sizes == [2, 2]
    method.sample(rng(), steps=2, prompt=LEFT, guidance=2.0)
    hook.remove()
    assert sizes[2:] == [4, 4]
    alone = method.sample(rng(), steps=2, about=[{"caption": LEFT}] * 2, guidance=1.0)
    assert_close(one, alone)


def test_each_row_has_its_own_prompt(method: TextToImage) -> None:
    both = method.sample(rng(), steps=2, about=[{"caption": LEFT}, {"caption": RIGHT}], guidance=3.0)
    alone = method.sample(rng(), steps=2, prompt=RIGHT, guidance=3.0)
    assert_close(both[1], alone[1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(both[0], alone[0], atol=1e-3)


def test_strength_says_how_much_is_redrawn(method: TextToImage, x: Tensor) -> None:
    assert torch.equal(method.redraw(x, rng(), LEFT, strength=0.0), x)
    changes = [float((method.redraw(x, rng(), LEFT, s, guidance=1.0) - x).abs().mean()) for s in (0.01, 0.3, 1.0)]
    assert changes[0] < 0.05 and changes == sorted(changes)
    whole = method.redraw(x, rng(), LEFT, strength=1.0, steps=3)
    assert_close(whole, method.redraw(-x, rng(), LEFT, strength=1.0, steps=3)), "nothing of the image is left"


def test_inpainting_changes_the_mask_alone(method: TextToImage, x: Tensor) -> None:
    mask = torch.zeros(2, 1, SIZE, SIZE, dtype=torch.bool)
    mask[:, :, 4:9, 4:9] = True
    drawn = method.redraw(x, rng(), LEFT, strength=1.0, mask=mask)
    assert torch.equal(drawn[~mask], x[~mask]) and (drawn - x)[mask].abs().mean() > 0.01
    other = method.redraw(x.masked_fill(mask, 0.9), rng(), LEFT, strength=1.0, mask=mask)
    assert_close(drawn[mask], other[mask]), "what is under the mask is not seen"
    around = method.redraw(x.flip(-1).where(~mask, x), rng(), LEFT, strength=1.0, mask=mask)
    assert not torch.allclose(drawn[mask], around[mask], atol=1e-3), "what is around it is"


def test_a_scan_is_redrawn_towards_no_finding(x: Tensor) -> None:
    method = build(start_times=(0.4,), guidance=3.0, away=True)
    about = ({"modality": "MR", "relative_position": 0.9, "finding": "lesion left"}, {})
    answer = method.reconstruct(x, rng(), about=about)
    one = method.redraw(x[:1], Rng([0]).fork(0), "MR, upper third, no finding", 0.4, "MR, upper third, lesion", 3.0, 2)
    assert_close(answer[:1], one, rtol=1e-4, atol=1e-4)


def test_captions_are_learned_and_hidden() -> None:
    method, seen = build(drop=0.5, head="axial FLAIR brain"), []
    encode: Callable[..., Tensor] = method.prompts.forward
    method.prompts.forward = lambda texts: seen.extend(texts) or encode(texts)  # type: ignore[method-assign]
    rows = 400
    about = tuple({"relative_position": 0.5, "finding": "lesion right, small"} for _ in range(rows))
    images, body = torch.zeros(rows, 1, SIZE, SIZE), torch.ones(rows, 1, SIZE, SIZE, dtype=torch.bool)
    with torch.no_grad():
        method.loss(Batch(images, body, tuple(map(str, range(rows))), about), "train", rng(rows))
    assert set(seen) == {"", "axial FLAIR brain, middle third, lesion right, small"}
    assert 150 < seen.count("") < 250  # 200 with a standard deviation of 10


def test_without_a_finding_a_caption_is_that_of_a_normal_image() -> None:
    config = TextToImageConfig(text=TextConfig(kind="words"))
    assert [one.write() for one in config.caption([{"modality": "CT", "body_part": "CHEST"}, {}])] == [
        "CT chest, no finding", "MR brain, no finding",
    ]  # fmt: skip


def test_the_baseline_knows_classes_and_no_words() -> None:
    method = build(text={"kind": "whole", "width": 8})
    assert len(CLASSES) == len(set(CLASSES)) == 72
    assert_close(method.encode([LEFT]), method.encode(["axial T1 head, lesion left"]))
    assert not torch.allclose(method.encode([LEFT]), method.encode([RIGHT]), atol=1e-3)
    assert all(parse_caption(f"MR, {one}") for one in CLASSES if one)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"guidance": 2.0}, "which is missing"),
        ({"negative": LEFT}, "which is missing"),
        ({"prompt": LEFT, "guidance": -1.0}, "guidance"),
        ({"prompt": "MR spleen with words"}, "spleen"),
        ({"prompt": ", ".join(["MR"] * 30)}, "longest"),
        ({"prompt": LEFT, "steps": 0}, "steps"),
        ({"prompt": LEFT, "about": [{}, {}]}, "Give one of the two"),
    ],
)
def test_what_cannot_be_drawn_is_refused(method: TextToImage, change: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        method.sample(rng(), **{"steps": 1, **change})


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_outside_its_range_is_refused(method: TextToImage, x: Tensor, strength: float) -> None:
    with pytest.raises(ConfigError, match="strength"):
        method.redraw(x, rng(), LEFT, strength)


def test_masks_that_do_not_fit_are_refused(method: TextToImage, x: Tensor) -> None:
    for mask in (torch.ones(2, 1, 4, 4, dtype=torch.bool), torch.zeros(2, 1, SIZE, SIZE, dtype=torch.bool)):
        with pytest.raises(ConfigError, match="mask"):
            method.redraw(x, rng(), LEFT, mask=mask)


@pytest.mark.parametrize("head", ["axial FLAIR spleen", "axial FLAIR brain, no finding"])
def test_a_head_says_what_every_image_is(head: str) -> None:
    with pytest.raises(ValueError, match="head|spleen"):
        TextToImageConfig(head=head)
