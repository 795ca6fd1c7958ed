"""The API server as the lab uses it: GET, LIST page by page, and, where leave was given, POST, PATCH and DELETE.

Edge, over the `kubernetes` package's client: its authentication and its connections, not its typed models, which cost
most of the time on thousands of pods.  Bodies come and go as bytes.  Every refusal becomes one line that names the
verb, the resource and the role in deploy/rbac/ that grants it; what may pass is waited for with back-off: a server that
is busy, and for PATIENCE_S one that does not answer, where the request may be sent twice or has not arrived.
"""

import json
import re
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import urlencode

from bookinfo_lab.errors import LabError
from bookinfo_lab.sources.cluster import login

PAGE = 5000  # objects in one answer: ten of the size that kubectl asks for cost the server twice the time
PATIENCE_S = 20.0  # for a server that does not answer
_ATTEMPTS = 5  # for one that answers, but not with what was asked for
_TIMEOUT_S = (5.0, 60.0)  # to connect, to read
_PASSING = (429, 500, 502, 503, 504)
_ADDRESS = re.compile(r"(<[^<>]* object at 0x[0-9a-f]+>|\w*Connection\w*\([^()]*\)): ?")
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_TWICE = ("GET", "DELETE")  # what may be sent twice
_LONGEST_WAIT_S = 2.0
_Decoded = TypeVar("_Decoded")


class Refused(LabError):
    """The API server said no: ``status`` is its HTTP status, ``verb`` and ``resource`` what was asked.

    It is 403 also where a webhook or a policy did not admit it, which answer with 400 and 422.
    """

    def __init__(self, message: str, status: int, verb: str, resource: str) -> None:
        super().__init__(message)
        self.status, self.verb, self.resource = status, verb, resource


@dataclass(frozen=True, slots=True)
class Api:
    """One API server, as one user.

    ``context`` is the kubeconfig's, "" inside a cluster; ``namespace`` the one that commands without ``-n`` mean;
    ``server`` its version, such as ``v1.34.4``; ``words`` name the context to kubectl where it was named here.
    """

    client: Any
    context: str
    namespace: str
    server: str
    words: tuple[str, ...] = ()
    _may: set[tuple[str, str, str]] = field(default_factory=set, compare=False, repr=False)

    def kubectl(self, *words: str) -> str:
        """A kubectl line that means this cluster."""
        return shlex.join(["kubectl", *self.words, *words])

    def read(self, path: str, **query: str) -> dict[str, Any]:
        """The JSON object that a GET answers with."""
        return document(self.ask("GET", path, query=query))

    def get(self, path: str, accept: str = "application/json", **query: str) -> bytes:
        """The body of a GET.  Raises `Refused`, or LabError where nobody answers."""
        return self.ask("GET", path, query=query, accept=accept)

    def check(self, method: str, path: str) -> None:
        """Raise the refusal that a request would meet, without sending it: a guest does not try locked doors.

        A right that is there is asked about once; where the server does not answer about rights the request may be
        tried.
        """
        verb, resource = verb_of(method, path)
        namespace = _namespace_of(path)
        if (verb, resource, namespace) in self._may or resource.startswith("selfsubject"):
            return
        name, _, subresource = resource.partition("/")
        group = path.split("/")[2] if path.startswith("/apis/") else ""
        attributes = {"verb": verb, "resource": name, "subresource": subresource, "group": group}
        review = {"spec": {"resourceAttributes": {**attributes, "namespace": namespace}}}
        try:
            answer = document(self.ask("POST", _REVIEWS, body=review))
        except Refused:
            return
        if (answer.get("status") or {}).get("allowed") is False:
            raise Refused(_forbidden("", verb, resource, path), 403, verb, resource)
        self._may.add((verb, resource, namespace))

    def pages(self, path: str, **query: str) -> Iterator[list[Any]]:
        """The pages of a list, each object as msgspec.Raw.

        One that expires half way (410) is begun anew by the caller: `Refused` says so.
        """
        self.check("GET", path)
        token = ""
        while True:
            asked = {**query, "limit": str(PAGE), **({"continue": token} if token else {})}
            items, token = _page(self.get(path, **asked))
            yield items
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
        patience_s: float = PATIENCE_S,
    ) -> bytes:
        """The body of the answer; what may be otherwise in a moment (429, 5xx, no answer) is asked for again."""
        import urllib3

        deadline, attempt, pause, waited = time.monotonic() + patience_s, 0, 0.1, 0.0
        is_renewed = False
        while True:
            try:
                status, raw, wait = self._once(method, path, query or {}, body, content, accept)
            except urllib3.exceptions.HTTPError as error:
                pause = min(2 * pause, _LONGEST_WAIT_S)
                waited += pause
                is_over = waited > patience_s or time.monotonic() + pause > deadline
                if is_over or not _may_be_sent_again(method, path, error):
                    raise LabError(f"the API server of {self.named} does not answer: {_short(error)}") from None
                time.sleep(pause)
                continue
            if status < 300:
                return raw
            if status == 401 and not is_renewed and self.renew():
                is_renewed = True
                continue
            attempt += 1
            if status not in _PASSING or attempt == _ATTEMPTS:
                raise refused(status, raw, method, path)
            time.sleep(min(wait or 0.1 * 2**attempt, 10.0))

    def _once(
        self, method: str, path: str, query: Mapping[str, str], body: Any, content: str, accept: str
    ) -> tuple[int, bytes, float]:
        import urllib3

        headers = {"Accept": accept, **({"Content-Type": content} if body is not None else {}), **self.credentials()}
        url = self.client.configuration.host + path
        pool = self.client.rest_client.pool_manager
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        timeout = urllib3.Timeout(connect=_TIMEOUT_S[0], read=_TIMEOUT_S[1])
        asked = f"{url}?{urlencode(query)}" if query else url
        answer = pool.request(method, asked, headers=headers, body=sent, timeout=timeout, retries=False)
        return answer.status, answer.data, _seconds(answer.headers.get("Retry-After"))

    def credentials(self) -> dict[str, str]:
        """The header that says who asks; a token that has run out is read again."""
        try:
            settings = self.client.configuration.auth_settings().values()
        except Exception as error:  # noqa: BLE001 - what the user's way to log in raises
            raise login.failed(self.named, error) from None
        # A token from a file often ends in a newline, which no header can.
        found = {item["key"]: str(item["value"] or "").strip() for item in settings if item["in"] == "header"}
        if not all(value.isascii() and value.isprintable() for value in found.values()):
            raise LabError(f"the credentials of {self.named} hold a character that no token has: log in again")
        return found

    def renew(self) -> bool:
        """Log in again, as a token in a file or of a program may have changed; whether there is another one now."""
        own = self.client.configuration
        before = dict(own.api_key)
        try:
            found = login.login(self.context).configuration
        except LabError:
            return False
        if found.host != own.host:
            return False  # another kubeconfig by now
        own.api_key, own.api_key_prefix = found.api_key, found.api_key_prefix
        own.refresh_api_key_hook = found.refresh_api_key_hook
        return bool(own.api_key != before)

    @property
    def named(self) -> str:
        """Which cluster, for messages: its address stays out of them."""
        return f"context {self.context!r}" if self.context else "this cluster"


def connect(context: str = "", namespace: str = "") -> Api:
    """The cluster of a kubeconfig's context, its current one where none is named; else the one that this pod is in.

    Raises LabError where there is no kubeconfig, no such context, nobody answers, or somebody else does.
    """
    found = login.login(context)
    found.configuration.retries = False
    from kubernetes import client

    words = (f"--context={context}",) if context else ()
    space = namespace or found.namespace or "default"
    asked = Api(client.ApiClient(found.configuration), found.context, space, "", words)
    version = document(asked.ask("GET", "/version", patience_s=0))  # nothing has been asked yet that would be lost
    return replace(asked, server=str(version.get("gitVersion", "")))


def document(raw: bytes) -> dict[str, Any]:
    """The JSON object that an answer is; LabError for what is none: a proxy or a login page answers then."""
    return decoded(raw, dict[str, Any])


def decoded(raw: bytes, kind: type[_Decoded]) -> _Decoded:
    """The same as a value of a msgspec type."""
    import msgspec

    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.MsgspecError:
        begins = " ".join(raw[:60].decode("utf-8", "replace").split())
        raise LabError(f"what answers is no Kubernetes API server, but a proxy or a login page: {begins!r}") from None


def refused(status: int, raw: bytes, method: str, path: str) -> Refused:
    """One line for what the API server said."""
    verb, resource = verb_of(method, path)
    try:
        said = str(json.loads(raw).get("message", ""))
    except (ValueError, AttributeError):
        said = raw[:200].decode("utf-8", "replace")
    said = " ".join(said.split())[:300]
    status = 401 if status == 403 and _NOBODY in said else 403 if _DENIED.search(said) else status
    words = {
        401: _UNKNOWN,
        403: _forbidden(said, verb, resource, path),
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


_DENIED = re.compile(r"^(.*: )?(admission webhook .* denied the request|ValidatingAdmissionPolicy .* denied request)")
_NOBODY = 'User "system:anonymous"'
_UNKNOWN = "the API server does not know this user (an expired token?): log in again"
# The first role of deploy/rbac/ that grants it; each has what those before it have.
_ROLES = (
    ("reader", {"get", "list"}, {"pods", "pods/log", "services", "endpointslices", "namespaces"}),
    ("reader-cluster", {"get", "list"}, {"nodes", "configmaps"}),
    ("inspector", {"get", "create"}, {"pods/exec", "pods/portforward"}),
    ("capturer", {"patch", "update"}, {"pods/ephemeralcontainers"}),
    ("node", {"create", "delete"}, {"pods"}),
)


def _forbidden(said: str, verb: str, resource: str, path: str) -> str:
    """RBAC says who cannot do what; Pod Security, quotas and policies refuse with the same status and other words."""
    if said and "forbidden: User " not in said:
        return f"the cluster does not admit it ({verb} {resource}): {said}"
    namespace = _namespace_of(path)
    where = f" in the namespace {namespace}" if namespace else ""
    for name, verbs, resources in _ROLES:
        if verb in verbs and resource in resources:
            # A Role grants nothing in all namespaces at once.
            is_everywhere = verb == "list" and not namespace and name == "reader"
            role, where = ("reader-cluster", " in all namespaces") if is_everywhere else (name, where)
            return f"this user may not {verb} {resource}{where}; the role {role} in deploy/rbac/ grants it"
    return f"this user may not {verb} {resource}{where}; no role of this lab's grants it"


def _namespace_of(path: str) -> str:
    """The namespace that a request is in, "" where it is in none."""
    parts = path.partition("?")[0].strip("/").split("/")
    return parts[parts.index("namespaces") + 1] if "namespaces" in parts[:-1] else ""


def _page(raw: bytes) -> tuple[list[Any], str]:
    """The objects of a page, not taken apart, and the token that the next one is asked for with, "" at the end."""
    import msgspec

    class _Meta(msgspec.Struct):
        next: str | None = msgspec.field(default="", name="continue")

    class _List(msgspec.Struct):
        metadata: _Meta | None = None
        items: list[msgspec.Raw] | None = None

    found = decoded(raw, _List)
    return found.items or [], (found.metadata.next if found.metadata is not None else "") or ""


def _may_be_sent_again(method: str, path: str, error: Exception) -> bool:
    """Whether a request without an answer did not arrive, or may arrive twice; not after a wait of a minute."""
    from urllib3 import exceptions

    if isinstance(error, exceptions.NewConnectionError | exceptions.ConnectTimeoutError):
        return True
    if isinstance(error, exceptions.ReadTimeoutError) or "CERTIFICATE" in str(error):
        return False
    return method in _TWICE or path == _REVIEWS


def _seconds(field: str | None) -> float:
    """A Retry-After field; it may be a date as well, which no API server sends."""
    return float(field) if field and field.isdigit() else 0.0


def _short(error: BaseException) -> str:
    """Why, in one line; the server's address, which urllib3 and Python name, is left out."""
    return _ADDRESS.sub("", " ".join(str(error).split()))[:200]
