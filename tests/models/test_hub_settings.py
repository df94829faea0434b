"""Environment variables that huggingface_hub does not take are an error with a name, not a traceback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

READ = """
from specee.models import cache, download
from specee.models.errors import ModelError
try:
    cache.root()
    download.prepare("hf:someone/something")
except ModelError as error:
    print(error.exit_code, error)
"""


@pytest.mark.parametrize(
    "variables",
    [
        {"HF_HUB_DOWNLOAD_TIMEOUT": "abc"},
        {"HF_HUB_ETAG_TIMEOUT": "1.5"},
        {"HF_ENDPOINT": "http://127.0.0.1:99999"},
        {"HF_ENDPOINT": "http://[::"},
    ],
    ids=repr,
)
def test_a_bad_variable_is_named(variables: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", READ], env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 bad environment variable") and all(name in done.stdout for name in variables)
