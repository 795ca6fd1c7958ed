"""What a mark needs, and what a skipped test means.

`sandbox`, `data`, `cluster` and `browser` say what a test needs; where the machine lacks it the test is skipped with
the reason.  BOOKINFO_LAB_REQUIRE=sandbox,data names marks whose tests must run: a skip of one is then a failure.
"""

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

TIERS = ("sandbox", "browser", "cluster", "data")
FOLDERS = {"data": "BOOKINFO_LAB_TEST_DATA", "cluster": "BOOKINFO_LAB_TEST_CLUSTER"}
SYSTEM_PATH = ":".join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def required_tiers() -> frozenset[str]:
    words = os.environ.get("BOOKINFO_LAB_REQUIRE", "").replace(",", " ").split()
    return frozenset(words)


def pytest_configure(config: pytest.Config) -> None:
    unknown = required_tiers() - set(TIERS)
    if unknown:
        raise pytest.UsageError(f"BOOKINFO_LAB_REQUIRE: {', '.join(sorted(unknown))} is none of {', '.join(TIERS)}")
    # No example fails for the time it took or for its size: speed is measured in benchmarks/.
    unjudged = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    settings.register_profile("untimed", deadline=None, suppress_health_check=unjudged)
    settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture, tier in (("data_folder", "data"), ("cluster_folder", "cluster")):
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(tier)


@functools.cache
def lacking(tier: str) -> str:
    """Why this machine cannot run a tier; empty where it can."""
    if tier in FOLDERS:
        return folder_lacking(FOLDERS[tier])
    if tier == "browser":
        names = ("chromium", "chromium-browser", "google-chrome")
        return "" if any(shutil.which(name, path=SYSTEM_PATH) for name in names) else f"none of {', '.join(names)}"
    return sandbox_lacking()


def folder_lacking(variable: str) -> str:
    named = os.environ.get(variable)
    if not named:
        return f"{variable} is not set"
    return "" if Path(named).is_dir() else f"{variable} names no folder: {named}"


def sandbox_lacking() -> str:
    """Tried, not guessed: a network namespace with a nat table in it."""
    options = ["--mount", "--net"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount", "--net"]
    command = ["unshare", *options, "iptables-nft", "--table", "nat", "--list-rules"]
    try:
        tried = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=30, env={**os.environ, "PATH": SYSTEM_PATH}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{' '.join(command)}: {error}"
    return "" if tried.returncode == 0 else f"{' '.join(command)}: {tried.stderr.strip()}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    for tier in TIERS:
        if item.get_closest_marker(tier) and (reason := lacking(tier)):
            pytest.skip(f"{tier}: {reason}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    marked = sorted(tier for tier in required_tiers() if item.get_closest_marker(tier))
    if marked and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but BOOKINFO_LAB_REQUIRE names {', '.join(marked)}: {skip_reason(report)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module that skips itself as a whole never shows its tests: its text says which tiers they belong to."""
    report = yield
    if report.skipped and collector.path.is_file():
        text = collector.path.read_text(encoding="utf-8")
        named = sorted(tier for tier in required_tiers() if re.search(rf"\bmark\.{tier}\b", text))
        if named:
            report.outcome = "failed"
            report.longrepr = f"skipped, but BOOKINFO_LAB_REQUIRE names {', '.join(named)}: {skip_reason(report)}"
    return report


def skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The recorded data; a test that asks for it carries the mark `data`."""
    return named_folder("data")


@pytest.fixture(scope="session")
def cluster_folder() -> Path:
    """What brings a Kubernetes cluster up; a test that asks for it carries the mark `cluster`."""
    return named_folder("cluster")


def named_folder(tier: str) -> Path:
    if reason := lacking(tier):
        pytest.skip(f"{tier}: {reason}")
    return Path(os.environ[FOLDERS[tier]])
