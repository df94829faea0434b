"""scikit-build-core as the build backend; to a user at a terminal it also says how far the build is."""

from __future__ import annotations

from typing import Any

import terminal
from scikit_build_core import build
from scikit_build_core.build import *  # noqa: F403  # the other hooks, as they are


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    with terminal.progress():
        built: str = build.build_wheel(wheel_directory, config_settings, metadata_directory)
    return built


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    with terminal.progress():
        built: str = build.build_editable(wheel_directory, config_settings, metadata_directory)
    return built
