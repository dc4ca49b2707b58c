// The operations of wasmcloud:keyvalue. Values are text.

function text(v, what) {
  if (typeof v !== "string") throw new Error(`${what} is not a text`);
  return v;
}

function whole(v, what, low, high) {
  if (!Number.isInteger(v) || v < low || v > high) throw new Error(`${what} is not a whole number from ${low} to ${high}`);
  return v;
}

const int32 = (v, what) => whole(v, what, -(2 ** 31), 2 ** 31 - 1);
const name = (request) => text(request, "the request");

function names(request) {
  if (!Array.isArray(request) || request.length > 128) throw new Error("the request is not an array of at most 128 names");
  return request.map(name);
}

function members(request, ...keys) {
  if (request === null || typeof request !== "object" || Array.isArray(request)) throw new Error("the request is not a map");
  return keys.map((key) => request[key]);
}

// range gives the items from start to stop, both included; below 0 they count from the end.
function range(items, start, stop) {
  const at = (i) => (i < 0 ? Math.max(0, items.length + i) : i);
  return stop < 0 && items.length + stop < 0 ? [] : items.slice(at(start), at(stop) + 1);
}

export const KeyValue = {
  "KeyValue.Get"(store, request) {
    const value = store.get(name(request));
    return { value: value ?? "", exists: value !== undefined };
  },
  "KeyValue.Set"(store, request) {
    const [key, value, expires] = members(request, "key", "value", "expires");
    store.set(text(key, "key"), text(value, "value"), whole(expires ?? 0, "expires", 0, 2 ** 32 - 1));
  },
  "KeyValue.Increment"(store, request) {
    const [key, by] = members(request, "key", "value");
    const before = store.get(text(key, "key")) ?? "0";
    if (!/^-?\d{1,10}$/.test(before)) throw new Error(`key ${key} holds no whole number`);
    const after = int32(Number(before) + int32(by, "value"), "the sum");
    store.replace(key, String(after));
    return after;
  },
  "KeyValue.Contains": (store, request) => store.kind(name(request)) !== undefined,
  "KeyValue.Del": (store, request) => store.remove(name(request)),
  "KeyValue.ListAdd"(store, request) {
    const [key, value] = members(request, "listName", "value");
    return store.append(text(key, "listName"), text(value, "value"));
  },
  "KeyValue.ListDel"(store, request) {
    const [key, value] = members(request, "listName", "value");
    return store.drop("list", text(key, "listName"), text(value, "value")) > 0;
  },
  "KeyValue.ListRange"(store, request) {
    const [key, start, stop] = members(request, "listName", "start", "stop");
    return range(store.items("list", text(key, "listName")), int32(start, "start"), int32(stop, "stop"));
  },
  "KeyValue.ListClear": (store, request) => store.remove(name(request), "list"),
  "KeyValue.SetAdd"(store, request) {
    const [key, value] = members(request, "setName", "value");
    return store.add(text(key, "setName"), text(value, "value"));
  },
  "KeyValue.SetDel"(store, request) {
    const [key, value] = members(request, "setName", "value");
    return store.drop("set", text(key, "setName"), text(value, "value"));
  },
  "KeyValue.SetQuery": (store, request) => store.items("set", name(request)),
  "KeyValue.SetUnion": (store, request) => [...new Set(names(request).flatMap((key) => store.items("set", key)))],
  "KeyValue.SetIntersection"(store, request) {
    const sets = names(request).map((key) => new Set(store.items("set", key)));
    return sets.length ? [...sets[0]].filter((v) => sets.every((s) => s.has(v))) : [];
  },
  "KeyValue.SetClear": (store, request) => store.remove(name(request), "set"),
};
