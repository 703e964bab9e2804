"""From a proposal of the sampler to a job: the design is settled, checked, and compared with what others train."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from naskd.spec.clock import Clock
from naskd.spec.design import TrialConfig
from naskd.spec.errors import USERS, InputError
from naskd.spec.samplers import SAMPLERS
from naskd.spec.study import StudySpec
from naskd.study import optuna_private
from naskd.study.admission import count_kinds, problems
from naskd.study.drivers import Drivers
from naskd.study.ledger import REPLICATE, Design, Ledger, replicate_of
from naskd.study.proposals import TurnedAwayError, design_of, refusals
from naskd.study.repeats import Repeat, Repeats
from naskd.study.samplers import CheckedSampler, build_sampler, raise_of_sampler
from naskd.study.search_view import Informed, SearchView
from naskd.study.shared_networks import SharedNetworks
from naskd.study.siblings import Siblings
from naskd.study.space import Space
from naskd.study.stalls import RandomDesigns, Stall
from naskd.study.unused import Unused
from naskd.study.used import UNUSED
from naskd.trials.facts import DesignFacts
from naskd.trials.jobs import Job
from naskd.trials.methods import seed_of


class Asking:
    """Asks the sampler, and turns away what is not worth training.

    Args:
        spec: The study.
        space: Proposes designs.
        facts: Of designs.
        study: Whose sampler is asked; it is set here.
        ledger, drivers, networks, siblings, unused: Of the study.
        clock: Of this host.
        looked: Called after a design was turned away.
        wanted_back: Number of the paused trial with which the stopping rule wants to go on; None where there is none.
        view: Of the study, for samplers that want one.

    Attributes:
        stop_reason: Why the space has nothing more to give; empty while it may have.
        exhausted: Whether that is because all its designs were tried.
    """

    def __init__(
        self,
        spec: StudySpec,
        space: Space,
        facts: DesignFacts,
        study: optuna.Study,
        ledger: Ledger,
        drivers: Drivers,
        networks: SharedNetworks,
        siblings: Siblings,
        unused: Unused,
        clock: Clock,
        looked: Callable[[], None],
        wanted_back: Callable[[], int | None],
        view: SearchView,
    ) -> None:
        self.spec = spec
        self.space = space
        self.stop_reason = ""
        self.exhausted = False
        self._facts = facts
        self._study = study
        self._ledger = ledger
        self._drivers = drivers
        self._networks = networks
        self._siblings = siblings
        self._unused = unused
        self._clock = clock
        self._looked = looked
        self._wanted_back = wanted_back
        self._streak: list[str] = []
        self._stall = Stall()
        self._random = RandomDesigns(spec, space, facts, ledger, drivers)
        self._repeats = Repeats(spec, ledger, drivers, view.fraction)
        self._sampler_from: int | None = len(ledger.trials())
        self._view = view
        self._sampler = study.sampler = self._new_sampler(self._sampler_from)

    def _new_sampler(self, n_trials: int) -> BaseSampler:
        sampler = build_sampler(self.spec.sampler, self.spec.seed, n_trials)
        if isinstance(sampler, Informed):
            sampler.attach(self._view)
        return sampler if SAMPLERS.is_ours(self.spec.sampler.name) else CheckedSampler(sampler)

    def propose(self) -> Job | None:
        """One proposal of the sampler: a job, or None when it was turned away or has to wait.

        A sampler that repeats itself is given a design drawn at random; without one that is new, the search ends.
        """
        given: Mapping[str, Any] | None = None
        again: Repeat | None = None
        if not self._drivers.waiting_again:
            if (paused := self._wanted_back()) is not None:
                given = self._ledger.trials()[paused].params
            again = self._repeats.next() if given is None else None
            if given is None and again is None and self._stall.is_on:
                given = self._random.parameters()
                again = self._repeats.next(early=True) if given is None else None
                if given is None and again is None:
                    self._end_of_space()
                    return None
            if again is not None:
                given = again.parameters
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
            if given is not None:
                # The sampler is asked all the same: one with generations keeps count of them.
                self._study.sampler = optuna.samplers.PartialFixedSampler(dict(given), self._sampler)
            try:
                trial = self._study.ask()
            except USERS as error:
                raise_of_sampler(error, self.spec.sampler.name)
                raise
        has_rivals = self._drivers.hold(trial.number)
        try:
            if again is not None and not optuna_private.was_enqueued(trial):
                trial.set_user_attr(REPLICATE, [again.first, again.replicate])
            return self._admit(trial, has_rivals)
        except UpdateFinishedTrialError:
            # Another driver took it for one that a dead driver has left.
            self._ledger.release(trial.number)
            return None
        finally:
            self._study.sampler = self._sampler

    @property
    def fell_short(self) -> bool:
        """Whether nothing more is proposed, for another reason than that all designs were tried."""
        return bool(self.stop_reason) and not (self.exhausted and self._ledger.trained)

    def _end_of_space(self) -> None:
        self.exhausted = True
        self.stop_reason = (
            "all designs of the space that can be trained were tried: "
            f"{self._random.drawn:,} random draws gave no other"
        )

    def turn_away(self, number: int, reason: str) -> None:
        """End a trial that is not trained; many in a row end the search."""
        self._ledger.turn_away(number, reason)
        self._streak.append(reason)
        n = len(self._streak)
        if n >= self.spec.budget.max_turned_away:
            kinds = count_kinds(dict(enumerate(self._streak)))
            counts = ", ".join(f"{kind} ({k})" for kind, k in kinds.items())
            self.stop_reason = f"{n} designs in a row were turned away: {counts}; last: {reason}"
        self._looked()

    def _admit(self, trial: optuna.Trial, has_rivals: bool) -> Job | None:
        """Choose the design of a trial: a job, or None when it is turned away or has to wait."""
        began = self._clock.monotonic()
        if self._sampler_from is not None and self._sampler_from != trial.number:
            # Drivers that begin together would propose the same: the first own number is nobody else's.
            self._sampler = self._study.sampler = self._new_sampler(trial.number)
        self._sampler_from = None
        self._drivers.heartbeats.sign(trial)
        config, reason = self._design(trial)
        if config is None:
            if not optuna_private.was_enqueued(trial):
                self._stall.turned_away(trial.params, duplicate=reason.startswith("duplicate: "))
            self.turn_away(trial.number, reason)
            return None
        _, replicate = replicate_of(trial)
        seed = seed_of(config, self.spec.seed, replicate)
        trial.set_user_attr("config", config.to_dict())
        trial.set_user_attr("seed", seed)
        unused = self._unused.of(config, trial.params, trial.distributions)
        if unused is not None:
            trial.set_user_attr(UNUSED, unused)
        # The last of the three: from here on, others know what this trial trains.
        trial.set_user_attr("config_id", config.config_id)
        # Who has taken long may have been given up by others, who then know nothing of this design.
        has_rivals = has_rivals or self._drivers.were_slow(began)
        if has_rivals and not self._is_ours(trial.number, (config.config_id, seed)):
            return None
        self._streak.clear()
        self._stall.admitted()
        requires = tuple(recipe.artifact_id for recipe in self._facts.recipes(config))
        continues = self._ledger.goes_on_with.get(trial.number)
        job = Job(
            str(trial.number),
            "trial",
            config,
            seed,
            config.training.epochs,
            requires=requires,
            replicate=replicate,
            continues="" if continues is None else str(continues),
            siblings=self._siblings.wanted(config, replicate),
        )
        return self._networks.begin(job)

    def _is_ours(self, number: int, design: Design) -> bool:
        """Whether a trial keeps its design and its place in the budget next to those of other drivers."""
        drivers, budget = self._drivers, self.spec.budget
        drivers.await_earlier(number)
        if (earlier := drivers.same_design(design, number)) is not None:
            self.turn_away(number, f"duplicate: design {design[0]} is trial {earlier}")
            return False
        is_new = number not in self._ledger.goes_on_with
        if is_new and budget.trials is not None and drivers.turn(number) >= budget.trials:
            drivers.give_up(number, "trials of other drivers fill the budget")
            return False
        return True

    def _design(self, trial: optuna.Trial) -> tuple[TrialConfig | None, str]:
        """The settled design of a proposal, or why it is turned away.

        Raises:
            InputError: The space is broken, or a name is unknown.
        """
        try:
            config = design_of(self.space, trial, self.spec)
            for name, distribution in trial.distributions.items():
                if not optuna_private.contains(distribution, trial.params[name]):
                    return None, f"out of range: {name} = {trial.params[name]!r}, allowed: {distribution}"
            with refusals(self.spec):
                found = problems(self._facts.measured(config), self.spec)
                found = found or self._facts.design_problems(config)
        except TurnedAwayError as turned_away:
            return None, str(turned_away)
        except InputError as error:
            self._ledger.end(trial.number, TrialState.FAIL, str(error))
            raise
        if found:
            return None, found[0]
        _, replicate = replicate_of(trial)
        design = config.config_id, seed_of(config, self.spec.seed, replicate)
        if (earlier := self._drivers.same_design(design, trial.number)) is not None:
            if earlier not in self._ledger.may_go_on:
                return None, f"duplicate: design {config.config_id} is trial {earlier}"
            self._ledger.going_on(trial.number, earlier)
        needs = [recipe.artifact_id for recipe in self._facts.recipes(config)]
        if reason := self._networks.unmade_reason(needs):
            return None, reason
        return config, ""
