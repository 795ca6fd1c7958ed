"""Under each role the notebooks and the commands ask the API server for nothing outside the role's list.

The lists stand in `test_rbac`, where they are held against the roles' files; the API server's own log is the judge.
"""

import difflib
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import left
import pytest
import reading
from audit import ANYONE, check, events, request, requests, settle
from bed import Bed
from test_rbac import ALLOWED, LEAVES, Connect, granted

COMMANDS: tuple[Sequence[str], ...] = (
    ["doctor", "--source", "kubernetes"],
    *(["objects", name] for name in ("pods", "services", "endpointslices", "nodes")),
    ["logs", "productpage"],
    ["exec", "productpage", "--", "true"],
    ["record", "--list", "not-written"],
    ["capture", "--seconds", "1", "productpage:lo"],
    ["uninstall", "--traces"],
)


# What each role does not reach; the rest must work, or the log has shown nothing of it.
UNREACHED = {"reader": {"exec", "capture"}, "inspector": {"capture"}, "capturer": set[str](), "node": set[str]()}


def ran(words: Sequence[str], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    given = [sys.executable, "-m", "bookinfo_lab.cli", *words]
    return subprocess.run(given, env=environment, capture_output=True, text=True, errors="replace", timeout=110)


@pytest.mark.timeout(240, func_only=True)
@pytest.mark.parametrize(
    ("role", "more"),
    [*((role, ("reader-cluster",)) for role in ALLOWED), ("reader", ()), ("node", ())],
    ids=[*ALLOWED, "reader alone", "node alone"],
)
def test_notebooks_and_commands_ask_for_nothing_outside_the_roles_list(
    bed: Bed, bookinfo: str, connect: Connect, tmp_path: Path, role: str, more: tuple[str, ...]
) -> None:
    if bed.audit_log is None:
        pytest.skip("this cluster keeps no audit log that can be read here")
    kubeconfig = bed.account(bookinfo, f"audit-{role}-{len(more)}", [role, *more])
    mark = tmp_path / "mark"
    mark.touch()
    before, on_nodes = left.before(bed), left.on_nodes(bed, str(mark))
    since = bed.audit_log.stat().st_size
    given = reading.environment(bed, kubeconfig, bookinfo, (*LEAVES[role], "trace"), tmp_path)
    read = reading.read(reading.SOLUTIONS, given, tmp_path)
    assert reading.errors(read) == []
    with ThreadPoolExecutor(2) as pool:
        told = list(pool.map(lambda words: ran(words, given), COMMANDS[:-1]))
    told.append(ran(COMMANDS[-1], given))
    assert not [one.stderr for one in told if "Traceback" in one.stderr]
    failed = {
        words[0]: (done.stdout + done.stderr)[-500:]
        for words, done in zip(COMMANDS, told, strict=True)
        if done.returncode
    }
    assert set(failed) == UNREACHED[role], failed
    user = bed.asked_by(kubeconfig)
    settle(bed.audit_log, connect(bed.kubeconfig, bookinfo).api)
    asked = requests(bed.audit_log, user, since)
    check(asked, (ALLOWED[role] if more else granted(f"{role}.yaml")) | ANYONE)
    assert len(asked) >= 5, asked
    refused = [event for event in events(bed.audit_log, user, since) if event["responseStatus"].get("code") == 403]
    assert not [request(event) for event in refused], "a locked door was tried"
    assert left.until(lambda: left.objects(bed) == before), left.objects(bed) ^ before
    assert left.until(lambda: left.on_nodes(bed, str(mark)) == on_nodes, 30), changed(on_nodes, bed, mark)
    named = {line.split()[2] for line in told[-1].stdout.splitlines() if line.startswith("remains: container ")}
    assert named == {guest for _, guest in left.all_guests(bed) if guest.startswith("bookinfo-lab-")}


def changed(before: dict[str, list[str]], bed: Bed, mark: Path) -> str:
    after = left.on_nodes(bed, str(mark))
    return "\n".join(line for node in before for line in difflib.unified_diff(before[node], after[node], n=0))


def test_a_rule_a_program_and_a_file_that_were_left_on_a_node_are_seen(bed: Bed, tmp_path: Path) -> None:
    if bed.images is None:
        pytest.skip("nothing is put onto the nodes of a cluster that is not the tests' own")
    mark = tmp_path / "mark"
    mark.touch()
    before = left.on_nodes(bed, str(mark))
    name = next(iter(before))
    file, table = f"/etc/bookinfo-lab-test-{bed.folder.name[-8:]}", "ip bookinfo_lab_planted"

    def on_node(*words: str) -> None:
        assert bed.images is not None
        subprocess.run([str(bed.images / "node"), name, *words], env=bed.environment, check=True, timeout=30)

    for plant, root in (
        (("nft", "add", "table", *table.split()), ("nft", "delete", "table", *table.split())),
        (("sh", "-c", f"echo > {file}"), ("rm", file)),
        (("sh", "-c", "sleep 97 >/dev/null 2>&1 & echo $!"), ("pkill", "-x", "-f", "sleep 97")),
    ):
        on_node(*plant)
        assert left.on_nodes(bed, str(mark)) != before, plant
        on_node(*root)
        assert left.until(lambda: left.on_nodes(bed, str(mark)) == before), changed(before, bed, mark)
