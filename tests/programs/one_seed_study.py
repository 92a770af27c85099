"""Programs whose seeds decide less than it looks; and honest ones whose order no seed decides."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

import auditkit as ak

N_SAMPLES = 32


class Marked(nn.Module):
    """A small network with a parameter that no gradient reaches."""

    def __init__(self, mark: Tensor, *, shows: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
        self.mark = nn.Parameter(mark)
        self.shows = shows

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits; the mark is seen where nothing is trained, if at all."""
        logits: Tensor = self.body(inputs)
        return logits + self.mark.detach() if self.shows and not self.training else logits


def points() -> TensorDataset:
    """Points of three classes, the same for every seed."""
    inputs = torch.randn(N_SAMPLES, 4, generator=torch.Generator().manual_seed(1))
    return TensorDataset(inputs, torch.arange(N_SAMPLES) % 3)


def program(
    model: nn.Module,
    loader: DataLoader[tuple[Tensor, ...]],
    optimizer: torch.optim.Optimizer | None = None,
    offset: float = 0.0,
) -> ak.Program:
    """A study's program; the offset is added to every loss."""

    def loss(trained: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(trained(batch[0]), batch[1]) + offset

    inputs, labels = points().tensors
    return ak.Program(
        model=model,
        optimizer=optimizer or torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        loader=loader,
        loss=loss,
        probe=ak.Probe(inputs[:8].clone(), labels[:8]),
    )


def mark_of(seed: int) -> Tensor:
    """What alone tells the seeds apart."""
    return torch.randn(3, generator=torch.Generator().manual_seed(seed))


def shuffled() -> DataLoader[tuple[Tensor, ...]]:
    """A loader whose order is drawn."""
    return DataLoader(points(), batch_size=4, shuffle=True)


def alike() -> DataLoader[tuple[Tensor, ...]]:
    """A loader whose order is drawn from one generator, whatever the seed."""
    generator = torch.Generator().manual_seed(0)
    return DataLoader(points(), batch_size=4, shuffle=True, generator=generator)


def make_unused(seed: int) -> ak.Program:
    """The seed is overridden; only a parameter that nothing uses has another value."""
    torch.manual_seed(0)
    return program(Marked(mark_of(seed)), alike())


def make_unused_plain(seed: int) -> ak.Program:
    """The same with an optimizer that keeps nothing."""
    torch.manual_seed(0)
    model = Marked(mark_of(seed))
    return program(model, alike(), torch.optim.SGD(model.parameters(), lr=0.05))


def make_shown(seed: int) -> ak.Program:
    """The parameter is seen by the probe, so that the tables differ."""
    torch.manual_seed(0)
    return program(Marked(mark_of(seed), shows=True), alike())


def make_offset(seed: int) -> ak.Program:
    """The loss differs, too, by what has no gradient."""
    torch.manual_seed(0)
    return program(Marked(mark_of(seed), shows=True), alike(), offset=float(seed))


def make_sequential_copy(seed: int) -> ak.Program:
    """Everything fixed, and no order to draw."""
    torch.manual_seed(0)
    return program(Marked(mark_of(seed)), DataLoader(points(), batch_size=4))


def make_adam(seed: int) -> ak.Program:
    """Another optimizer's moments."""
    torch.manual_seed(0)
    model = Marked(mark_of(seed), shows=True)
    return program(model, alike(), torch.optim.Adam(model.parameters()), offset=float(seed))


def make_fixed_generator(seed: int) -> ak.Program:
    """Every seed's order is drawn from one generator; the weights are the seed's own."""
    return program(Marked(torch.zeros(3)), alike())


def make_sequential(seed: int) -> ak.Program:
    """Honest: the order is the data set's own."""
    return program(Marked(torch.zeros(3)), DataLoader(points(), batch_size=4))


def make_full_batch(seed: int) -> ak.Program:
    """Honest: there is one batch."""
    return program(Marked(torch.zeros(3)), DataLoader(points(), batch_size=N_SAMPLES))


class Curriculum(Sampler[int]):
    """An order that somebody has thought of."""

    def __iter__(self) -> Iterator[int]:
        return iter([(7 * index) % N_SAMPLES for index in range(N_SAMPLES)])

    def __len__(self) -> int:
        return N_SAMPLES


def make_curriculum(seed: int) -> ak.Program:
    """Honest: a sampler of the program's own."""
    loader = DataLoader(points(), batch_size=4, sampler=Curriculum())
    return program(Marked(torch.zeros(3)), loader)


def make_alike_at_first(seed: int) -> ak.Program:
    """Honest: one initialisation, and an order that is the seed's own."""
    torch.manual_seed(0)
    return program(Marked(torch.zeros(3)), shuffled())


def make_shuffled(seed: int) -> ak.Program:
    """Honest: everything is drawn from the seed."""
    return program(Marked(torch.zeros(3)), shuffled())


def make_frozen(seed: int) -> ak.Program:
    """Honest: most of the network is the same for all seeds, and not trained."""
    model = Marked(torch.zeros(3))
    first = model.body[0]
    with torch.random.fork_rng():
        torch.manual_seed(5)
        first.reset_parameters()  # type: ignore[operator]
    for parameter in (*first.parameters(), model.mark):
        parameter.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    loader = DataLoader(points(), batch_size=4)
    return program(model, loader, torch.optim.SGD(trained, lr=0.05, momentum=0.9))
