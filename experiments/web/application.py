"""The pages and their addresses. Pages are made by the server, escaped, and usable without JavaScript."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

import jinja2
from markupsafe import escape
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from experiments.runs.folders import RunError
from experiments.web.careers import BANDIT, BEST, COSINE, Career, Careers, planner
from experiments.web.charts import belief_bar, lines
from experiments.web.protection import LOOPBACK, Protection
from experiments.web.somebody import LEARNERS, MOST_STEPS, Somebody
from experiments.web.visitors import MOST_SKILLS, Person, VisitError, person_of_resume, skills_in_text
from experiments.web.visits import LISTED, Visit, Visits
from jobrec_gym import LabourMarket, Profile, Recommendation
from jobrec_gym.market import SENIORITY_LEVELS
from jobrec_gym.shown_text import as_text
from jobrec_gym.simulators.base import DECISIONS

__all__ = ["application"]

_DAYS = 30  # how long the cookie lasts after the latest visit
_SUGGESTED = 24  # how many skills of an occupation are suggested
_TICKED = 8  # how many of these, the most frequent ones, are ticked at first
_LEVELS = (1, 5)
_LEARNER_WORDS = {"dynaq_plus": "dynaq_plus", "linear": "linear bandit", "cosine": "cosine"}
_SAID = {"apply": "apply", "save": "save", "click": "look closer", "ignore": "ignore"}
"""The words on the buttons, by the names of answers in a log."""


def application(visits: Visits, careers: Careers | None, hosts: tuple[str, ...] | None = LOOPBACK) -> Starlette:
    """The page as an ASGI application.

    Args:
        visits: The visits of the first tab.
        careers: The agents of the tab about careers. They begin to learn when the application starts. With ``None``
            the tab says that nobody can climb in this market.
        hosts: Host names by which requests may address the server; ``None`` for any.
    """
    pages = _Pages(visits, careers)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if careers is not None:
            careers.start()
        yield
        if careers is not None:
            careers.stop()

    routes = [
        Route("/", pages.home),
        Route("/start", pages.start, methods=["POST"]),
        Route("/answer", pages.answer, methods=["POST"]),
        Route("/forget", pages.forget, methods=["POST"]),
        Route("/log.jsonl", pages.file),
        Route("/person.jsonl", pages.file),
        Route("/somebody", pages.somebody),
        Route("/somebody", pages.watch, methods=["POST"]),
        Route("/career", pages.career),
        Mount("/static", StaticFiles(directory=str(files("experiments.web") / "static"))),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Protection, hosts=hosts)],
        exception_handlers={VisitError: pages.refused, RunError: pages.failed, OSError: pages.not_written},
        lifespan=lifespan,
    )


class _Pages:
    """The responses at each address."""

    def __init__(self, visits: Visits, careers: Careers | None):
        self._visits = visits
        self._market = visits.market
        self._careers = careers
        self._cookie = visits.files.cookie()
        self._occupations = _skills_by_occupation(visits.market)
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(str(files("experiments.web") / "templates")),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            finalize=lambda value: as_text(value, 300) if type(value) is str else value,
        )
        self._templates.filters.update(exact=escape, named=_name_of)
        self._templates.globals.update(
            belief_bar=belief_bar, said=_SAID, levels=SENIORITY_LEVELS, decisions=DECISIONS[::-1], days=_DAYS
        )

    async def home(self, request: Request) -> Response:
        visit = await self._visit(request)
        if visit is None:
            page = self._start(request.query_params.get("occupation", ""))
        else:
            page = HTMLResponse(await run_in_threadpool(self._of_visit, visit))
        return self._with_cookie(page, self._secret(request))

    async def start(self, request: Request) -> Response:
        async with request.form(max_files=1, max_fields=200) as form:
            person = await self._person(form)
        secret = self._secret(request)
        await run_in_threadpool(self._visits.begin, secret, person)
        return self._with_cookie(RedirectResponse("/", 303), secret)

    async def answer(self, request: Request) -> Response:
        async with request.form() as form:
            job, decision = _text(form, "job"), _text(form, "decision")
        visit = await self._visit(request)
        if visit is None:
            return RedirectResponse("/", 303)
        await run_in_threadpool(self._visits.answer, visit, job, decision)
        return RedirectResponse("/", 303)

    async def forget(self, request: Request) -> Response:
        visit = await self._visit(request)
        if visit is not None:
            await run_in_threadpool(self._visits.forget, visit)
        response = RedirectResponse("/", 303)
        response.delete_cookie(self._cookie, path="/", httponly=True, samesite="lax")
        return response

    async def file(self, request: Request) -> Response:
        """A download of a file that is kept about the visitor, as it is at this moment."""
        visit = await self._visit(request)
        name = request.url.path.removeprefix("/")
        content = None if visit is None else await run_in_threadpool(self._visits.content, visit, name)
        if content is None:
            return PlainTextResponse("No such file about you is kept yet.", 404)
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return Response(content, media_type="application/jsonl", headers=headers)

    async def somebody(self, request: Request) -> Response:
        visit = await self._visit(request)
        if visit is None:
            return RedirectResponse("/", 303)
        page = HTMLResponse(await run_in_threadpool(self._of_somebody, visit))
        return self._with_cookie(page, self._secret(request))

    async def watch(self, request: Request) -> Response:
        async with request.form() as form:
            steps = _whole(_text(form, "steps", "0"), "steps", (0, MOST_STEPS))
            is_another = _text(form, "another") == "yes"
        visit = await self._visit(request)
        if visit is not None:
            await run_in_threadpool(self._visits.watch, visit, steps, is_another)
        return RedirectResponse("/somebody", 303)

    async def career(self, request: Request) -> Response:
        careers, query = self._careers, request.query_params
        if careers is None:
            return self._page("no_career.html.j2", tab="career")
        gammas, people = careers.gammas, careers.people
        chosen = _whole(
            query.get("gamma", str(len(gammas) - 1)), "gamma (its place on the slider)", (0, len(gammas) - 1)
        )
        who = _whole(query.get("applicant", "0"), "applicant", (0, len(people) - 1))
        return HTMLResponse(await run_in_threadpool(self._of_career, careers, who, chosen))

    async def refused(self, request: Request, error: Exception) -> Response:
        """The page for input that cannot be used."""
        return self._page("refused.html.j2", tab="visit", error=str(error), status=422)

    async def failed(self, request: Request, error: Exception) -> Response:
        """The page for a server's folder that cannot be used. It says what to do."""
        return self._page("refused.html.j2", tab="", error=str(error), status=500)

    async def not_written(self, request: Request, error: Exception) -> Response:
        """The page for a failed write, such as on a full disk. The input is neither kept nor learned from."""
        why = getattr(error, "strerror", None) or type(error).__name__
        said = f"The server could not keep that: {why}. Nothing is changed; go back, and try again later."
        return self._page("refused.html.j2", tab="", error=said, status=507)

    async def _visit(self, request: Request) -> Visit | None:
        return await run_in_threadpool(self._visits.find, request.cookies.get(self._cookie))

    def _secret(self, request: Request) -> str:
        """The secret in the visitor's cookie; a new one for a new visitor."""
        return Visits.new_secret(request.cookies.get(self._cookie))

    async def _person(self, form: FormData) -> Person:
        resume = form.get("resume")
        if isinstance(resume, UploadFile) and resume.size:
            return await run_in_threadpool(person_of_resume, await resume.read(), self._market)
        ticked = [_no_file(skill, "skill") for skill in form.getlist("skill")]
        written = skills_in_text(_text(form, "others"))
        level = _whole(_text(form, "level", "0"), "level", (0, len(SENIORITY_LEVELS)))
        return Person.checked(_text(form, "occupation"), [*ticked, *written], self._market, level)

    def _with_cookie(self, response: Response, secret: str) -> Response:
        """Sets the visitor's secret as a cookie. A form that is sent twice then belongs to one visitor.

        Each page of a visit sets the cookie anew, so that it lasts from the latest visit.
        """
        # Not "strict": browsers send no strict cookie when a link on another site leads here. The visitor would look
        # like a new one, and lose the visit. Only POSTs change anything. Browsers send no lax cookie with another
        # site's POST either, and `Protection` refuses it.
        response.set_cookie(self._cookie, secret, max_age=_DAYS * 86_400, httponly=True, samesite="lax", path="/")
        return response

    def _page(self, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
        return HTMLResponse(self._templates.get_template(template).render(**context), status)

    def _start(self, occupation: str) -> HTMLResponse:
        known = occupation in self._occupations
        return self._page(
            "start.html.j2",
            tab="visit",
            occupations=sorted(self._occupations),
            occupation=occupation if known else "",
            unknown="" if known else occupation,
            skills=self._occupations[occupation][:_SUGGESTED] if known else (),
            n_ticked=_TICKED,
            most_skills=MOST_SKILLS,
        )

    def _of_visit(self, visit: Visit) -> str:
        with visit.lock:
            recommender = visit.recommender
            change = visit.change
            moved = [
                {"job": self._market.job(one.job_id), "one": one, "skills": one.shared}
                for one in (() if change is None else change.moved)
            ]
            return self._templates.get_template("visit.html.j2").render(
                tab="visit",
                person=visit.person,
                n_answers=len(recommender.answered),
                asked=None if visit.asked is None else self._card(visit, visit.asked),
                listed=[
                    {**self._card(visit, place), "before": before, "rank": rank}
                    for rank, (place, before) in enumerate(zip(visit.listed, visit.before, strict=True), 1)
                ],
                has_before=change is not None,
                by_cosine=[self._card(visit, place) for place in recommender.nearest(LISTED)],
                change=change,
                answered=None if change is None else self._market.job(change.job_id),
                moved=moved,
                n_near=len(recommender.jobs),
            )

    def _card(self, visit: Visit, place: int) -> dict[str, Any]:
        recommender = visit.recommender
        found = recommender.near[place]
        return {
            "found": found,
            "job": self._market.job(found.job_id),
            "mean": float(recommender.mean[place]),
            "spread": float(recommender.spread[place]),
            "is_best": place in visit.listed,
        }

    def _of_somebody(self, visit: Visit) -> str:
        with visit.lock:  # while the page is made, no other request lets the applicant answer
            return self._of_watched(self._visits.somebody(visit))

    def _of_watched(self, somebody: Somebody) -> str:
        regret = somebody.regret()
        n = len(somebody)
        highest = max(1.0, *(float(values.max()) for values in regret.values()))
        chart = lines(
            f"Regret after {n} recommendations: "
            + ", ".join(f"{_LEARNER_WORDS[name]} {values[-1]:.2f}" for name, values in regret.items()),
            {_LEARNER_WORDS[name]: values.tolist() for name, values in regret.items()},
            x_label="recommendations",
            y_label="regret, summed",
            highest=highest,
            steps=max(n, 20),
        )
        rows = [
            [
                {"job": self._market.job(somebody.near[step.place].job_id), "step": step}
                for step in (somebody.steps[name][number] for name in LEARNERS)
            ]
            for number in reversed(range(max(0, n - LISTED), n))
        ]
        return self._templates.get_template("somebody.html.j2").render(
            tab="somebody",
            person=self._market.applicant(somebody.applicant_id),
            n=n,
            most=MOST_STEPS,
            names=[_LEARNER_WORDS[name] for name in LEARNERS],
            regret=[float(regret[name][-1]) for name in LEARNERS],
            applied=[sum(step.decision == "apply" for step in somebody.steps[name]) for name in LEARNERS],
            rows=rows,
            chart=chart,
        )

    def _of_career(self, careers: Careers, who: int, chosen: int) -> str:
        n_made, n_agents = careers.progress()
        is_ready = n_made == n_agents
        applicant_id, gamma = careers.people[who], careers.gammas[chosen]
        names = [COSINE, BANDIT, planner(gamma), BEST] if is_ready else [COSINE, BEST]
        played: dict[str, Career] = {name: careers.career(applicant_id, name) for name in names}
        words = ", ".join(f"{name} reaches level {max(one.levels())}" for name, one in played.items())
        chart = lines(
            f"Levels over a career: {words}",
            {f"{name}, left" if one.left else name: one.levels() for name, one in played.items()},
            x_label="recommendations",
            y_label="level",
            highest=float(_LEVELS[1]),
            steps=max(len(one.steps) for one in played.values()),
        )
        columns = [
            {
                "name": name,
                "career": one,
                "top": max(one.levels()),
                "steps": [(self._market.job(step.job_id), step) for step in one.steps],
            }
            for name, one in played.items()
        ]
        people = [self._market.applicant(row) for row in careers.people]
        return self._templates.get_template("career.html.j2").render(
            tab="career",
            people=people,
            who=who,
            person=people[who],
            gammas=careers.gammas,
            chosen=chosen,
            is_ready=is_ready,
            learns=careers.learns,
            n_made=n_made,
            n_agents=n_agents,
            interactions=careers.interactions,
            columns=columns,
            chart=chart,
            again="?" + urlencode({"applicant": who, "gamma": chosen}),
        )


def _skills_by_occupation(market: LabourMarket) -> dict[str, tuple[str, ...]]:
    """Skills that a market's jobs ask for, by occupation: hard ones before soft ones, the most frequent first."""
    counts: dict[str, tuple[Counter[str], Counter[str]]] = {}
    for row in range(len(market.jobs)):
        job: Profile = market.job(row)
        name = job.occupation or job.title
        if name:
            hard, soft = counts.setdefault(name, (Counter(), Counter()))
            hard.update(job.hard_skills)
            soft.update(job.soft_skills)
    return {
        name: tuple(skill for skill, _ in (*hard.most_common(_SUGGESTED - 6), *soft.most_common(6)))
        for name, (hard, soft) in counts.items()
    }


def _name_of(one: Profile | Recommendation) -> str:
    """What a job or a person is called on a page. Titles may be missing from a market of one's own."""
    return one.title or (isinstance(one, Profile) and one.occupation) or str(one.key)


def _text(form: FormData, name: str, default: str = "") -> str:
    """A field of a form.

    Raises:
        VisitError: If it is a file.
    """
    return _no_file(form.get(name, default), name)


def _no_file(value: UploadFile | str, name: str) -> str:
    if isinstance(value, UploadFile):
        raise VisitError(f"{name} must be a text, and was a file.")
    return value


def _whole(text: str, name: str, bounds: tuple[int, int]) -> int:
    """A whole number of a form.

    Raises:
        VisitError: If it is not a whole number, or out of bounds.
    """
    low, high = bounds
    if not text.isdecimal() or len(text) > 9 or not low <= int(text) <= high:
        raise VisitError(f"{name} must be a whole number from {low} to {high}, and was {text!r:.40}.")
    return int(text)
