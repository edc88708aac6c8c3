"""Inngest's official Python SDK signs what the example verifies, and verifies what the example signs.

    pip install inngest==0.5.19
    cargo build --examples && python interop/python_sdk.py target/debug/examples

The SDK's own functions do the signing and the checking; nothing of it is written again here.
"""

import hashlib
import http.client
import json
import os
import random
import subprocess
import sys

from inngest._internal import net, server_lib, transforms

EXAMPLES = sys.argv[1]
KEY = "signkey-test-8ee2262a15e8d3c42d6a840db7af3de2aab08ef632b32a37a687f24b34dba3ff"
OLD = "signkey-test-0123456789abcdef"
WRONG = "signkey-test-ffffffffffffffff"
CLOUD = server_lib.ServerKind.CLOUD
BODIES = 1000

rng = random.Random(8785)


def text():
    alphabets = ["abc", " \t\n\r\b\f\"\\/", "\x00\x1f\x7f\x80", "éü€日本語😀\ufb33", "&<>\u2028\u2029"]
    return "".join(rng.choice(rng.choice(alphabets)) for _ in range(rng.randrange(8)))


def number():
    return rng.choice([
        rng.randrange(-(2**53), 2**53),
        rng.randrange(100),
        rng.random() * 10 ** rng.randrange(-30, 30),
        rng.choice([0.0, -0.0, 1e21, 1e-7, 1e20, 123456789.125, 5e-324, 1.7976931348623157e308]),
    ])


def value(depth=0):
    kind = rng.randrange(7 if depth < 6 else 5)
    if kind == 5:
        return [value(depth + 1) for _ in range(rng.randrange(5))]
    if kind == 6:
        return {text(): value(depth + 1) for _ in range(rng.randrange(5))}
    return [None, True, False, text(), number()][kind]


def body():
    made = {"event": value(), "steps": value()}
    written = json.dumps(made, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 1]))
    return written.encode("utf-8")


def call(address, sent, signature):
    connection = http.client.HTTPConnection(address)
    headers = {"X-Inngest-Signature": signature, "Content-Type": "application/json"}
    connection.request("POST", "/api/inngest?fnId=x&stepId=step", sent, headers)
    answer = connection.getresponse()
    return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()


def main():
    # A proxy or keys of one's own must have no say.
    env = {k: v for k, v in os.environ.items() if not k.startswith("INNGEST_")}
    env |= {"INNGEST_SIGNING_KEY": KEY, "INNGEST_SIGNING_KEY_FALLBACK": OLD, "LISTEN_ADDR": "127.0.0.1:0"}
    server = subprocess.Popen([f"{EXAMPLES}/serve"], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        line = server.stdout.readline()
        address = line.split("http://")[1].split("/")[0]
        canonical_only = refused = 0
        for at in range(BODIES):
            sent = body()
            key = OLD if at % 3 == 0 else KEY
            canonical = transforms.canonicalize(sent)
            status, headers, answer = call(address, sent, net.sign_request(sent, key))
            assert status == 200, (status, answer, sent)
            told = json.loads(answer)
            assert told["sha256"] == hashlib.sha256(canonical).hexdigest(), sent
            assert told["key"] == ("fallback" if key == OLD else "current"), told
            canonical_only += told["form"] == "canonical"
            for other, valid in [(key, True), (WRONG, False)]:
                checked = net.validate_response_sig(body=answer, headers=headers, mode=CLOUD, signing_key=other)
                assert isinstance(checked, Exception) != valid, (checked, headers)
            if at % 10 == 0:
                for header in [net.sign_request(sent, WRONG), net.sign_request(sent + b" ", KEY, 1_700_000_000)]:
                    status, headers, _ = call(address, sent, header)
                    assert (status, "x-inngest-signature" in headers) == (401, False), sent
                    refused += 1
        for at in range(50):
            # As Inngest sends calls: canonical already, which is what the SDK checks.
            sent = transforms.canonicalize(body())
            command = subprocess.run([f"{EXAMPLES}/sign"], input=sent, env=env, capture_output=True, check=True)
            headers = {"x-inngest-signature": command.stdout.decode().split("x-inngest-signature: ")[1].split("'")[0]}
            for key, fallback, valid in [(KEY, None, True), (WRONG, KEY, True), (WRONG, None, False)]:
                checked = net.validate_request_sig(
                    body=sent, headers=headers, mode=CLOUD, signing_key=key, signing_key_fallback=fallback)
                assert isinstance(checked, Exception) != valid, (checked, sent)
    finally:
        server.terminate()
        server.wait()
    print(f"{BODIES} calls that the Python SDK signed verified ({canonical_only} by their canonical form only), "
          f"{BODIES} answers and 50 requests of ours verified by it, {refused} wrong calls refused")


main()
