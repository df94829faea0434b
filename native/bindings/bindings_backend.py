"""Builds the wheel llama_cpp_python-<pin>+specee: the Python files of the pinned llama-cpp-python, as they are.

Its library is left out, because specee.native brings our own and points the bindings at it. The local version satisfies
`==<pin>`, and shows that this is not the distribution of the index. The archive is the one that the library is built
from (native/cmake/fetch.py); a later build finds it in build/downloads.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "native/cmake"))

import fetch  # noqa: E402
import terminal  # noqa: E402

NAME = "llama_cpp_python"
SUMMARY = "Python bindings for the llama.cpp library, which specee-chat brings"
WHEEL = """\
Wheel-Version: 1.0
Generator: specee-chat
Root-Is-Purelib: true
Tag: py3-none-any
"""


def _files() -> tuple[str, dict[str, bytes]]:
    """The local version, and what the wheel holds but for RECORD."""
    pins = dict(re.findall(r"^set\((\w+) (\S+)\)", (ROOT / "native/cmake/pin.cmake").read_text(), re.MULTILINE))
    try:
        archive = fetch.archive(pins["SPECEE_PIN"], pins["SPECEE_PIN_SHA256"], ROOT / "build/downloads")
    except fetch.FetchError as error:
        sys.exit(str(error))
    modules: dict[str, bytes] = {}
    about: dict[str, bytes] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            _, _, name = member.name.partition("/")  # llama_cpp_python-<version>/...
            if not member.isfile() or ".." in name.split("/"):
                continue
            if name in ("PKG-INFO", "LICENSE.md") or re.fullmatch(r"llama_cpp/[\w/]+\.(py|typed)", name):
                content = tar.extractfile(member)
                assert content is not None
                (modules if "/" in name else about)[name] = content.read()
    version = pins["SPECEE_PIN"].partition("==")[2] + "+specee"
    info = f"{NAME}-{version}.dist-info"
    metadata = about["PKG-INFO"].decode()
    for field, value in (("Version", version), ("Summary", SUMMARY)):
        metadata = re.sub(rf"^{field}: .*", f"{field}: {value}", metadata, count=1, flags=re.MULTILINE)
    modules[f"{info}/METADATA"] = metadata.encode()
    modules[f"{info}/WHEEL"] = WHEEL.encode()
    modules[f"{info}/licenses/LICENSE.md"] = about["LICENSE.md"]
    return version, modules


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Any = None) -> str:
    with terminal.progress():
        version, files = _files()
    folder = f"{NAME}-{version}.dist-info"
    for name in (name for name in files if name.startswith(folder)):
        target = Path(metadata_directory, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(files[name])
    return folder


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    with terminal.progress():
        version, files = _files()
    record = f"{NAME}-{version}.dist-info/RECORD"
    lines = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}\n")
    files[record] = "".join([*lines, f"{record},,\n"]).encode()
    wheel = f"{NAME}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory, wheel), "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in files.items():
            out.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return wheel
