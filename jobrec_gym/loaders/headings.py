"""Usual headings of columns in other languages, and in logs.

A message proposes such a column for a field. No loader takes it by itself.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["LOG_HEADINGS", "MARKET_HEADINGS", "plain_heading", "proposed_columns"]

MARKET_HEADINGS: Mapping[str, tuple[str, ...]] = {
    "key": (
        *("nr", "nummer", "kennung", "stellen_id", "stellen_nr", "stellennummer", "referenznummer"),
        *("bewerber_id", "bewerber_nr", "bewerbernummer", "personalnummer", "numero", "identifiant"),
    ),
    "title": (
        *("titel", "stellentitel", "jobtitel", "stellenbezeichnung", "berufsbezeichnung", "bezeichnung", "stelle"),
        *("wunschberuf", "titre", "intitule", "poste", "titulo", "puesto"),
    ),
    "hard": (
        *("kenntnisse", "faehigkeiten", "fachkenntnisse", "fachliche_kenntnisse", "qualifikationen", "kompetenzen"),
        *("koennen", "anforderungen", "competences", "habilidades", "conocimientos", "competencias"),
    ),
    "soft": ("soziale_kompetenzen", "sozialkompetenzen", "persoenliche_staerken", "staerken", "savoir_etre"),
    "seniority": ("senioritaet", "karrierestufe", "karrierelevel", "erfahrungsstufe", "stufe", "niveau", "nivel"),
    "experience": ("berufserfahrung", "erfahrung", "berufsjahre", "experience_professionnelle", "experiencia"),
    "occupation": ("beruf", "berufsbild", "metier", "ocupacion"),
    "family": ("berufsfeld", "berufsgruppe", "fachbereich", "taetigkeitsfeld"),
    "description": ("stellenbeschreibung", "beschreibung", "aufgaben", "profil", "lebenslauf", "descripcion"),
    "posted": (
        *("veroeffentlicht", "veroeffentlicht_am", "veroeffentlichungsdatum", "eingestellt_am", "online_seit"),
        *("erschienen", "date_de_publication", "fecha_de_publicacion"),
    ),
    "expires": (
        *("gueltig_bis", "ablaufdatum", "laeuft_ab", "laeuft_ab_am", "bewerbungsfrist", "bewerbungsschluss", "frist"),
        *("date_limite", "fecha_limite"),
    ),
    "place": (
        *("ort", "arbeitsort", "einsatzort", "standort", "stadt", "wohnort", "wunschort", "lieu", "ville"),
        *("ciudad", "lugar"),
    ),
    "country": ("land", "pays", "pais"),
    "salary": (
        *("gehalt", "jahresgehalt", "bruttogehalt", "lohn", "verguetung", "wunschgehalt", "gehaltswunsch"),
        *("gehaltsvorstellung", "salaire", "salario", "sueldo"),
    ),
    "remote": ("homeoffice", "home_office", "mobiles_arbeiten", "fernarbeit", "teletravail", "teletrabajo"),
    "languages": ("sprachen", "sprachkenntnisse", "langues", "idiomas"),
}
"""Headings of files of jobs and people in German, French and Spanish, by field, as :func:`plain_heading`
returns them. Fields of the context are among them by the names that :func:`~jobrec_gym.loaders.look.look`
gives them."""

LOG_HEADINGS: Mapping[str, tuple[str, ...]] = {
    "applicant": (
        *("applicant_id", "applicant_key", "user", "user_id", "candidate", "candidate_id", "person", "person_id"),
        *("bewerber", "bewerber_id", "bewerber_nr", "kandidat", "kandidat_id", "nutzer", "nutzer_id", "candidat"),
    ),
    "job": (
        *("job_id", "job_key", "item", "item_id", "vacancy", "vacancy_id", "posting", "posting_id"),
        *("stelle", "stellen_id", "stellen_nr", "stellenangebot", "anzeige", "anzeigen_id", "offre", "oferta"),
    ),
    "decision": ("answer", "action", "entscheidung", "reaktion", "aktion", "antwort", "reponse", "respuesta"),
    "event": ("event_type", "action", "ereignis", "aktion", "evenement", "evento"),
    "time": ("timestamp", "date", "datetime", "zeit", "zeitpunkt", "zeitstempel", "datum", "fecha", "heure"),
    "shown": ("candidates", "angezeigt", "gezeigt", "angezeigte_stellen"),
}
"""Headings of logs that are likely to mean a field, likewise."""


def plain_heading(heading: str) -> str:
    """A heading in small letters without accents: ``"Fähigkeiten"`` and ``"FAEHIGKEITEN"`` become one."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", unicodedata.normalize("NFC", heading)).casefold()
    for umlaut, letters in (("ä", "ae"), ("ö", "oe"), ("ü", "ue")):
        text = text.replace(umlaut, letters)
    text = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return re.sub(r"\W+|_+", "_", text).strip("_")


def proposed_columns(
    header: Iterable[str], fields: Iterable[str], headings: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """The columns that may hold some fields, by their headings.

    Args:
        header: The columns that have no use yet.
        fields: The fields that have no column yet.
        headings: Headings by field, the likeliest first.

    Example:
        >>> proposed_columns(["Titel", "Fähigkeiten"], ["title", "hard", "soft"], MARKET_HEADINGS)
        {'title': 'Titel', 'hard': 'Fähigkeiten'}
    """
    plain: dict[str, str] = {}
    for written in header:
        plain.setdefault(plain_heading(written), written)
    found: dict[str, str] = {}
    for name in fields:
        column = next((plain[called] for called in headings.get(name, ()) if called in plain), None)
        if column is not None and column not in found.values():
            found[name] = column
    return found
