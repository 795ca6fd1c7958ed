"""Who asks a cluster: the context that was named or none, and a login that fails is told where it fails."""

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bookinfo_lab.errors import LabError, Unsupported
from bookinfo_lab.sources.cluster import api, login

from .serving import serving

Write = Callable[..., Path]


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Write:
    """Makes a kubeconfig of one context, `prod`, and has KUBECONFIG name it."""

    def written(user: dict[str, Any], server: str = "https://192.0.2.1", **more: Any) -> Path:
        cluster = {"server": server, **more.pop("cluster", {})}
        made = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "contexts": [{"name": "prod", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
            "users": [{"name": "u", "user": user}],
            **more,
        }
        path = tmp_path / "kubeconfig"
        path.write_text(json.dumps(made))
        monkeypatch.setenv("KUBECONFIG", str(path))
        return path

    return written


def program(script: str) -> dict[str, Any]:
    """A user whose credentials a program gives."""
    version = "client.authentication.k8s.io/v1"
    return {"exec": {"apiVersion": version, "command": "sh", "args": ["-c", script], "interactiveMode": "Never"}}


def test_a_named_context_is_taken_also_where_no_current_one_is_set_or_a_stale_one(write: Write) -> None:
    for more in ({}, {"current-context": "stale"}, {"current-context": "prod"}):
        write({"token": "t"}, **more)
        assert login.login("prod")[1:] == ("prod", "shop")


def test_the_current_context_is_taken_where_none_is_named_and_is_never_another(write: Write) -> None:
    write({"token": "t"}, **{"current-context": "prod"})
    assert login.login().context == "prod"
    write({"token": "t"})
    with pytest.raises(LabError, match="has no current context; it has: prod"):
        login.login()
    write({"token": "t"}, **{"current-context": "stale"})
    with pytest.raises(LabError, match="no context 'stale' in the kubeconfig; it has: prod"):
        login.login()


def test_a_named_context_is_never_replaced_by_the_account_of_the_pod_that_this_is_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "192.0.2.1")
    monkeypatch.setattr("kubernetes.config.load_incluster_config", lambda **_: None)
    assert login.login().context == ""
    with pytest.raises(LabError, match="no context 'prod': there is no kubeconfig"):
        login.login("prod")


def test_the_kubeconfig_is_the_one_that_the_environment_names_now(write: Write, tmp_path: Path) -> None:
    write({"token": "t"}, server="https://192.0.2.1")
    assert login.login("prod").configuration.host == "https://192.0.2.1"
    write({"token": "t"}, server="https://192.0.2.2")
    assert login.login("prod").configuration.host == "https://192.0.2.2"


def test_a_program_that_gives_no_credentials_is_told_with_what_it_said(
    write: Write, capfd: pytest.CaptureFixture[str]
) -> None:
    write(program("echo the sign-in has run out >&2; exit 1"))
    with pytest.raises(LabError, match=r"program 'sh' gave none: .*the sign-in has run out; log in again") as error:
        login.login("prod")
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("more", [{"as": "viewer"}, {"as": "viewer", "as-groups": ["a"]}, {"as-groups": ["a"]}])
def test_a_login_as_somebody_else_is_refused_because_it_would_be_who_lends_the_name(
    write: Write, more: dict[str, Any]
) -> None:
    write({"token": "t", **more})
    with pytest.raises(Unsupported, match="acts as somebody else"):
        login.login("prod")


def test_keys_that_the_package_keeps_in_files_are_gone_after_a_signal(write: Write, tmp_path: Path) -> None:
    keys = {f"client-{name}-data": base64.b64encode(name.encode()).decode() for name in ("certificate", "key")}
    path = write(keys)
    code = (
        "import os, signal; from bookinfo_lab.sources.cluster import login\nlogin.login('prod')\n"
        "print(os.listdir(os.environ['TMPDIR']), flush=True)\nsignal.pause()"
    )
    folder = tmp_path / "files"
    for number in (signal.SIGTERM, signal.SIGHUP):
        folder.mkdir(exist_ok=True)
        given = {**os.environ, "KUBECONFIG": str(path), "TMPDIR": str(folder)}
        with subprocess.Popen([sys.executable, "-c", code], env=given, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            kept = running.stdout.readline()
            running.send_signal(number)
            assert running.wait(20) == -number
        assert len(kept.split(",")) == 2, kept
        assert list(folder.iterdir()) == []


def test_a_socks_proxy_is_refused_because_streams_cannot_use_it(write: Write) -> None:
    write({"token": "t"}, cluster={"proxy-url": "socks5://127.0.0.1:1080"})
    with pytest.raises(Unsupported, match=r"SOCKS proxy \(proxy-url\)"):
        login.login("prod")


@pytest.mark.parametrize("text", ["a: [b", "", "words", "[1, 2]", "contexts: 3", '{"contexts": [{"name": "a"}]}'])
def test_a_kubeconfig_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(LabError, match="kubeconfig") as error:
        login.login()
    assert "\n" not in str(error.value)


def test_a_token_that_was_renewed_in_its_file_is_read_again(write: Write, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    answers = {"/version": [(200, {"gitVersion": "v1.34.0"})], "/api/v1/pods": [(401, {}), (200, {"items": []})]}
    with serving(answers) as (_, server):
        write({"tokenFile": str(token)}, server=f"http://127.0.0.1:{server.server_port}")
        found = api.connect("prod")
        assert found.credentials() == {"authorization": "Bearer old"}
        token.write_text("new")
        assert found.read("/api/v1/pods") == {"items": []}
        assert found.credentials() == {"authorization": "Bearer new"}


def test_a_401_with_nothing_new_to_log_in_with_is_told_at_once(write: Write) -> None:
    answers = {"/version": [(200, {})], "/api/v1/pods": [(401, {}), (200, {})]}
    with serving(answers) as (_, server):
        write({"token": "t"}, server=f"http://127.0.0.1:{server.server_port}")
        found = api.connect("prod")
        with pytest.raises(api.Refused, match="log in again"):
            found.read("/api/v1/pods")


def test_whoever_is_taken_for_nobody_is_told_to_log_in_and_not_to_ask_for_a_role() -> None:
    said = {"message": 'pods is forbidden: User "system:anonymous" cannot list resource "pods"'}
    with serving({"/api/v1/pods": [(403, said)]}) as (found, _), pytest.raises(api.Refused) as refusal:
        found.read("/api/v1/pods")
    assert refusal.value.status == 401
    assert "log in again" in str(refusal.value)


@pytest.mark.parametrize("page", [b"<html>\n<h1>Sign in</h1>", b"[]", b"", b'{"metadata": 3}', b'{"items": 7}'])
def test_a_page_of_a_proxy_is_one_line(write: Write, page: bytes) -> None:
    from bookinfo_lab.sources.cluster import listing, traces

    with serving({"/api/v1/pods": [(200, page)], "/version": [(200, page)]}) as (found, server):
        asked = [lambda: listing.objects(found, "pods", ()), lambda: traces.remove(found)]
        if not page.startswith(b"{"):
            write({"token": "t"}, server=f"http://127.0.0.1:{server.server_port}")
            asked.append(lambda: api.connect("prod"))
        for ask in asked:
            with pytest.raises(LabError, match="what answers is no Kubernetes API server") as error:
                ask()
            assert "\n" not in str(error.value)


def test_a_list_with_nothing_in_it_may_say_so_in_any_way() -> None:
    from bookinfo_lab.sources.cluster import listing

    for page in ({"items": None, "metadata": None}, {"items": []}, {}):
        with serving({"/api/v1/pods": [(200, page)]}) as (found, _):
            assert json.loads(listing.objects(found, "pods", ()).raw)["items"] == []


def test_a_token_file_may_end_in_a_newline_and_a_token_that_no_header_can_hold_is_not_shown(
    write: Write, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("secret-1\n")
    with serving({"/version": [(200, {"gitVersion": "v1.34.0"})]}) as (_, server):
        write({"tokenFile": str(tmp_path / "token")}, f"http://127.0.0.1:{server.server_port}")
        assert api.connect("prod").credentials() == {"authorization": "Bearer secret-1"}
        (tmp_path / "token").write_text("secret-1\nsecret-2")
        with pytest.raises(LabError, match="a character that no token has: log in again") as error:
            api.connect("prod")
    assert "secret" not in str(error.value)


def test_a_provider_of_tokens_that_does_not_answer_is_one_line_without_what_it_was_asked(write: Write) -> None:
    parts = [base64.urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in ({}, {"exp": 1})]
    issuer = {"idp-issuer-url": "http://127.0.0.1:9", "client-id": "i", "client-secret": "s", "refresh-token": "hidden"}
    for token, words in (
        (".".join([*parts, "s"]), "its way to log in failed"),
        ("no token", "auth-provider 'oidc' gave"),
    ):
        write({"auth-provider": {"name": "oidc", "config": {**issuer, "id-token": token}}})
        with pytest.raises(LabError, match=f"^no credentials for .*context 'prod': .*{words}") as error:
            login.login("prod")
        assert "hidden" not in str(error.value)
