"""A sampler that knows what designs cost: most expected hypervolume for the training that it takes.

Accuracy is predicted by :class:`~naskd.study.sampling.surrogate.Surrogate`; costs of designs and of their trainings are
computed. What a design promises (:func:`~naskd.study.sampling.improvement.expected_volume`) is divided by what training
it takes, to a power that falls to 0 as the budget is used (cost cooling: Lee, Perrone, Archambeau & Seeger,
"Cost-aware Bayesian optimization", 2020, arXiv 2003.10870): early on cheap designs teach much, late the best count.

What a training needs and nobody has had made yet, a bank or an assistant, is another matter: it is paid once, and late
there is nobody to share it with. A design is worth less by as many times as this makes it dearer, at all times. What
many designs need is shared out among them; what few need waits until they promise so much more. What most random
designs need is no design's own: a study of such a space has decided to pay it, and a budget that holds it twice does.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from naskd.spec.objectives import ACCURACY
from naskd.spec.pareto import non_dominated, objective_space
from naskd.study.sampling.extrapolation import Extrapolation
from naskd.study.sampling.features import Described, Features, describe
from naskd.study.sampling.improvement import expected_volume
from naskd.study.sampling.observations import observation
from naskd.study.sampling.surrogate import Surrogate
from naskd.study.sampling.transfer import Told, Transfer
from naskd.study.search_view import Candidate, SearchView
from naskd.study.stopping import TrialView, costs_of

Array = NDArray[np.float64]

POOL = 384
"""Candidates: at first random designs, later those of them and of what came that promised most."""
FRESH, CHILDREN = 4, 8
"""Random designs, and variations of the front, that come to the pool before each proposal."""
THRIFT = 0.5
"""Power of the price of a training by which is divided what it promises; at the end of the budget it is 0."""
SHARERS = 10
"""Trainings among which is shared out what has yet to be made, those of them that would need it in a random draw."""


class EhviSampler(BaseSampler):
    """See the module. Without a study of naskd (:meth:`attach`) it draws at random.

    Args:
        seed: In [0, 2^32).
        startup_trials: Finished trainings before the model speaks.
    """

    def __init__(self, seed: int, startup_trials: int = 10) -> None:
        self._seed = seed
        self._startup = startup_trials
        self._independent = RandomSampler(seed=seed)
        self._rng = np.random.RandomState(seed)
        self._view: SearchView | None = None
        self._pool: dict[str, Candidate] = {}
        self._features: Features | None = None
        self._needing: dict[str, float] = {}
        self._drawn: list[Mapping[str, float]] = []
        self._described: dict[str, Described] = {}
        self._rows: dict[str, Array] = {}
        self._surrogate: Surrogate | Transfer = Surrogate(seed)
        self._curves = Extrapolation()
        self._proposal: Mapping[str, Any] = {}

    # --- as Optuna asks it -------------------------------------------------------------------------------------

    def reseed_rng(self) -> None:
        """See :class:`optuna.samplers.BaseSampler`."""
        self._independent.reseed_rng()
        self._rng.seed()

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """See :class:`optuna.samplers.BaseSampler`; made here, since a proposal says which parameters it has."""
        if self._view is None:
            return {}
        self._asked = study, trial
        proposal = self._propose(self._view)
        self._proposal = {} if proposal is None else proposal.parameters
        known = self._view.distributions
        return {name: known[name] for name in self._proposal if name in known}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See :class:`optuna.samplers.BaseSampler`."""
        return {name: self._proposal[name] for name in search_space}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """See :class:`optuna.samplers.BaseSampler`."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    # --- proposing ---------------------------------------------------------------------------------------------

    def attach(self, view: SearchView) -> None:
        """See :class:`~naskd.study.search_view.Informed`."""
        self._view = view

    def _propose(self, view: SearchView) -> Candidate | None:
        finished, running = view.trainings.finished, view.trainings.running
        if self._features is None:
            drawn = view.draw(POOL, self._seed)
            shown = [self._describe(candidate) for candidate in drawn]
            # A search that goes on may find few designs that are new: those of before differ in more.
            shown += [describe(t.config, view.prices.of(t.config).known) for t in (*finished, *running)]
            if len(shown) < 2:
                return None
            self._pool = {candidate.config_id: candidate for candidate in drawn}
            self._drawn = [candidate.price.training.shared for candidate in drawn]
            needed = Counter(name for shared in self._drawn for name in shared)
            self._needing = {name: count / len(drawn) for name, count in needed.items()}
            self._features = Features(shown, merged=True)
            self._hear(view)
        self._curves.learn(finished)
        seen = [trial for trial in finished if trial.status in ("complete", "stopped") and trial.curve]
        self._pool = {name: candidate for name, candidate in self._pool.items() if view.is_new(candidate)}
        complete = sum(trial.status == "complete" and trial.trained_in is None for trial in seen)
        if complete < self._surrogate.fewest(self._startup):
            return self._spread_out([*seen, *running], view)
        # What stays as it is comes first: forecasts change with each curve that ends.
        by_change = sorted((*seen, *running), key=lambda trial: trial.status != "complete")
        observed = [
            (trial, *seen_as)
            for trial in by_change
            if trial.curve and (seen_as := observation(trial, view.n_val, self._curves)) is not None
        ]
        self._surrogate.fit(
            [trial.config.config_id for trial, _, _ in observed],
            np.stack([self._row(trial) for trial, _, _ in observed]),
            np.array([value for _, value, _ in observed]),
            np.array([noise for _, _, noise in observed]),
        )
        if complete < self._startup and not self._surrogate.is_trusted:
            return self._spread_out([*seen, *running], view)
        heard = {trial.number for trial, _, _ in observed}
        front, accuracies, costs = self._front(view, observed, [t for t in running if t.number not in heard])
        self._enrich(view, front)
        paused = self._paused(finished, view)
        candidates = [*self._pool.values(), *(candidate for candidate, _ in paused)]
        if not candidates:
            return None
        rows = np.stack([self._candidate_row(candidate) for candidate in candidates])
        mean, spread = self._surrogate.predict([candidate.config_id for candidate in candidates], rows)
        reference, worst = self._reference(view)
        offered = self._costs([candidate.price.known for candidate in candidates], view)
        volume = expected_volume(mean, spread, offered, costs, accuracies, reference, worst)
        paid = np.array(
            [*(0.0 for _ in self._pool), *(_paid(candidate, trial) for candidate, trial in paused)]
        )
        own, shared = self._prices(candidates, paid, (*seen, *running), view)
        # In logarithms: where nothing is promised, what promises least badly.
        power = THRIFT * (1.0 - view.fraction())
        value = np.log(volume + 1e-300) - power * np.log(own) - np.log1p(shared / own)
        chosen = candidates[int(value.argmax())]
        best = np.argsort(-value[: len(self._pool)], kind="stable")[:POOL]
        self._pool = {candidates[number].config_id: candidates[number] for number in best}
        return chosen

    @staticmethod
    def _paused(finished: Sequence[TrialView], view: SearchView) -> list[tuple[Candidate, TrialView]]:
        """Designs whose trials are paused: proposed again, one goes on for the rest of its price."""
        paused = [(view.at(view.parameters_of(trial.number)), trial) for trial in finished if trial.paused]
        return [(candidate, trial) for candidate, trial in paused if candidate is not None]

    def _hear(self, view: SearchView) -> None:
        """Learn from earlier runs, too, where there are any."""
        told = []
        for trainings, n_val in zip(view.earlier, view.earlier_n_val, strict=True):
            curves, images = Extrapolation(), n_val or view.n_val
            curves.learn(trainings)
            known = [(t, seen) for t in trainings if (seen := observation(t, images, curves)) is not None]
            if len(known) > 1:
                values, noises = np.array([seen for _, seen in known]).T
                rows = np.stack([self._row(trial) for trial, _ in known])
                told.append(Told([trial.config.config_id for trial, _ in known], rows, values, noises))
        if told:
            self._surrogate = Transfer(Surrogate(self._seed), told)

    def _spread_out(self, taken: Sequence[TrialView], view: SearchView) -> Candidate | None:
        """A random design that is far from those begun so far, and not dear."""
        if not self._pool:
            return None
        pool = list(self._pool.values())
        drawn = self._rng.choice(len(pool), min(len(pool), 32), replace=False)
        chosen: list[Candidate] = [pool[number] for number in drawn]
        if not taken:
            return chosen[0]
        rows = np.stack([self._candidate_row(candidate) for candidate in chosen])
        begun = np.stack([self._row(trial) for trial in taken])
        distance = ((rows[:, None] - begun[None]) ** 2).sum(-1).min(1)
        own, shared = self._prices(chosen, np.zeros(len(chosen)), taken, view)
        value = np.log(distance + 1e-12) - THRIFT * np.log(own) - np.log1p(shared / own)
        return chosen[int(value.argmax())]

    def _front(
        self,
        view: SearchView,
        observed: Sequence[tuple[TrialView, float, float]],
        begun: Sequence[TrialView],
    ) -> tuple[list[TrialView], Array, Array]:
        """The front as the model sees it, without noise, with its accuracies and costs; trials that run are among it.

        Args:
            view: Of the study.
            observed: What the model has learned from.
            begun: Trials that run and of which nothing is known yet: what they promise counts as if it were there.
        """
        there = [number for number, (trial, _, _) in enumerate(observed) if trial.status != "stopped"]
        trials = [observed[number][0] for number in there]
        accuracies = self._surrogate.fitted[there]
        if begun:
            names = [trial.config.config_id for trial in begun]
            promised, _ = self._surrogate.predict(names, np.stack([self._row(trial) for trial in begun]))
            trials, accuracies = [*trials, *begun], np.concatenate([accuracies, promised])
        costs = self._costs([trial.metrics for trial in trials], view)
        if costs.shape[1] == 1:
            order = np.lexsort((-accuracies, costs[:, 0]))
            best = np.maximum.accumulate(accuracies[order])
            kept = order[np.diff(best, prepend=-np.inf) > 0]
        else:
            kept = np.flatnonzero(
                non_dominated(np.column_stack([-accuracies, costs]), [False] * (1 + costs.shape[1]))
            )
        return [trials[number] for number in kept], accuracies[kept], costs[kept]

    def _enrich(self, view: SearchView, front: Sequence[TrialView]) -> None:
        """Add random designs and variations of the front to the pool, those that nobody has tried."""
        varied = [self._vary(front[self._rng.randint(len(front))], view) for _ in range(CHILDREN)]
        for candidate in (*view.draw(FRESH, int(self._rng.randint(2**31))), *varied):
            if candidate is not None and view.is_new(candidate):
                self._pool.setdefault(candidate.config_id, candidate)

    def _vary(self, parent: TrialView, view: SearchView) -> Candidate | None:
        """A design that differs from another in one parameter, or in a few."""
        parameters = dict(view.parameters_of(parent.number))
        names = [name for name in view.distributions if name in parameters]
        if not names:
            return None
        for _ in range(1 + self._rng.geometric(0.6)):
            name = names[self._rng.randint(len(names))]
            parameters[name] = self._independent.sample_independent(
                *self._asked, name, view.distributions[name]
            )
        return view.at(parameters)

    # --- what is known -----------------------------------------------------------------------------------------

    @staticmethod
    def _costs(known: Sequence[Mapping[str, float]], view: SearchView) -> Array:
        """``(N, K)`` in the space of the hypervolume; less is better."""
        axes = costs_of(view.objectives)
        values = objective_space([[one[axis.name] for axis in axes] for one in known], axes)
        return np.asarray(values * np.array([axis.sign for axis in axes]), dtype=np.float64)

    def _reference(self, view: SearchView) -> tuple[Array, float]:
        return self._costs([view.reference_point], view)[0], float(view.reference_point[ACCURACY])

    def _prices(
        self, candidates: Sequence[Candidate], paid: Array, begun: Sequence[TrialView], view: SearchView
    ) -> tuple[Array, Array]:
        """Multiply-accumulates of training each, and its part of what nobody has had made yet: ``(N,)`` each.

        Args:
            candidates: ``N`` of them.
            paid: Share of the training of each, in [0, 1), ``(N,)``.
            begun: Trials that have had made what they need; what runs still has it made.
            view: Of the study.
        """
        made: dict[str, float] = {}
        for trial in begun:
            training = view.prices.of(trial.config).training
            there = training.shared if trial.status == "running" else training.made_after(len(trial.curve))
            for name, macs in there.items():
                made[name] = max(macs, made.get(name, 0.0))
        sharers = {name: max(1.0, SHARERS * share) for name, share in self._needing.items()}
        prices = [candidate.price.training for candidate in candidates]
        own = np.array([price.own for price in prices]) * (1.0 - paid)
        usual = self._usual(made, view)
        unpaid = [_unpaid(price.shared, made) for price in prices]
        shared = [
            sum(macs / sharers.get(name, 1.0) for name, macs in needed.items())
            if sum(needed.values()) > usual
            else 0.0
            for needed in unpaid
        ]
        return np.maximum(own, 1.0), np.array(shared, dtype=np.float64)

    def _usual(self, made: Mapping[str, float], view: SearchView) -> float:
        """Multiply-accumulates of what is made once that half of the random designs need, and the budget holds twice.

        The first pass of a large teacher is as dear as hundreds of small students. Were it the price of whoever is
        taught first, a search would begin with students that nobody teaches, and a short one would know no others.
        """
        unpaid = [sum(_unpaid(shared, made).values()) for shared in self._drawn]
        usual = float(np.median(unpaid)) if unpaid else 0.0
        return usual if 2 * usual <= view.most_macs else 0.0

    def _describe(self, candidate: Candidate) -> Described:
        name = candidate.config_id
        if name not in self._described:
            self._described[name] = describe(candidate.config, candidate.price.known)
        return self._described[name]

    def _candidate_row(self, candidate: Candidate) -> Array:
        name = candidate.config_id
        if name not in self._rows:
            assert self._features is not None
            self._rows[name] = self._features.rows([self._describe(candidate)])[0]
        return self._rows[name]

    def _row(self, trial: TrialView) -> Array:
        name = trial.config.config_id
        if name not in self._rows:
            assert self._features is not None
            assert self._view is not None
            known = self._view.prices.of(trial.config).known
            self._rows[name] = self._features.rows([describe(trial.config, known)])[0]
        return self._rows[name]


def _unpaid(shared: Mapping[str, float], made: Mapping[str, float]) -> dict[str, float]:
    """Multiply-accumulates of what a training needs that is made once, as far as nobody has had it made yet."""
    return {name: max(0.0, macs - made.get(name, 0.0)) for name, macs in shared.items()}


def _paid(candidate: Candidate, trial: TrialView) -> float:
    """Share of a training that its paused trial has done, an epoch at least being left.

    Both sides count teachers as if nothing were remembered: what is left of the price has hardly any of that.
    """
    done = trial.train_macs / max(candidate.price.training.whole, 1.0)
    return min(done, 1.0 - 1.0 / candidate.config.training.epochs)
