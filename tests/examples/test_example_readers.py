"""The worked examples read their data sets' published layouts, and say what is missing or cut."""

from __future__ import annotations

import io
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from cli_shell import Shell
from worked_examples import EXAMPLES, skip_without_libraries

from auditkit.program.program import Program, load_factory
from auditkit.program.real_outputs import real_table


def load(name: str) -> ModuleType:
    """An example, or a skip that says which library it lacks."""
    skip_without_libraries(name)
    return load_factory(f"{name}.py", EXAMPLES).module


def build(name: str, **arguments: Any) -> Program:
    torch.manual_seed(0)
    program = load(name).make_program(0, **arguments)
    assert isinstance(program, Program)
    return program


def first_batch(program: Program) -> Any:
    return next(iter(program.loader))


def losses(program: Program, steps: int = 2) -> list[float | None]:
    """Losses of some steps of training."""
    return [program.train_on(first_batch(program), t) for t in range(1, steps + 1)]


# CIFAR-10's binary version

OF_CIFAR = ["augmentation_stage", "cifar10_resnet18", "cifar10_vit", "moco_queue"]
CIFAR = pytest.mark.parametrize("name", OF_CIFAR)
CIFAR_OR_BACK_FLOW = pytest.mark.parametrize("name", [*OF_CIFAR, "back_flow"])
CIFAR_FILES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]


def write_cifar(folder: Path, n_images: int = 20) -> None:
    """Images of one grey each: image i of a file has label i % 10 and pixels 2 * i."""
    record = [bytes([i % 10]) + bytes([2 * i]) * 3072 for i in range(n_images)]
    for file in CIFAR_FILES:
        (folder / file).write_bytes(b"".join(record))


@CIFAR_OR_BACK_FLOW
def test_cifar_records_are_a_label_and_three_planes(name: str, tmp_path: Path) -> None:
    colours = bytes([1]) * 1024 + bytes([2]) * 1024 + bytes([3]) * 1024
    (tmp_path / "one.bin").write_bytes(bytes([7]) + colours + bytes([4]) + colours)
    images, labels = load(name).read_records(tmp_path / "one.bin", 0)
    assert labels.tolist() == [7, 4]
    assert images.shape == (2, 3, 32, 32)
    assert images[1].flatten(1).unique(dim=1).flatten().tolist() == [1, 2, 3]
    assert len(load(name).read_records(tmp_path / "one.bin", 1)[1]) == 1


@CIFAR
def test_a_program_on_cifar_is_built_and_trains(name: str, tmp_path: Path) -> None:
    write_cifar(tmp_path)
    program = build(name, data=str(tmp_path))
    images, labels = first_batch(program)
    assert images.shape == (64, 3, 32, 32)
    if name != "moco_queue":  # whose batches are two views of the images
        assert torch.equal(images[:, 0, 0, 0] // 2 % 10, labels)
    assert all(isinstance(loss, float) for loss in losses(program))


@CIFAR_OR_BACK_FLOW
def test_cifar_that_is_missing_is_described_in_a_line(name: str, tmp_path: Path) -> None:
    write_cifar(tmp_path)
    (tmp_path / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no data_batch_3.bin: expected .*https://"):
        build(name, data=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"^data/cifar-10-batches-bin has no data_batch_1"):
        build(name)


@CIFAR_OR_BACK_FLOW
def test_a_cifar_file_that_is_cut_is_named(name: str, tmp_path: Path) -> None:
    write_cifar(tmp_path)
    cut = tmp_path / "test_batch.bin"
    cut.write_bytes(cut.read_bytes()[:-1])
    with pytest.raises(OSError, match=r"test_batch.bin is truncated: 61459 bytes"):
        build(name, data=str(tmp_path))
    cut.write_bytes(b"")
    with pytest.raises(OSError, match=r"test_batch.bin is truncated: 0 bytes"):
        build(name, data=str(tmp_path))


def test_back_flow_s_base_ends_at_t0_and_its_segments_have_a_new_optimizer(tmp_path: Path) -> None:
    write_cifar(tmp_path, 120)
    program = build("back_flow", data=str(tmp_path), momentum=0.5, overlap=0.75)
    assert program.augment is not None
    sampler = program.loader.batch_sampler
    first, second = set(sampler.first), set(sampler.second)
    assert (len(first), len(second), len(first & second)) == (256, 256, 192)
    (group,) = program.optimizer.param_groups
    batches = list(program.loader)
    assert len(batches) == 3 * 2 + 12
    for t, batch in enumerate(batches[:7], 1):
        consumed = program.augment(batch, t, torch.Generator().manual_seed(t))
        assert isinstance(program.train_on(consumed, t), float)
        if t == 6:
            assert not program.optimizer.state
            assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.03, 0.5, 1e-4)
    assert len(program.optimizer.state) == len(list(program.model.parameters()))


def test_back_flow_s_other_history_begins_from_the_same_images(tmp_path: Path) -> None:
    write_cifar(tmp_path, 120)
    program = build("back_flow", data=str(tmp_path))
    assert program.augment is not None
    batch = [torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8), torch.arange(6)]
    seen = program.augment(batch, 7, torch.Generator().manual_seed(1))
    again = program.data_changes["blur"](seen, 7, torch.Generator().manual_seed(2))
    raw = load("back_flow").blur(batch[0].float() / 255, torch.Generator().manual_seed(2))
    assert torch.equal(again[0], raw)
    assert torch.equal(again[2], batch[0])


def test_back_flow_s_augmentations_do_what_they_say() -> None:
    module, draw = load("back_flow"), torch.Generator().manual_seed(0)
    images = torch.rand(64, 3, 32, 32, generator=draw)
    assert module.none(images, draw) is images
    moved = module.weak(images, draw)
    inside = {float(each) for each in images[0].flatten()}
    assert {float(each) for each in moved[0].flatten()} <= inside
    assert len({float(each) for each in moved[:, 0, 0, 0]}) > 32
    assert ((moved == images).flatten(1).all(dim=1)).float().mean() < 0.2
    flat = torch.full((4, 3, 32, 32), 0.25)
    assert torch.allclose(module.blur(flat, draw), flat)
    spike = torch.zeros(64, 1, 32, 32).index_fill(2, torch.tensor([16]), 1).expand(-1, 3, -1, -1)
    blurred = module.blur(spike, draw)
    assert float(blurred.max()) <= 1
    assert len({round(float(each.max()), 4) for each in blurred}) > 32  # a sigma of its own
    coloured = module.color(images, draw)
    is_grey = (coloured[:, 0] == coloured[:, 1]).flatten(1).all(dim=1)
    assert 0.02 < float(is_grey.float().mean()) < 0.5
    assert 0 <= float(coloured.min()) <= float(coloured.max()) <= 1


def test_a_stage_of_augmentation_takes_a_larger_square_away(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    program = build("augmentation_stage", data=str(tmp_path))
    assert program.augment is not None
    batch = [torch.zeros(6, 3, 32, 32, dtype=torch.uint8), torch.arange(6)]
    for step, side in [(149, 0), (150, 8), (299, 8), (300, 16), (9999, 16)]:
        draw = torch.Generator().manual_seed(step)
        images, labels = program.augment(batch, step, draw)
        taken = (images == 115).flatten(1).sum(dim=1)
        assert taken.tolist() == [3 * side**2] * 6
        assert torch.equal(labels, batch[1])
        assert side == 0 or len({image.numpy().tobytes() for image in images}) > 1
    assert not batch[0].any()


def test_moco_s_teacher_follows_and_its_queue_goes_round(tmp_path: Path) -> None:
    write_cifar(tmp_path, 32)
    program = build("moco_queue", data=str(tmp_path))
    moco: Any = program.model
    assert torch.equal(moco.teacher[0].weight, moco.student[0].weight)
    queue = moco.queue.clone()
    losses(program, 1)
    assert int(moco.place) == 64
    assert torch.equal(moco.queue[64:], queue[64:])
    assert not torch.equal(moco.queue[:64], queue[:64])
    moved = (moco.student[0].weight - moco.teacher[0].weight).abs().max()
    losses(program, 15)
    assert int(moco.place) == 0
    assert (moco.student[0].weight - moco.teacher[0].weight).abs().max() > moved > 0
    assert all(weight.grad is None for weight in moco.teacher.parameters())


def test_moco_is_compared_without_labels_where_that_is_asked(tmp_path: Path) -> None:
    write_cifar(tmp_path, 32)
    program = build("moco_queue", data=str(tmp_path), probe="embedding")
    (probe,) = program.named_probes.values()
    assert (probe.outputs, probe.labels) == ("embedding", None)
    program.model.eval()
    with torch.no_grad():
        table = real_table(
            probe, torch.cat([*(probe.scores(program.model, x) for x in probe.parts())])
        )
    assert table.shape == (len(probe.inputs), 64)


# ImageNet and Tiny ImageNet


def jpeg(grey: int, side: int = 64) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (side, side + 6), (grey, grey, grey)).save(file, "JPEG")
    return file.getvalue()


def write_image_folder(folder: Path) -> None:
    """train/CLASS/*.JPEG and val/CLASS/*.JPEG of two classes."""
    for part in ("train", "val"):
        for grey, name in [(50, "n01"), (200, "n02")]:
            (folder / part / name).mkdir(parents=True)
            for number in range(30):
                (folder / part / name / f"{number}.JPEG").write_bytes(jpeg(grey))


def write_tiny_imagenet(folder: Path) -> None:
    """Tiny ImageNet's layout, with two classes; val's annotations also name a third."""
    for name, grey in [("n01", 50), ("n02", 200)]:
        (folder / "train" / name / "images").mkdir(parents=True)
        for number in range(30):
            file = folder / "train" / name / "images" / f"{name}_{number}.JPEG"
            file.write_bytes(jpeg(grey))
    (folder / "val" / "images").mkdir(parents=True)
    rows = [("val_0.JPEG", "n02"), ("val_1.JPEG", "n01"), ("val_2.JPEG", "n99")]
    for file_name, name in rows:
        grey = {"n01": 50, "n02": 200}.get(name, 0)
        (folder / "val" / "images" / file_name).write_bytes(jpeg(grey))
    lines = [f"{file_name}\t{name}\t0\t0\t9\t9\n" for file_name, name in rows]
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))


@pytest.mark.parametrize("write", [write_image_folder, write_tiny_imagenet])
def test_both_layouts_of_imagenet_are_read(write: Any, tmp_path: Path) -> None:
    load("imagenet_bn")
    write(tmp_path)
    program = build("imagenet_bn", data=str(tmp_path), workers="0")
    images, labels = first_batch(program)
    assert images.shape == (50, 3, 64, 64)
    assert ((images[:, 0, 0, 0] > 100).long() == labels).all()
    assert set(labels.tolist()) == {0, 1}
    probe = program.probe
    assert probe is not None and probe.labels is not None  # noqa: PT018
    assert ((probe.inputs[:, 0, 0, 0] > 100).long() == probe.labels).all()
    assert set(probe.labels.tolist()) == {0, 1}
    assert isinstance(program.train_on((images, labels), 1), float)


def test_images_that_are_missing_or_cut_are_named(tmp_path: Path) -> None:
    load("imagenet_bn")
    with pytest.raises(FileNotFoundError, match=r"has no train: expected train/CLASS.*http://"):
        build("imagenet_bn", data=str(tmp_path))
    write_image_folder(tmp_path)
    cut = tmp_path / "val" / "n02" / "3.JPEG"
    cut.write_bytes(jpeg(9)[:-300])
    with pytest.raises(OSError, match=r"n02/3.JPEG is no whole image"):
        build("imagenet_bn", data=str(tmp_path), workers="0")


def test_an_image_folder_without_images_is_described(tmp_path: Path) -> None:
    load("imagenet_bn")
    (tmp_path / "train" / "n01").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"train has no images: expected train/CLASS"):
        build("imagenet_bn", data=str(tmp_path))


def test_the_resnets_have_as_many_weights_as_the_published_ones() -> None:
    make = load("imagenet_bn").make_resnet
    for depth, millions in [(18, 11_689_512), (50, 25_557_032)]:
        with torch.device("meta"):
            assert sum(w.numel() for w in make(depth, 64, 1000).parameters()) == millions


# SST-2


def write_sst2(folder: Path, n_sentences: int = 40) -> None:
    rows = [f"{'a fine film' if i % 2 else 'dull'} , number {i}\t{i % 2}\n" for i in range(40)]
    for file in ("train.tsv", "dev.tsv"):
        (folder / file).write_text("".join(["sentence\tlabel\n", *rows[:n_sentences]]))


def test_sentences_are_read_and_padded_batch_by_batch(tmp_path: Path) -> None:
    load("sst2_distilbert")
    write_sst2(tmp_path)
    program = build("sst2_distilbert", data=str(tmp_path), weights="random")
    batch = first_batch(program)
    assert batch["input_ids"].shape[0] == 16
    assert (batch["attention_mask"].sum(1) > 4).all()
    assert set(batch["labels"].tolist()) == {0, 1}
    assert isinstance(program.train_on(batch, 1), float)


def test_a_table_of_sentences_that_is_missing_or_cut_is_named(tmp_path: Path) -> None:
    load("sst2_distilbert")
    with pytest.raises(FileNotFoundError, match=r"has no train.tsv: expected .*https://"):
        build("sst2_distilbert", data=str(tmp_path), weights="random")
    write_sst2(tmp_path)
    text = (tmp_path / "dev.tsv").read_text()
    (tmp_path / "dev.tsv").write_text(text[:-3])
    with pytest.raises(OSError, match=r"dev.tsv is truncated, or another table: line 41"):
        build("sst2_distilbert", data=str(tmp_path), weights="random")
    (tmp_path / "dev.tsv").write_text("text\tscore\n")
    with pytest.raises(OSError, match=r"dev.tsv is another table: expected"):
        build("sst2_distilbert", data=str(tmp_path), weights="random")


# A text


def test_a_text_is_read_letter_by_letter(tmp_path: Path) -> None:
    load("gpt2_text")
    with pytest.raises(FileNotFoundError, match=r"has no input.txt: expected .*https://"):
        build("gpt2_text", data=str(tmp_path))
    (tmp_path / "input.txt").write_text("abcd\n" * 400)
    with pytest.raises(OSError, match=r"input.txt"):
        load("gpt2_text").cut(torch.zeros(64), 64)
    program = build("gpt2_text", data=str(tmp_path))
    probe = program.probe
    assert probe is not None
    assert probe.labels is not None
    assert torch.equal(probe.labels[:, :-1], probe.inputs[:, 1:])
    rows = first_batch(program)
    assert rows.shape == (16, 65)
    assert isinstance(program.train_on(rows, 1), float)


# An environment


@pytest.mark.slow
def test_the_network_learns_to_keep_the_pole_up() -> None:
    module = load("dqn_cartpole")
    program = build("dqn_cartpole")
    before = module.play_return(program.model)
    for t in range(1, module.STUDY.fork_at + 1):
        program.train_on(None, t)
    assert module.play_return(program.model) >= 100 > before


def test_a_step_plays_twice_and_learns_from_what_was_kept() -> None:
    load("dqn_cartpole")
    program = build("dqn_cartpole")
    memory: Any = program.extras["memory"]
    now = memory.now.clone()
    assert isinstance(program.train_on(None, 1), float)
    assert memory.count == 2
    assert torch.equal(memory.rows[0, :4], now)
    assert torch.equal(memory.rows[1, :4], memory.rows[0, 6:])
    assert torch.equal(memory.now, memory.rows[1, 6:])
    kept = memory.state_dict()
    program.train_on(None, 2)
    memory.load_state_dict(kept)
    assert memory.count == 2
    assert torch.equal(memory.now, memory.rows[1, 6:])


# A stream


def test_the_stream_becomes_another_kind_at_the_drift() -> None:
    module = load("drifting_stream")
    program = build("drifting_stream")
    stream = program.loader.dataset
    border = module.DRIFT * module.BATCH_SIZE
    assert len(stream) == module.END * module.BATCH_SIZE
    assert float(stream[border - 1][0].mean()) < 0 < float(stream[border][0].mean())
    assert module.STUDY.fork_at + module.STUDY.window // 2 == module.DRIFT
    assert torch.equal(program.probes["old"].inputs, -program.probes["new"].inputs)
    assert isinstance(losses(program)[0], float)


# What the command line says


def test_missing_and_cut_data_are_one_line_on_the_command_line(tmp_path: Path) -> None:
    shell = Shell.at(tmp_path / "user")
    program = str(EXAMPLES / "cifar10_resnet18.py")
    for given in ([], ["--arg", f"data={tmp_path}/none"]):
        missing = shell("run", program, "--out", "run", *given)
        assert missing.code == 2
        assert "has no data_batch_1.bin: expected the binary version of" in missing.line
        assert "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz unpacks to" in missing.line
        assert missing.line.endswith("where data lie elsewhere here, give --arg data=PATH")
    write_cifar(shell.folder)
    (shell.folder / "test_batch.bin").write_bytes(bytes(100))
    cut = shell("run", program, "--out", "run", "--arg", "data=.")
    assert cut.code == 1
    assert "test_batch.bin is truncated: 100 bytes, not a multiple of 3073" in cut.line
    assert not (shell.folder / "run").exists()
