"""Make `.venv` in the checkout: every package at the version of requirements.lock, the project itself in place.

Run through setup.sh, which finds a Python >= 3.11.  Uses uv where it is on PATH, else pip, which comes from ensurepip,
from Debian's python3-venv, or (without root) as a wheel from the user's package index.  Done in some 50 ms when
nothing changed.  A venv that is half made, broken, moved or of another lock is never taken as complete: the stamp is
written last, and a mark stands in the folder from the first change on.  POSIX only.  Ends with 0 (complete) or 2.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

import system_packages
from pip_wheel import FetchError, fetch_pip_wheel, read_settings

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
PROJECT = ROOT / "pyproject.toml"
VENV = ROOT / ".venv"
PYTHON = str(VENV / "bin" / "python")
STAMP = VENV / ".set-up-complete.json"
UNFINISHED = VENV / ".set-up-unfinished"
# What would send pip's files elsewhere than into the venv.
MISLEADING = {"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX"}
MISLEADING |= {"UV_SYSTEM_PYTHON", "UV_PYTHON"}
OVERRULED = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_REQUIRE_HASHES": "0", "PIP_NO_INPUT": "1"}
OVERRULED |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}


class SetUpError(Exception):
    """Set-up cannot go on; the message is one line: what happened, what to do."""


def say(line: str) -> None:
    print(f"set-up: {line}", file=sys.stderr, flush=True)


def key() -> dict[str, str]:
    """What a finished venv depends on: the place (scripts name it), the lock, the project's metadata."""
    digest = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (LOCK, PROJECT)}
    return {"root": str(ROOT), **digest}


def read_stamp() -> dict[str, object]:
    try:
        content = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def venv_site() -> Path | None:
    """Where .venv's packages lie; None unless its interpreter starts, is new enough and, with PYTHON set, is that one.

    Asked of the interpreter: after an upgrade of the system's Python the folder of the old version is left unread.
    """
    show = "*sys.version_info[:2], sys.prefix, sysconfig.get_path('purelib'), sys.base_prefix, sys.version"
    ask = [PYTHON, "-I", "-c", f"import sys, sysconfig; print({show}, sep='\\n')"]
    try:
        asked = subprocess.run(ask, check=False, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if asked.returncode != 0:
        return None
    major, minor, prefix, site, base, version = asked.stdout.split("\n", 5)
    if (int(major), int(minor)) < (3, 11) or Path(prefix).resolve() != VENV.resolve():
        return None
    if os.environ.get("PYTHON") and (base, version.strip()) != (sys.base_prefix, sys.version):
        return None
    return Path(site) if Path(site).is_dir() else None


def is_complete() -> bool:
    """Whether nothing has to be done: stamp, place, lock, interpreter, each package and the command are all there."""
    stamp = read_stamp()
    installed = stamp.get("installed")
    if UNFINISHED.exists() or stamp.get("key") != key() or not isinstance(installed, list):
        return False
    site = venv_site()
    if site is None:
        return False
    return {*os.listdir(site), *(f"bin/{name}" for name in os.listdir(VENV / "bin"))}.issuperset(installed)


def is_usable() -> bool:
    """Whether an existing venv can be completed in place: made here, working, not left half way."""
    if UNFINISHED.exists() or venv_site() is None:
        return False
    made_at = read_stamp().get("key")
    if isinstance(made_at, dict):
        return made_at.get("root") == str(ROOT)
    activate = VENV / "bin" / "activate"
    return activate.is_file() and str(VENV) in activate.read_text(errors="replace")


def run(command: Sequence[str], env: dict[str, str], lock: int, failed: str) -> None:
    """Run one step; its own messages pass through.  The lock goes along: an orphaned pip still holds it."""
    # What the steps print is no answer of ours: it goes where our own messages go.
    done = subprocess.run(
        command, check=False, env=env, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno(), pass_fds=(lock,)
    )
    if done.returncode != 0:
        raise SetUpError(f"{failed} (see above); run the same command again when that is mended")


def empty_venv() -> None:
    """Take out everything but the mark, so that a second interruption is seen too."""
    for entry in VENV.iterdir():
        if entry == UNFINISHED:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def prepare_folder() -> bool:
    """Put the mark, and say whether a fresh venv has to be made (else the one that is there is completed)."""
    fresh = True
    if VENV.exists() or VENV.is_symlink():
        known = [path for path in (VENV / "pyvenv.cfg", STAMP, UNFINISHED) if path.exists()]
        if not VENV.is_dir() or (not known and any(VENV.iterdir())):
            raise SetUpError(f"{VENV} is there but is no virtual environment: move it away and run this again")
        fresh = not is_usable()
    VENV.mkdir(exist_ok=True)
    UNFINISHED.touch()
    STAMP.unlink(missing_ok=True)
    if fresh:
        if len(os.listdir(VENV)) > 1:
            say("making .venv anew (it was half made, broken or moved)")
        empty_venv()
    return fresh


def has_module(python: str, name: str) -> bool:
    # A module left behind as an empty folder is a namespace package: it has no loader of its own.
    ask = f"import {name}, sys; sys.exit({name}.__file__ is None)"
    return subprocess.run([python, "-I", "-c", ask], check=False, capture_output=True).returncode == 0


def add_pip(env: dict[str, str], lock: int) -> None:
    """Put pip into the venv: from ensurepip where that works, else from the user's package index."""
    if has_module(PYTHON, "pip"):
        return
    if has_module(PYTHON, "ensurepip"):
        ask = [PYTHON, "-I", "-m", "ensurepip"]
        tried = subprocess.run(ask, check=False, env=env, capture_output=True, cwd=ROOT, pass_fds=(lock,))
        if tried.returncode == 0 and has_module(PYTHON, "pip"):
            return
    say("this Python comes without pip: fetching pip's wheel from the package index")
    with tempfile.TemporaryDirectory(prefix="bookinfo-lab-pip-") as folder:
        try:
            wheel = fetch_pip_wheel(Path(folder), dict(os.environ))
        except FetchError as error:
            hint = system_packages.line_to_type([system_packages.venv_package(sys.executable)])
            raise SetUpError(f"pip cannot be had: {error}; or: {hint}") from error
        command = [PYTHON, "-E", "-s", f"{wheel}/pip", "install", "-q", "--no-index", "--no-deps", str(wheel)]
        run(command, env, lock, "pip's own wheel could not be installed")


def uv_index_options(env: dict[str, str]) -> list[str]:
    """Pip's settings of where packages come from, for uv, which does not read them; uv's own come first."""
    if any(name in env for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_NO_INDEX", "UV_CONFIG_FILE")):
        return []
    try:
        settings = read_settings(env)
    except FetchError as error:
        raise SetUpError(str(error)) from error
    options = ["--default-index", settings.index_url] if settings.index_url else []
    options += [word for url in settings.extra_index_urls for word in ("--index", url)]
    options += [word for place in settings.find_links for word in ("--find-links", place)]
    options += [word for host in settings.trusted_hosts for word in ("--allow-insecure-host", host)]
    if settings.cert:
        env.setdefault("SSL_CERT_FILE", settings.cert)
    return options + (["--no-index"] if settings.no_index else [])


def install_packages(uv: str | None, env: dict[str, str], lock: int) -> None:
    """Install the lock, each file checked against its sha256, then the project itself as an editable install."""
    if uv:
        start = [uv, "pip", "install", "-q", "--python", PYTHON, *uv_index_options(env)]
        compiled = ["--compile-bytecode"]
    else:
        start, compiled = [PYTHON, "-I", "-m", "pip", "install", "-q"], []
    failed = "the packages of requirements.lock could not be installed"
    run([*start, *compiled, "--require-hashes", "-r", str(LOCK)], env, lock, failed)
    # The build backend is in the lock, so this last step asks no index.
    run(
        [*start, "--no-deps", "--no-build-isolation", "-e", str(ROOT)],
        env,
        lock,
        "bookinfo_lab itself could not be put in",
    )


def write_stamp(tried: list[str]) -> None:
    site = venv_site()
    scripts = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"].get("scripts", {})
    names = sorted(name for name in os.listdir(site or VENV) if name.endswith(".dist-info"))
    content = {"key": key(), "installed": [*names, *(f"bin/{name}" for name in scripts)], "tried": tried}
    draft = STAMP.with_suffix(".draft")
    draft.write_text(json.dumps(content, indent=1) + "\n")
    with draft.open() as written:
        os.fsync(written.fileno())
    draft.replace(STAMP)
    UNFINISHED.unlink()


def add_system_packages() -> list[str]:
    """Install Debian packages where the user may, else print the line to type; the names that are still missing."""
    wanted = [package.name for package in system_packages.missing(dict(os.environ))]
    if not wanted:
        return []
    # What apt-get could not install once is not tried again at every `make`.
    if wanted != read_stamp().get("tried") and system_packages.install(wanted, say):
        wanted = [package.name for package in system_packages.missing(dict(os.environ))]
    if wanted:
        say(f"missing on this machine: {', '.join(wanted)}. To mend it: {system_packages.line_to_type(wanted)}")
    return wanted


def make_venv(lock: int, system: list[str]) -> None:
    env = {name: value for name, value in os.environ.items() if name not in MISLEADING}
    env |= OVERRULED
    uv = shutil.which("uv")
    if not uv and not has_module(sys.executable, "ensurepip") and system_packages.leave_to_install() is not None:
        system_packages.install([system_packages.venv_package(sys.executable)], say)
    fresh = prepare_folder()
    count = len(re.findall(r"(?m)^[A-Za-z0-9]\S*==", LOCK.read_text(encoding="utf-8")))
    say(f"installing requirements.lock ({count} packages) into .venv with {'uv' if uv else 'pip'}: a minute or two")
    if fresh:
        # Without pip at first: venv itself then works where Debian has no ensurepip.
        run([sys.executable, "-I", "-m", "venv", "--without-pip", str(VENV)], env, lock, "python3 -m venv failed")
    if not uv:
        add_pip(env, lock)
    install_packages(uv, env, lock)
    write_stamp(system)
    say("complete: the command is .venv/bin/bookinfo-lab")


def main() -> int:
    if os.geteuid() == 0:
        os.umask(0o022)  # root starts parts of the sandbox as ordinary users: they must be able to read .venv
    with PROJECT.open("rb") as held:
        # The lock is on a file that is there anyway, and not inside .venv, which may be emptied.
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up of this checkout")
            fcntl.flock(held, fcntl.LOCK_EX)
        still_missing = add_system_packages()
        if not is_complete():
            make_venv(held.fileno(), still_missing)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SetUpError as error:
        say(str(error))
        sys.exit(2)
    except OSError as error:
        say(f"{error.filename or 'the system'}: {error.strerror or error}")
        sys.exit(2)
    except KeyboardInterrupt:
        say("interrupted; run the same command again to finish")
        sys.exit(130)
