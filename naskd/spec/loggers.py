"""Who follows a search beside the terminal: cards of loggers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from naskd.spec.option import Option
from naskd.spec.registry import Registry


@dataclass(frozen=True)
class LoggerCard:
    """The torch-free description of a logger.

    Args:
        name: As studies say it in ``execution.callbacks``.
        title: One line for a listing.
        paper: See :class:`~naskd.spec.registry.Card`.
        implementation: ``"module:function"``, or what is called: with ``folder`` (the run directory, a
            ``pathlib.Path``) and ``study`` (its name); it returns a :class:`~naskd.study.observer.StudyObserver`.
        options: None so far: loggers are set up by their own environment variables.
        package: What it imports; "" for nothing beyond naskd's own dependencies.
        install: What ``pip install`` is given where that is missing.
    """

    name: str
    title: str
    paper: str
    implementation: str | Callable[..., Any]
    options: Mapping[str, Option] = field(default_factory=dict)
    package: str = ""
    install: str = ""


LOGGERS: Registry[LoggerCard] = Registry("logger")

LOGGERS.register(
    LoggerCard(
        name="tensorboard",
        title="TensorBoard event files in the run directory",
        paper="",
        implementation="naskd.loggers.tensorboard:tensorboard_logger",
        package="tensorboardX",
        install="tensorboardX",
    )
)
LOGGERS.register(
    LoggerCard(
        name="mlflow",
        title="MLflow, in a file of the run directory or on a server",
        paper="",
        implementation="naskd.loggers.mlflow:mlflow_logger",
        package="mlflow",
        install="mlflow",
    )
)
LOGGERS.register(
    LoggerCard(
        name="wandb",
        title="Weights & Biases, offline without a key",
        paper="",
        implementation="naskd.loggers.wandb:wandb_logger",
        package="wandb",
        install="wandb",
    )
)
