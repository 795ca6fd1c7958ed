"""One cluster for all tests here, as the folder BOOKINFO_LAB_TEST_CLUSTER names starts it.

Every test here carries the mark `cluster` where it asks for the cluster.  Where the folder is named, a skip of one is
a failure, but for a cluster that was there before: not everything may be tried on that.
"""

import os
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))  # what tests share lies beside them

import bookinfo as sample
from bed import OWN, Bed, running

from bookinfo_lab.lab import Lab
from bookinfo_lab.sources.cluster import source
from bookinfo_lab.sources.cluster.source import KubernetesSource

VARIABLE = "BOOKINFO_LAB_TEST_CLUSTER"
LIMIT_S = 120.0  # for a test itself; the cluster's start is not a test's


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """These come last: no other test runs, and looks for what it left on this machine, while a cluster is up."""
    items.sort(key=lambda item: item.path.is_relative_to(Path(__file__).parent))
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and "bed" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(LIMIT_S, func_only=True))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    named = os.environ.get(VARIABLE)
    is_skipped = report.skipped and not hasattr(report, "wasxfail")
    if named and Path(named).resolve() != OWN and is_skipped and item.get_closest_marker("cluster"):
        report.outcome = "failed"
        report.longrepr = f"skipped, but {VARIABLE} is set: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def bed(cluster_folder: Path) -> Iterator[Bed]:
    """The cluster."""
    with running(cluster_folder) as started:
        yield started


@pytest.fixture(scope="session")
def bookinfo(bed: Bed) -> Iterator[str]:
    """A namespace with a Bookinfo in it: injected where the cluster has Istio, productpage behind a NodePort."""
    with sample.installed(bed) as name:
        yield name


@pytest.fixture(scope="module")
def namespace(bed: Bed) -> Iterator[str]:
    """A namespace with a pod `web` in it."""
    with bed.namespace() as name:
        yield name


@pytest.fixture(scope="module")
def lab(bed: Bed, bookinfo: str) -> Iterator[Lab]:
    """A Lab of that Bookinfo that may do everything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOKINFO_LAB_IMAGE", bed.image)
        patch.setenv("KUBECONFIG", str(bed.kubeconfig))
        found = Lab(source.connect(namespace=bookinfo, allow=["ephemeral", "node-pod", "trace"]))
        try:
            yield found
        finally:
            found.close()


@pytest.fixture
def connect(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., KubernetesSource]]:
    """The source `kubernetes` as an account: connect(kubeconfig, namespace, allow)."""
    made: list[KubernetesSource] = []
    monkeypatch.setenv("BOOKINFO_LAB_IMAGE", bed.image)

    def connected(kubeconfig: Path, namespace: str, allow: tuple[str, ...] = ()) -> KubernetesSource:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        made.append(source.connect(namespace=namespace, allow=allow))
        return made[-1]

    yield connected
    for one in made:
        one.close()
