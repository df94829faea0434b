"""The hub: what a repository has, and the bytes of a file. The only module that opens a connection.

URLs, tokens, endpoints, proxies and time-outs are huggingface_hub's, so its variables (HF_TOKEN, HF_ENDPOINT, HF_HOME,
HF_HUB_CACHE, HF_HUB_OFFLINE and others) mean what they mean elsewhere.
"""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from specee.models import answer_limit, hub_names, hub_settings, network_settings
from specee.models import source as sources
from specee.models.errors import USAGE, DownloadError, ModelError
from specee.models.source import Source

CHUNK = 1 << 20  # bytes; what a killed transfer may lose
AGAIN = "what has come is kept, and the same command goes on from there"
ELSEWHERE = "try again later, or another HF_ENDPOINT"


@dataclass(frozen=True)
class RemoteFile:
    """One file as the hub has it now: `size` in bytes, `sha256` as it must arrive.

    All but the size become parts of paths: what could lead elsewhere raises DownloadError.
    """

    repo: str
    name: str
    commit: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        for what, value, is_one in (
            ("repository", self.repo, hub_names.is_repo),
            ("file", self.name, hub_names.is_file),
            ("commit", self.commit, hub_names.is_commit),
            ("SHA-256", self.sha256, hub_names.is_sha256),
        ):
            if not is_one(value):
                server = hub_settings.constants().ENDPOINT
                why = f"{server} names the {what} {value[:80]!a}, which is none; try another HF_ENDPOINT"
                raise DownloadError("not a name", why)


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set."""
    return bool(hub_settings.constants().HF_HUB_OFFLINE)


def page(repo: str) -> str:
    """The repository's page, for people."""
    return f"{hub_settings.constants().ENDPOINT}/{repo}"


def files(source: Source) -> tuple[RemoteFile, ...]:
    """The files to fetch, with their sizes and hashes. Raises ModelError."""
    if source.file is not None:
        names = sources.parts(source.file)
    else:
        with _as_model_errors(source.repo):
            from huggingface_hub import HfApi

            timeout = hub_settings.constants().HF_HUB_ETAG_TIMEOUT  # without one it would wait for ever
            info = HfApi().model_info(source.repo, revision=source.revision, timeout=timeout)
            listed = [sibling.rfilename for sibling in info.siblings or () if isinstance(sibling.rfilename, str)]
        names = sources.choose(source, listed)
    return tuple(_file(source, name) for name in names)


def _file(source: Source, name: str) -> RemoteFile:
    with _as_model_errors(source.repo, name):
        from huggingface_hub import get_hf_file_metadata

        found = get_hf_file_metadata(_url(source.repo, name, source.revision))
    if found.commit_hash is None or found.size is None or found.size < 0 or not hub_names.is_sha256(found.etag or ""):
        raise DownloadError("cannot be verified", f"the server gives no SHA-256 for {name} of {source.repo}")
    assert found.etag is not None
    if source.sha256 not in (None, found.etag):
        raise DownloadError(
            "another file",
            f"{source.repo} now has another {name} than the one we know; hf:{source.repo} takes it anyway",
        )
    return RemoteFile(source.repo, name, found.commit_hash, found.size, found.etag)


def download(file: RemoteFile, into: BinaryIO, begin: int) -> None:
    """Writes the file's bytes from `begin` on. A short interruption is bridged; else raises DownloadError.

    Whether they are the right ones, and how many, is not looked at.
    """
    with _as_model_errors(file.repo, file.name, again=AGAIN, file_bytes=file.size + CHUNK):
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        try:
            http_get(
                _url(file.repo, file.name, file.commit),
                into,
                resume_size=begin,
                headers=build_hf_headers(),
                expected_size=file.size,
            )
        except OSError as error:
            if not str(error).startswith("Consistency check failed"):  # fewer or more bytes, which we say ourselves
                raise


def _url(repo: str, name: str, revision: str) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(repo, name, revision=revision)


@contextmanager
def _as_model_errors(
    repo: str, name: str = "", again: str = "try again later", file_bytes: int = answer_limit.MOST
) -> Iterator[None]:
    """Turns whatever fails inside into a ModelError of one line, which says what to do: `again`.

    No answer is read beyond its limit, `file_bytes` for what was asked for.
    """
    constants = hub_settings.constants()
    try:
        # by this name: `from huggingface_hub import ...` prints an error before it raises it
        import huggingface_hub.file_download
        import huggingface_hub.hf_api  # noqa: F401
        from huggingface_hub import errors
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]
        from huggingface_hub.utils import logging as hub_logging
    except ValueError as error:
        raise hub_settings.bad_variable(error) from error
    network_settings.check()
    if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
        disable_progress_bars()  # we draw our own
    hub_logging.set_verbosity(logging.CRITICAL)  # each retry would be a line
    constants.DOWNLOAD_CHUNK_SIZE = CHUNK  # its own 10 MB are what Ctrl+C on a slow line would throw away
    network_settings.check()
    try:
        with answer_limit.limited(file_bytes):
            yield
    except answer_limit.TooLong as error:
        why = f"what {constants.ENDPOINT} sends for {name or repo} goes on beyond {file_bytes} bytes"
        raise DownloadError("the server failed", f"{why}; {ELSEWHERE}") from error
    except answer_limit.Encoded as error:
        why = f"what {constants.ENDPOINT} sends for {name or repo} is compressed, which was not asked for"
        raise DownloadError("the server failed", f"{why}; {ELSEWHERE}") from error
    except errors.OfflineModeIsEnabled as error:
        raise offline_error(repo) from error
    except errors.HFValidationError as error:
        raise ModelError("no such repository", f"{repo} cannot be a repository's name: {error}", USAGE) from error
    except _network_errors() as error:
        raise _explained(error, repo, name, again) from error
    except ImportError as error:  # what the HTTP client lacks for a variable's value
        raise hub_settings.bad_variable(error) from error
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:  # in huggingface_hub
        why = f"what {constants.ENDPOINT} says of {repo} cannot be read: {_in_words(error)}"
        raise DownloadError("the server failed", f"{why}; {ELSEWHERE}") from error


def _in_words(error: Exception) -> str:
    """What is wrong with an answer that huggingface_hub stumbles over."""
    if isinstance(error, (json.JSONDecodeError, UnicodeError)):
        return "it is not JSON"
    if isinstance(error, RecursionError):
        return "lists or objects in each other, too deep"
    if isinstance(error, KeyError) and error.args and isinstance(error.args[0], str):
        return f"it has no {error.args[0][:40]!a}"
    if isinstance(error, ValueError):
        return "one of its values means nothing"
    return "it is not built as the hub's answers are"


def _network_errors() -> tuple[type[Exception], ...]:
    """OSError, and what the HTTP client raises; which client that is changes with huggingface_hub."""
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, *(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)))


def offline_error(what: str) -> ModelError:
    """What is raised where the network would be needed and must not be used."""
    return ModelError("offline", f"{what} is not on this machine, and --offline or HF_HUB_OFFLINE forbids fetching it")


def _explained(error: BaseException, repo: str, name: str, again: str = "try again later") -> ModelError:
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        return DownloadError(
            "gated model",
            f"accept the licence at {page(repo)}, then set HF_TOKEN to a token of your account "
            f"({hub_settings.constants().ENDPOINT}/settings/tokens)",
        )
    if status in (401, 403):
        return DownloadError(
            "no access",
            f"{repo} does not exist, or is private or gated: check the name; else accept its licence at {page(repo)} "
            f"and set HF_TOKEN to a token of your account ({hub_settings.constants().ENDPOINT}/settings/tokens)",
        )
    if isinstance(error, errors.RepositoryNotFoundError) or (status == 404 and not name):
        return DownloadError("no such repository", f"{page(repo)} does not exist; check the name")
    if status == 404:
        return DownloadError("no such file", f"{page(repo)} has no {name}")
    if status == 429:
        return DownloadError(
            "too many requests", f"the server asks for a pause; {again} (a token in HF_TOKEN may help)"
        )
    if status is not None:
        return DownloadError("the server failed", f"it answered {status} for {repo}; {again}")
    why = f" ({type(error).__name__})" if not str(error) else f": {str(error).splitlines()[0][:200]}"
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return DownloadError(
            "not to be trusted",
            f"{hub_settings.constants().ENDPOINT} has a certificate that nobody known vouches for{why}; behind a proxy "
            "that reads along, set SSL_CERT_FILE to a file with its certificate",
        )
    if isinstance(error, OSError) and (error.filename is not None or error.errno in _OF_FILES):
        return not_writable(error)
    if type(error).__name__ == "TooManyRedirects" or "redirects" in str(error):
        return DownloadError("the server failed", f"it sends from one address to the next without end; {again}")
    if type(error).__name__ in ("UnsupportedProtocol", "InvalidURL", "LocalProtocolError", "DecodingError"):
        return DownloadError("the server failed", f"it sends what cannot be followed{why}; {again}")
    proxies = network_settings.proxies_in_use()
    through = f" through the proxy of {' or '.join(proxies)}" if proxies else ""
    where = f"{hub_settings.constants().ENDPOINT}{through}"
    return DownloadError("connection lost", f"{where} does not answer or stopped{why}; {again}")


_OF_FILES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EPERM)


def not_writable(error: OSError) -> DownloadError:
    """The cache cannot be used."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DownloadError("the disk is full", f"make room, or set HF_HOME to a folder on another disk; {AGAIN}")
    where = f" ({error.filename})" if error.filename is not None else ""
    return DownloadError(
        "cannot write", f"{error.strerror or error}{where}; set HF_HOME to a folder that can be written"
    )
