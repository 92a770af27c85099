"""Models that are not only dense layers, a factory each."""

# Written as people write programs, without a word for the type checker.
# mypy: disable-error-code="arg-type, assignment, call-overload, index, no-any-return"
# mypy: disable-error-code="no-untyped-call, operator"

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from odd_kit import BATCH_SIZE, N_CLASSES, N_FEATURES, STUDY, mlp, points, program, tokens
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.checkpoint import checkpoint

import auditkit as ak

__all__ = ["STUDY"]

#: What many scripts have: numbers and tensors of the module, which no step changes.
SMOOTHING = 0.1
CLASS_WEIGHTS = torch.tensor([1.0, 2.0, 0.5])


class Tied(nn.Module):
    """The output layer uses the embedding's own matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, N_FEATURES)
        self.head = nn.Linear(N_FEATURES, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.embedding(words).mean(dim=1))[:, :N_CLASSES]


def tied_weights(seed: int) -> ak.Program:
    return program(Tied(), tokens())


def channels_last(seed: int) -> ak.Program:
    model = nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, N_CLASSES)),
    ).to(memory_format=torch.channels_last)
    inputs, labels = points(2, 5, 5)
    return program(model, (inputs.contiguous(memory_format=torch.channels_last), labels))


class Spectrum(nn.Module):
    """A filter of complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(N_FEATURES, 5, dtype=torch.complex64))
        self.register_buffer("phase", torch.exp(1j * torch.arange(5)))
        self.head = nn.Linear(5, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.fft(x.to(torch.complex64)) @ self.filter * self.phase
        return self.head(spectrum.abs())


def complex_parameters(seed: int) -> ak.Program:
    model = Spectrum()
    return program(model, points(), optimizer=torch.optim.Adam(model.parameters(), lr=0.01))


def sparse_embedding(seed: int) -> ak.Program:
    model = nn.Sequential(nn.EmbeddingBag(11, N_CLASSES, sparse=True))
    return program(
        model, tokens(), optimizer=torch.optim.SparseAdam(list(model.parameters()), lr=0.1)
    )


def sparse_embedding_with_sgd(seed: int) -> ak.Program:
    model = nn.Sequential(nn.EmbeddingBag(11, N_CLASSES, sparse=True))
    return program(model, tokens(), optimizer=torch.optim.SGD(model.parameters(), lr=0.1))


class Recurrent(nn.Module):
    """A recurrent network, with what it returns last."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], *, packed: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 4, padding_idx=0)
        self.core = kind(4, 5, num_layers=2, dropout=0.2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, N_CLASSES)
        self.packed = packed

    def forward(self, words: Tensor) -> Tensor:
        x: Any = self.embedding(words)
        if self.packed:
            lengths = (words != 0).sum(dim=1).clamp(min=1)
            x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        _, state = self.core(x)
        last = state[0] if isinstance(state, tuple) else state
        return self.head(torch.cat([last[-2], last[-1]], dim=1))


def lstm(seed: int) -> ak.Program:
    return program(Recurrent(nn.LSTM, packed=False), tokens())


def packed_gru(seed: int) -> ak.Program:
    return program(Recurrent(nn.GRU, packed=True), tokens())


class Attention(nn.Module):
    """Attention over a sequence, with dropout on its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(N_FEATURES, 2, dropout=0.3, batch_first=True)
        self.head = nn.Linear(N_FEATURES, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        attended, _ = self.attention(x, x, x, need_weights=False)
        return self.head(attended.mean(dim=1))


def attention_with_dropout(seed: int) -> ak.Program:
    return program(Attention(), points(4, N_FEATURES))


def transformer(seed: int) -> ak.Program:
    layer = nn.TransformerEncoderLayer(N_FEATURES, 2, 8, dropout=0.2, batch_first=True)
    model = nn.Sequential(
        nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        *(nn.Flatten(), nn.Linear(4 * N_FEATURES, N_CLASSES)),
    )
    return program(model, points(4, N_FEATURES))


def compiled(seed: int) -> ak.Program:
    model = torch.compile(mlp(nn.Dropout(0.2)))
    return program(model, points())


class Checkpointed(nn.Module):
    """Activations are computed twice, dropout included."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(N_FEATURES, 8), nn.Dropout(0.3), nn.Tanh())
        self.head = nn.Linear(8, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.body, x, use_reentrant=False))


def checkpointed(seed: int) -> ak.Program:
    return program(Checkpointed(), points())


def per_sample_gradients(seed: int) -> ak.Program:
    """Clipped gradients of each sample by vmap, as private training has them."""

    def train(this: ak.Program, batch: Any, t: int) -> Tensor:
        parameters = {name: p.detach() for name, p in this.model.named_parameters()}

        def loss_of(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            scores = functional_call(this.model, weights, (x.unsqueeze(0),))
            return F.cross_entropy(scores, y.unsqueeze(0))

        each = vmap(grad(loss_of), in_dims=(None, 0, 0))(parameters, *batch)
        for name, parameter in this.model.named_parameters():
            clipped = each[name] / each[name].flatten(1).norm(dim=1).clamp(min=1).reshape(
                -1, *[1] * (each[name].ndim - 1)
            )
            parameter.grad = clipped.mean(dim=0)
        this.optimizer.step()
        with torch.no_grad():
            return F.cross_entropy(this.model(batch[0]), batch[1])

    return program(mlp(), points(), step=train)


class Ensemble(nn.Module):
    """Three heads that are called at once by vmap."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, N_CLASSES, N_FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        return vmap(lambda weight: x @ weight.T, randomness="different")(self.weight).mean(dim=0)


def vmapped_ensemble(seed: int) -> ak.Program:
    return program(Ensemble(), points())


def weight_norm(seed: int) -> ak.Program:
    model = mlp()
    parametrizations.weight_norm(model[0])
    return program(model, points())


def older_weight_norm(seed: int) -> ak.Program:
    model = mlp()
    nn.utils.weight_norm(model[0])
    return program(model, points())


def spectral_norm(seed: int) -> ak.Program:
    model = mlp()
    parametrizations.spectral_norm(model[0])
    return program(model, points())


def older_spectral_norm(seed: int) -> ak.Program:
    model = mlp()
    nn.utils.spectral_norm(model[0])
    return program(model, points())


class Symmetric(nn.Module):
    """A matrix that equals its transpose."""

    def forward(self, x: Tensor) -> Tensor:
        return x.triu() + x.triu(1).transpose(-1, -2)


def parametrized(seed: int) -> ak.Program:
    model = mlp(nn.Linear(8, 8))
    parametrize.register_parametrization(model[1], "weight", Symmetric())
    parametrizations.orthogonal(model[0])
    return program(model, points())


def pruned(seed: int) -> ak.Program:
    model = mlp()
    prune.l1_unstructured(model[0], "weight", amount=0.3)
    prune.random_unstructured(model[2], "weight", amount=0.3)
    return program(model, points())


def pruned_while_training(seed: int) -> ak.Program:
    """Weights are cut after the second step."""
    made = program(model := mlp(), points())

    def train(this: ak.Program, batch: Any, t: int) -> float | None:
        if t == 2:
            prune.l1_unstructured(model[0], "weight", amount=0.3)
        return made.train_on(batch, t)

    return replace(made, step=train)


def double_precision(seed: int) -> ak.Program:
    inputs, labels = points()
    return program(mlp().double(), (inputs.double(), labels))


def half_precision(seed: int) -> ak.Program:
    inputs, labels = points()
    return program(mlp().bfloat16(), (inputs.bfloat16(), labels))


def frozen_layers(seed: int) -> ak.Program:
    model = mlp(nn.BatchNorm1d(8))
    model[0].requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    return program(model, points(), optimizer=torch.optim.Adam(trained, lr=0.01))


class Counted(nn.Module):
    """Layers without parameters, and buffers of whole numbers and of yes and no."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Identity(), nn.Flatten(), nn.Sequential()])
        self.nothing = nn.ModuleDict({"empty": nn.ParameterList()})
        self.head = nn.Linear(N_FEATURES, N_CLASSES)
        self.register_buffer("seen", torch.zeros(N_CLASSES, dtype=torch.int32))
        self.register_buffer("mask", torch.zeros(N_FEATURES, dtype=torch.bool))
        self.register_buffer("calls", torch.tensor(0, dtype=torch.uint8), persistent=False)
        self.register_buffer("nobody", None)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        if self.training:
            self.mask |= (x > 1).any(dim=0)
            self.calls += 1
        scores: Tensor = self.head(x * self.mask)
        if self.training:
            self.seen += scores.argmax(dim=1).bincount(minlength=N_CLASSES)
        return scores


def counting_buffers(seed: int) -> ak.Program:
    return program(Counted(), points())


def tracking_norms(seed: int) -> ak.Program:
    model = nn.Sequential(
        *(nn.Conv1d(2, 4, 3), nn.InstanceNorm1d(4, affine=True, track_running_stats=True)),
        *(nn.GroupNorm(2, 4), nn.LocalResponseNorm(2), nn.Flatten()),
        *(nn.LayerNorm(16), nn.Linear(16, N_CLASSES)),
    )
    return program(model, points(2, 6))


def bounded_embedding(seed: int) -> ak.Program:
    """The forward pass renormalises the rows that it looks up."""
    model = nn.Sequential(
        nn.Embedding(11, 4, max_norm=0.5, scale_grad_by_freq=True),
        *(nn.Flatten(), nn.Linear(20, N_CLASSES)),
    )
    return program(model, tokens())


def bounded_embedding_probed_by_a_copy(seed: int) -> ak.Program:
    made = bounded_embedding(seed)
    inputs, labels = tokens()
    probe = ak.Probe(
        inputs[:9], labels[:9], predict=lambda model, given: copy.deepcopy(model)(given)
    )
    return replace(made, probe=probe)


def many_dropouts(seed: int) -> ak.Program:
    model = nn.Sequential(
        *(nn.Conv1d(2, 4, 3), nn.Dropout1d(0.3), nn.FeatureAlphaDropout(0.1)),
        *(nn.Flatten(), nn.AlphaDropout(0.1), nn.Linear(16, N_CLASSES)),
    )
    return program(model, points(2, 6))


def random_slopes(seed: int) -> ak.Program:
    return program(mlp(nn.RReLU()), points())


def fractional_pooling(seed: int) -> ak.Program:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.FractionalMaxPool2d(2, output_size=3),
        *(nn.Flatten(), nn.Linear(18, N_CLASSES)),
    )
    return program(model, points(1, 8, 8))


class Gumbel(nn.Module):
    """A choice that is drawn, and passes gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.choose = nn.Linear(N_FEATURES, 4)
        self.head = nn.Linear(4, N_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.choose(x)
        chosen = F.gumbel_softmax(scores, hard=True) if self.training else scores.softmax(dim=1)
        return self.head(chosen)


def gumbel_softmax(seed: int) -> ak.Program:
    return program(Gumbel(), points())


class Straight(torch.autograd.Function):
    """Signs, with the gradient of the identity."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sign()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() < 1)


class Binary(nn.Module):
    """Activations of -1 and 1."""

    def forward(self, x: Tensor) -> Tensor:
        return Straight.apply(x)


def own_gradient(seed: int) -> ak.Program:
    return program(mlp(Binary()), points())


def hooked(seed: int) -> ak.Program:
    """Hooks on layers, parameters and the optimizer, which change what they see."""
    made = program(model := mlp(), points())
    model[0].register_forward_hook(lambda layer, given, out: out.clamp(-2, 2))
    model[2].register_full_backward_hook(lambda layer, given, out: (given[0] * 0.5,))
    model[2].weight.register_hook(lambda gradient: gradient.clamp(-0.1, 0.1))

    def shrink(optimizer: Any, args: Any, kwargs: Any) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(0.999)

    made.optimizer.register_step_post_hook(shrink)
    return made


def lazy_layers(seed: int) -> ak.Program:
    model = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.LazyLinear(N_CLASSES))
    inputs, labels = points()
    model(inputs[:BATCH_SIZE])
    return program(model, (inputs, labels))


def module_constants(seed: int) -> ak.Program:
    def loss(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(
            model(batch[0]), batch[1], weight=CLASS_WEIGHTS, label_smoothing=SMOOTHING
        )

    return program(mlp(), points(), loss=loss)


def distilled(seed: int) -> ak.Program:
    """A teacher copied from the model at the start, which nobody trains."""
    model = mlp(nn.Dropout(0.1))
    teacher = copy.deepcopy(model).eval().requires_grad_(False)

    def loss(model: nn.Module, batch: Any) -> Tensor:
        with torch.no_grad():
            wanted = teacher(batch[0]).softmax(dim=1)
        scores = model(batch[0])
        return F.cross_entropy(scores, batch[1]) + F.kl_div(
            scores.log_softmax(dim=1), wanted, reduction="batchmean"
        )

    return program(model, points(), loss=loss)
