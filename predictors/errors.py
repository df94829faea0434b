"""What can go wrong in the algorithms, each with a title and one clear line."""

from __future__ import annotations


class PredictorError(Exception):
    """Root of the package's errors: `title` in a few words, `message` in one line that a user can act on."""

    def __init__(self, title: str, message: str) -> None:
        super().__init__(f"{title}: {message}")
        self.title = title
        self.message = message

    def __reduce__(self) -> tuple[type[PredictorError], tuple[str, str]]:
        return type(self), (self.title, self.message)


class RulesError(PredictorError):
    """A rule has a value that makes no sense."""

    def __init__(self, message: str, title: str = "Bad exit rules") -> None:
        super().__init__(title, message)

    def __reduce__(self) -> tuple[type[PredictorError], tuple[str, str]]:
        return type(self), (self.message, self.title)


class CalibrationFileError(PredictorError):
    """A calibration file cannot be read, or does not belong to this model."""

    def __init__(self, message: str, title: str = "Bad calibration file") -> None:
        super().__init__(title, message)

    def __reduce__(self) -> tuple[type[PredictorError], tuple[str, str]]:
        return type(self), (self.message, self.title)


class CalibrationError(PredictorError):
    """Calibration cannot go on."""

    def __init__(self, message: str, title: str = "Calibration failed") -> None:
        super().__init__(title, message)

    def __reduce__(self) -> tuple[type[PredictorError], tuple[str, str]]:
        return type(self), (self.message, self.title)
