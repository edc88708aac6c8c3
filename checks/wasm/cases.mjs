// Drives the module with requests that a real server sent, and prints a row for each case.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";

const VECTORS = new URL("../../tests/vectors/", import.meta.url);
const OTHER = "signkey-test-ffffffffffffffff";

// What the module's clock shows, in seconds.
let now = 0;
const imports = { host: { now: () => now * 1000 } };
const module = await WebAssembly.instantiate(readFileSync(process.argv[2]), imports);
const { input, verify, output, memory } = module.instance.exports;

// Has the module verify a request at a time. In both directions: a line of JSON, then the body.
function verdict(at, request, body) {
  now = at;
  const bytes = Buffer.concat([Buffer.from(`${JSON.stringify(request)}\n`), Buffer.from(body)]);
  // Each call may grow the memory, and then its old buffer is of no use.
  const to = input(bytes.length);
  Buffer.from(memory.buffer, to, bytes.length).set(bytes);
  const length = verify();
  const said = Buffer.from(memory.buffer, output(), length);
  const line = said.indexOf("\n");
  return { ...JSON.parse(said.subarray(0, line)), body: Buffer.from(said.subarray(line + 1)) };
}

// Signs as the SDK specification says, with Node's own HMAC.
function sign(key, t, body) {
  const hex = key.replace(/^signkey-[^-]+-/, "");
  return `t=${t}&s=${createHmac("sha256", hex).update(body).update(String(t)).digest("hex")}`;
}

const sent = readFileSync(new URL("server_requests.jsonl", VECTORS), "utf8")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line))
  .map(({ headers, body, body_base64, ...request }) => ({
    signatures: headers.filter(([name]) => name === "X-Inngest-Signature").map(([, text]) => text),
    body: body_base64 === undefined ? Buffer.from(body) : Buffer.from(body_base64, "base64"),
    ...request,
  }));
const signed = sent.filter(({ signed_with }) => signed_with);
const CALL = signed.find(({ body }) => body.includes('"attempt":0'));
const { signed_with: KEY, received_at: AT } = CALL;

// Compares those members of what the module says that are expected.
function check(said, expected) {
  const picked = Object.fromEntries(Object.keys(expected).map((name) => [name, said[name]]));
  assert.deepEqual(picked, expected, JSON.stringify(said).slice(0, 500));
}

function genuine(keys, role) {
  for (const { signed_with, signed_form, received_at, signatures, body } of signed) {
    const said = verdict(received_at, { ...keys(signed_with), signatures }, body);
    check(said, { status: 200, key: role, form: signed_form });
    if (signed_form === "raw") assert(said.body.equals(body));
    else assert.deepEqual(JSON.parse(said.body), JSON.parse(body));
  }
}

function rejected(status, kind, { at = AT, body = CALL.body, ...changes } = {}) {
  const request = { key: KEY, signatures: CALL.signatures, ...changes };
  check(verdict(at, request, body), { status, kind });
}

const cases = {
  "every signed request that a server sent": () => genuine((key) => ({ key }), "current"),
  "the same, signed with the fallback key": () =>
    genuine((fallback) => ({ key: OTHER, fallback }), "fallback"),
  "a tampered body": () =>
    rejected(401, "wrong_signature", {
      body: String(CALL.body).replace('"attempt":0', '"attempt":1'),
    }),
  "another key": () => rejected(401, "wrong_signature", { key: OTHER }),
  "a stale signature": () => rejected(401, "stale", { at: AT + 302 }),
  "a signature in the future": () => rejected(401, "future", { at: AT - 302 }),
  "a doubled header": () =>
    rejected(401, "doubled", { signatures: [...CALL.signatures, ...CALL.signatures] }),
  "every unsigned request that a server sent": () => {
    for (const { signatures, signed_with, body } of sent) {
      if (!signed_with) rejected(401, "missing", { signatures, body });
    }
  },
  "a header that is no signature": () => rejected(401, "malformed", { signatures: ["lol"] }),
  "3 MB": () => {
    const body = Buffer.alloc(3e6, "x");
    const said = verdict(AT, { key: KEY, signatures: [sign(KEY, AT, body)] }, body);
    check(said, { status: 200, body });
  },
  "a body over the limit": () => rejected(413, "body_too_large", { body: Buffer.alloc(9e6) }),
  "a signed response": () => {
    const known = JSON.parse(readFileSync(new URL("known_answers.json", VECTORS), "utf8"));
    for (const { key, t, body, header } of known.response_signature) {
      const request = { key, signatures: [sign(key, t, "{}")], response: body };
      // An empty response is not signed.
      check(verdict(t, request, "{}"), { status: 200, signature: body === "" ? null : header });
    }
  },
  "SystemClock: no trap, and no time": () => rejected(500, "no_time", { system_clock: true }),
  "a genuine call after all that": () => genuine((key) => ({ key }), "current"),
};

let failed = 0;
for (const [name, run] of Object.entries(cases)) {
  let result = "ok";
  try {
    run();
  } catch (error) {
    result = `FAILED: ${error.message}`;
    failed += 1;
  }
  console.log(`${name.padEnd(43)} ${result}`);
}
process.exitCode = failed ? 1 : 0;
