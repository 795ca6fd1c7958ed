"""The API server as the lab uses it: GET, LIST page by page, and, where leave was given, POST, PATCH and DELETE.

Edge, over the `kubernetes` package's client: its authentication and its connections, not its typed models, which cost
most of the time on thousands of pods.  Bodies come and go as bytes.  Every refusal becomes one line that names the
verb, the resource and the role in deploy/rbac/ that grants it; what may pass is waited for with back-off.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from bookinfo_lab.errors import LabError, Unsupported

PAGE = 500  # objects in one answer, as kubectl asks for
_ATTEMPTS = 5
_TIMEOUT_S = (5.0, 60.0)  # to connect, to read
_PASSING = (429, 500, 502, 503, 504)


class Refused(LabError):
    """The API server said no: ``status`` is its HTTP status, ``verb`` and ``resource`` what was asked."""

    def __init__(self, message: str, status: int, verb: str, resource: str) -> None:
        super().__init__(message)
        self.status, self.verb, self.resource = status, verb, resource


@dataclass(frozen=True, slots=True)
class Api:
    """One API server, as one user.

    ``context`` is the kubeconfig's, "" inside a cluster; ``namespace`` the one that commands without ``-n`` mean;
    ``server`` its version, such as ``v1.34.4``.
    """

    client: Any
    context: str
    namespace: str
    server: str

    def get(self, path: str, accept: str = "application/json", **query: str) -> bytes:
        """The body of a GET.  Raises `Refused`, or LabError where nobody answers."""
        return self.ask("GET", path, query=query, accept=accept)

    def pages(self, path: str, **query: str) -> Iterator[bytes]:
        """The pages of a list.  One that expires half way (410) is begun anew by the caller: `Refused` says so."""
        token = ""
        while True:
            asked = {**query, "limit": str(PAGE), **({"continue": token} if token else {})}
            page = self.get(path, **asked)
            yield page
            token = _continue(page)
            if not token:
                return

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content: str = "application/json",
        accept: str = "application/json",
    ) -> bytes:
        """The body of the answer; an answer that may be otherwise in a moment (429, 5xx) is asked for again."""
        for attempt in range(_ATTEMPTS):
            status, raw, wait = self._once(method, path, query or {}, body, content, accept)
            if status < 300:
                return raw
            if status not in _PASSING or attempt == _ATTEMPTS - 1:
                break
            time.sleep(min(wait or 0.2 * 2**attempt, 10.0))
        raise refused(status, raw, method, path)

    def _once(
        self, method: str, path: str, query: Mapping[str, str], body: Any, content: str, accept: str
    ) -> tuple[int, bytes, float]:
        import urllib3

        headers = {"Accept": accept, **({"Content-Type": content} if body is not None else {}), **self.credentials()}
        url = self.client.configuration.host + path
        pool = self.client.rest_client.pool_manager
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        timeout = urllib3.Timeout(connect=_TIMEOUT_S[0], read=_TIMEOUT_S[1])
        try:
            asked = f"{url}?{urlencode(query)}" if query else url
            answer = pool.request(method, asked, headers=headers, body=sent, timeout=timeout, retries=False)
        except urllib3.exceptions.HTTPError as error:
            raise LabError(f"the API server of {self.named} does not answer: {_short(error)}") from None
        return answer.status, answer.data, float(answer.headers.get("Retry-After") or 0)

    def credentials(self) -> dict[str, str]:
        """The header that says who asks; a token that has run out is read again."""
        settings = self.client.configuration.auth_settings().values()
        return {item["key"]: item["value"] for item in settings if item["in"] == "header"}

    @property
    def named(self) -> str:
        """Which cluster, for messages: its address stays out of them."""
        return f"context {self.context!r}" if self.context else "this cluster"


def connect(context: str = "", namespace: str = "") -> Api:
    """The cluster of a kubeconfig's context, its current one where none is named; else the one that this pod is in.

    Raises LabError where there is no kubeconfig, no such context, or nobody answers.
    """
    try:
        from kubernetes import client, config
    except ImportError:
        raise Unsupported("the package kubernetes is not installed; install bookinfo-lab[kubernetes]") from None
    configuration = client.Configuration()
    try:
        every, current = config.list_kube_config_contexts()  # type: ignore[no-untyped-call]
        names = [item["name"] for item in every]
        chosen = context or (current or {}).get("name", "")
        if chosen not in names:
            raise LabError(f"no context {chosen!r} in the kubeconfig; it has: {', '.join(names) or 'none'}")
        load: Any = config.load_kube_config
        load(context=chosen, client_configuration=configuration)
        said = next(item["context"].get("namespace", "") for item in every if item["name"] == chosen)
    except config.ConfigException as missing:
        try:
            load = config.load_incluster_config
            load(client_configuration=configuration)
        except config.ConfigException:
            raise LabError(f"no cluster to connect to: {_short(missing)}; set KUBECONFIG or name a context") from None
        chosen, said = "", _own_namespace()
    configuration.retries = False
    api = Api(client.ApiClient(configuration), chosen, namespace or said or "default", "")
    version = json.loads(api.get("/version"))
    return Api(api.client, api.context, api.namespace, str(version.get("gitVersion", "")))


def refused(status: int, raw: bytes, method: str, path: str) -> Refused:
    """One line for what the API server said."""
    verb, resource = verb_of(method, path)
    try:
        said = str(json.loads(raw).get("message", ""))
    except (ValueError, AttributeError):
        said = raw[:200].decode("utf-8", "replace")
    said = " ".join(said.split())[:300]
    words = {
        401: "the API server does not know this user (an expired token?): log in again",
        403: f"this user may not {verb} {resource}; {_role(verb, resource)}",
        404: f"there is no such {resource}: {said}",
        409: f"{resource} was changed meanwhile: {said}",
        410: "the list grew old while it was read: ask again",
        429: "the API server is busy: ask again in a minute",
    }
    return Refused(
        words.get(status, f"the API server answered {status} to {verb} {resource}: {said}"), status, verb, resource
    )


def verb_of(method: str, path: str) -> tuple[str, str]:
    """RBAC's verb and resource (with its subresource) of a request, as a Role has them."""
    parts = path.partition("?")[0].strip("/").split("/")
    rest = parts[2:] if parts[:1] == ["api"] else parts[3:] if parts[:1] == ["apis"] else []
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    if not rest:
        return ("get", path)
    resource = rest[0] + (f"/{rest[2]}" if len(rest) > 2 else "")
    if method == "GET":
        return ("get" if len(rest) > 1 else "list", resource)
    return ({"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}[method], resource)


# The first role of deploy/rbac/ that grants it; each has what those before it have.
_ROLES = (
    ("reader", {"get", "list", "watch"}, None),
    ("inspector", {"get", "create"}, {"pods/exec", "pods/portforward"}),
    ("capturer", {"patch", "update"}, {"pods/ephemeralcontainers"}),
    ("node", {"create", "delete"}, {"pods"}),
)


def _role(verb: str, resource: str) -> str:
    for name, verbs, resources in _ROLES:
        if verb in verbs and (
            resource in resources if resources is not None else "/" not in resource or "log" in resource
        ):
            return f"the role {name} in deploy/rbac/ grants it"
    return "no role of this lab's grants it"


def _continue(page: bytes) -> str:
    # The list's metadata stands before its items; only there is it looked for.
    import msgspec

    class _Meta(msgspec.Struct):
        next: str = msgspec.field(default="", name="continue")

    class _List(msgspec.Struct):
        metadata: _Meta = msgspec.field(default_factory=_Meta)

    return msgspec.json.decode(page, type=_List).metadata.next


def _own_namespace() -> str:
    try:
        with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "default"


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
