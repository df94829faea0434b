"""Errors keep what they say."""

from __future__ import annotations

import pickle

from specee.predictors.errors import CalibrationFileError, PredictorError, RulesError


def test_errors_cross_processes() -> None:
    for error in (RulesError("a"), CalibrationFileError("b", "c"), PredictorError("d", "e")):
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is type(error) and (back.title, back.message) == (error.title, error.message)
