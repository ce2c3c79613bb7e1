"""Judging with a model that has not seen what it judges: trained on four folds, it judges the fifth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar
from unittest import mock

from loadtest.judgement import corpora, ours, reasons
from loadtest.judgement.corpora import Case
from postroad import feedback
from postroad.bounces import model as models
from postroad.bounces import train

T = TypeVar("T")


def read(cases: Sequence[Case]) -> dict[Path, feedback.Feedback]:
    """What is said of each, by the model that knows neither its fold nor texts of the same words."""
    found: dict[Path, feedback.Feedback] = {}
    for fold in reasons.folds(cases):
        names = {row["file"] for case in fold for row in case.rows}
        with _trained(partial(_is_of, names)):
            found |= {case.path: ours.of_file(case.path) for case in fold}
    return found


def without_zone_mta(judge: Callable[[], T]) -> T:
    """What `judge` returns, by a model that has not seen ZoneMTA's samples."""
    samples = {reasons.words(one.text) for one in train.zone_mta(corpora.CORPORA)}
    with _trained(lambda one: not one.file and reasons.words(one.text) in samples):
        return judge()


def _is_of(names: set[str], one: train.Example) -> bool:
    return one.file in names


@contextmanager
def _trained(hidden: Callable[[train.Example], bool]) -> Iterator[None]:
    """The model of all examples but the hidden ones and those of the same words."""
    everything = [*train.sisimai(corpora.CORPORA), *train.zone_mta(corpora.CORPORA)]
    same = {reasons.words(one.text) for one in everything if hidden(one)}
    given = [one for one in everything if not hidden(one) and reasons.words(one.text) not in same]
    model = train.train([*given, *train.own()])
    ours.forget()
    with mock.patch.object(models, "_load", lambda: model):
        yield
    ours.forget()
