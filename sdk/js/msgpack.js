// MessagePack, as the contracts of the lattice have it: structs are maps with string
// keys, bytes are bins. Whole numbers are written in the fewest bytes; beyond 2^53 they
// are BigInts. What is read may come from anybody: lengths are held against what is
// there, and nesting has a bound.

const maxDepth = 64;
const utf8 = new TextDecoder();

/** Writes a value: null, boolean, number, BigInt, string, Uint8Array, array, Map or
 * object, whose members that are undefined are left out. */
export function encode(value) {
  const parts = [];
  write(parts, value);
  return Buffer.concat(parts);
}

function write(out, v) {
  switch (typeof v) {
    case "boolean": return out.push(Buffer.of(v ? 0xc3 : 0xc2));
    case "bigint": return out.push(wide(v));
    case "number": return out.push(Number.isSafeInteger(v) ? integer(v) : float(v));
    case "string": {
      const b = Buffer.from(v);
      return out.push(head(b.length, [0xa0, 31], 0xd9, 0xda, 0xdb), b);
    }
  }
  if (v === null || v === undefined) return out.push(Buffer.of(0xc0));
  if (v instanceof Uint8Array) return out.push(head(v.length, [], 0xc4, 0xc5, 0xc6), v);
  if (Array.isArray(v)) {
    out.push(head(v.length, [0x90, 15], 0, 0xdc, 0xdd));
    return v.forEach((e) => write(out, e));
  }
  if (typeof v !== "object") throw new TypeError(`a ${typeof v} has no form in MessagePack`);
  const members = (v instanceof Map ? [...v] : Object.entries(v)).filter(([, e]) => e !== undefined);
  out.push(head(members.length, [0x80, 15], 0, 0xde, 0xdf));
  for (const [key, e] of members) {
    write(out, String(key));
    write(out, e);
  }
}

// head is the beginning of a value of length n: with the length in the first byte where
// it fits, or behind the first byte in 1, 2 or 4.
function head(n, [base, most] = [], b8, b16, b32) {
  if (n <= most) return Buffer.of(base | n);
  if (b8 && n < 0x100) return Buffer.of(b8, n);
  if (n < 0x10000) return Buffer.of(b16, n >> 8, n & 0xff);
  const b = Buffer.alloc(5, b32);
  return b.writeUInt32BE(n, 1), b;
}

function integer(n) {
  if (n >= -32 && n < 128) return Buffer.of(n & 0xff);
  for (const [size, signed, unsigned] of [[1, 0xd0, 0xcc], [2, 0xd1, 0xcd], [4, 0xd2, 0xce]]) {
    const b = Buffer.alloc(1 + size, n < 0 ? signed : unsigned);
    if (n >= 0 && n < 2 ** (8 * size)) return b.writeUIntBE(n, 1, size), b;
    if (n < 0 && n >= -(2 ** (8 * size - 1))) return b.writeIntBE(n, 1, size), b;
  }
  return wide(BigInt(n));
}

function wide(n) {
  const b = Buffer.alloc(9, n < 0n ? 0xd3 : 0xcf);
  return n < 0n ? b.writeBigInt64BE(n, 1) : b.writeBigUInt64BE(n, 1), b;
}

function float(n) {
  const b = Buffer.alloc(9, 0xcb);
  return b.writeDoubleBE(n, 1), b;
}

/** Reads the one value that b is. Bytes are a part of b. A text that is the member
 * rawKey of a map is given as bytes: some hosts send bytes so. */
export function decode(b, rawKey) {
  const r = { b: Buffer.from(b.buffer, b.byteOffset, b.byteLength), at: 0, rawKey };
  const v = read(r, 0);
  if (r.at !== r.b.length) throw new Error("MessagePack: bytes after the value");
  return v;
}

function take(r, n) {
  if (n > r.b.length - r.at) throw new Error("MessagePack: the value ends early");
  return r.b.subarray(r.at, (r.at += n));
}

const size = (r, width) => take(r, width).readUIntBE(0, width);
const text = (r, n, raw) => (raw ? take(r, n) : utf8.decode(take(r, n)));
const number = (n) => (n >= Number.MIN_SAFE_INTEGER && n <= Number.MAX_SAFE_INTEGER ? Number(n) : n);

function read(r, depth, raw) {
  if (depth > maxDepth) throw new Error("MessagePack: nested too deeply");
  const c = take(r, 1)[0];
  if (c < 0x80) return c;
  if (c >= 0xe0) return c - 0x100;
  if (c < 0x90) return map(r, c & 15, depth);
  if (c < 0xa0) return array(r, c & 15, depth);
  if (c < 0xc0) return text(r, c & 31, raw);
  if (c === 0xc0) return null;
  if (c === 0xc2 || c === 0xc3) return c === 0xc3;
  if (c >= 0xc4 && c <= 0xc6) return take(r, size(r, 1 << (c - 0xc4)));
  if (c === 0xca) return take(r, 4).readFloatBE();
  if (c === 0xcb) return take(r, 8).readDoubleBE();
  if (c >= 0xcc && c <= 0xce) return size(r, 1 << (c - 0xcc));
  if (c === 0xcf) return number(take(r, 8).readBigUInt64BE());
  if (c >= 0xd0 && c <= 0xd2) return take(r, 1 << (c - 0xd0)).readIntBE(0, 1 << (c - 0xd0));
  if (c === 0xd3) return number(take(r, 8).readBigInt64BE());
  if (c >= 0xd9 && c <= 0xdb) return text(r, size(r, 1 << (c - 0xd9)), raw);
  if (c === 0xdc || c === 0xdd) return array(r, size(r, 2 << (c - 0xdc)), depth);
  if (c === 0xde || c === 0xdf) return map(r, size(r, 2 << (c - 0xde)), depth);
  throw new Error("MessagePack: a value of a kind that no contract has");
}

function array(r, n, depth) {
  const all = []; // grown as values come: a header promises what it likes
  for (let i = 0; i < n; i++) all.push(read(r, depth + 1));
  return all;
}

function map(r, n, depth) {
  const all = Object.create(null); // a key may be "__proto__"
  for (let i = 0; i < n; i++) {
    const key = read(r, depth + 1);
    if (key !== null && typeof key === "object" && !(key instanceof Uint8Array)) throw new Error("MessagePack: a key is no text");
    all[String(key)] = read(r, depth + 1, r.rawKey !== undefined && key === r.rawKey);
  }
  return all;
}
