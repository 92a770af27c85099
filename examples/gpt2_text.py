"""A small GPT-2 on Shakespeare, letter by letter: what do Adam's moments carry?

At step t0 the moments of AdamW are reset, and its count of steps with them. The probe asks for
the next letter at places of the text's last tenth. ``data`` is a folder with one text,
``input.txt`` (https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/).

Minutes on a CPU (0.1 million weights)::

    pip install ".[examples-text]"
    auditkit run examples/gpt2_text.py --out runs/gpt2
    auditkit verify runs/gpt2

GPT-2's 12 layers of 768, on a GPU where there is one::

    auditkit run examples/gpt2_text.py --arg preset=full --fork-at 2000 --window 100 \
        --horizon 3000 --seeds 0-4 --placebo-scale 1 --out runs/gpt2-full
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel

import auditkit as ak

LAYOUT = (
    "expected a text, input.txt, such as "
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)


def read_letters(path: Path) -> tuple[Tensor, int]:
    """The text as numbers of letters, and how many letters there are."""
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} has no {path.name}: {LAYOUT}")
    text = path.read_text(encoding="utf-8")
    letters = {letter: number for number, letter in enumerate(sorted(set(text)))}
    return torch.tensor([letters[letter] for letter in text]), len(letters)


def cut(text: Tensor, length: int) -> Tensor:
    """Rows of length + 1 letters, the last of each the first of the next."""
    if len(text) <= length:
        raise OSError(f"input.txt is too short, or truncated: {LAYOUT}")
    return text.unfold(0, length + 1, length)


def next_letters(model: nn.Module, rows: Tensor) -> Tensor:
    """Scores of the next letter at every place of every row."""
    device = next(model.parameters()).device
    scores: Tensor = model(input_ids=rows.to(device)).logits
    return scores


def make_program(
    seed: int, data: str = "data/tinyshakespeare", preset: str = "small"
) -> ak.Program:
    """Model, optimizer, data and probe of one seed; preset is small or full."""
    full = preset == "full"
    device = "cuda" if full and torch.cuda.is_available() else "cpu"
    length, width, depth, heads = (1024, 768, 12, 12) if full else (64, 64, 2, 4)
    text, n_letters = read_letters(Path(data) / "input.txt")
    border = len(text) * 9 // 10
    train, held_out = cut(text[:border], length), cut(text[border:], length)[:16]

    sizes = {"n_positions": length, "n_embd": width, "n_layer": depth, "n_head": heads}
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=n_letters, bos_token_id=0, eos_token_id=0, **sizes)
    )
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4 if full else 5e-3, weight_decay=0.1)
    rise = 500 if full else 50
    return ak.Program(
        model=model,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: min((t + 1) / rise, 1.0)),
        clip_grad_norm=1.0,
        loader=DataLoader(train, batch_size=16, shuffle=True, drop_last=True),  # type: ignore[arg-type]
        loss=lambda model, rows: F.cross_entropy(
            next_letters(model, rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten().to(device)
        ),
        probe=ak.Probe(held_out[:, :-1], held_out[:, 1:], predict=next_letters, batch_size=4),
    )


STUDY = ak.StudyPlan(
    fork_at=440,
    window=20,
    horizon=500,
    seeds=range(3),
    perturbations=["adam-reset"],
    # A smooth network hardly makes a nudge larger, so this one is: at most 0.8 % of a weight.
    placebo_scale=65536,
)
