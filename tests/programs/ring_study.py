"""A learner without a loader whose replay memory is a ring buffer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import auditkit as ak

N_ROWS = 400


def make_program(seed: int, past: str = "no") -> ak.Program:
    """Build it.

    Args:
        seed: The study's.
        past: Whether the step writes past the ring buffer.
    """
    net = nn.Linear(3, 2)
    memory = ak.extras.RingBuffer.zeros(
        N_ROWS, seen=((3,), torch.float32), taken=((), torch.int64), over=((), "bool")
    )

    def step(program: ak.Program, _: None, t: int) -> Tensor:
        seen = torch.randn(3)
        memory.add(seen=seen, taken=int(net(seen).argmax()), over=t % 7 == 0)
        if past == "yes":
            memory["taken"][-1] = t % 2
        rows = torch.randint(len(memory), (8,))
        seen, taken = ak.consume(rows, [memory["seen"][rows], memory["taken"][rows]])
        loss = nn.functional.cross_entropy(net(seen), 1 - taken)
        program.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        program.optimizer.step()
        return loss

    inputs = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))
    return ak.Program(
        model=net,
        optimizer=torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
        loader=None,
        step=step,
        extras={"memory": memory},
        probe=ak.Probe(inputs, torch.arange(12) % 2),
    )
