"""The visits of all: who is here, what they answered, and whom they watch; in memory as long as it is used."""

from __future__ import annotations

import re
import secrets
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from experiments.web.agents import StartingAgents
from experiments.web.recommending import Change, Recommender
from experiments.web.somebody import Somebody
from experiments.web.visitors import Answer, Person, VisitError, VisitorFiles, checked_decision
from jobrec_gym import LabourMarket, MarketError

__all__ = ["LISTED", "Visit", "Visits"]

LISTED = 10
"""Jobs of a list."""

_MOST_WATCHED = 8
"""Simulated applicants in memory: with their bandits they are larger than visits."""

_SECRET_BYTES = 24
_SECRET = re.compile(r"[\w-]{32}", re.ASCII)  # as of `new_secret`


@dataclass(eq=False)
class Visit:
    """One visitor's own recommender, and what is on their page.

    Attributes:
        visitor_id: Theirs.
        person: Who they are.
        recommender: Of them alone.
        asked: The place of the job that is asked about; ``None`` when all are answered.
        listed: Places of the next ones, the best first.
        before: What their ranks, from 1, were before the last answer, in the same order; ``None`` beyond the list.
        change: What the last answer changed; ``None`` before any.
        lock: The visitor's. It is held while anything here or in their files changes.
    """

    visitor_id: str
    person: Person
    recommender: Recommender
    lock: threading.RLock
    asked: int | None = None
    listed: list[int] = field(default_factory=list)
    before: list[int | None] = field(default_factory=list)
    change: Change | None = None

    @property
    def shown(self) -> tuple[int, ...]:
        """Places of the jobs on the page: the one that is asked about, and the list."""
        return (*(() if self.asked is None else (self.asked,)), *self.listed)

    def ask(self) -> None:
        """Chooses the job that is asked about, and lists the others."""
        self.asked = self.recommender.asks()
        self.listed = self.recommender.best(LISTED, without=self.asked)
        ranks = {place: rank for rank, place in enumerate(self.recommender.best_before(self.asked)[:LISTED], 1)}
        self.before = [ranks.get(place) for place in self.listed]


class Visits:
    """Opens, finds and forgets visits.

    Args:
        files: Where they are kept.
        agents: With whose copy each begins.
        market: Whose jobs are recommended.
        truth: Arguments of :class:`~jobrec_gym.RuleSimulator`, by which simulated applicants answer.
        encoder: Of the market's jobs; ``None`` as the market knows it.
        n_nearest: How many jobs near a person are considered.
        most: How many visits are in memory; the one that was used longest ago is read anew when it is used again.
    """

    def __init__(
        self,
        files: VisitorFiles,
        agents: StartingAgents,
        market: LabourMarket,
        truth: Mapping[str, Any],
        encoder: str | None = None,
        n_nearest: int = 200,
        most: int = 64,
    ):
        self.files = files
        self.market = market
        self._agents = agents
        self._truth = dict(truth)
        self._encoder = encoder
        self._n_nearest = n_nearest
        self._most = most
        self._here: OrderedDict[str, Visit] = OrderedDict()
        self._lock = threading.Lock()
        # One a visitor, however often their visit is read anew, and as long as anybody holds it.
        self._locks: weakref.WeakValueDictionary[str, threading.RLock] = weakref.WeakValueDictionary()
        self._watched: OrderedDict[str, Somebody] = OrderedDict()  # by visitor

    def begin(self, secret: str, person: Person) -> Visit:
        """Opens the visit of somebody new. Who is here already, since a form was sent twice, say, stays who they are.

        Args:
            secret: Of :meth:`new_secret`.
            person: Who they are.

        Raises:
            VisitError: If no vector can be made of their skills, or there are too many visitors.
        """
        visitor_id = self.files.id_of(secret)
        with self._lock_of(visitor_id):
            visit = self._found(visitor_id)
            if visit is None:
                visit = self._opened(visitor_id, person)
                self.files.add(visitor_id, person)
                self._keep(visit)
            return visit

    @staticmethod
    def new_secret(known: str | None) -> str:
        """What a new visitor's cookie holds: what it holds already if that can be a secret, else a random one."""
        return known if known and _SECRET.fullmatch(known) else secrets.token_urlsafe(_SECRET_BYTES)

    def find(self, secret: str | None) -> Visit | None:
        """The visit of whoever has a secret, with all that they answered; ``None`` if nobody has it."""
        if not secret:
            return None
        visitor_id = self.files.id_of(secret)
        if (visit := self._in_memory(visitor_id)) is not None:
            return visit
        with self._lock_of(visitor_id):  # two requests of one visitor read their log once
            return self._found(visitor_id)

    def answer(self, visit: Visit, job: str, decision: str) -> bool:
        """Writes an answer down, and learns from it.

        Args:
            visit: Whose.
            job: The key of the job.
            decision: One of :data:`~jobrec_gym.simulators.base.DECISIONS`.

        Returns:
            Whether it is a new one; a job that was answered keeps its first answer.

        Raises:
            VisitError: For a job that is not on the page, another decision, or a visit that was forgotten meanwhile.
        """
        checked_decision(decision)
        with visit.lock:
            visit = self._kept(visit)
            places = {visit.recommender.near[place].key: place for place in (*visit.shown, *visit.recommender.answered)}
            if job not in places:
                raise VisitError("That job is not on your page any more: answer the one that is.")
            place = places[job]
            if place in visit.recommender.answered:
                return False
            shown = tuple(visit.recommender.near[one].key for one in visit.shown)
            self.files.append(visit.visitor_id, Answer(job, decision, shown))
            visit.change = visit.recommender.answer(place, decision)
            visit.ask()
            return True

    def content(self, visit: Visit, name: str) -> bytes | None:
        """A file of a visitor, whole: no answer is written meanwhile. ``None`` where it is not there."""
        with visit.lock:
            return self.files.content(visit.visitor_id, name)

    def somebody(self, visit: Visit) -> Somebody:
        """Whom a visitor watches: the one before, or a first one."""
        with visit.lock:
            with self._lock:
                found = self._watched.get(visit.visitor_id)
            if found is None:
                kept = self.files.somebody(visit.visitor_id) or {"number": 0, "steps": 0}
                found = self._simulated(kept["number"])
                found.play(kept["steps"])  # answers are drawn alike each time
                self._keep_watched(visit, found)
            return found

    def watch(self, visit: Visit, steps: int, another: bool = False) -> Somebody:
        """Lets a simulated applicant answer on.

        Args:
            visit: Who watches.
            steps: How many answers.
            another: Whether somebody else comes first.

        Raises:
            VisitError: For a visit that was forgotten meanwhile.
        """
        with visit.lock:
            visit = self._kept(visit)
            somebody = self.somebody(visit)
            number = int(np.flatnonzero(self._held_out() == somebody.applicant_id)[0])
            if another:
                number = (number + 1) % len(self._held_out())
                somebody = self._simulated(number)
            somebody.play(steps)
            self._keep_watched(visit, somebody)
            self.files.write_somebody(visit.visitor_id, {"number": number, "steps": len(somebody)})
            return somebody

    def forget(self, visit: Visit) -> None:
        """Removes all that is kept of a visitor."""
        with visit.lock:
            with self._lock:
                self._here.pop(visit.visitor_id, None)
                self._watched.pop(visit.visitor_id, None)
            self.files.remove(visit.visitor_id)

    def _lock_of(self, visitor_id: str) -> threading.RLock:
        with self._lock:
            return self._locks.setdefault(visitor_id, threading.RLock())

    def _in_memory(self, visitor_id: str) -> Visit | None:
        """The visit, if it is in memory; it was used just now, then."""
        with self._lock:
            if visitor_id in self._here:
                self._here.move_to_end(visitor_id)
            return self._here.get(visitor_id)

    def _found(self, visitor_id: str) -> Visit | None:
        """The visit in memory, or read anew from its files. The visitor's lock is held."""
        if (visit := self._in_memory(visitor_id)) is not None:
            return visit
        person = self.files.person(visitor_id)
        if person is None:
            return None
        visit = self._opened(visitor_id, person)
        self._keep(visit)
        return visit

    def _kept(self, visit: Visit) -> Visit:
        """What a visit is by now: another request may have read it anew, and answered, since it was found.

        Raises:
            VisitError: If it was forgotten meanwhile: what comes now would be written anew.
        """
        found = self._found(visit.visitor_id)
        if found is None:
            raise VisitError("This visit was deleted: begin anew.")
        return found

    def _opened(self, visitor_id: str, person: Person) -> Visit:
        try:
            market = self.market.with_applicants([person.as_row(visitor_id)], encoder=self._encoder)
        except MarketError as error:
            raise VisitError(f"These skills cannot be used: {error}") from error
        recommender = Recommender(self._agents.dynaq_plus(), market, n_nearest=self._n_nearest)
        visit = Visit(visitor_id, person, recommender, self._lock_of(visitor_id))
        answers = self.files.answers(visitor_id)
        places = {job.key: place for place, job in enumerate(visit.recommender.near)}
        # With another `n_nearest` than before, some answered jobs may be near no more: they stay in the log.
        known: dict[str, str] = {}
        for one in answers:
            if one.job in places:
                known.setdefault(one.job, one.decision)
        visit.change = visit.recommender.replay([(places[job], decision) for job, decision in known.items()])
        visit.ask()
        return visit

    def _simulated(self, number: int) -> Somebody:
        row = int(self._held_out()[number])
        return Somebody(self._agents, self.market, row, self._truth, self._n_nearest)

    def _held_out(self) -> np.ndarray:
        return self.market.applicants.rows("test")

    def _keep(self, visit: Visit) -> None:
        with self._lock:
            self._here[visit.visitor_id] = visit
            while len(self._here) > self._most:
                self._here.popitem(last=False)

    def _keep_watched(self, visit: Visit, somebody: Somebody) -> None:
        with self._lock:
            self._watched[visit.visitor_id] = somebody
            self._watched.move_to_end(visit.visitor_id)
            while len(self._watched) > _MOST_WATCHED:
                self._watched.popitem(last=False)
