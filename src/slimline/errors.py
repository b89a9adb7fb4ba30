"""One exception class per kind of mistake; each message is one line that says where, what, and what to do."""


class SlimlineError(Exception):
    """Bad input. The command line prints the message alone and exits with 2."""


class ParamsError(SlimlineError):
    """params.yaml holds an unknown, missing or out-of-range key, or stages in an impossible order."""


class PluginError(SlimlineError):
    """A plug-in is unknown, offered twice, untrusted, or fails to import."""


class DataError(SlimlineError):
    """A data file is missing, truncated or of the wrong shape."""


class ChanceError(DataError):
    """A teacher's answers are no better than guessing.

    ``fact`` says how good both are, ``hint`` what may be wrong with a model from elsewhere. ``margin`` is how far the
    answers lie above guessing: above 0, too few rows were answered to be sure.
    """

    def __init__(self, where: str, fact: str, hint: str, margin: float) -> None:
        super().__init__(f"{where}: {fact}; {hint}")
        self.fact, self.margin = fact, margin

    @property
    def what(self) -> str:
        """What to say of the teacher."""
        return f"{'not surely' if self.margin > 0 else 'no'} better than guessing"


class ArtifactError(SlimlineError):
    """An artifact, export or release on disk is damaged, foreign or from a newer version."""


class MethodError(SlimlineError):
    """A compression method can't be applied to this model."""


class TrainingError(SlimlineError):
    """Training can't go on (a loss that is not finite, say)."""


class ExportError(SlimlineError):
    """The exported model doesn't answer like the model it was made from."""


class ReleaseError(SlimlineError):
    """A release can't be promoted, moved or deployed."""


class GoldenError(ReleaseError):
    """A release doesn't answer its golden requests as it did when it was made."""


class UnavailableError(SlimlineError):
    """A remote runtime can't be reached or is too slow; asking again may help."""


class RevisionError(UnavailableError):
    """A remote runtime runs another release than the one it is asked for."""


class UndoError(SlimlineError):
    """A release can't be taken out of traffic, or who asks for it may not."""


class InputError(SlimlineError):
    """An array given to a Predictor has a wrong name, dtype or shape."""


class EventError(SlimlineError):
    """The event store can't be used, or what was given to it can't be kept.

    ``reason`` is one word for metrics: unreachable, locked, read-only, full, schema, invalid or failed.
    """

    def __init__(self, message: str, reason: str = "invalid") -> None:
        super().__init__(message)
        self.reason = reason


def near_miss(word: str, known: "list[str]") -> str:
    """Return " Did you mean 'x'?" when ``word`` looks like one of ``known``, else the empty string."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
