"""Secrets are found by form and by name, followed everywhere, overwritten at equal length; what is none stays."""

import base64
import json
import time
import urllib.parse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bookinfo_lab.sources import recording, redaction, secret_forms
from bookinfo_lab.sources.recording import RecordingSource

S = "Tr0ub4dor-9!z"  # the secret in the cases below
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"
LINES = ("MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", "BKcwggSjAgEAAoIBAQC7VJTUt9Us8cKB")
PEM = "\n".join(["-----BEGIN PRIVATE KEY-----", *LINES, "-----END PRIVATE KEY-----", ""])


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


SECRETS = {
    "a cookie": f"GET / HTTP/1.1\r\nCookie: user=jason; session={S}; a=b\r\n\r\n",
    "a cookie in lower case": f"cookie:sid={S}\r\n",
    "a cookie with quotes": f'Cookie: sid="{S}"\r\n',
    "a cookie without a name": f"Cookie: {S}\r\n",
    "a cookie with blanks": f"Cookie: sid=a {S} b\r\n",
    "a set cookie": f"Set-Cookie: session={S}; Path=/; HttpOnly; SameSite=Lax\r\n",
    "a cookie of curl": f"curl -si --raw -H 'Cookie: session={S}' http://shop/",
    "a cookie in JSON": json.dumps({"cookie": f"session={S}"}),
    "a cookie in a log of JSON": json.dumps({"log": json.dumps({"cookie": f"session={S}"})}),
    "a cookie that a route adds": json.dumps({"header": {"key": "cookie", "value": f"session={S}"}}, indent=1),
    "a cookie that a route demands": json.dumps(
        {"name": "cookie", "string_match": {"exact": f"session={S}"}}, indent=1
    ),
    "a user that the page passes on": f"end-user: {S}\r\n",
    "basic": f"Authorization: Basic {encoded('alice:' + S)}\r\n",
    "a proxy's": f"Proxy-Authorization: Basic {encoded('alice:' + S)}\r\n",
    "digest": f'Authorization: Digest username="a", response="{S}"\r\n',
    "no scheme": f"authorization: {S}\r\n",
    "bearer": f"Authorization: Bearer {S}\r\n",
    "bearer of curl": f'curl -H "Authorization: Bearer {S}" http://shop/',
    "bearer in prose": "rejected: Bearer abc123def456ghi",
    "authorization in JSON": json.dumps({"headers": {"Authorization": f"Bearer {S}"}}),
    "authorization by name": json.dumps({"name": "authorization", "value": f"Bearer {S}"}, indent=4),
    "a JWT": f"x {JWT} y",
    "a PEM key": PEM,
    "a PEM key in JSON": json.dumps({"tls": PEM}),
    "a PEM key in JSON in JSON": json.dumps({"applied": json.dumps({"tls": PEM})}),
    "a PEM key in base64": json.dumps({"whatever": encoded(PEM)}),
    "a PEM key that is cut": PEM[:60],
    "an environment": f"PATH=/bin\0DB_PASSWORD={S}\0HOME=/",
    "an environment in JSON": json.dumps({"env": [{"name": "DB_PASSWORD", "value": S}]}, indent=4),
    "an environment in YAML": f"env:\n- name: x\n  password: {S}\n",
    "an annotation": json.dumps({"annotations": {"example.org/api-token": S}}, indent=4),
    "an annotation of JSON": json.dumps({"a": json.dumps({"env": [{"name": "API_KEY", "value": S}]})}),
    "camel case": json.dumps({"clientSecret": S}),
    "a number": json.dumps({"password": 9876543210}),
    "an option": f"ps: server --password={S} --port 80",
    "an option and a word": f"ps: server --db-password {S} --port 80",
    "an option in an array": json.dumps(["--auth-token", S, "--port"], indent=2),
    "an option with NULs": f"server\0--auth-token\0{S}\0--port",
    "quoted by a shell": f"server --password='{S}'",
    "quoted in JSON": json.dumps({"sh": f'x --password "{S}"'}),
    "curl's user": f"curl -u alice:{S} http://shop/",
    "a query": f"GET /login?user=a&password={S}&x=y HTTP/1.1\r\n",
    "a form": f"username=alice&passwd={S}",
    "a URL": f"https://alice:{S}@shop/x",
    "a token in a URL": f"https://{S}@shop/x",
    "a header of another name": f"X-Auth-Token: {S}\r\nX-Api-Key: {S}\r\n",
    "a Secret": json.dumps({"kind": "Secret", "data": {"whatever": encoded(S)}}, indent=2),
    "a Secret's text": json.dumps({"kind": "Secret", "stringData": {"whatever": S}}, indent=2),
    "an inline secret": json.dumps({"password": {"inline_string": S}}, indent=2),
    "a kubeconfig": f"client-key-data: {encoded(PEM)}",
    "with a quote in it": json.dumps({"password": 'a"b' + S}),
    "with a backslash at its end": json.dumps({"password": S + "\\", "x": "stays"}),
    "with a quote, in JSON in JSON": json.dumps({"a": json.dumps({"password": 'a"b' + S})}),
    "with letters of another script": json.dumps({"password": "gehëim" + S}, ensure_ascii=False),
    "GitHub's": "remote: ghp_" + "a1B2" * 9,
    "GitHub's, fine-grained": json.dumps(["github_pat_11ABC0_" + "a1B2" * 9]),
    "a model's": "key sk-proj-" + "a1B2" * 9,
    "a model's, old": "key sk-" + "a1B2" * 9,
    "Vault's": json.dumps(["hvs.CAESI" + "a1B2" * 9]),
    "Stripe's": "key sk_live_" + "a1B2" * 6,
    "Slack's hook": "--slack-url=https://hooks.slack.com/services/T0AAA/B0BBB/" + "a1B2" * 6,
    "a signed URL": f"https://a.blob.example/c?sv=1&sig={S}%3D&x=y",
    "a signed URL in JSON": '{"url":"https://a.blob.example/c?sv=1\\u0026sig=' + S + '"}',
    "an option of Go's": f"app -password {S}",
    "an option of Go's in an array": json.dumps(["-password", S]),
    "an option of Go's with =": f"app -token={S}",
    "pwd": f"app --pwd {S}",
    "pwd in an array": json.dumps(["--pwd", S, "-pwd", S]),
    "pass": f"app --pass={S} --db-pass {S}",
    "pass in an environment": f"DB_PASS={S} exec app",
    "pass in an annotation": json.dumps({"annotations": {"x/db-pass": S}}),
    "of ODBC": f"Server=db;Uid=sa;Pwd={S};",
    "of redis": f"redis-server --requirepass {S} --masterauth {S}",
    "of Go's MySQL driver": f"--dsn=root:{S}@tcp(mysql:3306)/x",
    "of Go's MySQL driver, by a socket": json.dumps([f"root:p@{S}@unix(/run/mysql.sock)/x"]),
    "a URL with an @ in its password": f"mongodb://u:p@{S}@mongo/db",
    "basic-auth": f"app --basic-auth=admin:{S}",
    "auth": json.dumps(["--auth", f"admin:{S}"]),
    "basic-auth in an annotation": json.dumps({"annotations": {"x/basic-auth": f"admin:{S}"}}),
    "mysql's": f"mysql -uroot -p{S} test",
    "mysql's in an array": json.dumps({"command": ["/usr/bin/mysqladmin", "ping", f"-p{S}"]}),
    "redis-cli's": json.dumps({"command": ["redis-cli"], "args": ["-h", "db", "-a", S, "ping"]}),
    "sshpass's": f"sshpass -p {S} ssh x",
    "mongo's": f"mongosh db -u root -p {S}",
    "docker's": json.dumps(["docker", "login", "-u", "a", "-p", S]),
    "ldapsearch's with NULs": f"ldapsearch\0-x\0-w\0{S}\0-b\0dc=x",
}


def redacted(text: str, *others: str, public: tuple[str, ...] = ()) -> str:
    raw = {number: item.encode() for number, item in enumerate((text, *others))}
    clean, places = redaction.redact(raw, (), public)
    for number, before in raw.items():
        after = clean[number]
        assert len(after) == len(before)
        listed = {at for item in places.get(number, ()) for at in range(item.offset, item.offset + item.length_bytes)}
        assert {at for at in range(len(before)) if before[at] != after[at]} <= listed
    return clean[len(others)].decode()


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_is_overwritten(name: str) -> None:
    clean = redacted(SECRETS[name])
    assert clean != SECRETS[name]
    for secret in (
        S,
        encoded(S)[:-2],
        encoded("alice:" + S),
        JWT[:20],
        "MIIEvQ",
        "BKcwgg",
        "abc123def456",
        "98765",
        "a1B2",
    ):
        assert secret not in clean
    for run in clean.replace('"', " ").split():
        assert b"MIIEvQ" not in (secret_forms.decode(run.encode()) or b"")
    if SECRETS[name][:1] in "{[":
        assert same_shape(json.loads(SECRETS[name]), json.loads(clean))


def same_shape(before: object, after: object) -> bool:
    if isinstance(before, dict) and isinstance(after, dict):
        return list(before) == list(after) and all(same_shape(before[key], after[key]) for key in before)
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(map(same_shape, before, after))
    return type(before) is type(after)


@pytest.mark.parametrize("name", SECRETS)
def test_redacting_twice_changes_nothing_more(name: str) -> None:
    once = redacted(SECRETS[name])
    assert redacted(once).replace("2", "1") == once.replace("2", "1")


@pytest.mark.parametrize(
    "text",
    [
        "Cookie: user=jason\r\n",
        "curl -H 'Cookie: user=jason' http://shop/",
        "end-user: jason\r\n",
        "Set-Cookie: user=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0\r\n",
        json.dumps({"headers": {"cookie": {"regex": "^(.*?;)?(user=jason)(;.*)?$"}}}, indent=2),
        json.dumps({"name": "cookie", "safe_regex_match": {"regex": "^(.*?;)?(user=jason)(;.*)?$"}}, indent=2),
        json.dumps({"automountServiceAccountToken": True, "secretName": "tls", "token_bucket": {"max_tokens": 100}}),
        json.dumps({"secret": None, "password": "", "tokens_per_fill": 7, "serviceAccountToken": {"path": "token"}}),
        json.dumps(
            {"env": [{"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}]}
        ),
        "cat: /etc/passwd: No such file or directory",
        "PWD=/root\0OLDPWD=/\0",
        "PASSWORD=$(DB_PASSWORD) TOKEN=${TOKEN}",
        "http://10.0.0.1:31380/productpage ssh://git@host/x",
        "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----",
        '<input type="password" name="passwd"><label>Password: </label>',
        "server -p 8080 -a 0.0.0.0 -w 4",
        json.dumps(["-p", "reviews", "-a", "-w"]),
        "app --db mongo -p 27017",
        "mysql -u root -p test",
        "mysql -p$(MYSQL_ROOT_PASSWORD) -P 3306 --pid-file=/run/mysql.pid",
        "find /var/lib/mysql -print; chown mysql:mysql -path",
        json.dumps({"image": "mongo:5", "args": ["-p", "reviews"]}),
        "redis-cli -h db ping; tar -a x",
        "app --auth none --auth-mode=jwt --basic-auth=false --auth=http://idp/ --auth idp:8080",
        "sk-learn sk-learn-classifier-serving-7d9c6b7f9c-x2x4z task-runner-aB3dE6gH9jK2mN5pQ8sT",
        "risk-AAAABBBBCCCCDDDD1111 hv.x archive.hvs.example",
        "--- PASS: TestPassword (0.01s) bypass=1 compass: north",
        json.dumps({"first_pass": 1, "is_second_pass": False, "passthrough": "PassthroughCluster"}),
        "location / { proxy_pass http://web; } proxy_pass = http://web;",
        "cd /tmp;pwd; PWD=/root; OLDPWD=/",
        "a sub-token of -1 and -x token; re-password it",
        "ns: mysql.bookinfo.svc:3306@tcp tcp(10.0.0.1:80) root@tcp(mysql:3306)/x",
        "http://10.0.0.1:31380/a@b mailto:x@y http://host:80/?q=a:b@c",
        "?sig=x&signature=1 sigma=abcdefghij",
        "https://hooks.slack.com/services/",
        "",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


def test_nothing_of_a_sandbox_is_taken_for_a_secret() -> None:
    for scenario in ("sidecar", "article"):
        assert RecordingSource(recording.bundled(scenario)).manifest.redactions == ()


FORMS = {
    "as it is": S,
    "within a word": f"a{S}b",
    "in JSON": json.dumps({"x": f"login {S}"}),
    "percent-encoded": urllib.parse.quote(S, safe=""),
    "in base64": encoded(S),
    "in base64, one byte on": encoded("1" + S),
    "in base64, two bytes on": encoded("12" + S + "345"),
    "in the middle of base64": encoded("user and " + S + " and more"),
    "in base64 for URLs": base64.urlsafe_b64encode(b"\xff\xfe?" + S.encode()).decode(),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_secret_that_was_found_once_is_overwritten_in_every_other_piece(name: str) -> None:
    clean = redacted(f"Cookie: session={S}\r\n", FORMS[name])
    assert "x" * 10 in clean
    for secret in (S, urllib.parse.quote(S), *(encoded("1" * shift + S)[4:-4] for shift in range(3))):
        assert secret not in clean


def test_a_password_found_encoded_is_overwritten_in_the_plain_and_one_found_escaped_too() -> None:
    assert S not in redacted(f"Authorization: Basic {encoded('alice:' + S)}\r\n", f"log: {S}")
    assert S not in redacted(json.dumps({"kind": "Secret", "data": {"x": encoded(S)}}), f"log: {S}")
    assert 'ü"' + S not in redacted(json.dumps({"password": 'ü"' + S}), f'log: ü"{S}')
    assert S not in redacted("/?token=" + "".join(f"%{byte:02x}" for byte in S.encode()), f"log: {S}")


def test_a_line_of_a_private_key_is_overwritten_where_it_stands_alone() -> None:
    assert redacted(PEM, f"key: {LINES[0]}") == "key: " + "x" * 32


def test_a_short_secret_is_followed_as_a_whole_word_only_and_a_tiny_one_or_a_short_number_not_at_all() -> None:
    assert redacted("--password hunter7", "hunter7 hunter77 ahunter7 hunter7.") == "xxxxxxx hunter77 ahunter7 xxxxxxx."
    assert redacted("--password abc", "abc") == "abc"
    assert redacted("--password 15001", "port 15001") == "port 15001"


def test_a_name_of_the_cluster_is_overwritten_only_in_a_secrets_place() -> None:
    named = "kubectl -n default get pod reviews-v1-abc"
    cookies = "Cookie: theme=default; pod=reviews-v1\r\n"
    assert redacted(cookies, named, public=("default", "reviews-v1-abc")) == named
    assert redacted(cookies, public=("default",)) == "Cookie: theme=xxxxxxx; pod=xxxxxxxxxx\r\n"


@pytest.mark.parametrize(
    "text",
    [
        "password=",
        "Cookie: ",
        'token="',
        "-u a:",
        "Bearer ",
        "mysql ",
        "redis-cli -",
        "a:b@tcp",
        "auth-",
        "--auth a:",
        "sk-",
        "://a:b@",
        "_pass ",
        "https://",
        "{",
        '{"password":',
        "\\",
    ],
)
def test_a_megabyte_of_anything_takes_no_more_than_seconds(text: str) -> None:
    began = time.perf_counter()
    redacted(text * (1_000_000 // len(text)))
    redacted(text + "a" * 1_000_000)
    redacted(text + "\\" * 100_000 + " " * 100_000)
    redacted(text + ("\\" * 10_000 + '"') * 30)
    assert time.perf_counter() - began < 10


@settings(max_examples=150)
@given(
    secret=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Z"]), min_size=8, max_size=24).filter(
        lambda text: not text.isdigit() and len(set(text)) > 4 and "xxx" not in text and not text.startswith("$")
    ),
    wrap=st.sampled_from(
        [
            lambda value: json.dumps({"password": value}),
            lambda value: json.dumps({"password": value}, ensure_ascii=False),
            lambda value: json.dumps({"a": json.dumps([{"name": "X_TOKEN", "value": value}])}),
            lambda value: json.dumps({"kind": "Secret", "data": {"k": base64.b64encode(value.encode()).decode()}}),
            lambda value: "/?token=" + urllib.parse.quote(value, safe=""),
        ]
    ),
    other=st.sampled_from(
        [
            lambda value: value,
            json.dumps,
            lambda value: json.dumps(json.dumps(value)),
            lambda value: urllib.parse.quote(value, safe=""),
            lambda value: base64.b64encode(b"ab" + value.encode() + b"cd").decode(),
        ]
    ),
)
def test_any_secret_in_any_wrapping_leaves_it_and_every_other_piece(secret: str, wrap: object, other: object) -> None:
    first, second = wrap(secret), other(secret)  # type: ignore[operator]
    raw, (clean, _) = {0: first.encode(), 1: second.encode()}, redaction.redact({0: first.encode(), 1: second.encode()})
    assert [len(clean[number]) for number in raw] == [len(raw[number]) for number in raw]
    for text in clean.values():
        assert secret.encode() not in text
        assert json.dumps(secret)[1:-1].encode() not in text
    if first.startswith("{"):
        assert same_shape(json.loads(first), json.loads(clean[0]))
