"""The visits: each visitor's recommender, answers and watched applicant. Visits in use are kept in memory."""

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
"""How many jobs a list has."""

_MOST_WATCHED = 8
"""The largest number of simulated applicants in memory. Each has its own copies of two agents (cosine needs none), so
each is larger than a visit."""

_SECRET_BYTES = 24
_SECRET = re.compile(r"[\w-]{32}", re.ASCII)  # the form of the secrets that `new_secret` makes


@dataclass(eq=False)
class Visit:
    """One visitor's own recommender, and the content of their page.

    A *place* is the position of a job among the jobs near the visitor, the recommender's ``jobs``.

    Attributes:
        visitor_id: The visitor's id.
        person: Title, skills and level of the visitor.
        recommender: The visitor's own recommender.
        asked: Place of the job that the page asks about; ``None`` if all jobs are answered.
        listed: Places of the jobs in the list, the best first.
        before: The rank, from 1, of each listed job before the last answer; ``None`` if it was not in the list.
        change: What the last answer changed; ``None`` before the first.
        lock: The visitor's lock. It is held while the visit or the visitor's files change.
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
        """Places of the jobs on the page: the job that the page asks about, and the list."""
        return (*(() if self.asked is None else (self.asked,)), *self.listed)

    def ask(self) -> None:
        """Chooses the job that the page asks about next, and lists the best of the others."""
        self.asked = self.recommender.asks()
        self.listed = self.recommender.best(LISTED, without=self.asked)
        ranks = {place: rank for rank, place in enumerate(self.recommender.best_before(self.asked)[:LISTED], 1)}
        self.before = [ranks.get(place) for place in self.listed]


class Visits:
    """Opens, finds and forgets visits.

    Args:
        files: The visitors' files.
        agents: The agents of which each visit gets a copy.
        market: The market whose jobs are recommended.
        truth: Arguments of :class:`~jobrec_gym.RuleSimulator`, by which simulated applicants answer.
        encoder: Encoder of the market's jobs; ``None`` for the one that the market was loaded with. If that was an
            object or a folder, a saved market does not know it, and ``None`` then stands for the default encoder.
        n_nearest: How many jobs near a person are considered.
        most: The largest number of visits in memory. The least recently used visit is dropped, and read from its files
            when needed.
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
        # One lock per visitor, the same when the visit is read again. It is dropped when no visit or request has it.
        self._locks: weakref.WeakValueDictionary[str, threading.RLock] = weakref.WeakValueDictionary()
        self._watched: OrderedDict[str, Somebody] = OrderedDict()  # by the id of the visitor

    def begin(self, secret: str, person: Person) -> Visit:
        """Opens the visit of a new visitor. An existing visit, for instance of a form sent twice, is not changed.

        Args:
            secret: A secret from :meth:`new_secret`.
            person: Title, skills and level of the visitor.

        Raises:
            VisitError: If no vector can be made of the skills, or there are too many visitors.
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
        """The secret for a new visitor's cookie: the cookie's own if it has the right form, else a random one."""
        return known if known and _SECRET.fullmatch(known) else secrets.token_urlsafe(_SECRET_BYTES)

    def find(self, secret: str | None) -> Visit | None:
        """The visit that belongs to a secret, with all its answers; ``None`` if there is none."""
        if not secret:
            return None
        visitor_id = self.files.id_of(secret)
        if (visit := self._in_memory(visitor_id)) is not None:
            return visit
        with self._lock_of(visitor_id):  # two requests of one visitor read their log once
            return self._found(visitor_id)

    def answer(self, visit: Visit, job: str, decision: str) -> bool:
        """Writes an answer to the log, and learns from it.

        Args:
            visit: The visit in which it was given.
            job: The key of the job.
            decision: One of :data:`~jobrec_gym.simulators.base.DECISIONS`.

        Returns:
            Whether the answer is new. A job that was answered keeps its first answer.

        Raises:
            VisitError: If the job is not on the page, the decision is unknown, or the visit was deleted meanwhile.
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
        """The whole content of a visitor's file; ``None`` if there is none. No answer is written during the reading."""
        with visit.lock:
            return self.files.content(visit.visitor_id, name)

    def somebody(self, visit: Visit) -> Somebody:
        """The simulated applicant whom a visitor watched last; the first one if the visitor has watched none."""
        with visit.lock:
            with self._lock:
                found = self._watched.get(visit.visitor_id)
            if found is None:
                kept = self.files.somebody(visit.visitor_id) or {"number": 0, "steps": 0}
                found = self._simulated(kept["number"])
                found.play(kept["steps"])  # answers are the same each time
                self._keep_watched(visit, found)
            return found

    def watch(self, visit: Visit, steps: int, another: bool = False) -> Somebody:
        """Lets the watched applicant give more answers.

        Args:
            visit: The visit of the visitor who watches.
            steps: How many answers.
            another: Whether another applicant takes the place of the present one first.

        Raises:
            VisitError: If the visit was deleted meanwhile.
            OSError: If the number of answers cannot be written. Nothing is changed then.
        """
        with visit.lock:
            visit = self._kept(visit)
            somebody = self.somebody(visit)
            number = int(np.flatnonzero(self._held_out() == somebody.applicant_id)[0])
            if another:
                number = (number + 1) % len(self._held_out())
                somebody = self._simulated(number)
            self.files.write_somebody(visit.visitor_id, {"number": number, "steps": somebody.length_after(steps)})
            somebody.play(steps)
            self._keep_watched(visit, somebody)
            return somebody

    def forget(self, visit: Visit) -> None:
        """Removes everything that is kept about a visitor."""
        with visit.lock:
            with self._lock:
                self._here.pop(visit.visitor_id, None)
                self._watched.pop(visit.visitor_id, None)
            self.files.remove(visit.visitor_id)

    def _lock_of(self, visitor_id: str) -> threading.RLock:
        with self._lock:
            return self._locks.setdefault(visitor_id, threading.RLock())

    def _in_memory(self, visitor_id: str) -> Visit | None:
        """The visit, if it is in memory. It then counts as just used."""
        with self._lock:
            if visitor_id in self._here:
                self._here.move_to_end(visitor_id)
            return self._here.get(visitor_id)

    def _found(self, visitor_id: str) -> Visit | None:
        """The visit from memory or from its files; ``None`` if there is none. The caller holds the visitor's lock."""
        if (visit := self._in_memory(visitor_id)) is not None:
            return visit
        person = self.files.person(visitor_id)
        if person is None:
            return None
        visit = self._opened(visitor_id, person)
        self._keep(visit)
        return visit

    def _kept(self, visit: Visit) -> Visit:
        """The present state of a visit. Another request may have replaced the visit in memory since it was found.

        Raises:
            VisitError: If the visit was deleted meanwhile. A later answer would create its files again.
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
        # If `n_nearest` was changed, some answered jobs may not be near any more. Their answers stay in the log.
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
