"""What the programs in the fleet's pods do about checkpoints: save at their times and when asked, resume, lie, or not.

Work is counted in ms from the start of the gang's first attempt. A program that saves does no work meanwhile; what it
had done when it began to save is what a later attempt resumes from, once the save is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fairlead.model.effects import Notice
from fairlead.model.events import CheckpointCommitted, Event
from fairlead.model.gang import GangId
from fairlead.simulation.behaviour import Run, Saves
from fairlead.simulation.fleet_heap import Action
from fairlead.simulation.fleet_pods import Key

LIE_EVERY_MS = 30_000


@dataclass(slots=True)
class Program:
    """One attempt whose members all run: since when, what of the gang's work was done by then, when it is all done.

    `told_ms` is when the notice that it was given begins, 0 where it was given none.
    """

    key: Key
    saves: Saves
    since_ms: int
    done_ms: int
    end_ms: int | None
    paused_ms: int = 0
    told_ms: int = 0

    def work_at(self, now_ms: int) -> int:
        """Return the work that is done, its own pauses and its start taken off."""
        return self.done_ms + max(0, now_ms - self.since_ms - self.saves.restart_ms - self.paused_ms)


@dataclass(slots=True)
class Programs:
    """All programs that save.

    `at` puts an action into the fleet's heap, `alive` says whether all members of an attempt still run, and `stop` ends
    one at a moment. `saved_ms` is the work of each gang that a new attempt need not do again.
    """

    at: Callable[[int, Action], None]
    alive: Callable[[Key], bool]
    stop: Callable[[Key, int], None]
    saved_ms: dict[GangId, int] = field(default_factory=dict[GangId, int])
    running: dict[Key, Program] = field(default_factory=dict[Key, Program])

    def start(self, key: Key, run: Run, now_ms: int) -> int | None:
        """Begin an attempt; return how long it takes with all its pauses, None for ever."""
        saves, done_ms = run.saves, self.saved_ms.get(key[0], 0)
        assert saves is not None, run
        end_ms: int | None = None
        if run.run_ms is not None:
            left_ms = max(0, run.run_ms - done_ms)
            pauses = (left_ms - 1) // saves.every_ms if saves.honest and saves.every_ms and left_ms else 0
            end_ms = now_ms + saves.restart_ms + left_ms + pauses * saves.pause_ms
        program = Program(key=key, saves=saves, since_ms=now_ms, done_ms=done_ms, end_ms=end_ms)
        self.running[key] = program
        self._save_later(program, now_ms + saves.restart_ms)
        return None if end_ms is None else end_ms - now_ms

    def notice(self, effect: Notice) -> None:
        """Tell a program to save; one that hears of it by the deletion of its pods ends when it has."""
        key = (effect.gang, effect.attempt)
        program = self.running.get(key)
        if program is None:
            return
        saves, program.told_ms = program.saves, effect.begins_ms
        done_ms = effect.begins_ms + (0 if saves.lies else saves.pause_ms)
        if not saves.silent:
            self.at(done_ms, lambda at_ms: self._commit(program, effect.begins_ms, at_ms, effect.begins_ms))
        if saves.ends:
            self.at(effect.until_ms if saves.silent else done_ms, lambda at_ms: self._end(program, effect, at_ms))

    def withdraw(self, key: Key) -> None:
        """Let a program go on. One that was to hear of it by its pods' deletion has heard nothing yet."""
        program = self.running.get(key)
        if program is not None:
            program.told_ms = 0

    def _end(self, program: Program, told: Notice, at_ms: int) -> Sequence[Event]:
        if program.told_ms == told.begins_ms:
            self.stop(program.key, at_ms)
        return ()

    def _save_later(self, program: Program, now_ms: int) -> None:
        """Put the next thing that a program does by itself into the heap, if it does any before its end."""
        saves = program.saves
        if saves.silent or not saves.every_ms:
            return
        if saves.lies:
            self.at(now_ms + LIE_EVERY_MS, lambda at_ms: self._lie(program, at_ms))
            return
        begins_ms = now_ms + saves.every_ms
        if program.end_ms is None or begins_ms < program.end_ms:
            self.at(begins_ms + saves.pause_ms, lambda at_ms: self._commit(program, begins_ms, at_ms, 0))

    def _commit(self, program: Program, began_ms: int, now_ms: int, notice_ms: int) -> Sequence[Event]:
        if not self._goes_on(program) or (notice_ms and program.saves.ends and program.told_ms != notice_ms):
            return ()
        if program.told_ms and not notice_ms:  # it saves because it was told to
            self._save_later(program, now_ms)
            return ()
        if not program.saves.lies:
            self.saved_ms[program.key[0]] = program.work_at(began_ms)
            program.paused_ms += now_ms - began_ms
        if not notice_ms:
            self._save_later(program, now_ms)
        gang, attempt = program.key
        return [CheckpointCommitted(gang=gang, attempt=attempt, at_ms=now_ms, began_ms=began_ms, notice_ms=notice_ms)]

    def _lie(self, program: Program, now_ms: int) -> Sequence[Event]:
        """Claim to have saved a state that is still to come."""
        if not self._goes_on(program):
            return ()
        self._save_later(program, now_ms)
        gang, attempt = program.key
        return [CheckpointCommitted(gang=gang, attempt=attempt, at_ms=now_ms, began_ms=now_ms + 3_600_000)]

    def _goes_on(self, program: Program) -> bool:
        if self.alive(program.key):
            return True
        self.running.pop(program.key, None)
        return False
