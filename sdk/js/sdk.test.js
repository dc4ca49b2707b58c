// node --test; the tests of the module run it too.
import assert from "node:assert/strict";
import { createServer } from "node:net";
import { test } from "node:test";
import { checkPayload, checkToken, signCall, signer } from "./invocation.js";
import { decode, encode } from "./msgpack.js";
import { Host, parseHostData, run } from "./provider.js";

const hex = (text) => Buffer.from(text.replaceAll(" ", ""), "hex");

test("MessagePack in the shortest form", () => {
  for (const [value, want] of [
    [null, "c0"], [false, "c2"], [42, "2a"], [127, "7f"], [128, "cc80"], [256, "cd0100"], [65536, "ce00010000"], [2 ** 32, "cf0000000100000000"],
    [-1, "ff"], [-32, "e0"], [-33, "d0df"], [-129, "d1ff7f"], [-32769, "d2ffff7fff"], [1.5, "cb3ff8000000000000"], [-(2n ** 63n), "d38000000000000000"],
    ["GET", "a3474554"], [new Uint8Array(), "c400"], [[1, 2, 3], "93010203"], [{ key: "a", value: 1, none: undefined }, "82a36b6579a161a576616c756501"],
  ]) assert.equal(encode(value).toString("hex"), want);
  assert.equal(encode("x".repeat(40)).toString("hex").slice(0, 4), "d928");
  assert.throws(() => encode(() => 1), /no form/);
});

test("MessagePack in every form that kits write", () => {
  for (const text of ["82a36b6579a161a576616c756501", "82a576616c756501a36b6579a161", "82a36b6579a161a576616c7565d30000000000000001"])
    assert.deepEqual({ ...decode(hex(text)) }, { key: "a", value: 1 });
  for (const v of [0, 255, 65535, -128, -32768, 2 ** 31, -(2 ** 31), 2 ** 53 - 1, 2n ** 63n, 0.1, "ключ", "", [[], [[1]]], true, null])
    assert.deepEqual(decode(encode(v)), v);
  assert.deepEqual(decode(hex("81a36d7367a2ff00"), "msg").msg, hex("ff00")); // bytes that some hosts send as text
});

test("MessagePack that makes no sense", () => {
  for (const text of ["", "c1", "0101", "a5 61", "dd ffffffff", "df ffffffff", "c6 ffffffff 00", "91".repeat(1000) + "c0", "8190c0"])
    assert.throws(() => decode(hex(text)), /MessagePack/, text);
  let seed = 1;
  const random = (n) => (seed = (seed * 48271) % 0x7fffffff) % n;
  for (let i = 0; i < 20000; i++) {
    const b = Buffer.from(Array.from({ length: random(40) }, () => random(256)));
    try {
      decode(b);
    } catch (err) {
      assert.match(err.message, /MessagePack/);
    }
  }
});

// The call that the description of the protocol spells out, with keys of 32 equal bytes.
const actor = "MCATS5YOVB6ROX2WUNKGNQ2MP3GMXDMKSG2O4N5CLX3A6W4PZGZZJPUL", provider = "VDWUSKGGFDI4FRXK5EBTRECZSVQSSWJHHJOGH6JWG3AUMFFMQ435CDVS";
const cluster = "CDFJHLAXAUMHA4OWPOB4P7YO72AQR2HMIUYFOXLXE2DZGM633K7HYHVW", seed = "SCAAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBANEQ";
const payload = hex("82a36b6579a161a576616c756501");
const example = () => ({
  origin: { public_key: actor, link_name: "", contract_id: "" }, target: { public_key: provider, link_name: "default", contract_id: "wasmcloud:keyvalue" },
  operation: "KeyValue.Increment", id: "11111111-2222-4333-8444-555555555555",
});

test("a token that is known", () => {
  const call = example();
  const body = `{"jti":"BBBBBBBBBBBBBBBBBBBBBB","iat":1700000000,"iss":"${cluster}","sub":"${call.id}","wascap":{"target_url":"wasmbus://wasmcloud/keyvalue/default/${provider}/KeyValue.Increment","origin_url":"wasmbus://${actor}","hash":"8EFA1420941C8A0899FC44E5274CE693D673E5E1E984314581120F25AE726396"},"wascap_revision":3}`;
  const b64 = (text) => Buffer.from(text).toString("base64url");
  call.encoded_claims = `${b64('{"typ":"jwt","alg":"Ed25519"}')}.${b64(body)}.Dy0zigUhQPD3TPn3mGx9jR68_SJb4Xe1hfBN5cDWzT7kSO9_U1j5xcqzIDuVwibWCmx1DtXaYOlKf66GqiGMBg`;
  checkPayload(checkToken(call, [cluster]), call, payload);
  assert.throws(() => checkPayload(checkToken(call, [cluster]), call, payload.subarray(1)), /another call/);
  assert.throws(() => checkToken(call, []), /not trusted/);
});

test("a token of our own", () => {
  const call = example(), by = signer(seed);
  assert.equal(by.issuer, cluster);
  signCall(call, payload, by);
  checkPayload(checkToken(call, [cluster]), call, payload);
});

test("host data", () => {
  const line = (data) => Buffer.from(JSON.stringify(data)).toString("base64");
  const data = { lattice_rpc_prefix: "default", link_name: "default", provider_key: provider };
  assert.equal(parseHostData(`${line(data)}\r`).provider_key, provider);
  for (const bad of ["", "{}", line(null), line({}), line({ ...data, link_name: ">" })]) assert.throws(() => parseHostData(bad), /host data/);
});

test("a program that is to stop does not wait for NATS", async () => {
  const stop = new AbortController();
  const data = { lattice_rpc_prefix: "default", link_name: "default", provider_key: provider, lattice_rpc_url: "nats://127.0.0.1:1" };
  const ended = run(data, () => assert.fail("made without NATS"), stop.signal);
  stop.abort();
  await ended;
  await run(data, () => assert.fail("made without NATS"), AbortSignal.abort());
});

// A server of NATS that answers pings alone, and goes away. What comes beside them is
// heard.
async function pinged(heard = () => {}) {
  const sockets = new Set();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("data", (b) => heard(b, socket) || (b.includes("PING\r\n") && socket.write("PONG\r\n")));
    socket.write('INFO {"server_id":"x","version":"2.10.0","proto":1,"headers":true,"max_payload":1048576}\r\n');
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  const goAway = () => [server.close(), ...[...sockets].map((s) => s.destroy())];
  return { url: `nats://127.0.0.1:${server.address().port}`, goAway };
}

test("a provider that is to stop while NATS is away does so", async () => {
  const { url, goAway } = await pinged();
  const stop = new AbortController();
  const data = { lattice_rpc_prefix: "default", link_name: "default", provider_key: provider, lattice_rpc_url: url };
  let closed = false;
  const make = async (host) => {
    goAway();
    for await (const { type } of host.nc.status()) if (type === "disconnect") break;
    stop.abort();
    return { close: async () => void (closed = true) };
  };
  await run(data, make, stop.signal);
  assert.ok(closed);
});

test("a large call waits for the box to make the object store", async () => {
  const host = new Host({ lattice_rpc_prefix: "default", link_name: "default", provider_key: provider, host_id: "N", edged: { object_store: true } });
  host.signer = signer(seed);
  host.nc = { request: async () => ({ data: encode({ msg: encode(42) }) }) };
  const kept = [];
  let asked = 0;
  host.objects = {
    open: async () => {
      if (++asked < 3) throw new Error("object store not found");
      return { putBlob: async ({ name }, bytes) => kept.push([name.length, bytes.length]) };
    },
  };
  const link = { actor_id: actor, contract_id: "wasmcloud:keyvalue" };
  assert.equal(await host.call(link, "Echo", "x".repeat(1 << 20)), 42);
  assert.deepEqual(kept, [[36, (1 << 20) + 5]]);
  host.objects.open = async () => {
    throw new Error("no JetStream");
  };
  await assert.rejects(host.call(link, "Echo", "x".repeat(1 << 20)), /no JetStream/);
});

test("a provider that is to stop answers calls that do not end, and those that wait for them", async () => {
  const calls = 71; // more than are served at once
  const by = signer(seed), stop = new AbortController();
  let said = "", sent = false, begun = 0;
  const { url, goAway } = await pinged((b, socket) => {
    said += b.toString("latin1");
    const [, subject, sid] = sent ? [] : (/SUB (\S+) rpc (\S+)\r\n/.exec(said) ?? []);
    if (!sid) return;
    sent = true;
    for (let i = 0; i < calls; i++) {
      const call = { ...example(), id: `call-${i}`, msg: payload, host_id: "N", content_length: payload.length };
      signCall(call, payload, by);
      const bytes = encode(call);
      socket.write(Buffer.concat([Buffer.from(`MSG ${subject} ${sid} reply.${i} ${bytes.length}\r\n`), bytes, Buffer.from("\r\n")]));
    }
  });
  const data = {
    lattice_rpc_prefix: "default", link_name: "default", provider_key: provider, lattice_rpc_url: url, cluster_issuers: [cluster],
    link_definitions: [{ actor_id: actor, contract_id: "wasmcloud:keyvalue", link_name: "default" }],
  };
  await run(data, () => ({
    putLink() {},
    call() {
      if (++begun === 1) throw new Error("x".repeat(1 << 20)); // more than fits into an answer
      if (begun === 65) stop.abort();
      return new Promise(() => {});
    },
  }), stop.signal);
  goAway();
  assert.equal(begun, 65);
  for (let i = 0; i < calls; i++) assert.ok(said.includes(`PUB reply.${i} `), `reply.${i}`);
  assert.equal(said.split("the provider is being stopped").length, calls);
});
