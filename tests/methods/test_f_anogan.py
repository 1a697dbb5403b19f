"""`f_anogan`: phases that follow each other, losses by hand, gradients that stop, and the paper's own score."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from pipeline.methods.f_anogan import DiscrepancyScorer, FAnoGanConfig, Restorer
from pipeline.nn.adversarial import gradient_penalty
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig, TrainState, train
from pipeline.types import Batch

SMALL = FAnoGanConfig(widths=(8, 8), latent=4, critic_steps=2, gan_share=0.5, kappa=0.3, lr=1e-3, encoder_lr=3e-3)


def build() -> Restorer:
    return SMALL.build(16)


def scorer(method: Restorer) -> DiscrepancyScorer:
    """The same networks, answering with the paper's score."""
    rebuilt = method.config.model_copy(update={"answer": "discrepancy"}).build(16)
    rebuilt.load_state_dict(method.state_dict())
    return rebuilt.eval()


def batch(count: int = 4) -> Batch:
    x = Rng(range(count)).uniform(1, 16, 16, low=-1, high=1)
    return Batch(x, torch.ones_like(x, dtype=torch.bool), tuple(str(i) for i in range(count)))


class Images:
    """Blobs of one kind: a bright disc that wanders."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, i: int) -> dict[str, object]:
        y, x = torch.meshgrid(*[torch.arange(16.0)] * 2, indexing="ij")
        image = 1.6 * torch.exp(-((y - 6 - i % 4) ** 2 + (x - 6 - i // 4) ** 2) / 12)[None] - 0.8
        return {"image": image, "body": torch.ones_like(image, dtype=torch.bool), "id": str(i)}


def test_the_encoder_waits_for_the_gan_and_leaves_it_as_it_is() -> None:
    state = TrainState(build(), TrainingConfig(batch_size=4, images=48, ema_decay=0.0))
    turns, gan = [], {}
    for record in train(state, Images(), 48):
        turns.append(record.phase)
        if len(turns) == 6:
            encoder = [p.clone() for p in state.method.encoder.parameters()]
        if len(turns) == 7:
            gan = {n: p.clone() for n, p in state.method.named_parameters() if not n.startswith("encoder")}
    assert turns == ["critic", "critic", "generator"] * 2 + ["encoder"] * 6
    assert all(torch.equal(p, gan[n]) for n, p in state.method.named_parameters() if n in gan)
    assert not torch.equal(encoder[0], next(iter(state.method.encoder.parameters())))


def test_the_critics_loss_by_hand() -> None:
    method, b, rng = build(), batch(), Rng([1, 2, 3, 4])
    terms = method.loss(b, "critic", rng)
    again = Rng([1, 2, 3, 4])
    x_tilde, epsilon = method.generator(again.normal(4)).detach(), again.uniform(1, 1, 1)
    distance = method.judge(b.images).mean() - method.judge(x_tilde).mean()
    penalty = gradient_penalty(method.judge, b.images, x_tilde, epsilon).mean()
    assert_close(terms["total"], 10 * penalty - distance)
    gradients = torch.autograd.grad(terms["total"], list(method.generator.parameters()), allow_unused=True)
    assert all(g is None for g in gradients), "the critic's turn must not reach the generator"


def test_the_paper_s_score_by_hand_and_it_is_the_encoder_s_loss() -> None:
    method, b = build().eval(), batch()
    x_hat = method.generator(method.encoder(b.images))
    f, f_hat = method.judge.features(b.images), method.judge.features(x_hat)
    by_hand = (b.images - x_hat).square().mean(dim=(1, 2, 3)) + 0.3 * (f - f_hat).square().mean(dim=(1, 2, 3))
    assert_close(scorer(method).score(b.images, Rng([1, 2, 3, 4])), by_hand.detach())
    assert_close(method.loss(b, "encoder", Rng([1, 2, 3, 4]))["total"], by_hand.mean())
    assert torch.equal(method.reconstruct(b.images, Rng([1, 2, 3, 4])), x_hat.detach())


def test_nothing_is_validated_while_the_gan_learns() -> None:
    method, b = build(), batch()
    assert method.validation(b, "critic", Rng([1])) == {} and "total" in method.validation(b, "encoder", Rng([1]))


def test_learnt_images_are_restored_and_others_are_not() -> None:
    quick = {"widths": (16, 16), "gan_share": 0.7, "lr": 2e-3, "encoder_lr": 5e-3}
    config = TrainingConfig(batch_size=16, images=16 * 400, ema_decay=0.95)
    state = TrainState(SMALL.model_copy(update=quick).build(16), config)
    list(train(state, Images(), config.images))
    x = torch.stack([Images()[i]["image"] for i in range(16)])
    lesion = x.clone()
    lesion[:, :, :4, 12:] = 1.0
    asked, rng = scorer(state.ema), Rng(range(16))
    normal, abnormal = asked.score(x, rng), asked.score(lesion, rng)
    x_hat = state.ema.reconstruct(x, Rng(range(16)))
    assert (x - x_hat).square().mean() < 0.5 * x.var(), "better than the best single grey"
    assert (abnormal > 1.5 * normal).all()
