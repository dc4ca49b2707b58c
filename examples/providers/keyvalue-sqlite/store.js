// An SQLite file with keys, each of which holds a text, a list or a set.

import { readFileSync, rmdirSync, writeFileSync } from "node:fs";
import sqlite from "node-sqlite3-wasm";

const schema = `
  PRAGMA synchronous = FULL;
  CREATE TABLE IF NOT EXISTS keys (key BLOB PRIMARY KEY, kind TEXT NOT NULL, value BLOB, expires INTEGER) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS items (n INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL, value BLOB NOT NULL);
  CREATE INDEX IF NOT EXISTS items_key ON items (key, value);
  CREATE TABLE IF NOT EXISTS done (n INTEGER PRIMARY KEY AUTOINCREMENT, call TEXT NOT NULL UNIQUE, reply TEXT);
`;

const remembered = 10000; // calls, so that one that is made again is recognised

// Texts are kept as bytes: they may hold the character NUL.
const bytes = (text) => Buffer.from(text);
const textOf = (value) => Buffer.from(value).toString();

export class Store {
  constructor(path) {
    this.owner = `${path}.owner`;
    takeOver(path, this.owner);
    this.db = new sqlite.Database(path);
    this.db.exec(schema);
  }

  close() {
    this.db.close();
  }

  /** Runs a call as one transaction. What a call with the same idempotency key has
   * answered, it answers again. */
  turn(idempotency, run) {
    this.db.exec("BEGIN IMMEDIATE");
    try {
      const before = idempotency && this.db.get("SELECT reply FROM done WHERE call = ?", [idempotency]);
      const reply = before ? JSON.parse(before.reply).value : run();
      if (idempotency && !before) {
        this.db.run("INSERT INTO done (call, reply) VALUES (?, ?)", [idempotency, JSON.stringify({ value: reply })]);
        this.db.run("DELETE FROM done WHERE n <= (SELECT max(n) FROM done) - ?", [remembered]);
      }
      this.db.exec("COMMIT");
      return reply;
    } catch (err) {
      if (this.db.inTransaction) this.db.exec("ROLLBACK");
      throw err;
    }
  }

  #row(key) {
    const row = this.db.get("SELECT kind, value, expires FROM keys WHERE key = ?", [bytes(key)]);
    if (row?.expires == null || row.expires > Date.now()) return row ?? undefined;
    this.remove(key); // its time is over
    return undefined;
  }

  /** What a key holds: "text", "list", "set", or undefined for nothing. */
  kind(key) {
    return this.#row(key)?.kind;
  }

  // expect says what is wrong with a key that holds something of another kind.
  #expect(key, kind) {
    const row = this.#row(key);
    if (row && row.kind !== kind) throw new Error(`key ${key} holds a ${row.kind}, not a ${kind}`);
    return row;
  }

  get(key) {
    const row = this.#expect(key, "text");
    return row && textOf(row.value);
  }

  /** Sets a text, whatever was there, for a number of seconds; 0 for ever. */
  set(key, value, seconds) {
    this.remove(key);
    const expires = seconds ? Date.now() + seconds * 1000 : null;
    this.db.run("INSERT INTO keys VALUES (?, 'text', ?, ?)", [bytes(key), bytes(value), expires]);
  }

  /** Sets a text and leaves alone when it expires. */
  replace(key, value) {
    this.db.run("INSERT INTO keys VALUES (?, 'text', ?, NULL) ON CONFLICT (key) DO UPDATE SET value = excluded.value", [bytes(key), bytes(value)]);
  }

  /** Removes a key, of one kind if that is given, and says whether there was one. */
  remove(key, kind) {
    if (kind && !this.#expect(key, kind)) return false;
    this.db.run("DELETE FROM items WHERE key = ?", [bytes(key)]);
    return this.db.run("DELETE FROM keys WHERE key = ? AND (expires IS NULL OR expires > ?)", [bytes(key), Date.now()]).changes > 0;
  }

  items(kind, key) {
    if (!this.#expect(key, kind)) return [];
    return this.db.all("SELECT value FROM items WHERE key = ? ORDER BY n", [bytes(key)]).map((row) => textOf(row.value));
  }

  #begin(kind, key) {
    if (!this.#expect(key, kind)) this.db.run("INSERT INTO keys VALUES (?, ?, NULL, NULL)", [bytes(key), kind]);
  }

  #insert(key, value) {
    this.db.run("INSERT INTO items (key, value) VALUES (?, ?)", [bytes(key), bytes(value)]);
  }

  /** Appends to a list, and says how long it is. */
  append(key, value) {
    this.#begin("list", key);
    this.#insert(key, value);
    return this.db.get("SELECT count(*) AS n FROM items WHERE key = ?", [bytes(key)]).n;
  }

  /** Adds to a set, and says how many that made it. */
  add(key, value) {
    this.#begin("set", key);
    if (this.db.get("SELECT 1 FROM items WHERE key = ? AND value = ?", [bytes(key), bytes(value)])) return 0;
    this.#insert(key, value);
    return 1;
  }

  /** Drops a value from a list or set, and says how many there were. One that is empty
   * is gone. */
  drop(kind, key, value) {
    if (!this.#expect(key, kind)) return 0;
    const { changes } = this.db.run("DELETE FROM items WHERE key = ? AND value = ?", [bytes(key), bytes(value)]);
    this.db.run("DELETE FROM keys WHERE key = ?1 AND NOT EXISTS (SELECT 1 FROM items WHERE key = ?1)", [bytes(key)]);
    return changes;
  }
}

// This build of SQLite locks a file with a folder beside it, which stays when the process
// is killed in the middle of a transaction. Who has had the file is noted, so that a lock
// of a process that is gone can be told from one that holds.
function takeOver(path, owner) {
  const me = processName(process.pid);
  let before = "";
  try {
    before = readFileSync(owner, "utf8");
  } catch (err) {
    if (err.code !== "ENOENT") throw err;
  }
  if (before && before !== me) {
    if (processName(Number(before.split(" ")[1])) === before) throw new Error(`${path} is in use by process ${before.split(" ")[1]}`);
    try {
      rmdirSync(`${path}.lock`);
    } catch (err) {
      if (err.code !== "ENOENT") throw err;
    }
  }
  writeFileSync(owner, me);
}

// processName tells a process from a later one with the same number: boot, number, and
// when it began.
function processName(pid) {
  try {
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    return `${boot} ${pid} ${readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").pop().split(" ")[19]}`;
  } catch {
    return "";
  }
}
