"""Runs the official SDKs as servers, for `conformance.py` and `shapes.py`."""

import contextlib
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
SDKS = {
    "Python": [sys.executable, HERE / "python_sdk.py"],
    "TypeScript": ["node", HERE / "node_sdk.mjs"],
}
KEYS = {
    "current": "signkey-test-8ee2262a15e8d3c42d6a840db7af3de2aab08ef632b32a37a687f24b34dba3ff",
    "fallback": "signkey-test-0123456789abcdef",
    "other": "signkey-test-ffffffffffffffff",
}


def environment(api):
    """Returns the variables of every server. `api` replaces Inngest's API."""
    return {
        "PATH": os.environ["PATH"],
        "INNGEST_SIGNING_KEY": KEYS["current"],
        "INNGEST_SIGNING_KEY_FALLBACK": KEYS["fallback"],
        "INNGEST_BASE_URL": api,
        "INNGEST_API_BASE_URL": api,
        "INNGEST_EVENT_API_BASE_URL": api,
    }


@contextlib.contextmanager
def serving(command, env, *args):
    """Starts a server that prints its address first, and yields the address."""
    server = subprocess.Popen([*command, *args], env=env, stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().strip()
        assert address, f"did not start: {command}"
        yield address
    finally:
        server.terminate()
        server.wait()
