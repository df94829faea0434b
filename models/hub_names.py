"""Names that come from users and servers, checked before they become paths and addresses."""

from __future__ import annotations

import re

_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
REPO_PATTERN = rf"(?!\S*(?:--|\.\.)){_NAME}/{_NAME}"
"""The hub's own rules. In the cache "--" stands for the "/"."""

_REPO = re.compile(REPO_PATTERN)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# not on any system: control characters, half surrogates, and what Windows takes for something else
_NOT_IN_A_FILE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\\:*?\"<>|]")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)", re.IGNORECASE)
_LONGEST = 255  # bytes of a name on most disks
_LONGEST_REPO, _DEEPEST = 96, 16


def is_repo(text: str) -> bool:
    """Whether this is owner/name of a repository."""
    return _REPO.fullmatch(text) is not None and len(text) <= _LONGEST_REPO and not text.endswith(".git")


def is_commit(text: str) -> bool:
    return _COMMIT.fullmatch(text) is not None


def is_sha256(text: str) -> bool:
    return _SHA256.fullmatch(text) is not None


def is_file(text: str) -> bool:
    """Whether this is a file's path inside of a repository: one that cannot lead out of it, on any system."""
    parts = text.split("/")
    return len(parts) <= _DEEPEST and all(_is_part(part) for part in parts)


def _is_part(part: str) -> bool:
    return (
        part.strip(". ") != ""
        and part[-1] not in ". "
        and _NOT_IN_A_FILE.search(part) is None
        and _DEVICE.match(part) is None
        and len(part.encode()) <= _LONGEST
    )
