"""Other designs of one training, evaluated beside the one that it was begun for."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from naskd.data.images import ImageSet
from naskd.schemes.scheme import Scheme, Sibling
from naskd.spec.design import DistillationSpec, TrialConfig
from naskd.training.compute import Compute
from naskd.training.evaluation import accuracy, predict
from naskd.trials.methods import sibling_of


class Siblings:
    """The networks of a training that leave in other designs, with what they have reached.

    Args:
        wanted: These designs, settled.
        distillation: Of the design that the training was begun for.
        scheme: That trains. What it cannot let leave is left out.
    """

    def __init__(self, wanted: Sequence[TrialConfig], distillation: DistillationSpec, scheme: Scheme) -> None:
        there = {sibling_of(distillation, one.options): one for one in scheme.siblings} if wanted else {}
        self._there: list[tuple[TrialConfig, Sibling]] = [
            (config, there[config.distillation]) for config in wanted if config.distillation in there
        ]
        self._reached: dict[str, list[float]] = {config.config_id: [] for config, _ in self._there}
        self._predictions: dict[str, Tensor] = {}

    @property
    def macs(self) -> int:
        """Multiply-accumulates of showing all of them one image."""
        return sum(one.cost.unmerged_macs for _, one in self._there)

    def evaluate(self, val: ImageSet, compute: Compute) -> None:
        """After an epoch: what each says of the validation images."""
        for config, one in self._there:
            said = self._predictions[config.config_id] = predict(one.network, val.images, compute)
            self._reached[config.config_id].append(accuracy(said, val.labels))

    def whole(self, epochs: int) -> list[tuple[TrialConfig, Sibling]]:
        """Those that were evaluated after each of so many epochs; others were not wanted from the beginning."""
        return [
            (config, one) for config, one in self._there if len(self._reached[config.config_id]) == epochs
        ]

    def curve(self, config: TrialConfig, of: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], ...]:
        """The learning curve of one: that of the training, with its own accuracies.

        Args:
            config: Of it; it must be among :meth:`whole`.
            of: The training's.
        """
        reached = self._reached[config.config_id]
        return tuple({**point, "val_accuracy": value} for point, value in zip(of, reached, strict=True))

    def predictions(self, config: TrialConfig) -> Tensor | None:
        """Class indices ``(N,)`` that one named last; None where another process has seen them."""
        return self._predictions.get(config.config_id)

    def state_dict(self) -> dict[str, list[float]]:
        """Accuracies so far by ``config_id``."""
        return self._reached

    def load_state_dict(self, state: Mapping[str, Sequence[float]]) -> None:
        """The inverse of :meth:`state_dict`. Of those that it does not know nothing is known before."""
        self._reached = {name: list(state.get(name, ())) for name in self._reached}
        self._predictions = {}
