"""Set-up, run for real on a small project: its own package index on 127.0.0.1, a lock of one package, no internet.

The project's checkout, home folder and PATH are made by the test, so that uv, apt-get, sudo, ensurepip and old Pythons
are there or not as the case says.
"""

import base64
import hashlib
import http.server
import importlib.metadata
import io
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BASE_PYTHON = Path(os.path.realpath(sys.executable))
STDLIB = Path(sysconfig.get_path("stdlib"))

# An in-tree build backend: an editable install is a wheel with a .pth file and the command's entry point.
BACKEND = """
import os, zipfile
WHEEL = "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
def build_editable(folder, settings=None, metadata=None):
    name = "tiny_lab-1-py3-none-any.whl"
    files = {
        "tiny_lab.pth": os.getcwd() + "\\n",
        "tiny_lab-1.dist-info/METADATA": "Metadata-Version: 2.1\\nName: tiny-lab\\nVersion: 1\\n",
        "tiny_lab-1.dist-info/WHEEL": WHEEL,
        "tiny_lab-1.dist-info/entry_points.txt": "[console_scripts]\\ntiny-lab = tiny_lab:main\\n",
    }
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
        wheel.writestr("tiny_lab-1.dist-info/RECORD", "".join(f"{path},,\\n" for path in files))
    return name
"""
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "tiny-lab"
version = "1"
[project.scripts]
tiny-lab = "tiny_lab:main"
"""


def wheel_bytes(name: str, version: str, files: Mapping[str, bytes]) -> bytes:
    """A wheel of pure Python."""
    place = f"{name}-{version}.dist-info"
    content = {
        f"{place}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{place}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **files,
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as wheel:
        for path, data in content.items():
            wheel.writestr(path, data)
        wheel.writestr(f"{place}/RECORD", "".join(f"{path},,\n" for path in content))
    return packed.getvalue()


@pytest.fixture(scope="module")
def pip_wheel() -> tuple[str, bytes]:
    """The installed pip as a wheel again."""
    pip = importlib.metadata.distribution("pip")
    files = {
        str(path): pip.locate_file(path).read_bytes()
        for path in pip.files or []
        if path.parts[0] == "pip" and path.suffix != ".pyc"
    }
    entry = {f"pip-{pip.version}.dist-info/entry_points.txt": b"[console_scripts]\npip = pip._internal.cli.main:main\n"}
    return f"pip-{pip.version}-py3-none-any.whl", wheel_bytes("pip", pip.version, files | entry)


@dataclass
class Index:
    """A package index (PEP 503) on 127.0.0.1; `asked` holds each request's path and login."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)  # files are handed out once it is set
    at_gate: threading.Event = field(default_factory=threading.Event)

    def add(self, name: str, content: bytes) -> str:
        self.files[name] = content
        self.sha256[name] = hashlib.sha256(content).hexdigest()
        return self.sha256[name]

    def answer(self, path: str) -> bytes | None:
        parts = path.strip("/").split("/")
        if parts[0] == "files":
            self.at_gate.set()
            self.gate.wait(60)
            return self.files.get(parts[-1])
        names = [name for name in self.files if name.split("-")[0] == parts[-1]]
        links = (f'<a href="/files/{name}#sha256={self.sha256[name]}">{name}</a>' for name in names)
        return "<!DOCTYPE html><html><body>{}</body></html>".format("\n".join(links)).encode() if names else None


@pytest.fixture
def index(pip_wheel: tuple[str, bytes]) -> Iterator[Index]:
    made = Index()
    made.gate.set()
    made.add(*pip_wheel)
    made.add("leaf-1.0-py3-none-any.whl", wheel_bytes("leaf", "1.0", {"leaf.py": b"grown = True\n"}))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append((self.path, self.headers.get("Authorization", "")))
            body = made.answer(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", "text/html" if not self.path.startswith("/files") else "application/zip")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body or b"")

        def do_HEAD(self) -> None:  # uv asks for a file's length first
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}/simple"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield made
    made.gate.set()
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Checkout:
    """A small project with our set-up in it, and the only programs that set-up finds on PATH."""

    root: Path
    bin: Path
    env: dict[str, str]

    def start(self, *before: str, **env: str) -> subprocess.Popen[str]:
        command = [*before, "/bin/sh", str(self.root / "tools/setup.sh")]
        pipe = subprocess.PIPE
        merged = {name: text for name, text in (self.env | env).items() if text}
        return subprocess.Popen(
            command, env=merged, cwd="/", stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )

    def run(self, *before: str, **env: str) -> tuple[int, str]:
        """Exit status and messages; set-up has nothing to say on stdout."""
        with self.start(*before, **env) as process:
            stdout, stderr = process.communicate(timeout=100)
        assert stdout == ""
        return process.returncode, stderr

    def stub(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def link(self, name: str, target: str | Path) -> None:
        (self.bin / name).symlink_to(target)

    def works(self) -> bool:
        """Whether the venv has the package of the lock, pip or not, and a command that runs from this place."""
        try:
            done = subprocess.run([self.root / ".venv/bin/tiny-lab"], capture_output=True, text=True, env={})
        except OSError:
            return False
        return done.stdout == "leaf True\n"


@pytest.fixture
def checkout(tmp_path: Path, index: Index) -> Checkout:
    root, programs, home = tmp_path / "check out", tmp_path / "bin", tmp_path / "home"
    for folder in (root, programs, home):
        folder.mkdir()
    shutil.copytree(ROOT / "tools", root / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "backend.py").write_text(BACKEND)
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "requirements.lock").write_text(f"leaf==1.0 \\\n    --hash=sha256:{sha_of(index, 'leaf')}\n")
    (root / "tiny_lab.py").write_text('import leaf\ndef main():\n    print("leaf", leaf.grown)\n')
    made = Checkout(root, programs, {"PATH": str(programs), "HOME": str(home), "PIP_INDEX_URL": index.url})
    for name in ("dirname", "id", "env"):
        made.link(name, shutil.which(name) or name)
    made.link("python3", BASE_PYTHON)
    for name in ("ip", "iptables-nft", "newuidmap"):
        made.stub(name, "exit 0")
    return made


def sha_of(index: Index, package: str) -> str:
    return next(digest for name, digest in index.sha256.items() if name.startswith(f"{package}-"))


needs_ensurepip = pytest.mark.skipif(
    not (STDLIB / "ensurepip").is_dir(), reason="this Python has no ensurepip (python3-venv)"
)


def without_ensurepip(tmp_path: Path) -> list[str]:
    """The words before a command that hide ensurepip from it, in a mount namespace: the stdlib as links to itself."""
    real, links = tmp_path / "stdlib-real", tmp_path / "stdlib-links"
    real.mkdir()
    links.mkdir()
    for name in os.listdir(STDLIB):
        if name != "ensurepip":
            (links / name).symlink_to(real / name)
    options = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    places = [str(STDLIB), str(real), str(links), str(tmp_path / "bin")]
    return [shutil.which("unshare") or "unshare", *options, sys.executable, "-c", HIDE, *places]


# Debian's `mount` is a package of its own, which a small system need not have.
HIDE = """
import os, sys
from bookinfo_lab.sandbox import linux
stdlib, real, links, programs, *command = sys.argv[1:]
linux.mount(stdlib, real, flags=linux.MS_BIND)
linux.mount(links, stdlib, flags=linux.MS_BIND)
os.execve(command[0], command, {**os.environ, "PATH": programs})
"""


@needs_ensurepip
def test_set_up_makes_a_venv_that_works_and_is_then_silent_and_quick(checkout: Checkout, index: Index) -> None:
    status, said = checkout.run()
    assert (status, checkout.works()) == (0, True), said
    assert "with pip" in said
    asked = len(index.asked)
    began = time.monotonic()
    assert checkout.run() == (0, "")
    assert time.monotonic() - began < 2
    assert len(index.asked) == asked


@pytest.mark.sandbox
def test_without_ensurepip_and_without_leave_to_install_pip_comes_from_the_index(
    checkout: Checkout, index: Index, tmp_path: Path
) -> None:
    hidden = without_ensurepip(tmp_path)
    gone = subprocess.run(
        [*hidden, "/bin/sh", "-c", '"$0" -c "import ensurepip"', str(BASE_PYTHON)], capture_output=True, text=True
    )
    assert "ModuleNotFoundError: No module named 'ensurepip'" in gone.stderr
    status, said = checkout.run(*hidden)
    assert (status, checkout.works()) == (0, True), said
    assert "fetching pip's wheel" in said
    assert "/simple/pip/" in [path for path, _ in index.asked]
    assert subprocess.run([checkout.root / ".venv/bin/pip", "--version"], capture_output=True).returncode == 0


@pytest.mark.sandbox
def test_the_fetch_of_pip_follows_pip_conf_and_its_login(checkout: Checkout, index: Index, tmp_path: Path) -> None:
    conf = tmp_path / "home/.config/pip/pip.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text(f"[global]\nindex-url = {index.url.replace('//', '//me:p%40ss@')}\n")
    status, said = checkout.run(*without_ensurepip(tmp_path), PIP_INDEX_URL="")
    assert (status, checkout.works()) == (0, True), said
    logins = {login for path, login in index.asked if path.startswith(("/simple/pip/", "/files/pip-"))}
    assert logins == {"Basic " + base64.b64encode(b"me:p@ss").decode()}


@pytest.mark.sandbox
def test_a_pip_that_is_not_the_one_promised_is_refused(checkout: Checkout, index: Index, tmp_path: Path) -> None:
    name = next(name for name in index.files if name.startswith("pip-"))
    index.sha256[name] = "0" * 64
    status, said = checkout.run(*without_ensurepip(tmp_path))
    assert status == 2
    assert "its sha256 differs" in said.splitlines()[-1]
    assert not (checkout.root / ".venv/bin/pip").exists()


@pytest.mark.sandbox
def test_without_ensurepip_python3_venv_is_installed_where_the_user_may(checkout: Checkout, tmp_path: Path) -> None:
    log = tmp_path / "apt.log"
    checkout.stub("apt-get", f'echo "$@" >> {log}')
    checkout.stub("sudo", 'shift; [ "$1" = true ] || exec "$@"')
    status, said = checkout.run(*without_ensurepip(tmp_path))
    # The stub installs nothing, so pip is fetched after all.
    assert (status, checkout.works()) == (0, True), said
    assert log.read_text().split()[-1].endswith("-venv")
    assert said.index("installing the Debian packages python3") < said.index("fetching pip's wheel")


def test_uv_is_used_where_it_is_and_asks_the_index_that_pip_would(checkout: Checkout, index: Index) -> None:
    uv = Path(sys.prefix, "bin/uv")
    if not uv.exists():
        pytest.skip("no uv beside this Python: make setup")
    checkout.link("uv", uv)
    status, said = checkout.run()
    assert (status, checkout.works()) == (0, True), said
    assert "with uv" in said
    assert "/simple/leaf/" in [path for path, _ in index.asked]


@needs_ensurepip
def test_a_file_whose_hash_is_not_the_locks_stops_set_up(checkout: Checkout, index: Index) -> None:
    lock = checkout.root / "requirements.lock"
    good = lock.read_text()
    lock.write_text(good.replace(sha_of(index, "leaf"), "0" * 64))
    status, said = checkout.run()
    assert status == 2
    assert said.splitlines()[-1].startswith("set-up: the packages of requirements.lock could not be installed")
    lock.write_text(good)
    assert checkout.run()[0] == 0
    assert checkout.works()


@needs_ensurepip
def test_set_up_killed_in_the_middle_is_made_anew_and_waits_for_what_it_left(checkout: Checkout, index: Index) -> None:
    index.gate.clear()
    first = checkout.start()
    assert index.at_gate.wait(60)
    first.send_signal(signal.SIGKILL)
    # The orphaned pip still waits for its file, so the second set-up has to wait for the orphan.
    second = checkout.start()
    assert second.stderr is not None
    assert "waiting for another set-up" in second.stderr.readline()
    index.gate.set()
    _, said = second.communicate(timeout=100)
    first.communicate(timeout=100)
    assert (second.returncode, checkout.works()) == (0, True), said
    assert "making .venv anew" in said


@needs_ensurepip
def test_two_set_ups_at_once_end_in_one_venv(checkout: Checkout) -> None:
    both = [checkout.start(), checkout.start()]
    said = [process.communicate(timeout=100)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert checkout.works()
    assert "\n".join(said).count("complete: the command is") == 1


def remove_the_package(root: Path) -> None:
    shutil.rmtree(next(root.glob(".venv/lib/python3*/site-packages/leaf-1.0.dist-info")))


def remove_the_command(root: Path) -> None:
    (root / ".venv/bin/tiny-lab").unlink()


def break_the_interpreter(root: Path) -> None:
    (root / ".venv/bin/python").unlink()
    (root / ".venv/bin/python").symlink_to("/nowhere/python3")


def spoil_the_stamp(root: Path) -> None:
    (root / ".venv/.set-up-complete.json").write_text("{")


def change_the_lock(root: Path) -> None:
    lock = root / "requirements.lock"
    lock.write_text(f"# another lock\n{lock.read_text()}")


def truncate_the_venv(root: Path) -> None:
    (root / ".venv/pyvenv.cfg").unlink()


DAMAGES = (
    remove_the_package,
    remove_the_command,
    break_the_interpreter,
    spoil_the_stamp,
    change_the_lock,
    truncate_the_venv,
)


@needs_ensurepip
def test_a_venv_that_was_damaged_is_mended(checkout: Checkout) -> None:
    assert checkout.run()[0] == 0
    for damage in DAMAGES:
        damage(checkout.root)
        status, said = checkout.run()
        assert (status, checkout.works()) == (0, True), f"{damage.__name__}: {said}"
        assert "complete: the command is" in said, damage.__name__


@needs_ensurepip
def test_a_checkout_that_moved_gets_a_venv_of_its_new_place(checkout: Checkout, tmp_path: Path) -> None:
    assert checkout.run()[0] == 0
    checkout.root = checkout.root.rename(tmp_path / "moved")
    assert not checkout.works()
    assert checkout.run()[0] == 0
    assert checkout.works()


def test_a_folder_that_is_no_venv_is_left_alone(checkout: Checkout) -> None:
    (checkout.root / ".venv").mkdir()
    (checkout.root / ".venv/thesis.txt").write_text("mine")
    status, said = checkout.run()
    assert (status, len(said.splitlines())) == (2, 1)
    assert "no virtual environment" in said
    assert os.listdir(checkout.root / ".venv") == ["thesis.txt"]


@needs_ensurepip
@pytest.mark.sandbox
def test_after_set_up_nothing_asks_the_network(checkout: Checkout) -> None:
    assert checkout.run()[0] == 0
    options = ["--net"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--net"]
    cut = [shutil.which("unshare") or "unshare", *options]
    reach = "import socket; socket.create_connection(('127.0.0.1', 9), 2)"
    alone = subprocess.run([*cut, sys.executable, "-c", reach], capture_output=True, text=True)
    assert "Network is unreachable" in alone.stderr
    assert checkout.run(*cut) == (0, "")
    assert checkout.works()


@pytest.mark.sandbox
def test_the_tour_needs_no_internet(tmp_path: Path) -> None:
    options = ["--net"] if os.geteuid() == 0 else ["--user", "--map-current-user", "--net"]
    command = ["unshare", *options, str(Path(sys.prefix, "bin/bookinfo-lab")), "tour"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, env=os.environ | {"HOME": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    assert "GET /productpage" in done.stdout


def end_after_the_system_packages(checkout: Checkout) -> None:
    """A folder that is no venv ends set-up; Debian's packages come before that."""
    (checkout.root / ".venv").mkdir()
    (checkout.root / ".venv/thesis.txt").touch()


def test_a_missing_system_package_is_named_with_the_line_to_type(checkout: Checkout) -> None:
    (checkout.bin / "newuidmap").unlink()
    end_after_the_system_packages(checkout)
    checkout.stub("apt-get", "echo E: not here >&2; exit 100")
    checkout.stub("sudo", "exit 1")
    _, said = checkout.run()
    assert "missing on this machine: uidmap. To mend it: sudo apt-get install -y uidmap" in said


def test_a_missing_system_package_is_installed_where_the_user_may(checkout: Checkout, tmp_path: Path) -> None:
    (checkout.bin / "newuidmap").unlink()
    end_after_the_system_packages(checkout)
    log = tmp_path / "apt.log"
    made = checkout.bin / "newuidmap"
    checkout.stub("apt-get", f'echo "$@" >> {log}; echo "#!" > "{made}"; /bin/chmod +x "{made}"')
    checkout.stub("sudo", 'shift; [ "$1" = true ] || exec "$@"')
    _, said = checkout.run()
    assert said.splitlines()[0].startswith("set-up: installing the Debian packages uidmap")
    assert "missing on this machine" not in said
    assert log.read_text().splitlines()[-1].endswith("install -y --no-install-recommends uidmap")


@pytest.mark.parametrize("found", ["none", "old"])
def test_without_a_python_that_is_new_enough_set_up_says_so_in_one_line(checkout: Checkout, found: str) -> None:
    (checkout.bin / "python3").unlink()
    if found == "old":
        # Answers as 3.9 would: no to the question for 3.11, then its version.
        checkout.stub("python3", 'case "$*" in *"3, 11"*) exit 1 ;; *) echo 3.9.2 ;; esac')
    status, said = checkout.run()
    assert (status, len(said.splitlines())) == (2, 1)
    assert f"Python 3.11 or newer is needed, python3 gives {'3.9.2' if found == 'old' else 'none'}" in said


# tests/conftest.py: what a skipped test means

TIERS = """
import pytest
def test_needs_data(data_folder): assert data_folder
def test_needs_nothing(): pass
def test_skips_itself(): pytest.skip("a reason of its own")
@pytest.mark.cluster
def test_needs_a_cluster(): pass
@pytest.mark.data
@pytest.mark.xfail(reason="known")
def test_fails_as_known(monkeypatch): raise AssertionError
"""
MODULE_SKIP = """
import pytest
pytestmark = pytest.mark.browser
pytest.skip("no driver", allow_module_level=True)
"""


def run_pytest(folder: Path, text: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A suite of its own under our conftest and our settings."""
    shutil.copy(ROOT / "tests/conftest.py", folder)
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "test_tiers.py").write_text(text)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BOOKINFO_LAB_TEST_")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no", "test_tiers.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=kept | env)


@pytest.mark.parametrize(
    ("required", "status", "said"),
    [
        ("", 0, "data: BOOKINFO_LAB_TEST_DATA is not set"),
        ("cluster", 1, "BOOKINFO_LAB_REQUIRE names cluster: Skipped: cluster: BOOKINFO_LAB_TEST_CLUSTER is not set"),
        ("sandbox", 0, "1 passed, 4 skipped"),
        ("cloud", 4, "cloud is none of sandbox, browser, cluster, data"),
    ],
)
def test_a_skipped_test_of_a_required_tier_is_a_failure(tmp_path: Path, required: str, status: int, said: str) -> None:
    done = run_pytest(tmp_path, TIERS, BOOKINFO_LAB_REQUIRE=required)
    assert done.returncode == status, done.stdout + done.stderr
    assert said in done.stdout + done.stderr


def test_a_required_tier_that_is_there_runs(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, TIERS, BOOKINFO_LAB_REQUIRE="data", BOOKINFO_LAB_TEST_DATA=str(tmp_path))
    assert "2 passed, 2 skipped, 1 xfailed" in done.stdout


@pytest.mark.parametrize(("required", "status"), [("", 5), ("browser", 2), ("data", 5)])
def test_a_module_of_a_required_tier_that_skips_itself_is_a_failure(tmp_path: Path, required: str, status: int) -> None:
    done = run_pytest(tmp_path, MODULE_SKIP, BOOKINFO_LAB_REQUIRE=required)
    assert done.returncode == status, done.stdout + done.stderr
    assert ("BOOKINFO_LAB_REQUIRE names browser" in done.stdout) is (status == 2)


def test_a_mark_that_is_not_registered_is_an_error(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "import pytest\n@pytest.mark.sandbx\ndef test_it(): pass\n")
    assert done.returncode == 2
    assert "'sandbx' not found in `markers`" in done.stdout
