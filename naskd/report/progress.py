"""How a search or a retraining goes, while it runs: a live display on a terminal, plain lines elsewhere."""

import logging
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from naskd.report import summary
from naskd.report.record import Record, Trial, costs, is_complete
from naskd.report.units import duration, finite, measure, percent, training_name, volume
from naskd.spec.secrets import redacted
from naskd.spec.visible import visible
from naskd.study.observer import StudyObserver
from naskd.study.snapshot import Snapshot

LINE_SECONDS = 10.0
"""Least time between two plain lines, so that a log file of a long search stays readable."""
SILENT_SECONDS = 15.0
"""So long nothing may be said off a terminal: then a line tells what goes on, and after as long again the next."""


class Progress(ABC):
    """A display for the length of a ``with`` block.

    On a terminal two or three lines are redrawn in place; elsewhere a line is written now and then, by a thread where
    what goes on says nothing for long.

    Args:
        console: Where to; usually standard error, so that standard output holds results only.
        clock: Seconds, monotonic.
    """

    # A subclass sets its own state before this: a terminal display draws itself when it is made.
    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self._clock = clock
        self._notice = ""
        self._written = -math.inf
        self._line = ""
        self._stage = ""
        self._entered = clock()
        self._over = threading.Event()
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(
                console=console, get_renderable=self.render, refresh_per_second=4, transient=True
            )

    def __enter__(self) -> Self:
        self._entered = self._clock()
        if self._live is not None:
            self._live.start()
        else:
            threading.Thread(target=self._speak_up, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._live is not None:
            self._live.stop()

    def doing(self, what: str) -> None:
        """Take in what is begun, while there is nothing better to show."""
        self._stage = what

    def _speak_up(self) -> None:
        while not self._over.wait(1.0):
            self.speak_up()

    def speak_up(self) -> None:
        """Write what goes on, if nothing was written for long."""
        now = self._clock()
        said = self._goes_on()
        if said and now - max(self._written, self._entered) >= SILENT_SECONDS:
            self._written = now
            self._write(said)

    def _goes_on(self) -> str:
        """What is being done, in a line; empty where that is not known."""
        return f"{self._stage}, {duration(self._clock() - self._entered)} gone" if self._stage else ""

    def notice(self, text: str) -> None:
        """Show `text` from now on. Safe in a signal handler: on a terminal the next redraw shows it."""
        self._notice = visible(redacted(text))
        if self._live is None:
            self._write(self._notice)

    def print(self, text: str) -> None:
        """Lines that stay, above what is redrawn."""
        self._written = self._clock()
        self._write(text)

    def render(self) -> RenderableType:
        """What the terminal shows now."""
        lines = self._lines()
        return Group(*lines, Text(self._notice, style="yellow")) if self._notice else Group(*lines)

    @abstractmethod
    def _lines(self) -> list[RenderableType]:
        """What is redrawn in place."""

    def _log(self, line: str, *, at_once: bool) -> None:
        """Write a plain line, unless the last one is recent or says the same."""
        now = self._clock()
        if (
            self._live is None
            and line not in ("", self._line)
            and (at_once or now - self._written >= LINE_SECONDS)
        ):
            self._written, self._line = now, line
            self._write(line)

    def _write(self, line: str) -> None:
        self.console.print(Text(line), soft_wrap=True)


@contextmanager
def noticed(display: Progress) -> Iterator[None]:
    """Hand what is logged as a warning to a display, which would be torn by other lines."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            display.notice(record.getMessage())

    handler, logger = Handler(logging.WARNING), logging.getLogger("naskd")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class SearchProgress(Progress, StudyObserver):
    """Of a search: one of the observers of :func:`naskd.search`.

    Args:
        console: See :class:`Progress`.
        trials: The budget, or None where the study has none in trials.
        clock: See :class:`Progress`.
    """

    def __init__(
        self, console: Console, trials: int | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.trials = trials
        self.snapshot = Snapshot()
        self._seen = clock()
        self._artifact = ""
        super().__init__(console, clock)

    def looked(self, snapshot: Snapshot) -> None:
        """Take in where the study stands."""
        self.snapshot, self._seen = snapshot, self._clock()
        # Teachers and assistants are rare and long: their start is worth a line of its own.
        if (
            snapshot.running
            and not snapshot.running.startswith("trial")
            and snapshot.running != self._artifact
        ):
            self._artifact = snapshot.running
            self._log(f"{_doing(snapshot)} the {snapshot.running}", at_once=True)
        elif snapshot.waiting_for:
            self._log(self._running(), at_once=True)
        else:
            done = snapshot.complete + snapshot.stopped + snapshot.failed
            self._log(self._plain(snapshot.seconds), at_once=done == self.trials and not snapshot.running)

    def _plain(self, elapsed: float) -> str:
        """All in a line."""
        snapshot = self.snapshot
        running = self._running() if snapshot.running or snapshot.others else ""
        if not snapshot.complete + snapshot.stopped + snapshot.failed:
            return f"{running}; {self._times(elapsed)}" if running else ""
        parts = [self._done(), self._measures(), self._times(elapsed)]
        return "; ".join([*parts, running] if running and snapshot.fraction < 1 else parts)

    def _goes_on(self) -> str:
        if self.snapshot == Snapshot():
            return super()._goes_on()
        return self._plain(self.snapshot.seconds + self._clock() - self._seen) or self._running()

    def _lines(self) -> list[RenderableType]:
        snapshot = self.snapshot
        head = Table.grid(padding=(0, 1))
        head.add_row(ProgressBar(total=1.0, completed=snapshot.fraction, width=30), Text(self._done()))
        elapsed = snapshot.seconds + self._clock() - self._seen
        return [
            head,
            Text(f"{self._measures()} · {self._times(elapsed)}"),
            Text(self._running(), style="dim"),
        ]

    def _done(self) -> str:
        snapshot = self.snapshot
        done = snapshot.complete + snapshot.stopped + snapshot.failed
        budget = f" of {self.trials}" if self.trials is not None else ""
        stopped = f"{snapshot.stopped} stopped early, " if snapshot.stopped else ""
        return f"{done}{budget} trials, {stopped}{snapshot.failed} failed, {snapshot.turned_away} turned away"

    def _measures(self) -> str:
        return (
            f"hypervolume {volume(self.snapshot.hypervolume)} · best {percent(self.snapshot.best_accuracy)}"
        )

    def _times(self, elapsed: float) -> str:
        left = self.snapshot.seconds_left
        if finite(left) is None or self.snapshot.fraction >= 1:
            return f"{duration(elapsed)} gone"
        left = max(0.0, left - (elapsed - self.snapshot.seconds))
        return f"{duration(elapsed)} gone, about {duration(left)} left"

    def _running(self) -> str:
        snapshot = self.snapshot
        if n := snapshot.waiting_for:
            trials = "1 trial" if n == 1 else f"{n} trials"
            return f"waiting for {trials} of other drivers, to run again what they lose"
        if not snapshot.running:
            at_once = {0: "choosing the next design", 1: "one training goes on"}
            return at_once.get(snapshot.others, f"{snapshot.others} trainings go on")
        # What is loaded has no epochs.
        epochs = f" of {snapshot.epochs}" if snapshot.epochs else ""
        epoch = f", epoch {snapshot.epoch}{epochs}" if snapshot.epoch else ""
        others = {0: "", 1: ", and one more"}.get(snapshot.others, f", and {snapshot.others} more")
        the = "" if snapshot.running.startswith("trial") else "the "
        return f"{_doing(snapshot)} {the}{snapshot.running}{epoch}{others}"


class WatchProgress(SearchProgress):
    """Of a search that another process runs.

    Args:
        console, clock: See :class:`Progress`.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._jobs: list[str] = []
        super().__init__(console, None, clock)

    def show(self, snapshot: Snapshot, trials: int | None, jobs: Sequence[str]) -> None:
        """Take in where the search stands: in numbers, its budget in trials, and a line for each running training."""
        self.trials, self._jobs = trials, list(jobs)
        self.looked(snapshot)

    def _lines(self) -> list[RenderableType]:
        *lines, running = super()._lines()
        return [*lines, *(Text(job, style="dim") for job in self._jobs)] if self._jobs else [*lines, running]


def training_line(
    what: str, config: Mapping[str, Any] | None, epoch: int, epochs: int, val_accuracy: float | None
) -> str:
    """A training that goes on: ``trial 17: epoch 6 of 20, 71.20%, basic 16×2 ← logits T4``.

    Args:
        what: Such as ``trial 17`` or ``teacher``.
        config: Its design; None for a teacher or an assistant.
        epoch: That it has done.
        epochs: In all; 0 where that is not known.
        val_accuracy: After that; None before the first.
    """
    begun = f"epoch {epoch}" + (f" of {epochs}" if epochs else "") if epoch else "begun"
    parts = [begun, *([percent(val_accuracy)] if val_accuracy is not None else [])]
    if config is not None:
        parts.append(f"{summary.student(config)} ← {summary.taught_by(config)}")
    return f"{what if config is not None else f'the {what}'}: {', '.join(parts)}"


def finished_line(trial: Trial, record: Record) -> str:
    """A trial that has ended, in a line: ``trial 16: 93.06%, 12.3 kMACs, basic 16×2 ← logits T4``."""
    name, config = training_name(trial.get("number", ""), trial.get("continues")), trial.get("config")
    design = f"{summary.student(config)} ← {summary.taught_by(config)}" if config else ""
    if is_complete(trial):
        shown = [f"{measure(trial.get(axis.name), axis.unit)} {axis.title}" for axis in costs(record)]
        return f"{name}: {percent(trial.get('val_accuracy'))}, {', '.join(shown)}, {design}"
    reason = trial.get("reason") or "no reason recorded"
    if reason.startswith("paused by "):
        return f"{name}: {reason}"
    state = "failed" if trial.get("state") == "FAIL" else "stopped" if trial.get("curve") else "turned away"
    return f"{name}: {state}: {reason}"


def _doing(snapshot: Snapshot) -> str:
    return "training" if snapshot.trained else "loading"


class StageProgress(Progress):
    """Of what has neither trials nor parts to count: what :meth:`doing` was told last.

    Args:
        console, clock: See :class:`Progress`.
    """

    def _lines(self) -> list[RenderableType]:
        said = self._goes_on()
        return [Text(said, style="dim")] if said else []


class CountProgress(Progress):
    """Of work whose parts are counted: pass :meth:`observe` to :meth:`naskd.runs.run.Run.retrain`, for instance.

    Args:
        console, clock: See :class:`Progress`.
        parts: What is counted.
    """

    def __init__(
        self, console: Console, parts: str = "trainings", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._parts = parts
        self._started = clock()
        self._state = (0, 0, "")
        super().__init__(console, clock)

    def observe(self, done: int, total: int, what: str) -> None:
        """Take in the parts done, parts in all, and what comes next."""
        self._state = (done, total, what)
        self._log(self._text(), at_once=done in (0, total))

    def _lines(self) -> list[RenderableType]:
        done, total, _ = self._state
        head = Table.grid(padding=(0, 1))
        head.add_row(ProgressBar(total=max(total, 1), completed=done, width=30), Text(self._text()))
        return [head]

    def _goes_on(self) -> str:
        return self._text() if self._state[1] else super()._goes_on()

    def _text(self) -> str:
        done, total, what = self._state
        elapsed = self._clock() - self._started
        left = f", about {duration(elapsed * (total - done) / done)} left" if 0 < done < total else ""
        return f"{done} of {total} {self._parts}, {duration(elapsed)} gone{left}" + (
            f"; now {what}" if what else ""
        )
