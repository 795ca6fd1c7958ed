"""Notebooks 00 to 03 on a cluster: with leave everything is shown, without it each gap says what it takes."""

import re
from collections.abc import Callable
from pathlib import Path

import left
import pytest
import reading
from bed import Bed

from bookinfo_lab.sources.cluster.source import KubernetesSource

LEAVES = ("ephemeral", "node-pod", "trace")
Connect = Callable[..., KubernetesSource]


@pytest.mark.timeout(300, func_only=True)
def test_with_leave_all_is_shown_every_answer_is_right_and_every_proof_agrees(
    bed: Bed, bookinfo: str, tmp_path: Path
) -> None:
    left.at_rest(bed)
    before = left.before(bed)
    given = reading.environment(bed, bed.kubeconfig, bookinfo, LEAVES, tmp_path)
    read = reading.read(reading.SOLUTIONS, given, tmp_path)
    assert len(read) == 4
    assert reading.errors(read) + [text for item in read.values() for text in reading.boxes(item)] == []
    verdicts = [text for item in read.values() for text in reading.shown(item, "lab.check(")]
    assert len(verdicts) == 13
    assert [text for text in verdicts if ": right." not in text] == []
    proofs = [text.splitlines()[1] for item in read.values() for text in reading.shown(item, "lab.prove(")]
    assert len(proofs) >= 8
    assert [text for text in proofs if not text.startswith("agree")] == []
    assert left.until(lambda: left.objects(bed) == before, 40), left.objects(bed) ^ before


@pytest.mark.timeout(300, func_only=True)
def test_without_leave_they_run_to_the_end_and_put_nothing_into_the_cluster(
    bed: Bed, bookinfo: str, tmp_path: Path
) -> None:
    before, guests = left.before(bed), left.all_guests(bed)
    read = reading.read(reading.SOLUTIONS, reading.environment(bed, bed.kubeconfig, bookinfo, (), tmp_path), tmp_path)
    assert reading.errors(read) == []
    why = [text for item in read.values() for text in reading.boxes(item)]
    every = [text for item in read.values() for text in reading.shown(item)]
    named = {words for text in every for words in re.findall(r"BOOKINFO_LAB_ALLOW=([\w,-]+) allows", text)}
    assert {"node-pod", "ephemeral,trace"} <= named, named
    assert [text for text in why if "without leave" not in text and "is missing above" not in text] == []
    assert (left.objects(bed), left.all_guests(bed)) == (before, guests)


@pytest.mark.timeout(300, func_only=True)
def test_whoever_may_only_read_one_namespace_is_told_the_role_for_the_rest(
    bed: Bed, bookinfo: str, tmp_path: Path
) -> None:
    kubeconfig = bed.account(bookinfo, "notebooks-reader", ["reader"])
    given = reading.environment(bed, kubeconfig, bookinfo, LEAVES, tmp_path)
    read = reading.read(reading.SOLUTIONS, given, tmp_path)
    assert reading.errors(read) == []
    why = [text for item in read.values() for text in reading.boxes(item)]
    assert any("the role inspector in deploy/rbac/" in text for text in why)
    assert [text for text in why if "deploy/rbac" not in text and "is missing above" not in text] == []
    assert "productpage" in reading.shown(read["00-the-lab.ipynb"], "lab.pods()")[0]


@pytest.mark.timeout(300, func_only=True)
def test_a_learners_blanks_are_not_answered_yet(bed: Bed, bookinfo: str, tmp_path: Path) -> None:
    given = reading.environment(bed, bed.kubeconfig, bookinfo, LEAVES, tmp_path)
    read = reading.read(reading.COPIES, given, tmp_path)
    assert reading.errors(read) == []
    verdicts = [text for item in read.values() for text in reading.shown(item, "lab.check(")]
    assert len(verdicts) == 13
    assert [text for text in verdicts if ": not answered yet." not in text] == []
