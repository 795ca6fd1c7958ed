"""Who asks: a context of the kubeconfig, or the service account of the pod that this process is in.

Edge: files, and whatever program a kubeconfig names for credentials, by the `kubernetes` package.  A context that was
named is taken or refused, never replaced; a pod's own account is taken only where there is no kubeconfig at all and
none was named.  A login that fails is told here: the package goes on as nobody.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from bookinfo_lab.errors import LabError, Unsupported
from bookinfo_lab.sources.cluster import farewell

_DEFAULT = "~/.kube/config"
_AS = ("as", "as-uid", "as-groups", "as-user-extra")
_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


class NoContext(LabError):
    """There is no kubeconfig, or no such context in it."""


class Login(NamedTuple):
    """The package's Configuration, the context that it is of ("" in a pod), and the namespace that is meant there."""

    configuration: Any
    context: str
    namespace: str


def login(context: str = "") -> Login:
    """The login of that context, of the current one where none is named, else of this pod.

    Raises LabError where there is no such context, the kubeconfig cannot be read, or its user has no credentials.
    """
    try:
        from kubernetes import client, config
        from kubernetes.config.kube_config import KubeConfigMerger
        from yaml import YAMLError  # type: ignore[import-untyped]  # comes with kubernetes
    except ImportError:
        raise Unsupported("the Python package kubernetes is not installed; run: make setup") from None
    files = os.environ.get("KUBECONFIG") or _DEFAULT
    broken = (OSError, TypeError, ValueError, KeyError, AttributeError, YAMLError, config.ConfigException)
    configuration = client.Configuration()
    farewell.call_at_end(_remove_files)
    try:
        merged = KubeConfigMerger(files).config  # type: ignore[no-untyped-call]
        found = {} if merged is None else {item["name"]: item["context"] for item in merged.value["contexts"]}
    except broken as error:
        raise _unreadable(error) from None
    if merged is None:
        return _of_this_pod(configuration, context)
    chosen = context or str(merged.value.get("current-context") or "")
    if chosen not in found:
        wanted = f"no context {chosen!r} in the kubeconfig" if chosen else "the kubeconfig has no current context"
        raise NoContext(f"{wanted}; it has: {', '.join(found) or 'none'}")
    try:
        with _heard() as said:
            config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=files, context=chosen, client_configuration=configuration
            )
        user = _user(merged.value["users"], found[chosen])
        namespace = found[chosen].safe_get("namespace")
    except broken as error:
        raise _unreadable(error) from None
    except Exception as error:  # noqa: BLE001 - what its user's way to log in raises: urllib3, oauthlib, the package
        raise failed(f"context {chosen!r}", error) from None
    _check(configuration, user, chosen, " ".join(said))
    return Login(configuration, chosen, str(namespace or ""))


def _remove_files() -> None:
    """The package keeps a kubeconfig's keys in files of its own, which a signal would leave behind."""
    from kubernetes.config import kube_config

    kube_config._cleanup_temp_files()  # type: ignore[no-untyped-call]


def _of_this_pod(configuration: Any, context: str) -> Login:
    from kubernetes import config

    if context:
        raise NoContext(f"no context {context!r}: there is no kubeconfig; set KUBECONFIG to one that has it")
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        raise NoContext(
            "no cluster to connect to: there is no kubeconfig, and this is no pod; set KUBECONFIG to a file that exists"
        ) from None
    try:
        with open(_ACCOUNT, encoding="ascii") as file:
            return Login(configuration, "", file.read().strip())
    except OSError:
        return Login(configuration, "", "")


def _user(users: Any, context: Any) -> dict[str, Any]:
    named = str(context.safe_get("user") or "")
    return next((dict(item["user"].value) for item in users if item["name"] == named and item["user"]), {})


def _check(configuration: Any, user: dict[str, Any], context: str, said: str) -> None:
    """Refuse a login that the package let pass: without credentials, as another, or by a proxy that streams cannot use.

    The package takes no notice of ``as``: the lab would be who lends the name, and may do more.
    """
    if any(user.get(word) for word in _AS):
        raise Unsupported(
            f"the context {context!r} acts as somebody else (as: {user.get('as', '')}), which the kubernetes package "
            "cannot; give the lab a login of that user's own"
        )
    program, provider = (user.get("exec") or {}).get("command", ""), (user.get("auth-provider") or {}).get("name", "")
    if (program or provider) and not any(configuration.api_key.values()) and not configuration.cert_file:
        whose = f"program {program!r}" if program else f"auth-provider {provider!r}"
        why = f": {said[:200]}" if said else ""
        raise LabError(
            f"no credentials for the context {context!r}: the kubeconfig's {whose} gave none{why}; log in again, then "
            f"see that kubectl --context {context} get pods works"
        )
    if str(configuration.proxy or "").startswith("socks"):
        raise Unsupported(
            f"the context {context!r} has a SOCKS proxy (proxy-url), which exec and port-forward cannot use here; "
            "an HTTP proxy or a tunnel can be used"
        )


@contextmanager
def _heard() -> Iterator[list[str]]:
    """What the package logs meanwhile; it logs to the root logger, and shows it where nobody listens."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(" ".join(record.getMessage().split()))  # type: ignore[method-assign]
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield lines
    finally:
        root.removeHandler(handler)


def failed(named: str, error: Exception) -> LabError:
    """A login that raised; what it says is left out, as it may quote what nobody else should know."""
    return LabError(
        f"no credentials for {named}: its way to log in failed ({type(error).__name__}); log in again, then see that "
        "kubectl get pods works there"
    )


def _unreadable(error: Exception) -> LabError:
    return LabError(
        f"the kubeconfig cannot be read: {' '.join(str(error).split())[:200]}; set KUBECONFIG to one that can"
    )
