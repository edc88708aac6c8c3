"""What Inngest's official Python SDK signs, verifies and serves. None of it is reimplemented here.

python python_sdk.py check URL BODIES   # signs bodies for our server, verifies its responses
python python_sdk.py serve [NOW]        # a serve endpoint, at that time; prints its address
"""

import http.client
import json
import logging
import os
import sys
import time
import urllib.parse

import flask
import inngest
import inngest.flask
import werkzeug.serving
from inngest._internal import net, server_lib, transforms

CURRENT, FALLBACK = os.environ["INNGEST_SIGNING_KEY"], os.environ["INNGEST_SIGNING_KEY_FALLBACK"]
WRONG = "signkey-test-ffffffffffffffff"
# The longest body, in bytes, whose canonical form is computed. Longer ones are verified raw only.
CANONICAL = 64 * 1024


def check(url, bodies):
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc)

    def call(sent, signature):
        connection.request("POST", "/api/inngest", sent, {"X-Inngest-Signature": signature})
        response = connection.getresponse()
        headers = net.normalize_headers(dict(response.getheaders()))
        return response.status, headers, response.read()

    counts = dict.fromkeys(["raw", "canonical", "too long", "wrong"], 0)
    with open(bodies, encoding="utf-8") as lines:
        for at, line in enumerate(lines):
            sent = json.loads(line).encode()
            which = f"body {at}: {line[:200]}"
            key, role = (FALLBACK, "Fallback") if at % 3 == 0 else (CURRENT, "Current")
            canonical = transforms.canonicalize(sent)
            form = (
                "raw"
                if sent == canonical
                else "canonical"
                if len(sent) <= CANONICAL
                else "too long"
            )
            status, headers, said = call(sent, net.sign_request(sent, key))
            counts[form] += 1
            if form == "too long":
                assert (status, headers.get("x-inngest-signature")) == (401, None), (status, which)
                continue
            assert (status, headers.get("x-verified")) == (200, f"{role} {form.title()}"), (
                status,
                headers,
                which,
            )
            assert said == canonical, which
            for body, other, valid in [
                (said, key, True),
                (said, WRONG, False),
                (said + b"!", key, False),
            ]:
                checked = net.validate_response_sig(
                    body=body, headers=headers, mode=server_lib.ServerKind.CLOUD, signing_key=other
                )
                assert checked == other if valid else isinstance(checked, Exception), (
                    checked,
                    headers,
                    which,
                )
            if at % 10 == 0:
                for signature in [
                    net.sign_request(sent, WRONG),
                    net.sign_request(sent, key, round(time.time()) - 310),
                ]:
                    status, headers, _ = call(sent, signature)
                    assert (status, headers.get("x-inngest-signature")) == (401, None), which
                    counts["wrong"] += 1
    print(json.dumps(counts))


def serve(now=None):
    if now is not None:
        time.time = lambda: float(now)
    logging.disable()
    client = inngest.Inngest(app_id="conformance", is_production=True)

    @client.create_function(fn_id="ran", trigger=inngest.TriggerEvent(event="conformance/call"))
    def ran(ctx):
        return {"ran": ctx.event.id}

    app = flask.Flask(__name__)
    inngest.flask.serve(app, client, [ran])
    server = werkzeug.serving.make_server("127.0.0.1", 0, app, threaded=True)
    print(f"http://127.0.0.1:{server.port}/api/inngest", flush=True)
    server.serve_forever()


{"check": check, "serve": serve}[sys.argv[1]](*sys.argv[2:])
