#!/usr/bin/env node
// wasmcloud:keyvalue in an SQLite file: strings, counters, lists and sets. The link value
// "path" names the file; actors that name the same one share what is in it. An answer
// leaves when SQLite has it on disk. An increment that a box makes again, after a crash,
// is recognised and not counted twice.

import { main, Unknown } from "@edged-io/provider";
import { KeyValue } from "./operations.js";
import { Store } from "./store.js";

main(async () => {
  const stores = new Map(); // by path
  const of = (link) => link.values.path || "keyvalue.db";
  const users = new Map(); // of each path, the actors
  return {
    async putLink(link) {
      const path = of(link);
      if (!stores.has(path)) stores.set(path, new Store(path));
      users.set(path, (users.get(path) ?? new Set()).add(link.actor_id));
    },
    async deleteLink(link) {
      const path = of(link);
      users.get(path).delete(link.actor_id);
      if (users.get(path).size > 0) return;
      stores.get(path).close();
      stores.delete(path);
    },
    async call(operation, request, link, { idempotency }) {
      const handler = KeyValue[operation];
      if (!handler) throw new Unknown(operation);
      const store = stores.get(of(link));
      if (!store) throw new Error("the link is gone");
      return store.turn(idempotency, () => handler(store, request));
    },
    async close() {
      for (const store of stores.values()) store.close();
    },
  };
});
