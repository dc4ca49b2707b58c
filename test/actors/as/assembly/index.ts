// The actor of this suite in AssemblyScript, with the waPC kit: import module wapc, errors as results, abort for what
// cannot be. npm ci && npm run build -- -o as.wasm
import { register, handleCall, hostCall, handleAbort, Result } from "@wapc/as-guest";
import { Decoder, Encoder, Sizer, Writer } from "@wapc/as-msgpack";

const keyvalue = "wasmcloud:keyvalue", numbergen = "wasmcloud:builtin:numbergen", logging = "wasmcloud:builtin:logging";
const empty = new ArrayBuffer(0);

class Response {
  constructor(public status: u16, public body: ArrayBuffer) {}
  encode(w: Writer): void {
    w.writeMapSize(3);
    w.writeString("statusCode");
    w.writeUInt16(this.status);
    w.writeString("header");
    w.writeMapSize(0);
    w.writeString("body");
    w.writeByteArray(this.body);
  }
}

class Pair {
  constructor(public first: string, public second: string, public text: string, public number: i32) {}
  encode(w: Writer): void { // a text and a number, or two texts, or two numbers: what is not there is nil
    w.writeMapSize(2);
    w.writeString(this.first);
    if (this.text != "") w.writeString(this.text);
    else w.writeInt32(this.number);
    w.writeString(this.second);
    w.writeInt32(this.number);
  }
}

class Line {
  constructor(public text: string) {}
  encode(w: Writer): void {
    w.writeMapSize(2);
    w.writeString("level");
    w.writeString("info");
    w.writeString("text");
    w.writeString(this.text);
  }
}

function encoded<T>(v: T): ArrayBuffer {
  const sizer = new Sizer();
  v.encode(sizer);
  const buffer = new ArrayBuffer(sizer.length);
  v.encode(new Encoder(buffer));
  return buffer;
}

function respond(status: u16, body: string): Result<ArrayBuffer> {
  return Result.ok(encoded(new Response(status, String.UTF8.encode(body))));
}

function textOf(r: Result<ArrayBuffer>): Result<ArrayBuffer> {
  return r.isOk ? respond(200, new Decoder(r.get()).readString()) : r;
}

function numberOf(r: Result<ArrayBuffer>): Result<ArrayBuffer> {
  return r.isOk ? respond(200, new Decoder(r.get()).readInt32().toString()) : r;
}

function openTheBox(lids: i32[]): i32 {
  return lids[lids.length];
}

register("HttpServer.HandleRequest", function(payload: ArrayBuffer): Result<ArrayBuffer> {
  const d = new Decoder(payload);
  let path = "";
  let body = empty;
  for (let n = d.readMapSize(); n > 0; n--) {
    const key = d.readString();
    if (key == "path") path = d.readString();
    else if (key == "body") body = d.readByteArray();
    else d.skip();
  }
  if (path == "/echo") return Result.ok(encoded(new Response(200, body)));
  if (path.startsWith("/count/")) return numberOf(hostCall("default", keyvalue, "KeyValue.Increment", encoded(new Pair("key", "value", path.substring(7), 1))));
  if (path.startsWith("/ping/")) return textOf(hostCall("", path.substring(6), "Pingpong.Ping", empty));
  if (path == "/guid") return textOf(hostCall("default", numbergen, "NumberGen.GenerateGuid", empty));
  if (path == "/random") return numberOf(hostCall("default", numbergen, "NumberGen.RandomInRange", encoded(new Pair("min", "max", "", 6))));
  if (path.startsWith("/log/")) {
    const r = hostCall("default", logging, "Logging.WriteLog", encoded(new Line(path.substring(5))));
    return r.isOk ? respond(r.get().byteLength == 0 ? 200 : 500, "") : r;
  }
  if (path == "/fail") return Result.error<ArrayBuffer>(new Error("planned failure"));
  if (path == "/panic") return respond(<u16>openTheBox([]), "");
  return respond(404, "no such path");
});

register("Pingpong.Ping", function(payload: ArrayBuffer): Result<ArrayBuffer> {
  const buffer = new ArrayBuffer(5);
  new Encoder(buffer).writeString("pong");
  return Result.ok(buffer);
});

export function __guest_call(operation_size: usize, payload_size: usize): bool {
  return handleCall(operation_size, payload_size);
}

export function abort(message: string | null, fileName: string | null, lineNumber: u32, columnNumber: u32): void {
  handleAbort(message, fileName, lineNumber, columnNumber);
}
