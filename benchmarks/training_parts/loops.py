"""What naskd is measured against: the customary loop, torchdistill's, and a bare step of the student."""

import logging
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, RandomSampler

from harness.results import say
from harness.timing import timed
from naskd.data.images import ImageSet
from naskd.data.views import as_float, default_shift
from naskd.spec.design import TrainingSpec
from naskd.training.compute import Compute
from naskd.training.optimizers import build_optimizer

EVALUATION_BATCH = 512
TEMPERATURE = 4.0
WORKERS = 2


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images one by one, transformed as torchvision's data sets do.

    Args:
        images: ``(N, C, H, W)`` uint8 on any device; copied to the CPU.
        transform: From a PIL image to a tensor.
    """

    def __init__(self, images: ImageSet, transform: Callable[[Image.Image], Tensor]) -> None:
        self.pixels = np.ascontiguousarray(images.images.cpu().permute(0, 2, 3, 1).numpy())
        self.labels = images.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[position])), self.labels[position]


def pictures(train: ImageSet, val: ImageSet) -> tuple[Pictures, Pictures]:
    """With random crops and flips of the range of naskd's views, and without."""
    from torchvision import transforms  # seconds, which other parts do without

    resolution = train.images.shape[2]
    augmented = transforms.Compose(
        [
            transforms.RandomCrop(resolution, padding=default_shift(resolution)),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
        ]
    )
    return Pictures(train, augmented), Pictures(val, transforms.ToTensor())


def loader_settings(compute: Compute, workers: int) -> dict[str, Any]:
    return {
        "num_workers": workers,
        "persistent_workers": workers > 0,  # the customary loop at its best
        "pin_memory": compute.device.type == "cuda",
    }


def plain(
    teacher: nn.Module,
    student: nn.Module,
    train: ImageSet,
    val: ImageSet,
    training: TrainingSpec,
    compute: Compute,
    workers: int = WORKERS,
) -> float:
    """The customary loop: loader, teacher's and student's forward pass, float32, NCHW. Returns the last accuracy."""
    device = compute.device
    train_set, val_set = pictures(train, val)
    settings = loader_settings(compute, workers)
    loader = DataLoader(train_set, training.batch_size, shuffle=True, drop_last=False, **settings)
    val_loader = DataLoader(val_set, EVALUATION_BATCH, **settings)
    optimizer = torch.optim.AdamW(
        student.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.learning_rate, total_steps=training.epochs * len(loader)
    )
    accuracy = 0.0
    for _ in range(training.epochs):
        student.train()
        for images, labels in loader:
            images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            with torch.no_grad():
                said = teacher(images)
            logits = student(images)
            soft = functional.kl_div(
                functional.log_softmax(logits / TEMPERATURE, 1),
                functional.softmax(said / TEMPERATURE, 1),
                reduction="batchmean",
            )
            loss = functional.cross_entropy(logits, labels) + TEMPERATURE**2 * soft
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        accuracy = evaluate(student, val_loader, device)
    return accuracy


def evaluate(student: nn.Module, loader: Any, device: torch.device) -> float:
    student.eval()
    right = torch.zeros((), device=device)
    total = 0
    with torch.no_grad():
        for images, labels in loader:
            right += (student(images.to(device)).argmax(1) == labels.to(device)).sum()
            total += len(labels)
    return float(right) / total


def torchdistill(
    teacher: nn.Module,
    student: nn.Module,
    train: ImageSet,
    val: ImageSet,
    training: TrainingSpec,
    compute: Compute,
    workers: int = WORKERS,
) -> float:
    """The training loop of torchdistill's examples around its ``DistillationBox``, with its ``KDLoss``."""
    from torchdistill.core.distillation import get_distillation_box
    from torchdistill.losses import high_level, mid_level, util  # noqa: F401  (they register themselves)

    logging.getLogger("torchdistill").setLevel(logging.WARNING)
    device = compute.device
    train_set, val_set = pictures(train, val)
    settings = loader_settings(compute, workers)
    steps = training.epochs * -(-len(train_set) // training.batch_size)
    kd = {
        "student_module_path": ".", "student_module_io": "output", "teacher_module_path": ".",
        "teacher_module_io": "output", "temperature": TEMPERATURE, "alpha": 1.0, "beta": 1.0,
    }  # fmt: skip
    config = {
        "num_epochs": training.epochs,
        "train_data_loader": {
            "dataset_id": "train",
            "sampler": {"class_or_func": RandomSampler},
            "kwargs": {"batch_size": training.batch_size, **settings},
        },
        "val_data_loader": {
            "dataset_id": "val",
            "requires_supp": False,
            "sampler": {"class_or_func": torch.utils.data.SequentialSampler},
            "kwargs": {"batch_size": EVALUATION_BATCH, **settings},
        },
        "teacher": {"requires_grad": False, "forward_proc": "forward_batch_only"},
        "student": {"forward_proc": "forward_batch_only"},
        "optimizer": {
            "key": "AdamW",
            "kwargs": {"lr": training.learning_rate, "weight_decay": training.weight_decay},
        },
        "scheduler": {
            "key": "OneCycleLR",
            "kwargs": {"max_lr": training.learning_rate, "total_steps": steps},
            "scheduling_step": 1,
        },
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {"sub_terms": {"kd": {"criterion": {"key": "KDLoss", "kwargs": kd}, "weight": 1.0}}},
        },
    }
    box = get_distillation_box(
        teacher, student, {"train": train_set, "val": val_set}, config, device, None, False, 1.0
    )
    accuracy = 0.0
    for epoch in range(box.num_epochs):
        box.pre_epoch_process(epoch=epoch)
        for batch, targets, _ in box.train_data_loader:
            batch, targets = batch.to(device), targets.to(device)
            loss = box.forward_process(batch, targets, supp_dict=None)
            box.post_forward_process(loss=loss)
            loss.item()  # as its examples do, for their log
        accuracy = evaluate(box.student_model, box.val_data_loader, device)
        box.post_epoch_process()
    box.clean_modules()
    return accuracy


# --- the ceiling ---------------------------------------------------------------------------------------------------


def best_step(
    build: Callable[[], nn.Module], images: ImageSet, training: TrainingSpec, compute: Compute, steps: int
) -> dict[str, float]:
    """Seconds of a step of the student alone, its batches being on the device as floats, in each way to run it."""
    found = {}
    for name, precise, last in _variants(compute):
        layout = torch.channels_last if last else torch.contiguous_format
        network = build().to(memory_format=layout).train()
        batches = [
            (as_float(images.images[i : i + training.batch_size]).contiguous(memory_format=layout), labels)
            for i in range(0, min(len(images), 4 * training.batch_size), training.batch_size)
            for labels in [images.labels[i : i + training.batch_size]]
            if len(labels) == min(training.batch_size, len(images))
        ]
        step = Step(network, batches, training, compute, precise)
        found[name] = _seconds(step.turn, compute, steps)
        if compute.device.type == "cuda":
            try:
                found[f"{name}, CUDA graph"] = _seconds(step.recorded(), compute, steps)
            except RuntimeError as error:
                say(f"no CUDA graph of a step in {name}: {error}")
    return found


def _variants(compute: Compute) -> Iterator[tuple[str, bool, bool]]:
    """Name, whether in float32, whether in channels_last."""
    for precise in (True, False) if compute.bfloat16 else (True,):
        for last in (False, True):
            yield f"{'float32' if precise else 'bfloat16'}, {'NHWC' if last else 'NCHW'}", precise, last


class Step:
    """Forward, backward and update of a network on batches in turn."""

    def __init__(
        self,
        network: nn.Module,
        batches: list[tuple[Tensor, Tensor]],
        training: TrainingSpec,
        compute: Compute,
        precise: bool,
    ) -> None:
        self.network = network
        self.batches = batches
        self.optimizer = build_optimizer(training, [network])
        for group in self.optimizer.param_groups:
            group["capturable"] = compute.device.type == "cuda"
        self.compute = compute
        self.precise = precise
        self.count = 0

    def turn(self) -> None:
        self.count += 1
        self.once(*self.batches[self.count % len(self.batches)])

    def once(self, images: Tensor, labels: Tensor) -> None:
        device = self.compute.device.type
        with torch.autocast(device, torch.bfloat16, enabled=not self.precise, cache_enabled=False):
            loss = functional.cross_entropy(self.network(images), labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def recorded(self) -> Callable[[], None]:
        """The same as one replay; batches are copied into the recorded one."""
        images, labels = (tensor.clone() for tensor in self.batches[0])
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.once(images, labels)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            self.once(images, labels)

        def replay() -> None:
            self.count += 1
            for held, new in zip((images, labels), self.batches[self.count % len(self.batches)], strict=True):
                held.copy_(new)
            graph.replay()

        return replay


def _seconds(step: Callable[[], None], compute: Compute, steps: int) -> float:
    """Median over three blocks of steps, after one that is not timed."""

    def block() -> None:
        for _ in range(steps):
            step()

    block()
    return statistics.median(timed(compute, block) for _ in range(3)) / steps


def best_evaluation(network: nn.Module, val: ImageSet, compute: Compute) -> float:
    """Seconds of a forward pass over the validation images, on the device as floats, in the best batches."""
    layout = torch.channels_last if compute.channels_last else torch.contiguous_format
    images = as_float(val.images).contiguous(memory_format=layout)
    network = compute.place(network).eval()

    def passes(size: int) -> None:
        with torch.no_grad(), compute.autocast():
            for batch in torch.split(images, size):
                network(batch).argmax(1)

    found = []
    for size in (64, 128, EVALUATION_BATCH, 4096):
        passes(size)
        found.append(statistics.median(timed(compute, lambda size=size: passes(size)) for _ in range(3)))
    return min(found)
