"""The environment variables that a connection depends on, checked before it is opened: a bad one is named."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from specee.models.errors import USAGE, ModelError

TIMEOUTS = ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT")
MOST_SECONDS = 86400
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
    _check_all({"HF_ENDPOINT": _check_endpoint, **dict.fromkeys(TIMEOUTS, _check_timeout)})


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


def _check_certificates(value: str) -> None:
    if not Path(value).is_file():
        raise ValueError(f"there is no file {value}")
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
        Path(value).open("ab").close()
    except OSError as error:
        raise ValueError(f"{value} cannot be written ({error.strerror or error})") from error
