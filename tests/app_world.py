"""A page of few jobs, which tests of the page share: a market in a folder, and agents that learned a little."""

import csv

from jobrec_gym import load_market

TRUTH = {"seed": 1, "noise": 0.5}
ENCODER = "hashing"
FIELDS = ("key", "title", "occupation", "family", "hard", "soft", "seniority", "place", "pay")


def small_market(folder, n_jobs=60, n_people=40):
    """A saved market of the default one's first jobs and people, encoded by their spelling."""
    whole = load_market("default", n_jobs=n_jobs, n_applicants=n_people, context=["place", "pay"])
    for name, find, n in (("jobs", whole.job, n_jobs), ("people", whole.applicant, n_people)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            rows = csv.DictWriter(file, FIELDS)
            rows.writeheader()
            for one in map(find, range(n)):
                words = {"hard": ";".join(one.hard_skills), "soft": ";".join(one.soft_skills)}
                rows.writerow({name: getattr(one, name, None) for name in FIELDS} | words | dict(one.context))
    made = load_market(
        f"csv:{folder / 'jobs.csv'}",
        applicants=folder / "people.csv",
        encoder=ENCODER,
        context={"place": "category", "pay": "number"},
        test_fraction=0.5,
    )
    return made.save(folder / "market")


def options(folder, **changed):
    """Entries of `conf/app.yaml` for a small page in a folder."""
    return {
        "folder": str(folder),
        "visitors": str(folder / "visitors"),
        "source": str(folder / "market"),
        "encoder": ENCODER,
        "n_nearest": 30,
        "most_visitors": 100,
        "most_visits": 8,
        "start": {"interactions": 5, "truth": {"seed": 2, "noise": 0.5}},
        "truth": TRUTH,
        "career": {"gammas": [0.0, 0.9], "interactions": 8, "learn": False},
        "sessions": 3,
        "seed": 7,
        **changed,
    }
