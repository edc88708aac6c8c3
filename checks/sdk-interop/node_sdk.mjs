// What Inngest's official TypeScript SDK signs, verifies and serves. None of it is reimplemented
// here.
//
//     node node_sdk.mjs check URL BODIES   # signs bodies for our server, verifies its responses
//     node node_sdk.mjs serve [NOW]        # a serve endpoint, at that time; prints its address
//     node node_sdk.mjs parse              # parses an in-band sync's functions (on stdin)

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { Inngest } from "inngest";
import { serve as handler } from "inngest/node";

// From inside the package: the signer and the verifier of its serve endpoint.
const inside = (path) => import(new URL(path, import.meta.resolve("inngest")));
const { signDataWithKey } = await inside("./helpers/net.js");
const { functionConfigSchema } = await inside("./types.js");
const { InngestCommHandler } = await inside("./components/InngestCommHandler.js");
const canonicalize = createRequire(import.meta.resolve("inngest"))("canonicalize");

const [CURRENT, FALLBACK] = [
  process.env.INNGEST_SIGNING_KEY,
  process.env.INNGEST_SIGNING_KEY_FALLBACK,
];
const WRONG = "signkey-test-ffffffffffffffff";
// The longest body, in bytes, whose canonical form is computed. Longer ones are verified raw only.
const CANONICAL = 64 * 1024;

const quiet = { debug() {}, info() {}, warn() {}, error() {} };

// It has one function, which returns whose call it was.
function app(keys) {
  const silent = { logger: quiet, internalLogger: quiet };
  const client = new Inngest({
    id: "conformance",
    isDev: false,
    checkpointing: false,
    ...silent,
    ...keys,
  });
  const ran = { id: "ran", triggers: [{ event: "conformance/call" }] };
  return { client, functions: [client.createFunction(ran, ({ event }) => ({ ran: event.id }))] };
}

async function check(url, bodies) {
  const verifier = (key) => {
    const keys = { signingKey: key, signingKeyFallback: key };
    return new InngestCommHandler({ frameworkName: "nodejs", handler() {}, ...app(keys) });
  };
  const verifiers = new Map([CURRENT, FALLBACK, WRONG].map((key) => [key, verifier(key)]));
  const counts = { raw: 0, canonical: 0, "too long": 0, wrong: 0 };

  const sign = async (sent, key, time) => {
    return `t=${time}&s=${await signDataWithKey(JSON.parse(sent), key, `${time}`, quiet)}`;
  };
  const call = async (sent, signature) => {
    const response = await fetch(url, {
      method: "POST",
      body: sent,
      headers: { "X-Inngest-Signature": signature },
    });
    return [response.status, response.headers, await response.text()];
  };
  for (const [at, line] of readFileSync(bodies, "utf8").trimEnd().split("\n").entries()) {
    const sent = JSON.parse(line);
    const which = `body ${at}: ${line.slice(0, 200)}`;
    const [key, role] = at % 3 === 0 ? [FALLBACK, "Fallback"] : [CURRENT, "Current"];
    const now = Math.floor(Date.now() / 1000);
    const canonical = canonicalize(JSON.parse(sent));
    const form =
      sent === canonical ? "raw" : Buffer.byteLength(sent) <= CANONICAL ? "canonical" : "too long";
    // The SDK has two signers, one of them for runtimes without Web Crypto.
    const { crypto } = globalThis;
    if (at % 5 === 0)
      Object.defineProperty(globalThis, "crypto", { value: undefined, configurable: true });
    const signing = sign(sent, key, now);
    Object.defineProperty(globalThis, "crypto", { value: crypto, configurable: true });
    const [status, headers, said] = await call(sent, await signing);
    counts[form] += 1;
    if (form === "too long") {
      assert.deepEqual([status, headers.get("x-inngest-signature")], [401, null], which);
      continue;
    }
    const how = `${role} ${form === "raw" ? "Raw" : "Canonical"}`;
    assert.deepEqual([status, headers.get("x-verified")], [200, how], which);
    assert.equal(said, canonical, which);
    for (const [body, other, valid] of [
      [said, key, true],
      [said, WRONG, false],
      [`${said}!`, key, false],
    ]) {
      const checked = await verifiers
        .get(other)
        .validateSignature(headers.get("x-inngest-signature"), body);
      assert.deepEqual(
        [checked.success, checked.keyUsed],
        [valid, valid ? other : undefined],
        which,
      );
    }
    if (at % 10 === 0) {
      for (const signature of [await sign(sent, WRONG, now), await sign(sent, key, now - 310)]) {
        const [status, headers] = await call(sent, signature);
        assert.deepEqual([status, headers.get("x-inngest-signature")], [401, null], which);
        counts.wrong += 1;
      }
    }
  }
  console.log(JSON.stringify(counts));
}

async function serve(now) {
  if (now !== undefined) Date.now = () => Number(now) * 1000;
  const respond = handler(app({}));
  const server = createServer((request, response) =>
    respond(request, response).catch(() => response.writeHead(500).end()),
  );
  server.listen(0, "127.0.0.1", () =>
    console.log(`http://127.0.0.1:${server.address().port}/api/inngest`),
  );
}

function parse() {
  for (const config of JSON.parse(readFileSync(0, "utf8")))
    functionConfigSchema.strict().parse(config);
}

const [, , command, ...args] = process.argv;
await { check, serve, parse }[command](...args);
