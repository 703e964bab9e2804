"""A stopping rule of one's own: who has not learned enough after some epochs is stopped."""

from naskd.spec.option import Option
from naskd.spec.stopping import STOPPING_RULES, StoppingCard
from naskd.study.stopping import Curve, LedgerView, TrialView
from naskd.trials.jobs import Decision


class Floor:
    """Stops a trial whose validation accuracy is below a floor.

    Args:
        epochs: When it looks, once.
        accuracy: The floor, a fraction.
    """

    def __init__(self, epochs: int, accuracy: float) -> None:
        self.epochs = epochs
        self.accuracy = accuracy

    def decide(self, trial: TrialView, curve: Curve, ledger: LedgerView) -> Decision:
        """Looks once."""
        looks = len(curve) == self.epochs
        return Decision.STOP if looks and curve[-1]["val_accuracy"] < self.accuracy else Decision.CONTINUE


STOPPING_RULES.register(
    StoppingCard(
        name="floor",
        title="stops a trial that is below an accuracy after some epochs",
        paper="",
        implementation=Floor,
        options={
            "epochs": Option(1, "when it looks", 1),
            "accuracy": Option(0.2, "fraction of the validation images", 0.0, 1.0),
        },
    )
)
