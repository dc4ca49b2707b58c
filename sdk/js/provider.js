// For programs that serve a capability contract to the actors of a lattice: providers of
// edged, and of every classic wasmCloud host. See docs/write-a-provider.md of edged.
//
//   import { main, Unknown } from "@edged-io/provider";
//
//   main(async (host) => ({
//     async putLink(link) { … },      // the actor link.actor_id may call, with link.values
//     async deleteLink(link) { … },
//     async call(operation, request, link, { id, idempotency }) { … throw new Unknown(operation); },
//     async health() { … },           // optional: throws when it is not well
//     async close() { … },            // optional
//   }));
//
// Requests and answers are MessagePack, decoded and encoded here; undefined is nothing.
// The text of an error reaches the actor. idempotency is the same when what made a call runs
// again, and for no other call; "" where the caller does not say.

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { connect, jwtAuthenticator } from "@nats-io/transport-node";
import { jetstream } from "@nats-io/jetstream";
import { Objm } from "@nats-io/obj";
import { checkPayload, checkToken, signCall, signer } from "./invocation.js";
import { decode, encode } from "./msgpack.js";

export { decode, encode };

const maxCalls = 64; // that are served at once; more wait
const chunkBytes = 900 << 10; // a larger payload goes through the object store
const maxPayload = 64 << 20; // that is fetched from there
const maxHostData = 16 << 20;
const retry = 1000; // ms until NATS that is not there is tried again
const grace = 1000; // ms for calls under way when the provider is to stop
const bucketTime = 5000; // ms for the box to make the object store

/** An operation that the contract does not have. */
export class Unknown extends Error {
  constructor(operation) {
    super(`method not handled: ${operation}`);
  }
}

/** All of a program: reads the host data from standard input, serves until the host or a
 * signal says to stop, and ends the process. */
export async function main(make) {
  try {
    const stop = new AbortController();
    for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => stop.abort());
    await run(parseHostData(await firstLine(process.stdin)), make, stop.signal);
    process.exit(0);
  } catch (err) {
    console.error(err.message);
    process.exit(1);
  }
}

async function firstLine(stream) {
  let text = "";
  for await (const chunk of stream) {
    text += chunk;
    if (text.includes("\n")) break; // some hosts leave it open
    if (text.length > maxHostData) throw new Error("host data: the line is too long");
  }
  return text.split("\n", 1)[0];
}

/** Reads the line of a host: JSON in base64. */
export function parseHostData(line) {
  let data;
  try {
    data = JSON.parse(Buffer.from(line.trim(), "base64"));
  } catch {
    throw new Error("host data is one line of JSON in base64");
  }
  for (const key of ["lattice_rpc_prefix", "link_name", "provider_key"])
    if (!/^[A-Za-z0-9_-]+$/.test(data?.[key] ?? "")) throw new Error(`host data: ${key} can not be part of a subject`);
  return data;
}

/** Serves until the host says to stop, or signal is aborted. NATS that is not there yet,
 * or goes away, is waited for. */
export async function run(data, make, signal) {
  const host = new Host(data);
  const stopped = new Promise((stop) => {
    signal?.addEventListener("abort", () => stop("stopped"));
    if (signal?.aborted) stop("stopped");
  });
  if (!(await host.connect(stopped))) return;
  try {
    host.provider = await make(host);
    await host.serve(stopped);
    await host.provider.close?.();
  } finally {
    await host.nc.close();
  }
}

/** The host of a provider, and the lattice behind it. */
export class Host {
  #links = new Map(); // by actor
  #refused = new Map(); // why putLink refused, by actor
  #busy = new Set(); // for each call what ends it
  #waiting = []; // calls without room
  #ending; // why no call is served any more

  constructor(data) {
    this.data = data;
  }

  /** Connects with NATS, when it is there, and says whether it is before the program is
   * to stop. */
  async connect(stopped) {
    const { lattice_rpc_url: address, lattice_rpc_user_jwt: jwt, lattice_rpc_user_seed: seed, js_domain: domain } = this.data;
    const url = new URL(/:\/\//.test(address ?? "") ? address : `nats://${address || "127.0.0.1:4222"}`);
    // Nobody else can read the inboxes that the own host names; other hosts name none.
    const inboxPrefix = this.data.edged?.inbox_prefix ?? "_INBOX";
    const options = { servers: url.host, name: `provider ${this.data.provider_key}`, maxReconnectAttempts: -1, inboxPrefix };
    if (url.protocol === "tls:") options.tls = {};
    if (jwt) options.authenticator = jwtAuthenticator(jwt, new TextEncoder().encode(seed));
    if (url.username) Object.assign(options, { user: decodeURIComponent(url.username), pass: decodeURIComponent(url.password) });
    for (let fault; !this.nc; ) {
      const before = fault;
      this.nc = await connect(options).catch((err) => void (fault = err.message));
      if (fault !== before) console.error(`NATS at ${url.host}: ${fault}`);
      if (!this.nc && (await Promise.race([sleep(retry), stopped])) === "stopped") return false;
    }
    this.objects = new Objm(jetstream(this.nc, domain ? { domain } : {}));
    if (this.data.invocation_seed) this.signer = signer(this.data.invocation_seed);
    return true;
  }

  async serve(stopped) {
    for (const link of this.data.link_definitions ?? []) await this.#putLink(link);
    const root = `wasmbus.rpc.${this.data.lattice_rpc_prefix}.${this.data.provider_key}.${this.data.link_name}`;
    let changes = Promise.resolve(); // one at a time, in the order in which they came
    const change = (apply) => (_, m) => {
      changes = changes.then(() => apply(decode(m.data))).catch((err) => console.error(`change of a link: ${err.message}`));
    };
    const calls = this.nc.subscribe(root, { queue: "rpc", callback: (_, m) => this.#take(m) });
    this.nc.subscribe(`${root}.linkdefs.put`, { callback: change((l) => this.#putLink(l)) });
    this.nc.subscribe(`${root}.linkdefs.del`, { callback: change((l) => this.#deleteLink(l)) });
    this.nc.subscribe(`${root}.health`, { callback: async (_, m) => m.respond(encode(await this.#health())) });
    const asked = await new Promise((stop) => {
      this.nc.subscribe(`${root}.shutdown`, { callback: (_, m) => this.#isMine(m) && stop(m) });
      stopped.then(() => stop());
      this.nc.closed().then(() => stop());
    });
    calls.unsubscribe(); // others of the queue group take what comes from now on
    for (const end = Date.now() + grace; this.#busy.size > 0 && Date.now() < end; ) await sleep(10);
    this.#ending = new Error("the provider is being stopped, before it has answered");
    for (const end of this.#busy) end(this.#ending);
    while (this.#busy.size > 0) await sleep(1); // until they have their answers
    asked?.respond("shutting down");
    await Promise.race([this.nc.flush(), sleep(grace)]).catch(() => {}); // NATS may be away
  }

  #isMine(m) {
    try {
      return ["", this.data.host_id].includes(JSON.parse(m.string() || "{}")?.host_id ?? ""); // old hosts send nothing
    } catch {
      return false;
    }
  }

  async #health() {
    try {
      await this.provider.health?.();
      return { healthy: true };
    } catch (err) {
      return { healthy: false, message: err.message };
    }
  }

  async #putLink(l) {
    if (!l?.actor_id) throw new Error("no actor_id");
    const link = { ...l, values: l.values ?? {} };
    if (this.#links.has(link.actor_id)) return; // hosts repeat links
    try {
      await this.provider.putLink(link);
      this.#links.set(link.actor_id, link);
      this.#refused.delete(link.actor_id);
    } catch (err) {
      this.#refused.set(link.actor_id, `link of actor ${link.actor_id} was refused: ${err.message}`);
      console.error(this.#refused.get(link.actor_id));
    }
  }

  async #deleteLink(l) {
    const actor = l?.actor_id, link = this.#links.get(actor);
    this.#links.delete(actor);
    this.#refused.delete(actor);
    if (link) await this.provider.deleteLink(link);
  }

  async #take(m) {
    if (this.#busy.size >= maxCalls) return void this.#waiting.push(m);
    const answer = { invocation_id: "", msg: new Uint8Array(), content_length: 0 };
    let end;
    const ended = new Promise((_, reject) => this.#busy.add((end = reject)));
    await Promise.race([this.#serveCall(m, answer), ended]).catch((err) => {
      Object.assign(answer, { error: `${err?.message || "failed"}`.slice(0, 8192), content_length: 0 });
    });
    m.respond(encode(answer));
    this.#busy.delete(end);
    if (this.#waiting.length) this.#take(this.#waiting.shift());
  }

  async #serveCall(m, answer) {
    const call = decode(m.data, "msg");
    if (typeof call?.id !== "string" || call.id.length > 64) throw new Error("invocation without an id");
    answer.invocation_id = call.id;
    if (this.#ending) throw this.#ending;
    for (const key of [call.operation, call.encoded_claims, call.origin?.public_key, call.target?.public_key])
      if (typeof key !== "string") throw new Error("invocation makes no sense");
    for (const e of [call.origin, call.target]) Object.assign(e, { link_name: e.link_name ?? "", contract_id: e.contract_id ?? "" });
    const claims = checkToken(call, this.data.cluster_issuers ?? []);
    if (call.target.public_key !== this.data.provider_key) throw new Error(`the call is for ${call.target.public_key}, this is ${this.data.provider_key}`);
    const actor = call.origin.public_key, link = this.#links.get(actor);
    if (!link) throw new Error(this.#refused.get(actor) ?? `actor ${actor} is not linked to this provider`);
    let payload = Uint8Array.from(call.msg ?? []);
    const check = (bytes) => checkPayload(claims, call, bytes);
    if (call.content_length > payload.length) payload = await this.#fetch(call.id, call.content_length, check);
    else check(payload);
    const request = payload.length ? decode(payload) : undefined;
    const reply = await this.provider.call(call.operation, request, link, { id: call.id, idempotency: m.headers?.get("Idempotency-Key") ?? "" });
    const bytes = reply === undefined ? new Uint8Array() : encode(reply);
    answer.content_length = bytes.length;
    if (bytes.length > chunkBytes) await (await this.#bucket()).putBlob({ name: `${call.id}-r` }, bytes);
    else answer.msg = bytes;
  }

  /** Calls an operation of the actor of a link, and returns its answer. */
  async call(link, operation, request) {
    const payload = request === undefined ? new Uint8Array() : encode(request);
    const call = {
      origin: { public_key: this.data.provider_key, link_name: this.data.link_name, contract_id: link.contract_id },
      target: { public_key: link.actor_id, link_name: "", contract_id: "" },
      operation, msg: payload, id: randomUUID(), host_id: this.data.host_id, content_length: payload.length,
    };
    signCall(call, payload, this.signer);
    let timeout = this.data.default_rpc_timeout_ms || 2000;
    if (payload.length > chunkBytes) {
      await (await this.#bucket()).putBlob({ name: call.id }, payload);
      call.msg = new Uint8Array();
      timeout += 13000;
    }
    const m = await this.nc.request(`wasmbus.rpc.${this.data.lattice_rpc_prefix}.${link.actor_id}`, encode(call), { timeout });
    const answer = decode(m.data, "msg");
    if (answer.error) throw new Error(answer.error);
    let reply = Uint8Array.from(answer.msg ?? []);
    if (answer.content_length > reply.length) reply = await this.#fetch(`${call.id}-r`, answer.content_length, () => {});
    return reply.length ? decode(reply) : undefined;
  }

  // The bucket is the one that all in the lattice share. Who needs it first creates it; a
  // box of edged does so itself, soon after a provider is there, or keeps providers from it.
  async #bucket() {
    const { edged, lattice_rpc_prefix: name } = this.data;
    if (!edged) return this.objects.create(name);
    if (!edged.object_store) throw new Error("large payloads: the box keeps providers from the object store: see lattice.provider_objects in its device file");
    for (const end = Date.now() + bucketTime; ; await sleep(100))
      try {
        return await this.objects.open(name);
      } catch (err) {
        if (err.message !== "object store not found" || Date.now() > end) throw err;
      }
  }

  // What check has something against stays: it may be somebody else's.
  async #fetch(name, length, check) {
    if (length > maxPayload) throw new Error(`payload of ${length} bytes, at most ${maxPayload}`);
    const bucket = await this.#bucket();
    const info = await bucket.info(name);
    if (info?.size !== length) throw new Error(`payload of ${length} bytes is not in the object store`);
    const payload = Buffer.from(await bucket.getBlob(name));
    check(payload);
    await bucket.delete(name).catch(() => {}); // nothing fails for what is left over
    return payload;
  }
}
