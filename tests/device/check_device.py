"""What ``int64-mix/1`` costs on a GPU, and that it gives the bits of the CPU.

It has not been run on a GPU yet. On a machine with one, eight minutes at most::

    python tests/device/check_device.py

``--dry`` runs the same on the CPU with models of a few numbers, so that the script itself is
tested everywhere. What auditkit requires must be installed into that Python's own environment: a
replay looks nowhere else. Each part is a process of its own, with a time limit of its own, and
prints what it has found at once: one that fails, hangs or leaves the device unusable does not take
the others with it. Exit code 1 where one of them fails.

``digests``
    Of every dtype, shape and stride, made on the device and made from a copy on the host; they
    must be equal.
``ResNet-18``, ``GPT-2``
    With batches of 128 images of 3 x 224 x 224, and with 124 million parameters and 8 x 1,024
    tokens; bfloat16 under autocast, SGD with momentum and AdamW. Digests of the state, begun
    before a step and read after it, must be those of a copy from before, and nothing may wait for
    the device where they begin. Then bare steps, steps with ``int64-mix/1`` and steps with
    ``xxh3-128/tensor-v1``, which copies the state to the host, take turns: medians of a step, in
    ms, and ratios.
``study``
    A small one on the device with ``evidence_digest="int64-mix/1"``: run, verified with replay.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu, scaled_dot_product_attention

from auditkit.formats.recipes import digest_raw
from auditkit.observe.state.components import StateReader, TrainingObjects, capture
from auditkit.observe.values.digests import StateDigester, digest_leaves
from auditkit.observe.values.tensors import DTYPES, Leaves, host_bytes
from auditkit.observe.values.word_sums import WordSummer
from auditkit.records.digest import EVIDENCE_RECIPE, MIX_RECIPE
from auditkit.records.tensor import RawTensor

#: Seconds that each part may take, and after which no further step of a model is measured.
LIMITS = {"digests": 60, "ResNet-18": 105, "GPT-2": 120, "study": 180}
PATIENCE = 45.0

STUDY = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import auditkit as ak

DEVICE = {device!r}


def make_program(seed: int) -> ak.Program:
    model = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 4))
    model = model.to(DEVICE)
    data = TensorDataset(torch.randn(256, 16), torch.arange(256) % 4)

    def loss(model, batch):
        inputs, labels = (part.to(DEVICE) for part in batch)
        return nn.functional.cross_entropy(model(inputs), labels)

    return ak.Program(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        loader=DataLoader(data, batch_size=32, shuffle=True),
        loss=loss,
        probe=ak.Probe(torch.randn(32, 16).to(DEVICE), torch.arange(32) % 4),
    )


STUDY = ak.StudyPlan(
    fork_at=10, window=3, horizon=20, seeds=range(2), placebos=1,
    perturbations=["momentum-reset"], evidence_digest="int64-mix/1",
)
"""


class Block(nn.Module):
    """A residual block."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm_one = nn.BatchNorm2d(after)
        self.two = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm_two = nn.BatchNorm2d(after)
        self.short = (
            nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
            if stride > 1 or before != after
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        inner = self.norm_two(self.two(relu(self.norm_one(self.one(x)))))
        return relu(inner + self.short(x))


def resnet18(width: int) -> nn.Sequential:
    """ResNet-18, of 64 channels in its first stage."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)]
    layers += [nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    before = width
    for stage in range(4):
        after = width * 2**stage
        layers += [Block(before, after, 2 if stage else 1), Block(after, after, 1)]
        before = after
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 1000)]
    return nn.Sequential(*layers)


class Layer(nn.Module):
    """A layer of a transformer that looks back only."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_one, self.norm_two = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output."""
        n, length, width = x.shape
        parts = self.attention(self.norm_one(x)).view(n, length, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        found = scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(found.transpose(1, 2).reshape(n, length, width))
        inner: Tensor = self.inner(self.norm_two(x))
        return x + inner


class GPT2(nn.Module):
    """GPT-2, whose smallest has 124 million parameters."""

    def __init__(self, words: int, length: int, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(length, width)
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of the next word at every place."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        scores: Tensor = self.head(self.norm(self.layers(self.words(tokens) + self.places(places))))
        return scores


class Course:
    """A model that is trained on the device."""

    def __init__(self, name: str, device: torch.device, *, dry: bool) -> None:
        torch.manual_seed(0)
        self.device = device
        if name == "ResNet-18":
            width, batch, side = (8, 2, 32) if dry else (64, 128, 224)
            self.model: nn.Module = resnet18(width).to(device)
            self.inputs = torch.randn(batch, 3, side, side, device=device)
            self.labels = torch.randint(1000, (batch,), device=device)
            parameters = self.model.parameters()
            optimizer: torch.optim.Optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
        else:
            sizes = (101, 16, 24, 3, 2) if dry else (50257, 1024, 768, 12, 12)
            batch, length = (2, 16) if dry else (8, 1024)
            self.model = GPT2(*sizes).to(device)
            self.inputs = torch.randint(sizes[0], (batch, length), device=device)
            self.labels = self.inputs.roll(-1, 1).flatten()
            optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.optimizer = optimizer
        self.objects = TrainingObjects(self.model, optimizer)

    def step(self) -> None:
        """A whole step; it ends with the loss on the host, as a loop that logs it does."""
        with torch.autocast(self.device.type, torch.bfloat16):
            scores = self.model(self.inputs)
            loss = cross_entropy(scores.flatten(0, -2), self.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()
        loss.item()


def every_kind() -> Iterator[tuple[str, Tensor, Callable[[Tensor], Tensor]]]:
    """Tensors of all dtypes and many shapes, and how each is made to lie."""
    generator = torch.Generator().manual_seed(0)
    for name, dtype in DTYPES.items():
        top = 2 if dtype is torch.bool else 256
        for shape in ((), (1,), (3, 5), (7, 64), (129, 33), (0, 4)):
            count = int(torch.tensor(shape).prod()) if shape else 1
            data = torch.randint(top, (count * dtype.itemsize,), generator=generator)
            tensor = data.to(torch.uint8).view(dtype).view(shape)
            yield f"{name} {shape}", tensor, lambda x: x
            if len(shape) == 2:
                yield f"{name} {shape} turned", tensor, lambda x: x.t()
                yield f"{name} {shape} apart", tensor, lambda x: x[:, ::2]
                yield f"{name} {shape} from the second row on", tensor, lambda x: x[1:]


def check_kinds(device: torch.device) -> bool:
    """Of single tensors, and of all of them together."""
    kinds: dict[str, Tensor] = {}
    failed: dict[str, str] = {}
    for name, tensor, laid in every_kind():
        try:
            there = laid(tensor.to(device))
            made = WordSummer().start({"": {"x": there}}).read()[""]
            copied = of_copies({"x": there})
        except (RuntimeError, NotImplementedError) as error:  # a dtype that the device lacks
            failed[name] = f"{type(error).__name__}: {error}".partition("\n")[0]
            continue
        if {made} != {copied, of_copies({"x": laid(tensor)})}:
            failed[name] = "DIFFERS"
        kinds[name] = there
    together = WordSummer().start({"": kinds}).read()[""]
    if together != of_copies({name: leaf.cpu() for name, leaf in kinds.items()}):
        failed["all together"] = "DIFFER"
    print(f"digests of {len(kinds)} tensors: {'FAILED' if failed else 'equal'}")
    for name, reason in [*failed.items()][:20]:
        print(f"  {name}: {reason}")
    return not failed


def of_copies(leaves: Leaves) -> bytes:
    """The digest that numpy makes of copies on the host."""
    entries: dict[str, RawTensor | bytes] = {}
    for name, leaf in leaves.items():
        if isinstance(leaf, bytes):
            entries[name] = leaf
        else:
            dtype = str(leaf.dtype).removeprefix("torch.")
            entries[name] = RawTensor(dtype, tuple(leaf.shape), host_bytes(leaf))
    return digest_raw(MIX_RECIPE, entries, {})


def check_state(course: Course, name: str) -> bool:
    """Of a model's state, tied weights included, which a step changes before they are read."""
    state, summer = capture(course.objects), WordSummer()
    summer.start(state).read()  # lays it out
    copied = {part: digest_leaves(MIX_RECIPE, leaves) for part, leaves in state.items()}
    try:
        with no_waiting(course.device):
            begun = summer.start(state)
    except RuntimeError as error:
        print(f"digests of {name}'s state WAIT for the device: {error}")
        return False
    course.step()
    made = begun.read()
    wrong = [part for part in state if made[part] != copied[part]]
    print(f"digests of {name}'s state: {f'DIFFER: {wrong}' if wrong else 'equal'}")
    return not wrong


@contextlib.contextmanager
def no_waiting(device: torch.device) -> Iterator[None]:
    """Have whatever waits for the device raise RuntimeError."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def overhead(course: Course, name: str, n_steps: int) -> None:
    """What digests add to a step."""
    reader = StateReader(course.objects)
    summer, hasher = WordSummer(), StateDigester(EVIDENCE_RECIPE)
    is_cuda = course.device.type == "cuda"

    def with_sums() -> None:
        begun = summer.start(reader.read())
        course.step()
        begun.read()

    def with_hashes() -> None:
        hasher.digest(reader.read())
        course.step()

    ways: dict[str, Callable[[], None]] = {
        "bare": course.step,
        MIX_RECIPE: with_sums,
        EVIDENCE_RECIPE: with_hashes,
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    began = time.perf_counter()
    for turn in range(n_steps + 3):  # the first ones warm up
        if turn > 5 and time.perf_counter() - began > PATIENCE:
            break
        for way, call in ways.items():
            start = time.perf_counter()
            call()
            if turn > 2:
                seconds[way].append(time.perf_counter() - start)
    medians = {way: statistics.median(found) for way, found in seconds.items()}
    parameters = sum(parameter.numel() for parameter in course.model.parameters())
    peak = torch.cuda.max_memory_allocated() / 2**30 if is_cuda else float("nan")
    print(f"{name}, {parameters:,} parameters, {len(seconds['bare'])} steps, peak {peak:.1f} GiB:")
    for way, median in medians.items():
        print(f"  {way:<20} {1000 * median:9.2f} ms  {median / medians['bare']:6.3f} of bare")


def study(device: torch.device) -> bool:
    """Run and verify one on the device."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "study.py").write_text(STUDY.format(device=str(device)), encoding="utf-8")
        own = ["--key", "signing.key"]
        for command in (
            ["keygen", "--out", "signing.key"],
            ["run", "study.py", "--out", "run", *own],
            ["verify", "run", "--key", "signing.key.pub", "--allow-code"],
        ):
            began = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "auditkit", *command],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                said = f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
                print(f"study: auditkit {command[0]} FAILED: {said}")
                return False
            print(f"study: auditkit {command[0]} took {time.perf_counter() - began:.0f} s")
    is_named = "evidence by int64-mix/1" in " ".join(done.stdout.split())
    print(f"study on {device}: run and verified{'' if is_named else ', the recipe is NOT named'}")
    return is_named


def check_course(name: str, device: torch.device, *, is_dry: bool) -> bool:
    """All that is asked of a model."""
    course = Course(name, device, dry=is_dry)
    course.step()
    passed = check_state(course, name)
    overhead(course, name, 2 if is_dry else 30)
    return passed


def run_part(name: str, *, is_dry: bool) -> bool:
    """Run a part in this process."""
    device = torch.device("cpu" if is_dry else "cuda")
    if name == "digests":
        where = "CPU (dry: its times mean nothing)" if is_dry else torch.cuda.get_device_name()
        print(f"{where}, torch {torch.__version__}")
        return check_kinds(device)
    return study(device) if name == "study" else check_course(name, device, is_dry=is_dry)


def start_part(name: str, *, is_dry: bool) -> bool:
    """Run a part in a process of its own, for as long as it may take."""
    command = [sys.executable, "-u", __file__, "--part", name, *(["--dry"] if is_dry else [])]
    with subprocess.Popen(command, start_new_session=True) as part:
        try:
            return part.wait(LIMITS[name]) == 0
        except subprocess.TimeoutExpired:
            print(f"{name}: STOPPED after {LIMITS[name]} s")
            return False
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(part.pid, signal.SIGKILL)


def main() -> None:
    """Run all parts, or one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--dry", action="store_true", help="a few numbers, on the CPU")
    parser.add_argument("--part", choices=LIMITS, help="this part only, without a time limit")
    options = parser.parse_args()
    if not options.dry and not torch.cuda.is_available():
        raise SystemExit("no GPU here: --dry runs a few numbers on the CPU")
    run = start_part if options.part is None else run_part
    names = LIMITS if options.part is None else [options.part]
    failed = [name for name in names if not run(name, is_dry=options.dry)]
    if failed:
        raise SystemExit(f"FAILED: {', '.join(failed)}")
    print("all passed" if options.part is None else f"{options.part} passed")


if __name__ == "__main__":
    main()
