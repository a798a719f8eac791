"""What goes wrong on purpose, as a tree; messages are written for the caller.

PipelineError
├── ModelError                 the language model
│   ├── ModelUnreachable       not reached, broke off, or does not speak the protocol
│   │   └── ModelTimedOut      no connection, no first token or no next token in time
│   ├── ModelRefused           answered with another status than 2xx
│   ├── ModelReported          sent an {"error"} object in its stream
│   ├── ModelForbidden         is at an address that is not allowed (addresses.py)
│   └── ModelUnusable          its provider's key cannot be read
├── TurnUnusable               what came in is no turn
├── PromptTooLong              the message alone does not fit the model's context window
├── RetrievalFailed            the knowledge base could not be searched
├── UnsupportedDocument        a file is none of the formats that are read
├── UnreadableDocument         a file is damaged, locked, too large or without text
│   └── DocumentTooLarge       reading it takes more memory than it was given
├── VectorsInUse               another process owns the vectors (knowledge/ownership.py)
├── WebSearchFailed            the web search could not be done
├── TemplateFailed             a template or prompt cannot be loaded or rendered
│   └── UnknownType            there is no document type of that name
├── TextChanged                a prompt or template was changed since it was read
├── MemoryFailed               the conversation could not be read or written
├── ServiceStopping            the service went down during the run
└── InternalFailure            anything that is not in this tree
"""

from http import HTTPStatus


class PipelineError(RuntimeError):
    """A run that cannot go on.

    `str(error)` says to the caller what happened and what to do, without internals.
    `transient` is true where the same request may succeed later.
    A RuntimeError, because LangGraph's server shows the messages of Python's own classes only.
    """

    transient = False

    def __init__(self, message: str, *, transient: bool | None = None) -> None:
        super().__init__(message)
        if transient is not None:
            self.transient = transient


class ModelError(PipelineError):
    """The language model failed."""


class ModelUnreachable(ModelError):
    """The model was not reached, broke off, or does not speak the OpenAI protocol."""

    transient = True


class ModelTimedOut(ModelUnreachable):
    """The model did not connect, begin or go on in time."""


class ModelRefused(ModelError):
    """The model's endpoint answered `status`, which is not 2xx.

    The message starts with the status, as `401 Authentication Failed`.
    """

    def __init__(self, status: int) -> None:
        phrase, advice = _REFUSALS.get(status, (_phrase(status), "Check the provider."))
        super().__init__(f"{status} {phrase}. {advice}", transient=status in _RETRYABLE)
        self.status = status


class ModelReported(ModelError):
    """The model's stream held an `{"error"}` object."""


class ModelForbidden(ModelError):
    """The provider's base URL leads where it may not, so nothing was sent there."""


class ModelUnusable(ModelError):
    """The key of the model's provider cannot be read, so it is not asked."""


class TurnUnusable(PipelineError):
    """The input of a run is none; the service never hands such a one to the pipeline."""


class PromptTooLong(PipelineError):
    """The message does not fit the model's context window, even alone."""


class RetrievalFailed(PipelineError):
    """The project's documents could not be searched."""


class UnsupportedDocument(PipelineError):
    """The file's content is none of the formats that are read."""


class UnreadableDocument(PipelineError):
    """The file has a known format, but no text can be got out of it."""


class DocumentTooLarge(UnreadableDocument):
    """Reading the file takes more memory than it was given."""


class WebSearchFailed(PipelineError):
    """The web could not be searched."""


class TemplateFailed(PipelineError):
    """A template or a prompt cannot be loaded or rendered."""


class UnknownType(TemplateFailed):
    """There is no document type of that name."""


class TextChanged(PipelineError):
    """What counts at a text's path is not what the writer saw; `version` is null for nothing."""

    def __init__(self, path: str, version: str | None) -> None:
        now = f"its version is {version} now" if version else "there is no such text now"
        super().__init__(f"{path} was changed since it was read: {now}. Read it again.")
        self.path = path
        self.version = version


class MemoryFailed(PipelineError):
    """The conversation could not be read from or written to its store."""

    transient = True


class ServiceStopping(PipelineError):
    """The service went down before the run had ended."""

    transient = True


class InternalFailure(PipelineError):
    """An error that nobody foresaw; its cause is in the log, under the run's id."""

    def __init__(self) -> None:
        super().__init__(
            "Something went wrong inside the service. Try again; if it stays, give the "
            "operator the run id."
        )


_RETRYABLE = {408, 409, 425, 429, *range(500, 600)}
_REFUSALS = {
    400: ("Bad Request", "The provider does not accept this prompt or model setting."),
    401: ("Authentication Failed", "Check the provider's API key."),
    402: ("Payment Required", "Check the account at the provider."),
    403: ("Permission Denied", "The provider's API key may not use this model."),
    404: ("Not Found", "Check the provider's base URL and the model's name."),
    413: ("Request Too Large", "Shorten the message or raise the model's limit."),
    429: ("Too Many Requests", "The provider is busy or its quota is used up; try again later."),
}


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unexpected Status"
