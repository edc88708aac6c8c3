"""Checks that the example `serve` responds to Inngest in the official SDKs' shapes.

It sends an in-band sync and introspections to `serve` and to a serve endpoint of each SDK, and

1. parses our responses with the Python SDK's pydantic models, and the functions in them with the
   TypeScript SDK's zod schema (it has no schema for the rest of the responses);
2. compares ours with each SDK's own response, member by member: the names and the JSON types. The
   Go SDK is not run here: its responses are in `go_responses.json`.
"""

import contextlib
import json
import os
import subprocess
import urllib.request

from inngest._internal import net, server_lib

from sdks import HERE, KEYS, SDKS, environment, serving

SERVE = [os.environ["SERVE"]]
APP_URL = "https://app.example/api/inngest?a=1"
# Without the proxy that the environment may name.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))

# The members that an SDK's responses have and this app's lack, and why.
THEIRS_ALONE = {
    "capabilities": "TypeScript repeats it beside `inspection`",
    "connect": "the app does not speak the Connect protocol",
    "event_key_hash": "the app has no event key",
    "extra": "facts about the JavaScript runtime",
    "featureObservations": "the same",
    "sdk": "`sdk_language` and `sdk_version` say it",
}
# The members that only some SDKs' responses have.
OURS_ALONE = {
    "in_band_sync": "a capability that the TypeScript SDK does not announce",
    "has_signing_key_fallback": "missing in the TypeScript SDK",
    "retries": "the functions of the SDKs have the default",
}


def ask(url, method, body=b"", signed=True):
    """Returns the JSON of the response to a request as Inngest sends it."""
    headers = {"Content-Type": "application/json"}
    if signed:
        headers["X-Inngest-Signature"] = net.sign_request(body, KEYS["current"])
    if method == "PUT":
        headers["X-Inngest-Sync-Kind"] = "in_band"
    request = urllib.request.Request(url, body or None, headers, method=method)
    with OPENER.open(request, timeout=60) as response:
        kind = response.headers.get("X-Inngest-Sync-Kind")
        assert method != "PUT" or kind == "in_band", (url, kind)
        return json.load(response)


def responses(url):
    sync = json.dumps({"url": APP_URL}, separators=(",", ":")).encode()
    return {"in-band sync": ask(url, "PUT", sync), "introspection": ask(url, "GET")}


# 1. Parsing.


class InBand(server_lib.InBandSynchronizeResponse):
    """Accepts any framework: the model knows those of Python only."""

    framework: str


def whole(model, said):
    """Returns the object with the model's names. Absent members are null, as on the wire."""
    names = {field.serialization_alias or name: name for name, field in model.model_fields.items()}
    assert said.keys() <= names.keys(), f"{model.__name__} has no {said.keys() - names.keys()}"
    nullable = (wire for wire, name in names.items() if model.model_fields[name].is_required())
    return {names[wire]: said.get(wire) for wire in {*said, *nullable}}


def function(said):
    triggers = [
        (server_lib.TriggerCron if "cron" in it else server_lib.TriggerEvent)(**it)
        for it in said["triggers"]
    ]
    fields = {**whole(server_lib.FunctionConfig, said), "triggers": triggers}
    return server_lib.FunctionConfig(**fields)


def inspection(model, said):
    return model(**{**whole(model, said), "mode": server_lib.ServerKind(said["mode"])})


def parse_all(ours, short):
    sync = ours["in-band sync"]
    functions = [function(it) for it in sync["functions"]]
    inspected = inspection(server_lib.AuthenticatedInspection, sync["inspection"])
    InBand(**{**whole(InBand, sync), "functions": functions, "inspection": inspected})
    urls = [it.steps["step"].runtime.url for it in functions]
    assert urls == [f"{APP_URL}&fnId=inngest-auth-demo-inspect&stepId=step"], urls
    inspection(server_lib.AuthenticatedInspection, ours["introspection"])
    inspection(server_lib.UnauthenticatedInspection, short)
    print("Python: its models parse the in-band sync and both introspections")
    functions = json.dumps(ours["in-band sync"]["functions"])
    command = [*SDKS["TypeScript"], "parse"]
    subprocess.run(command, input=functions.encode(), check=True)
    print("TypeScript: its schema parses each function")


# 2. Comparing.


def differences(ours, theirs, path=""):
    """Returns where the names or the JSON types differ. Null matches any type."""
    for name in sorted(ours.keys() | theirs.keys()):
        here, there = ours.get(name), theirs.get(name)
        if here is None and (there is None or name in THEIRS_ALONE):
            continue
        if here is None or (name not in theirs and name not in OURS_ALONE):
            yield f"{path}{name}: {here!r} here, {there!r} there"
        elif isinstance(here, dict) and isinstance(there, dict):
            yield from differences(here, there, f"{path}{name}.")
        elif there is not None and type(here) is not type(there):
            yield f"{path}{name}: {here!r} here, {there!r} there"


def compare(ours, sdk, theirs):
    for what, said in ours.items():
        found = [*differences(said, theirs[what])]
        # Only one function of each is compared, because the apps have different functions.
        if what == "in-band sync":
            found += differences(said["functions"][0], theirs[what]["functions"][0], "functions.0.")
        assert not found, "\n".join([f"{what}, compared with the {sdk} SDK's:", *found])
        print(f"{sdk}: the {what} has the members and types of its own")


def main():
    # No server calls it.
    env = environment("http://127.0.0.1:1")
    with contextlib.ExitStack() as stack:

        def start(command, env):
            said = stack.enter_context(serving(command, env))
            return next(word for word in said.split() if word.startswith("http:"))

        ours = responses(start(SERVE, {**env, "LISTEN_ADDR": "127.0.0.1:0"}))
        dev = {"PATH": env["PATH"], "INNGEST_DEV": "1", "LISTEN_ADDR": "127.0.0.1:0"}
        parse_all(ours, ask(start(SERVE, dev), "GET", signed=False))
        for sdk, command in SDKS.items():
            compare(ours, sdk, responses(start([*command, "serve"], env)))
    compare(ours, "Go", json.loads((HERE / "go_responses.json").read_text("utf-8")))


main()
