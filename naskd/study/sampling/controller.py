"""Samplers by reinforcement learning: a controller draws one parameter after the other; what is rewarded comes again.

The controller is a recurrent network, as in Zoph & Le, "Neural architecture search with reinforcement learning" (ICLR
2017, arXiv 1611.01578): it sees what it has drawn so far for the design and says how likely each value of the next
parameter is. After each batch of trainings its weights follow the policy gradient of the reward (REINFORCE: Williams,
"Simple statistical gradient-following algorithms for connectionist reinforcement learning", Machine Learning 8, 1992),
against the moving average of what came before, with a bonus for entropy.

Two rewards, in which accuracy ``A`` and costs are those of a design:

- :func:`product`, of AKD (Liu, Jia, Tan, Vemulapalli, Zhu, Green, Wang: "Search to distill: pearls are everywhere but
  not the eyes", CVPR 2020, arXiv 1911.09074, after MnasNet): ``A prod (cost / target)^w``, ``w`` -0.07 by default. A
  target multiplies all rewards by the same number, which changes nothing here, and is left out;
- :func:`compression`, of N2N (Ashok, Rhinehart, Beainy, Kitani: "N2N learning: network to network compression via
  policy gradient reinforcement learning", ICLR 2018, arXiv 1709.06030): ``C (2 - C) A / A_teacher`` with
  ``C = 1 - cost / cost_teacher``.

What is to be large and may be below 0 counts from the study's reference point where that is below 0; so does what is to
be small and has such a reference point. What is worse than that is worth nothing. Several of them are multiplied.

Differs: AKD's authors train their controller by PPO with thousands of designs. REINFORCE is N2N's, and a study has
hundreds: so the learning rate, 0.02 with Adam, is larger, and was chosen on made-up rewards. N2N removes whole layers
of the teacher in one episode and shrinks those that are left in the next. Here the space says what may be removed or
shrunk (``search_spaces/from_teacher.py``), and one episode decides all. N2N counts parameters; here any objective is
the cost. ``A_teacher`` is left out: it scales every reward, and rewards are compared with each other alone. A
continuous range is cut into parts, within which values are even.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
import torch
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor

from naskd.spec.seeds import derive_seed
from naskd.study.search_view import SearchView

HIDDEN = 32
"""Of the recurrent network."""
PARTS = 8
"""Of a range that has more values."""
BATCH = 5
"""Trainings between two updates: N2N's rollouts."""
MOVING = 0.9
"""Of the average of rewards, what is kept at each update."""
LEAST = 1e-3
"""Of the largest: a cost on a linear scale may be 0, or less, and counts as this share at least: 0 has no power."""
EXPLORED = 0.05
"""Share of values that are drawn evenly: a controller that is sure would propose one design for ever."""

Reward = Callable[[float, Sequence[float], Sequence[float]], float]
"""Of an accuracy, of costs, and of the largest that each of these should be."""


def product(accuracy: float, costs: Sequence[float], exponent: float = -0.07) -> float:
    """``A prod cost^w``.

    Args:
        accuracy: In [0, 1].
        costs: Above 0.
        exponent: ``w``, at most 0.
    """
    return accuracy * float(math.prod(cost**exponent for cost in costs))


def compression(accuracy: float, costs: Sequence[float], largest: Sequence[float]) -> float:
    """``C (2 - C) A`` with ``C = 1 - cost / largest``; the mean over several costs, ``A`` where there are none.

    Args:
        accuracy: In [0, 1].
        costs: At least 0.
        largest: Costs of the network that is compressed, above 0; what costs more has no reward.
    """
    if not costs:
        return accuracy
    saved = [max(0.0, 1.0 - cost / most) for cost, most in zip(costs, largest, strict=True)]
    return accuracy * sum(share * (2.0 - share) for share in saved) / len(saved)


class Choices:
    """A parameter's values as a few choices.

    Args:
        distribution: Of the parameter.
    """

    def __init__(self, distribution: BaseDistribution) -> None:
        self.distribution = distribution
        if isinstance(distribution, CategoricalDistribution):
            self.n = len(distribution.choices)
            return
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        step = distribution.step
        values = (
            math.inf if step is None else math.floor((distribution.high - distribution.low) / step + 1e-9) + 1
        )
        self.n = 1 if distribution.single() else int(min(PARTS, values))
        self._edges = self._scaled(np.array([distribution.low, distribution.high], dtype=np.float64))
        self._few = values <= PARTS

    def value(self, choice: int, share: float) -> Any:
        """Of a choice; `share`, in [0, 1), says where in it."""
        distribution = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices[choice]
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        low, high = self._edges
        if self._few:
            found = distribution.low + choice * (distribution.step or 0.0)
        else:
            found = low + (choice + share) * (high - low) / self.n
            found = math.exp(found) if distribution.log else found
            if distribution.step is not None:
                found = (
                    distribution.low
                    + round((found - distribution.low) / distribution.step) * distribution.step
                )
        found = min(max(found, distribution.low), distribution.high)
        return round(found) if isinstance(distribution, IntDistribution) else float(found)

    def index(self, value: Any) -> int:
        """The choice that a value is of."""
        distribution = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            return int(distribution.to_internal_repr(value))
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        if self.n == 1:
            return 0
        if self._few:
            found: int = round((value - distribution.low) / (distribution.step or 1.0))
            return found
        low, high = self._edges
        scaled = float(self._scaled(np.array([value], dtype=np.float64))[0])
        return min(self.n - 1, max(0, int((scaled - low) / (high - low) * self.n)))

    def _scaled(self, values: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
        return np.log(values) if getattr(self.distribution, "log", False) else values


class Policy:
    """How likely each choice of each parameter is, given those before it.

    Weights of a parameter are made when it is first met, and follow from the seed and its name alone.

    Args:
        seed: Of the weights.
        rate: Of Adam.
    """

    def __init__(self, seed: int, rate: float) -> None:
        self._seed, self._rate = seed, rate
        self._weights: dict[str, Tensor] = {}
        self._optimizer: torch.optim.Adam | None = None

    def _weight(self, name: str, *shape: int, scale: float = 0.1) -> Tensor:
        if name not in self._weights:
            draw = np.random.default_rng(derive_seed("controller", self._seed, name))
            made = torch.from_numpy(draw.uniform(-scale, scale, shape)).requires_grad_()
            self._weights[name] = made
            if self._optimizer is None:
                self._optimizer = torch.optim.Adam([made], lr=self._rate)
            else:
                self._optimizer.add_param_group({"params": [made]})
        return self._weights[name]

    def begin(self) -> "Drawing":
        """The state before the first parameter of a design."""
        return Drawing(self)

    def step(self, state: tuple[Tensor, Tensor], seen: Tensor) -> tuple[Tensor, Tensor]:
        """One step of an LSTM."""
        hidden, cell = state
        gates = (
            seen @ self._weight("input", HIDDEN, 4 * HIDDEN)
            + hidden @ self._weight("hidden", HIDDEN, 4 * HIDDEN)
            + self._weight("bias", 4 * HIDDEN)
        )
        entry, kept, shown, new = gates.chunk(4)
        cell = kept.sigmoid() * cell + entry.sigmoid() * new.tanh()
        return shown.sigmoid() * cell.tanh(), cell

    def logits(self, name: str, n: int, hidden: Tensor) -> Tensor:
        """Of a parameter with `n` choices."""
        return hidden @ self._weight(f"{name}/{n} out", HIDDEN, n) + self._weight(f"{name}/{n} bias", n)

    def embedded(self, name: str, n: int, choice: int) -> Tensor:
        """A choice, as what comes next sees it."""
        return self._weight(f"{name}/{n} in", n, HIDDEN)[choice]

    def update(self, loss: Tensor) -> None:
        """Follow a gradient."""
        assert self._optimizer is not None
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's is not annotated
        self._optimizer.step()


class Drawing:
    """A design that is being drawn.

    Args:
        policy: Whose.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        zeros = torch.zeros(HIDDEN, dtype=torch.float64)
        self._state, self._seen = (zeros, zeros), zeros

    def shares(self, name: str, n: int) -> Tensor:
        """Logarithms of how likely each choice of the next parameter is, ``(n,)``."""
        self._state = self._policy.step(self._state, self._seen)
        return self._policy.logits(name, n, self._state[0]).log_softmax(0)

    def chosen(self, name: str, n: int, choice: int) -> None:
        """It became this one."""
        self._seen = self._policy.embedded(name, n, choice)


class ControllerSampler(BaseSampler):
    """See the module.

    A driver that begins, or goes on, learns from all that is finished before it proposes. Trials that were stopped,
    turned away or failed teach nothing.

    Args:
        seed: In [0, 2^32).
        reward: Of a design.
        rate: Learning rate of the controller, above 0.
        entropy: Weight of the bonus for being undecided, at least 0, against the advantages' standard deviation.
        largest: The largest that the first cost should be; None, and of others: the study's reference point, without
            one the largest that was seen.
    """

    def __init__(
        self,
        seed: int,
        reward: Reward,
        rate: float = 0.02,
        entropy: float = 0.02,
        largest: float | None = None,
    ) -> None:
        self._reward, self._entropy, self._largest = reward, entropy, largest
        self._rng = np.random.default_rng(seed)
        self._policy = Policy(seed, rate)
        self._drawings: dict[int, Drawing] = {}
        self._learned: set[int] = set()
        self._waiting: list[FrozenTrial] = []
        self._mean: float | None = None
        self._spread = 0.0
        self._view: SearchView | None = None

    def attach(self, view: SearchView) -> None:
        """See :class:`~naskd.study.search_view.Informed`."""
        self._view = view

    def reseed_rng(self) -> None:
        """See :class:`optuna.samplers.BaseSampler`."""
        self._rng = np.random.default_rng()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Nothing is drawn together: which parameters there are depends on those before."""
        self._learn(study)
        self._drawings = {trial.number: self._policy.begin()}
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See :meth:`infer_relative_search_space`."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The next parameter of a design."""
        choices = Choices(param_distribution)
        drawing = self._drawings.setdefault(trial.number, self._policy.begin())
        with torch.no_grad():
            likely = drawing.shares(param_name, choices.n).exp().numpy()
            likely = (1 - EXPLORED) * likely + EXPLORED / choices.n
            choice = int(self._rng.choice(choices.n, p=likely / likely.sum()))
            drawing.chosen(param_name, choices.n, choice)
        return choices.value(choice, float(self._rng.random()))

    # --- learning ----------------------------------------------------------------------------------------------

    def _learn(self, study: optuna.Study) -> None:
        """From trials that are new and complete, in the order in which they ended."""
        done = [
            trial
            for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if trial.number not in self._learned and trial.params
        ]
        for trial in sorted(done, key=lambda trial: (trial.datetime_complete, trial.number)):
            self._learned.add(trial.number)
            self._waiting.append(trial)
            if len(self._waiting) == BATCH:
                self._update(study, self._waiting)
                self._waiting = []

    def _update(self, study: optuna.Study, trials: Sequence[FrozenTrial]) -> None:
        rewards = [self._rewarded(study, trial) for trial in trials]
        mean = sum(rewards) / len(rewards)
        before = mean if self._mean is None else self._mean
        spread = math.sqrt(sum((reward - before) ** 2 for reward in rewards) / len(rewards))
        # Of the size of what rewards differ by, whatever their unit.
        self._spread = spread if self._mean is None else MOVING * self._spread + (1 - MOVING) * spread
        losses = []
        for trial, reward in zip(trials, rewards, strict=True):
            advantage = (reward - before) / (self._spread + 1e-12)
            drawing, likely, bonus = self._policy.begin(), [], []
            for name, value in trial.params.items():
                choices = Choices(trial.distributions[name])
                logs, choice = drawing.shares(name, choices.n), choices.index(value)
                drawing.chosen(name, choices.n, choice)
                likely.append(logs[choice])
                bonus.append(-(logs.exp() * logs).sum())
            losses.append(-advantage * torch.stack(likely).sum() - self._entropy * torch.stack(bonus).sum())
        self._policy.update(torch.stack(losses).mean())
        self._mean = mean if self._mean is None else MOVING * self._mean + (1 - MOVING) * mean

    def _rewarded(self, study: optuna.Study, trial: FrozenTrial) -> float:
        gained = 1.0
        costs: list[float] = []
        largest: list[float] = []
        for number, direction in enumerate(study.directions):
            value, reference = trial.values[number], self._reference(number)
            if direction == StudyDirection.MAXIMIZE:
                # Factors below 0 would reward the worse: two of them make a large product.
                gained *= max(0.0, value - self._least(study, number, reference))
            elif reference < 0:
                gained *= max(0.0, reference - value)
            else:
                first = self._largest if not largest else None
                largest.append(first or self._most(study, number, reference))
                least = 0.0 if self._is_log(number) else LEAST * largest[-1]
                costs.append(max(value, least))
        return self._reward(gained, costs, largest)

    def _is_log(self, number: int) -> bool:
        """Whether a cost is above 0 for sure."""
        return self._view is not None and self._view.objectives[number].scale == "log"

    def _reference(self, number: int) -> float:
        """Of the study's reference point; 0 without one."""
        if self._view is None:
            return 0.0
        return float(self._view.reference_point[self._view.objectives[number].name])

    def _least(self, study: optuna.Study, number: int, reference: float) -> float:
        """From where a gain counts, at most 0: without a reference point from the least that was seen."""
        if self._view is not None:
            return min(0.0, reference)
        return min(0.0, *self._seen(study, number))

    def _most(self, study: optuna.Study, number: int, reference: float) -> float:
        return reference if reference > 0 else max(*self._seen(study, number), 1e-12)

    def _seen(self, study: optuna.Study, number: int) -> list[float]:
        return [
            float(t.values[number]) for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        ]
