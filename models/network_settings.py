"""The environment variables that a connection depends on, checked before it is opened: a bad one is named."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from specee.models import local_file
from specee.models.errors import USAGE, ModelError

TIMEOUTS = ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT")
MOST_SECONDS = 86400
CACHES = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
MAX_CERTIFICATES = 64 << 20  # bytes
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")


def check() -> None:
    """Raises ModelError, which names the variable. Of values only what is no secret is shown."""
    checks: dict[str, Callable[[str], None]] = dict.fromkeys(PROXIES, _check_proxy)
    checks |= {"HF_TOKEN": _check_token, "HUGGING_FACE_HUB_TOKEN": _check_token}
    checks |= {"SSL_CERT_FILE": _check_certificates, "SSL_CERT_DIR": _check_folder, "SSLKEYLOGFILE": _check_key_log}
    check_hub()
    _check_all(checks)


def check_hub() -> None:
    """The same for what huggingface_hub takes as it is when it is first imported."""
    folders = [*CACHES] if any(os.environ.get(name) for name in CACHES) else ["XDG_CACHE_HOME"]
    _check_all(
        {
            "HF_ENDPOINT": _check_endpoint,
            **dict.fromkeys(TIMEOUTS, _check_timeout),
            **dict.fromkeys(folders, _check_cache),
        }
    )


def _check_all(checks: Mapping[str, Callable[[str], None]]) -> None:
    for name, check_value in checks.items():
        for spelled in {name, name.lower()} if name in PROXIES else {name}:
            if value := os.environ.get(spelled, "").strip():
                try:
                    check_value(value)
                except ValueError as error:
                    why = f"{spelled}: {error}; correct it, or unset it"
                    raise ModelError("bad environment variable", why, USAGE) from error


def proxies_in_use() -> list[str]:
    """The variables that name a proxy."""
    return [spelled for name in PROXIES for spelled in (name, name.lower()) if os.environ.get(spelled)]


def _check_proxy(value: str) -> None:
    url = urlsplit(value if "://" in value else f"http://{value}")
    if url.scheme.lower() not in _PROXY_SCHEMES:
        raise ValueError(f"{url.scheme}:// is no kind of proxy that we know ({', '.join(_PROXY_SCHEMES)})")
    if not url.hostname:
        raise ValueError("it has no host; write it as http://host:port")
    _ = url.port  # raises ValueError for what is no port


def _check_endpoint(value: str) -> None:
    url = urlsplit(value)
    one_word = value.isprintable() and " " not in value and "\\" not in value
    plain = not (url.query or url.fragment) and one_word
    if url.scheme not in ("http", "https") or not url.hostname or not plain:
        raise ValueError(f"{value[:80]!a} is no address; write it as https://host")
    _ = url.port


def _check_timeout(value: str) -> None:
    if not (value.isascii() and value.isdigit() and int(value[:20]) <= MOST_SECONDS):
        raise ValueError(f"{value[:40]!a} is not a whole number of seconds from 0 to {MOST_SECONDS}")


def _check_token(value: str) -> None:
    if not (value.isascii() and value.isprintable() and " " not in value):
        raise ValueError("a token has ASCII letters, digits and signs only")


def _check_cache(value: str) -> None:
    """A folder, or one that can be made."""
    try:
        path = local_file.expand(os.path.expandvars(value))
    except local_file.NoHomeError as error:
        raise ValueError(error.message) from None
    try:
        there = next((place for place in (path, *path.parents) if place.exists()), None)
        is_folder = there is None or there.is_dir()
    except OSError as error:  # a name too long, a folder that may not be searched
        raise ValueError(f"{value}: {error.strerror or error}") from error
    if not is_folder:
        raise ValueError(f"{there} is no folder")


def _check_certificates(value: str) -> None:
    try:
        local_file.require_regular(Path(value))
    except local_file.NotRegularError as error:
        raise ValueError(f"{value}: {error.strerror}") from None
    except OSError:
        raise ValueError(f"there is no file {value}") from None
    if Path(value).stat().st_size > MAX_CERTIFICATES:
        raise ValueError(f"{value} is larger than {MAX_CERTIFICATES >> 20} MiB")
    try:
        ssl.create_default_context(cafile=value)
    except OSError as error:  # SSLError is one
        raise ValueError(f"{value} has no certificates ({error.strerror or error})") from error


def _check_folder(value: str) -> None:
    if not any(Path(folder).is_dir() for folder in value.split(os.pathsep)):
        raise ValueError(f"there is no folder {value}")


def _check_key_log(value: str) -> None:
    """Where Python writes the keys of connections, for those who look into them."""
    try:
        os.close(os.open(value, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NONBLOCK", 0), 0o600))
    except OSError as error:
        raise ValueError(f"{value} cannot be written ({error.strerror or error})") from error
