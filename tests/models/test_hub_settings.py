"""Environment variables that huggingface_hub does not take are an error with a name, not a traceback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from specee.models import hub_settings

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
        {"HF_HUB_OFFLINE": "maybe"},
        {"HF_HUB_OFFLINE": " 1"},
        {"HF_HUB_OFFLINE": "y"},
        {"HF_HUB_OFFLINE": "2"},
        {"TRANSFORMERS_OFFLINE": "enabled"},
        {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "t"},
        {"DO_NOT_TRACK": "please"},
        {"HF_HOME": "~nobody99/x"},
        {"HF_HOME": "/dev/null"},
        {"HF_HUB_CACHE": "/dev/null/x"},
    ],
    ids=repr,
)
def test_a_bad_variable_is_named(variables: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", READ], env={**os.environ, **variables}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 bad environment variable") and all(name in done.stdout for name in variables)


@pytest.mark.parametrize(
    ("value", "offline"),
    [("1", True), ("yes", True), ("On", True), ("TRUE", True), ("0", False), ("no", False), ("", False)],
)
def test_a_switch_is_on_or_off(value: str, offline: bool) -> None:
    code = "from specee.models import hub; print(hub.is_offline())"
    environment = {**os.environ, "HF_HUB_OFFLINE": value}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(offline), done.stderr


NAMES = ("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_ETAG_TIMEOUT", "HF_TOKEN_PATH", "XDG_CACHE_HOME")


@pytest.mark.parametrize("value", ["", " "])
@pytest.mark.parametrize("name", [*NAMES, "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE"])
def test_a_variable_set_to_nothing_is_not_set(name: str, value: str, tmp_path: Path) -> None:
    code = """
from specee.models import hub, hub_settings
constants = hub_settings.constants()
for name in ("ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_TOKEN_PATH", "HF_HUB_OFFLINE", "HF_HUB_ETAG_TIMEOUT"):
    print(name, getattr(constants, name))
"""
    unset = {other: text for other, text in os.environ.items() if other != name}
    for environment in (unset, {**unset, name: value}):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        if environment is unset:
            expected = done.stdout
    assert done.stdout == expected and "https://" in expected


def test_all_switches_of_huggingface_hub_are_known() -> None:
    from huggingface_hub import constants

    source = Path(constants.__file__).read_text("utf-8")
    found = set(re.findall(r'_is_true\(os\.environ\.get\("(\w+)"\)', source))
    assert found - {"HUGGINGFACE_CO_STAGING"} <= set(hub_settings.SWITCHES)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of Unix")
def test_a_token_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "token")
    environment = {**os.environ, "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", READ], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("2 bad token file: ") and "is no regular file" in done.stdout, done.stderr
