"""Signs of life: each driver counts up a number of its own in the ledger, and watches those of the others."""

from collections.abc import Iterable
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from naskd.spec.clock import Clock
from naskd.study.leases import RENEW_SECONDS, Silence
from naskd.study.ledger import Ledger


class Heartbeats:
    """Those that this driver gives, and those that it hears.

    Args:
        ledger: Where they are written.
        clock: Of this host.
        owner: Who this driver is.
    """

    def __init__(self, ledger: Ledger, clock: Clock, owner: str) -> None:
        self._ledger = ledger
        self._clock = clock
        self._owner = owner
        self._silence = Silence(clock)
        self._beats = 0
        self._beat_at = 0.0

    def sign(self, trial: optuna.Trial) -> None:
        """Say whose a trial is that was just begun.

        A sign of life comes first: of this driver others may have heard nothing for long, since it had nothing to do.
        """
        if not self._beats or self._clock.monotonic() - self._beat_at >= RENEW_SECONDS:
            self._beat()
        trial.set_user_attr("owner", self._owner)

    def renew(self) -> None:
        """Give a sign of life, and listen for those of others. May be called by another thread."""
        if self._beats:
            self._beat()
        if watched := self._silence.owners:
            beats = self._ledger.heartbeats()
            for owner in watched:
                if owner in beats:
                    self._silence.hear(owner, beats[owner])

    def listen(self, trials: Iterable[FrozenTrial]) -> None:
        """Hear of the drivers that run trials; each says whose it is."""
        leases: dict[str, list[tuple[int, Any]]] = {}
        for trial in trials:
            # Earlier versions renewed a moment for each trial: that it changes is all that matters.
            lease = trial.number, trial.user_attrs.get("lease")
            leases.setdefault(trial.user_attrs["owner"], []).append(lease)
        beats = self._ledger.heartbeats() if leases else {}
        for owner, renewed in leases.items():
            self._silence.hear(owner, beats.get(owner, renewed))

    def silence(self, owner: str) -> float:
        """Seconds for which a driver has given no sign of life while it was watched."""
        return self._silence.seconds(owner)

    def _beat(self) -> None:
        self._beats += 1
        self._beat_at = self._clock.monotonic()
        self._ledger.write_heartbeat(self._owner, self._beats)
