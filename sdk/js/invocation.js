// The envelope of a call and the token that says who has sent it: a JWT that is signed
// by the key of a cluster, over both ends, the operation and the payload.

import { createHash, createPrivateKey, createPublicKey, randomUUID, sign, verify } from "node:crypto";

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

// unkey is the bytes of a key or seed, without its checksum.
function unkey(text) {
  let bits = 0, value = 0;
  const bytes = [];
  for (const c of text) {
    const i = alphabet.indexOf(c);
    if (i < 0) throw new Error("a key is text in base32");
    value = ((value << 5) | i) & 0xfff;
    bits += 5;
    if (bits >= 8) bytes.push((value >> (bits -= 8)) & 0xff);
  }
  return Buffer.from(bytes.slice(0, -2));
}

function keyText(bytes) {
  let crc = 0, out = "", value = 0, bits = 0;
  for (const b of bytes) {
    crc ^= b << 8;
    for (let i = 0; i < 8; i++) crc = crc & 0x8000 ? ((crc << 1) ^ 0x1021) & 0xffff : crc << 1;
  }
  for (const b of [...bytes, crc & 0xff, crc >> 8]) {
    value = ((value << 8) | b) & 0xfff;
    for (bits += 8; bits >= 5; ) out += alphabet[(value >> (bits -= 5)) & 31];
  }
  return bits ? out + alphabet[(value << (5 - bits)) & 31] : out;
}

// Ed25519 keys in DER are their 32 bytes behind a constant.
const publicKey = (raw) => createPublicKey({ key: Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), raw]), format: "der", type: "spki" });
const privateKey = (raw) => createPrivateKey({ key: Buffer.concat([Buffer.from("302e020100300506032b657004220420", "hex"), raw]), format: "der", type: "pkcs8" });

/** What signs calls: the seed of a cluster key, "SC…". */
export function signer(seed) {
  const key = privateKey(unkey(seed).subarray(2));
  const raw = Buffer.from(createPublicKey(key).export({ format: "jwk" }).x, "base64url");
  return { key, issuer: keyText([0x10, ...raw]) };
}

const plain = (s) => s.replaceAll(" ", "_").toLowerCase();

function url(e) {
  if (/^m/i.test(e.public_key)) return `wasmbus://${e.public_key}`;
  return `wasmbus://${plain(e.contract_id).replaceAll(":", "/")}/${plain(e.link_name)}/${e.public_key}`;
}

// describe is what the token of a call has to say.
function describe(call, payload) {
  const origin_url = url(call.origin), target_url = `${url(call.target)}/${call.operation}`;
  const hash = createHash("sha256").update(origin_url + target_url + call.operation).update(payload).digest("hex").toUpperCase();
  return { target_url, origin_url, hash };
}

const segment = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

/** Gives a call its token. */
export function signCall(call, payload, { key, issuer }) {
  const claims = { jti: randomUUID(), iat: Math.floor(Date.now() / 1000), iss: issuer, sub: call.id, wascap: describe(call, payload), wascap_revision: 3 };
  const text = `${segment({ typ: "jwt", alg: "Ed25519" })}.${segment(claims)}`;
  call.encoded_claims = `${text}.${sign(null, Buffer.from(text), key).toString("base64url")}`;
}

/** Reads a token and says why it does not count. What it says of the call is in the
 * result, for checkPayload. */
export function checkToken(call, issuers) {
  const [head, body, signature, more] = call.encoded_claims.split(".");
  if (!signature || more !== undefined || call.encoded_claims.length > 16384) throw new Error("the token has not the form of a JWT");
  const header = JSON.parse(Buffer.from(head, "base64url")), claims = JSON.parse(Buffer.from(body, "base64url"));
  const now = Date.now() / 1000;
  if (header?.typ !== "jwt" || header.alg !== "Ed25519") throw new Error("the token is of another kind");
  if (typeof claims?.iss !== "string" || !claims.iss.startsWith("C") || !issuers.includes(claims.iss)) throw new Error("the issuer of the token is not trusted");
  if (claims.exp && now >= claims.exp) throw new Error("the token has expired");
  if (claims.nbf && now < claims.nbf) throw new Error("the token is not valid yet");
  if (!verify(null, Buffer.from(`${head}.${body}`), publicKey(unkey(claims.iss).subarray(1)), Buffer.from(signature, "base64url")))
    throw new Error("the signature of the token is wrong");
  return claims;
}

/** Says whether the token is of this call, with this payload. */
export function checkPayload(claims, call, payload) {
  const want = describe(call, payload), got = claims.wascap ?? {};
  if (claims.sub !== call.id || Object.keys(want).some((k) => got[k] !== want[k])) throw new Error("the token is of another call");
}
