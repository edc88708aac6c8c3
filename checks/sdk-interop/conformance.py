"""Compares our verifier and our signer with Inngest's official SDKs, over loopback only.
`checks/sdk-interop/run` runs it.

1. Random bodies that each SDK signs: our verifier's verdict of them, and the SDK's verdict of our
   signed responses.
2. Random calls that our signer signs, sent to a serve endpoint of each SDK: the function runs.
3. A table of edge cases, sent to all three. Our verdict must be the rule's.
"""

import contextlib
import hashlib
import hmac
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

from bodies import Bodies
from sdks import HERE, KEYS, SDKS, environment, serving
from inngest._internal import transforms

COUNTERPART = os.environ["COUNTERPART"]
OURS = [COUNTERPART, "serve", KEYS["current"], KEYS["fallback"]]
BODIES, CALLS = 4000, 2000


def post(url, body, signatures):
    """Returns the status, the headers and the body of the response."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=60)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/api/inngest?fnId=conformance-ran&stepId=step")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(body)))
        for signature in signatures:
            connection.putheader("X-Inngest-Signature", signature.encode())
        connection.endheaders(body)
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()


def random_bodies():
    made = Bodies(8785)
    for at in range(BODIES):
        if at % 40 == 0:
            body = made.big(made.random.randrange(100_000))
        elif at % 40 == 1:
            body = made.deep(made.random.randrange(90, 115))
        elif at % 40 == 2:
            body = transforms.canonicalize(
                made.deep(made.random.randrange(130, 400)).encode()
            ).decode()
        else:
            body = made.object(least=1)
        yield transforms.canonicalize(body.encode()).decode() if at % 4 == 0 and at % 80 else body


def check(env):
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file, serving(OURS, env) as url:
        file.writelines(json.dumps(body) + "\n" for body in random_bodies())
        file.flush()
        running = [
            subprocess.Popen(
                [*command, "check", url, file.name], env=env, stdout=subprocess.PIPE, text=True
            )
            for command in SDKS.values()
        ]
        try:
            told = [process.communicate(timeout=900)[0] for process in running]
        finally:
            for process in running:
                process.kill()
    for sdk, process, counts in zip(SDKS, running, told):
        assert process.returncode == 0, f"disagreed with the {sdk} SDK"
        counts = json.loads(counts)
        verified = counts["raw"] + counts["canonical"]
        assert verified + counts["too long"] == BODIES and all(counts.values()), counts
        print(
            f"{sdk}: {verified} of its signatures verified here, {counts['canonical']} of them "
            f"over the canonical form only, and as many signed responses verified by it; "
            f"{counts['too long']} too long for a canonical form and "
            f"{counts['wrong']} wrong signatures rejected"
        )


def call(at, data):
    """Returns a call as Inngest makes it, in its canonical form."""
    event = {
        "data": data,
        "id": f"event-{at}",
        "name": "conformance/call",
        "ts": 1795462701786,
        "user": {},
    }
    stack = {"current": 0, "stack": []}
    ctx = {
        "attempt": 0,
        "disable_immediate_execution": False,
        "max_attempts": 1,
        "run_id": f"run-{at}",
        "stack": stack,
    }
    made = {
        "ctx": ctx,
        "event": event,
        "events": [event],
        "steps": {},
        "use_api": False,
        "version": 2,
    }
    return transforms.canonicalize(json.dumps(made).encode())


def random_calls():
    made = Bodies(7493)
    for at in range(CALLS):
        written = made.big(made.random.randrange(50_000)) if at % 40 == 0 else made.object()
        yield call(at, json.loads(written))


def sign(key, bodies):
    signed = subprocess.run(
        [COUNTERPART, "sign", key], input=b"\n".join(bodies), capture_output=True, check=True
    )
    signatures = signed.stdout.decode().splitlines()
    assert len(signatures) == len(bodies)
    return signatures


def run_functions(env):
    bodies = list(random_calls())
    for sdk, command in SDKS.items():
        rejected = 0
        signed = {role: sign(key, bodies) for role, key in KEYS.items()}
        with serving(command, env, "serve") as url:
            for at, body in enumerate(bodies):
                signature = signed["fallback" if at % 3 == 0 else "current"][at]
                status, _, said = post(url, body, [signature])
                assert (status, json.loads(said)) == (200, {"ran": f"event-{at}"}), (
                    sdk,
                    status,
                    said,
                    body[:500],
                )
                if at % 10 == 0:
                    for sent, wrong in [
                        (body, signed["other"][at]),
                        (body.replace(b"run-", b"ran-"), signature),
                    ]:
                        status, _, said = post(url, sent, [wrong])
                        assert status == 401 and b"ran" not in said, (
                            sdk,
                            status,
                            said,
                            sent[:500],
                        )
                        rejected += 1
        print(
            f"{sdk}: {len(bodies)} calls that were signed here ran its function; "
            f"{rejected} wrong ones did not"
        )


def bytes_of(case, name):
    if f"{name}_hex" in case:
        return bytes.fromhex(case[f"{name}_hex"])
    text = case[name]
    return (
        text if isinstance(text, str) else "".join(part * times for part, times in text)
    ).encode()


def filled(template, signed, key, now):
    """Makes a header from a template. `tests/vectors/known_answers.json` has more templates."""
    secret = transforms.remove_signing_key_prefix(key).encode()

    def times(text, opening, closing):
        return re.sub(
            rf"{opening}now([+-]\d+)?{closing}", lambda found: str(now + int(found[1] or 0)), text
        )

    def mac(suffix):
        return hmac.new(secret, signed + suffix.encode(), hashlib.sha256).hexdigest()

    genuine = mac(str(now))
    over = r"\{mac over body(?:\|\|'(.*?)')?\}"
    header = re.sub(over, lambda found: mac(times(found[1] or "", "<", ">")), template)
    values = {"mac": genuine, "MAC upper": genuine.upper(), "mac[:63]": genuine[:63]}
    values |= {"hex(now)": f"{now:x}", "now*1000": str(now * 1000)}
    for name, value in values.items():
        header = header.replace(f"{{{name}}}", value)
    header = times(header, r"\{", r"\}")
    assert "{" not in header, header
    return header


def edge_cases():
    cases = json.loads((HERE / "edge_cases.json").read_text("utf-8"))
    known = json.loads((HERE / "../../tests/vectors/known_answers.json").read_text("utf-8"))
    # The vectors do not say whether upper-case digits are accepted.
    rules = {"accept": "raw", "either": "raw", "reject": "reject"}
    for case in known["header_case"]:
        cases.append(
            {
                "what": case["id"],
                "header": case["template"],
                "rule": rules[case["expected"]],
                "step": 4,
            }
        )
    for case in known["timestamp_case"]:
        then = f"now{case['offset_seconds']:+}"
        header = f"t={{{then}}}&s={{mac over body||'<{then}>'}}"
        cases.append(
            {"what": case["id"], "header": header, "rule": rules[case["expected"]], "step": 5}
        )
    return cases


def row(step, case, *verdicts):
    return f"{step:<6}{case:<64}{''.join(f'{verdict:<11}' for verdict in verdicts)}".rstrip()


def judge_edge_cases(env):
    now = int(time.time())
    wrong = 0
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(serving(OURS, env, str(now)))
        theirs = [
            stack.enter_context(serving(command, env, "serve", str(now)))
            for command in SDKS.values()
        ]
        cases = edge_cases()
        print("\n" + row("step", "case", "rule", "here", *SDKS))
        for case in cases:
            body = bytes_of(case, "body") if "body" in case or "body_hex" in case else call(0, {})
            signed = bytes_of(case, "signed") if "signed" in case else body
            templates = case.get("headers", [case.get("header", "t={now}&s={mac}")])
            headers = [
                filled(template, signed, KEYS[case.get("key", "current")], now)
                for template in templates
            ]

            status, said, handed_on = post(ours, body, headers)
            assert status in (200, 401), (status, case)
            here = said["x-verified"].split()[1].lower() if status == 200 else "reject"
            if status == 200:
                assert handed_on == (body if here == "raw" else signed), case
            # An SDK signs its response to a signature that it accepted.
            verdicts = []
            for url in theirs:
                status, said, _ = post(url, body, headers)
                verdicts.append(
                    "accept" if status != 401 and "x-inngest-signature" in said else "reject"
                )
            wrong += here != case["rule"]
            mark = "" if here == case["rule"] else "<-- not by the rule"
            print(row(case["step"], case["what"], case["rule"], here, *verdicts, mark))
    assert not wrong, f"{wrong} of {len(cases)} edge cases were not judged by the rule"
    print(f"\n{len(cases)} edge cases judged by the rule")


def main():
    # Inngest's API must not be called.
    with socket.create_server(("127.0.0.1", 0)) as api:
        env = environment(f"http://127.0.0.1:{api.getsockname()[1]}")
        check(env)
        run_functions(env)
        judge_edge_cases(env)
        api.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            raise AssertionError(f"Inngest's API was called: {api.accept()}")


main()
