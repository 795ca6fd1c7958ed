"""`pilot-agent request GET PATH`, as Istio's proxy image has it: asks the Envoy of this pod and prints its answer.

A script of its own, run in the sandbox by an interpreter without site-packages.  Exit 1 and one line where Envoy
does not answer or answers with an error; no method but GET.
"""

import http.client
import sys

ADMIN = ("127.0.0.1", 15000)


def main(words: list[str]) -> int:
    """Ask and print; the exit status."""
    if len(words) != 3 or words[0] != "request" or words[1].upper() != "GET":
        sys.stderr.write("pilot-agent here knows one command: pilot-agent request GET PATH\n")
        return 1
    connection = http.client.HTTPConnection(*ADMIN, timeout=10)
    try:
        connection.request("GET", "/" + words[2].lstrip("/"))
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"Envoy's admin at {ADMIN[0]}:{ADMIN[1]} does not answer: {error}\n")
        return 1
    if answer.status != 200:
        sys.stderr.write(f"Envoy's admin answers {answer.status} to GET {words[2]}\n")
        return 1
    sys.stdout.buffer.write(body)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
