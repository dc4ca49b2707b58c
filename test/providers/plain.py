#!/usr/bin/env python3
"""A provider written from docs/write-a-provider.md alone, with nothing but the standard
library of Python: its own client of NATS, MessagePack and Ed25519. It serves example:plain:
Plain.Add {a, b} answers with the sum, Plain.Tell calls Actor.Take of the actor with what it
was given. That a person can do this in an afternoon is what it is for."""

import base64, hashlib, json, os, queue, socket, struct, sys, threading, time, urllib.parse

# Ed25519 (RFC 8032, 5.1), slow and plain.
P, Q = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def point_add(a, b):
    s, t = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    u, v = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = t - s, v - u, v + u, t + s
    return e * f % P, g * h % P, f * g % P, e * h % P


def point_mul(n, a):
    r = (0, 1, 1, 0)
    while n:
        if n & 1:
            r = point_add(r, a)
        a, n = point_add(a, a), n >> 1
    return r


def decompress(b):
    y = int.from_bytes(b, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    xx = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(xx, (P + 3) // 8, P)
    if (x * x - xx) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if y >= P or (x * x - xx) % P or (x == 0 and sign):
        raise ValueError("no point")
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


def compress(a):
    z = pow(a[2], P - 2, P)
    return (a[1] * z % P | (a[0] * z % P & 1) << 255).to_bytes(32, "little")


BASE = decompress((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def number(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % Q


def verify(key, message, sig):
    s = int.from_bytes(sig[32:], "little")
    if len(sig) != 64 or s >= Q:
        return False
    left, right = point_mul(s, BASE), point_add(decompress(sig[:32]), point_mul(number(sig[:32], key, message), decompress(key)))
    return compress(left) == compress(right)


def secret(seed):
    h = hashlib.sha512(seed).digest()
    a = int.from_bytes(h[:32], "little") & (2**254 - 8) | 2**254
    return a, h[32:], compress(point_mul(a, BASE))


def sign(seed, message):
    a, prefix, public = secret(seed)
    r = number(prefix, message)
    point = compress(point_mul(r, BASE))
    return point + ((r + number(point, public, message) * a) % Q).to_bytes(32, "little")


# Keys as text.
def unkey(text):
    return base64.b32decode(text + "=" * (-len(text) % 8))[:-2]


def key_text(b):
    crc = 0
    for c in b:
        crc ^= c << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return base64.b32encode(b + struct.pack("<H", crc)).decode().rstrip("=")


# MessagePack.
def pack(v):
    if v is None or isinstance(v, bool):
        return bytes([{None: 0xC0, False: 0xC2, True: 0xC3}[v]])
    if isinstance(v, int):
        return struct.pack("b", v) if -32 <= v < 128 else b"\xd3" + struct.pack(">q", v)
    if isinstance(v, str):
        b = v.encode()
        return (b"\xd9" + bytes([len(b)]) if len(b) < 256 else b"\xdb" + struct.pack(">I", len(b))) + b
    if isinstance(v, bytes):
        return b"\xc6" + struct.pack(">I", len(v)) + v
    return b"\xdf" + struct.pack(">I", len(v)) + b"".join(pack(k) + pack(e) for k, e in v.items())


def unpack(b):
    v, rest = take(b, 0)
    if rest:
        raise ValueError("bytes after the value")
    return v


def cut(b, n):
    if n > len(b):
        raise ValueError("the value ends early")
    return b[:n], b[n:]


def take(b, depth, raw=False):
    if depth > 64:
        raise ValueError("nested too deeply")
    head, b = cut(b, 1)
    c = head[0]
    if c < 0x80 or c >= 0xE0:
        return struct.unpack("b", head)[0], b
    if c == 0xC0 or c in (0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[c], b
    numbers = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
    if c in numbers:
        n, b = cut(b, struct.calcsize(numbers[c]))
        return struct.unpack(numbers[c], n)[0], b
    sized = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
    if c in sized:
        n, b = cut(b, sized[c])
        n = int.from_bytes(n, "big")
    elif c < 0xC0:
        n = c & 31 if c >= 0xA0 else c & 15
    else:
        raise ValueError("a value of a kind that no contract has")
    if 0xC4 <= c <= 0xC6 or 0xA0 <= c < 0xC0 or 0xD9 <= c <= 0xDB:
        s, b = cut(b, n)
        return (s if raw or 0xC4 <= c <= 0xC6 else s.decode()), b
    if 0x90 <= c < 0xA0 or c in (0xDC, 0xDD):
        values = []
        for _ in range(n):
            v, b = take(b, depth + 1)
            values.append(v)
        return values, b
    members = {}
    for _ in range(n):
        k, b = take(b, depth + 1)
        if not isinstance(k, str):
            raise ValueError("a key is no text")
        members[k], b = take(b, depth + 1, k == "msg")
    return members, b


class NATS:
    """A client of NATS: each message is handled in a thread of its own, except those of
    links, which keep their order."""

    def __init__(self, address):
        url = urllib.parse.urlparse(address if "://" in address else "nats://" + (address or "127.0.0.1:4222"))
        self.sock = socket.create_connection((url.hostname, url.port or 4222))
        self.file = self.sock.makefile("rb")
        self.lock, self.handlers = threading.Lock(), {}
        options = {"verbose": False, "pedantic": False, "lang": "python", "version": "0", "headers": True, "no_responders": True}
        if url.username:
            options.update(user=urllib.parse.unquote(url.username), **{"pass": urllib.parse.unquote(url.password)})
        self.file.readline()
        self.send(b"CONNECT " + json.dumps(options).encode() + b"\r\n")

    def send(self, b):
        with self.lock:
            self.sock.sendall(b)

    def subscribe(self, subject, handler, group="", in_order=False):
        sid = str(len(self.handlers) + 1)
        self.handlers[sid] = handler, in_order
        self.send(f"SUB {subject} {group} {sid}\r\n".encode())

    def publish(self, subject, data, reply=""):
        self.send(f"PUB {subject} {reply} {len(data)}\r\n".encode() + data + b"\r\n")

    def run(self):
        while line := self.file.readline():
            word, *fields = line.decode().split()
            if word == "PING":
                self.send(b"PONG\r\n")
            if word not in ("MSG", "HMSG"):
                continue
            data = self.file.read(int(fields[-1]) + 2)[:-2]
            head = b""
            if word == "HMSG":
                head, data = cut(data, int(fields.pop(-2)))
            handler, in_order = self.handlers[fields[1]]
            args = fields[2] if len(fields) == 4 else "", data, head
            if in_order:
                handler(*args)
            else:
                threading.Thread(target=handler, args=args, daemon=True).start()


def b64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def unb64(b):
    return base64.urlsafe_b64encode(b).decode().rstrip("=")


def url(e):
    key, plain = e["public_key"], lambda s: s.lower().replace(" ", "_")
    if key.startswith("M"):
        return "wasmbus://" + key
    return f"wasmbus://{plain(e['contract_id']).replace(':', '/')}/{plain(e['link_name'])}/{key}"


def describe(call, payload):
    origin, target = url(call["origin"]), url(call["target"]) + "/" + call["operation"]
    digest = hashlib.sha256((origin + target + call["operation"]).encode() + payload).hexdigest().upper()
    return {"target_url": target, "origin_url": origin, "hash": digest}


class Provider:
    def __init__(self, data):
        self.data, self.links = data, {l["actor_id"]: l for l in data["link_definitions"]}
        self.root = f"wasmbus.rpc.{data['lattice_rpc_prefix']}.{data['provider_key']}.{data['link_name']}"
        self.nats, self.answers = NATS(data.get("lattice_rpc_url") or ""), {}
        self.inbox = "_INBOX." + os.urandom(8).hex()

    def serve(self):
        n = self.nats
        n.subscribe(self.inbox + ".*", self.answered)
        n.subscribe(self.root + ".linkdefs.put", lambda _, b, h: self.link(b, lambda l: self.links.setdefault(l["actor_id"], l)), in_order=True)
        n.subscribe(self.root + ".linkdefs.del", lambda _, b, h: self.link(b, lambda l: self.links.pop(l["actor_id"], None)), in_order=True)
        n.subscribe(self.root + ".health", lambda reply, b, h: n.publish(reply, pack({"healthy": True})))
        n.subscribe(self.root + ".shutdown", self.shutdown)
        n.subscribe(self.root, self.call, "rpc")
        n.run()

    def link(self, b, change):
        try:
            change(unpack(b))
        except (ValueError, TypeError, KeyError) as err:
            print("a change of a link:", err, flush=True)

    def shutdown(self, reply, b, _):
        try:
            host = json.loads(b).get("host_id") if b else ""
        except (ValueError, AttributeError):
            return
        if host and host != self.data["host_id"]:
            return
        self.nats.publish(reply, b"shutting down")
        os._exit(0)

    def call(self, reply, b, _):
        answer = {"invocation_id": "", "msg": b"", "content_length": 0}
        try:
            call = unpack(b)
            answer["invocation_id"] = call["id"]
            result = self.operation(call, self.check(call))
            answer.update(msg=result, content_length=len(result))
        except Exception as err:
            answer["error"] = str(err) or "failed"
        if reply:
            self.nats.publish(reply, pack(answer))

    def check(self, call):
        head, body, sig = call["encoded_claims"].split(".")
        header, claims = json.loads(b64(head)), json.loads(b64(body))
        if header.get("typ") != "jwt" or header.get("alg") != "Ed25519":
            raise ValueError("the token is of another kind")
        if claims["iss"] not in self.data["cluster_issuers"]:
            raise ValueError("the issuer is not trusted")
        if not verify(unkey(claims["iss"])[1:], f"{head}.{body}".encode(), b64(sig)):
            raise ValueError("the signature is wrong")
        if claims.get("exp") and time.time() >= claims["exp"] or claims.get("nbf") and time.time() < claims["nbf"] or claims["sub"] != call["id"]:
            raise ValueError("the token is out of its time, or of another call")
        if call["target"]["public_key"] != self.data["provider_key"]:
            raise ValueError("the call is for somebody else")
        if call["origin"]["public_key"] not in self.links:
            raise ValueError(f"actor {call['origin']['public_key']} is not linked to this provider")
        payload = bytes(call["msg"])
        if call.get("content_length", 0) > len(payload):
            raise ValueError("payloads in the object store are not taken")
        if describe(call, payload) != {k: claims["wascap"].get(k) for k in ("target_url", "origin_url", "hash")}:
            raise ValueError("the token is of another call")
        return payload

    def operation(self, call, payload):
        if call["operation"] == "Plain.Add":
            request = unpack(payload)
            return pack(request["a"] + request["b"])
        if call["operation"] == "Plain.Tell":
            return self.tell(self.links[call["origin"]["public_key"]], payload)
        raise ValueError("method not handled: " + call["operation"])

    def tell(self, link, payload):
        d, seed = self.data, unkey(self.data["invocation_seed"])[2:]
        call = {
            "origin": {"public_key": d["provider_key"], "link_name": d["link_name"], "contract_id": link["contract_id"]},
            "target": {"public_key": link["actor_id"], "link_name": "", "contract_id": ""},
            "operation": "Actor.Take", "msg": payload, "id": os.urandom(16).hex(), "host_id": d["host_id"], "content_length": len(payload),
        }
        claims = {"iss": key_text(b"\x10" + secret(seed)[2]), "sub": call["id"], "jti": call["id"], "iat": int(time.time()), "wascap": describe(call, payload)}
        text = unb64(b'{"typ":"jwt","alg":"Ed25519"}') + "." + unb64(json.dumps(claims).encode())
        call["encoded_claims"] = text + "." + unb64(sign(seed, text.encode()))
        inbox, answer = f"{self.inbox}.{call['id']}", queue.Queue()
        self.answers[inbox] = answer
        self.nats.publish(f"wasmbus.rpc.{d['lattice_rpc_prefix']}.{link['actor_id']}", pack(call), inbox)
        reply = answer.get(timeout=d["default_rpc_timeout_ms"] / 1000)
        if reply.get("error"):
            raise ValueError(reply["error"])
        return bytes(reply["msg"])

    def answered(self, _, b, head):
        if head:
            return  # nobody runs the actor; the call times out
        reply = unpack(b)
        self.answers.pop(f"{self.inbox}.{reply['invocation_id']}").put(reply)


Provider(json.loads(base64.b64decode(sys.stdin.readline().strip()))).serve()
