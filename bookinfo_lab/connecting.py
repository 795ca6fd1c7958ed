"""Choose a source and say why: the sandbox where this machine can, else the bundled recording, never a cluster unasked.

Edge.  What is asked for in words (arguments, or BOOKINFO_LAB_SOURCE where `connect` is called without) is taken or
refused, never replaced by something else.  Of a cluster the environment says what arguments do not: its context and its
namespace.  A sandbox of the right name that runs is attached to; one that is started here ends with this process.
"""

import os
import sys
import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from bookinfo_lab.errors import LabError, Unsupported
from bookinfo_lab.lab import Lab

if TYPE_CHECKING:
    from bookinfo_lab.sandbox import Sandbox
    from bookinfo_lab.sources.base import Source

VARIABLE = "BOOKINFO_LAB_SOURCE"
NAMESPACE = "BOOKINFO_LAB_NAMESPACE"
CLUSTER = "kubernetes"
KINDS = ("sandbox", "recording", CLUSTER)
DEFAULT_SCENARIO = "sidecar"
_PATIENCE_S = 60.0


def connect(
    source: str = "",
    *,
    scenario: str = "",
    name: str = "",
    path: str = "",
    context: str = "",
    namespace: str = "",
    allow: Collection[str] = (),
) -> Lab:
    """A Lab on ``source`` (sandbox, recording or kubernetes), which it announces in a line, or a banner in a notebook.

    ``scenario`` (sidecar or article) and ``name`` choose the sandbox, ``path`` the recording; a bundled recording of
    the scenario is taken where no path is given.  ``context`` is the kubeconfig's (where none is named, the one of
    BOOKINFO_LAB_SOURCE, else the kubeconfig's current one), ``namespace`` the one that is read (else that of
    BOOKINFO_LAB_NAMESPACE, else all that may be), ``allow`` what may be made in the cluster: ephemeral, node-pod,
    trace; with BOOKINFO_LAB_ALLOW.  Raises LabError where what was asked for cannot be had.
    """
    named = os.environ.get(VARIABLE, "")
    is_named = not source and not path and cluster_context() is not None
    if source == CLUSTER or is_named:
        words = _given(scenario=scenario, name=name, path=path)
        if words:
            raise LabError(f'a cluster has none of these: {words}; leave them out, or name another source: "sandbox"')
        lab = _cluster(context, namespace, allow, f"{VARIABLE}={named}" if is_named else "asked for")
    else:
        words = _given(context=context, namespace=namespace, allow=[*allow])
        if words:
            raise LabError(f'only a cluster has these: {words}; leave them out, or connect("{CLUSTER}", {words})')
        lab = _choose(source, scenario, name, path)
    _announce(lab)
    return lab


def cluster_context(given: str | None = None) -> str | None:
    """The context of the cluster that is meant, "" for the kubeconfig's current one; None where none is meant.

    ``given`` is the one that was asked for: "" where a cluster was and no context, None where no cluster was.
    """
    kind, _, named = os.environ.get(VARIABLE, "").partition(":")
    return (given or named) if kind == CLUSTER else given


def cluster_namespace(given: str = "") -> str:
    """The namespace that is read: the one that was asked for, else the environment's; "" for all."""
    return given or os.environ.get(NAMESPACE, "")


def _given(**words: object) -> str:
    """The arguments that were given, as they are written."""
    return ", ".join(f"{word}={value!r}" for word, value in words.items() if value)


def _cluster(context: str, namespace: str, allow: Collection[str], why: str) -> Lab:
    from bookinfo_lab.sources.cluster import source

    try:
        found = source.connect(cluster_context(context) or "", cluster_namespace(namespace), allow)
    except LabError as error:
        raise (error if why == "asked for" else LabError(f"{why}: {error}")) from None
    return Lab(found, why)


def _choose(source: str, scenario: str, name: str, path: str) -> Lab:
    named = os.environ.get(VARIABLE, "")
    if source:
        return Lab(_asked(source, scenario, name, path), "asked for")
    if path:
        raise LabError(f'a path is a recording\'s: connect("recording", path={path!r})')
    if named:
        kind, _, word = named.partition(":")
        try:
            return Lab(_worded(kind, word, scenario), f"{VARIABLE}={named}")
        except LabError as error:
            raise LabError(f"{VARIABLE}={named}: {error}") from None
    running = _attached(scenario, name) if _is_linux() else None
    if running is not None:
        return Lab(running, "it runs already")
    try:
        return Lab(_started(scenario, name), "this machine can run it")
    except LabError as error:
        return Lab(_recording(scenario, ""), f"no sandbox here: {error}")


def _asked(kind: str, scenario: str, name: str, path: str) -> "Source":
    if kind not in KINDS:
        raise LabError(f"no source {kind!r}; choose one of: {', '.join(KINDS)}")
    if path and kind == "sandbox":
        raise LabError("a path is a recording's; a sandbox has none")
    if kind == "recording":
        return _recording(scenario, path)
    return sandbox_source(scenario, name)


def _worded(kind: str, word: str, scenario: str) -> "Source":
    """``KIND`` or ``KIND:WORD`` of the environment variable: a sandbox's name or scenario, a recording's path."""
    if kind == "sandbox" and word and _runs(word):
        return sandbox_source("", word)
    if kind == "sandbox":
        return sandbox_source(scenario or word, "")
    return _asked(kind, scenario, "", word)


def _recording(scenario: str, path: str) -> "Source":
    from bookinfo_lab.sources import recording

    return recording.RecordingSource(path or recording.bundled(scenario or DEFAULT_SCENARIO))


def sandbox_source(scenario: str, name: str) -> "Source":
    """A sandbox of that name and scenario that runs, or one that is started now."""
    return (_attached(scenario, name) if _is_linux() else None) or _started(scenario, name)


def _attached(scenario: str, name: str) -> "Source | None":
    """The sandbox that runs under that name; without one, ``default`` or the one named like the scenario."""
    from bookinfo_lab import sandbox
    from bookinfo_lab.sandbox import scenarios
    from bookinfo_lab.sources.sandbox import SandboxSource

    if scenario:
        scenarios.scenario(scenario)  # an unknown one is the caller's mistake: said before anything is tried
    for one in [name] if name else [sandbox.DEFAULT_NAME, scenario]:
        mesh = _running(one) if one else None
        if mesh is not None and scenario in ("", mesh.scenario):
            return SandboxSource(mesh)
        if mesh is not None and name:
            raise LabError(f"the sandbox {name!r} runs the scenario {mesh.scenario}, not {scenario}; give another name")
    return None


def _started(scenario: str, name: str) -> "Source":
    """A new sandbox that ends with this process: ``default``, or named like its scenario where that name is taken."""
    if not _is_linux():
        raise Unsupported(f"a sandbox needs Linux, this is {sys.platform}")
    from bookinfo_lab import sandbox
    from bookinfo_lab.sandbox import scenarios
    from bookinfo_lab.sources.sandbox import SandboxSource

    plan = scenarios.scenario(scenario or DEFAULT_SCENARIO)
    is_default = plan.scenario == DEFAULT_SCENARIO and not _runs(sandbox.DEFAULT_NAME)
    own = name or (sandbox.DEFAULT_NAME if is_default else plan.scenario)
    return SandboxSource(sandbox.up(plan, own, publish=0, keep=False), is_own=True)


def _is_linux() -> bool:
    return sys.platform.startswith("linux")


def _runs(name: str) -> bool:
    if not _is_linux():
        return False
    from bookinfo_lab.sandbox import state

    return state.read(name) is not None


def _running(name: str) -> "Sandbox | None":
    """The sandbox of that name once it is ready; None where none runs or is being made."""
    from bookinfo_lab import sandbox
    from bookinfo_lab.sandbox import state

    deadline = time.monotonic() + _PATIENCE_S
    while (record := state.read(name)) is not None:
        if "init" in record:
            return sandbox.attach(name)
        if time.monotonic() > deadline:
            raise LabError(f"the sandbox {name!r} is not ready after {_PATIENCE_S:.0f} s; see bookinfo-lab status")
        time.sleep(0.02)
    return None


def _announce(lab: Lab) -> None:
    """Show the banner in a notebook; elsewhere a line on stderr."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None and hasattr(shell, "kernel"):
        from IPython.display import display

        display(lab)  # type: ignore[no-untyped-call]
        if lab.source.kind == CLUSTER:
            from bookinfo_lab.show import missing

            missing.install()
    else:
        from bookinfo_lab.show import banner

        sys.stderr.write(f"bookinfo-lab: {banner.as_text(lab.source, lab.why)}\n")
