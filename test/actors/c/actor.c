// The actor of this suite in C without a library, as a Zig actor looks too: everything in static memory, all integers in
// MessagePack's fixed-width forms, the keys of a response in the order of 2021 (body, header, statusCode).
//
//   clang --target=wasm32 -O2 -nostdlib -Wl,--no-entry -o c.wasm actor.c

typedef unsigned char u8;
typedef unsigned int u32;

#define IMPORT(name) __attribute__((import_module("wasmbus"), import_name(#name)))
IMPORT(__guest_request) void __guest_request(char *operation, u8 *payload);
IMPORT(__guest_response) void __guest_response(const u8 *ptr, u32 len);
IMPORT(__guest_error) void __guest_error(const char *ptr, u32 len);
IMPORT(__host_call) u32 __host_call(const char *bd, u32 bd_len, const char *ns, u32 ns_len, const char *op, u32 op_len, const u8 *ptr, u32 len);
IMPORT(__host_response_len) u32 __host_response_len(void);
IMPORT(__host_response) void __host_response(u8 *ptr);
IMPORT(__host_error_len) u32 __host_error_len(void);
IMPORT(__host_error) void __host_error(char *ptr);
IMPORT(__console_log) void __console_log(const char *ptr, u32 len);

typedef struct { const u8 *at, *end; } in;
typedef struct { const u8 *ptr; u32 len; } bytes;
typedef struct { u8 *at; } out;

void *memcpy(void *to, const void *from, unsigned long n) {
	for (u8 *t = to; n; n--) *t++ = *(const u8 *)from, from = (const u8 *)from + 1;
	return to;
}

static u32 length(const char *s) { u32 n = 0; while (s[n]) n++; return n; }
static bytes text(const char *s) { bytes b = {(const u8 *)s, length(s)}; return b; }
static int same(bytes a, const char *s) {
	if (a.len != length(s)) return 0;
	for (u32 i = 0; i < a.len; i++) if (a.ptr[i] != (u8)s[i]) return 0;
	return 1;
}
static int begins(bytes a, const char *s, bytes *rest) {
	u32 n = length(s);
	if (a.len < n) return 0;
	for (u32 i = 0; i < n; i++) if (a.ptr[i] != (u8)s[i]) return 0;
	rest->ptr = a.ptr + n, rest->len = a.len - n;
	return 1;
}

// Reading, as far as requests and replies need it. What is cut off traps.
static u32 big(in *r, u32 n) {
	u32 v = 0;
	if (r->end - r->at < (long)n) __builtin_trap();
	while (n--) v = v << 8 | *r->at++;
	return v;
}
static u32 number(in *r) {
	u32 c = big(r, 1);
	if (c < 0x80 || c >= 0xe0) return c;
	switch (c) {
	case 0xcc: case 0xd0: return big(r, 1);
	case 0xcd: case 0xd1: return big(r, 2);
	case 0xce: case 0xd2: return big(r, 4);
	case 0xcf: case 0xd3: big(r, 4); return big(r, 4);
	}
	__builtin_trap();
}
static u32 head(in *r, u32 fix, u32 mask, u32 first) { // of a string, list or map: how many follow
	u32 c = big(r, 1);
	if ((c & ~mask) == fix) return c & mask;
	if (c < first) __builtin_trap();
	return big(r, 1 << (c - first));
}
static bytes blob(in *r) { // a str or a bin
	u32 c = *r->at, n = c < 0xc4 ? head(r, 0xa0, 0x1f, 0xd9) : c < 0xd9 ? head(r, 0xa0, 0x1f, 0xc4) : head(r, 0xa0, 0x1f, 0xd9);
	bytes b = {r->at, n};
	if (r->end - r->at < (long)n) __builtin_trap();
	r->at += n;
	return b;
}
static void skip(in *r) {
	u32 c = *r->at;
	if (c == 0xc0 || c == 0xc2 || c == 0xc3) r->at++;
	else if ((c & 0xf0) == 0x80 || c >= 0xde && c < 0xe0) for (u32 n = 2 * head(r, 0x80, 0x0f, 0xdd); n--;) skip(r);
	else if ((c & 0xf0) == 0x90 || c >= 0xdc && c < 0xde) for (u32 n = head(r, 0x90, 0x0f, 0xdb); n--;) skip(r);
	else if (c < 0x80 || c >= 0xe0 || c >= 0xcc && c < 0xd4) number(r);
	else blob(r);
}

static void put(out *w, bytes b) { memcpy(w->at, b.ptr, b.len); w->at += b.len; }
static void put_big(out *w, u32 v, u32 n) { while (n--) *w->at++ = v >> 8 * n; }
static void put_str(out *w, bytes b) { *w->at++ = 0xdb, put_big(w, b.len, 4), put(w, b); }
static void put_key(out *w, const char *s) { bytes b = text(s); *w->at++ = 0xa0 | b.len, put(w, b); }

static char operation[256];
static u8 request[1 << 16], reply[1 << 16], response[1 << 17], question[1 << 12];

static u32 fail(bytes why) { __guest_error((const char *)why.ptr, why.len); return 0; }

// ask makes a host call; what came back is in answer, whichever it is.
static u32 ask(const char *binding, bytes ns, const char *op, const u8 *end, bytes *answer) {
	u32 ok = __host_call(binding, length(binding), (const char *)ns.ptr, ns.len, op, length(op), question, end - question);
	answer->ptr = reply, answer->len = ok == 1 ? __host_response_len() : __host_error_len();
	if (answer->len > sizeof reply) __builtin_trap();
	if (ok == 1) __host_response(reply); else __host_error((char *)reply);
	return ok == 1;
}

static u32 respond(u32 status, bytes body) {
	out w = {response};
	*w.at++ = 0x83;
	put_key(&w, "body"), *w.at++ = 0xc6, put_big(&w, body.len, 4), put(&w, body);
	put_key(&w, "header"), *w.at++ = 0x80;
	put_key(&w, "statusCode"), *w.at++ = 0xcd, put_big(&w, status, 2);
	__guest_response(response, w.at - response);
	return 1;
}

static bytes decimal(u32 v) {
	static u8 digits[10];
	bytes b = {digits + sizeof digits, 0};
	do *(u8 *)--b.ptr = '0' + v % 10, b.len++; while (v /= 10);
	return b;
}

__attribute__((noinline)) static u32 open_the_box(u32 lid) { __console_log("the box is stuck", 16); return lid ? 0 : (__builtin_trap(), 1); }

static u32 http(u32 len) {
	in r = {request, request + len};
	bytes path = {0}, body = {0}, rest, answer;
	for (u32 n = head(&r, 0x80, 0x0f, 0xdd); n--;) {
		bytes key = blob(&r);
		if (same(key, "path")) path = blob(&r);
		else if (same(key, "body")) body = blob(&r);
		else skip(&r);
	}
	out w = {question};
	if (same(path, "/echo")) return respond(200, body);
	if (begins(path, "/count/", &rest)) {
		*w.at++ = 0x82, put_key(&w, "value"), *w.at++ = 0xd2, put_big(&w, 1, 4), put_key(&w, "key"), put_str(&w, rest);
		if (!ask("default", text("wasmcloud:keyvalue"), "KeyValue.Increment", w.at, &answer)) return fail(answer);
		in a = {answer.ptr, answer.ptr + answer.len};
		return respond(200, decimal(number(&a)));
	}
	if (begins(path, "/ping/", &rest)) {
		if (!ask("", rest, "Pingpong.Ping", w.at, &answer)) return fail(answer);
		in a = {answer.ptr, answer.ptr + answer.len};
		return respond(200, blob(&a));
	}
	if (same(path, "/guid")) {
		if (!ask("default", text("wasmcloud:builtin:numbergen"), "NumberGen.GenerateGuid", w.at, &answer)) return fail(answer);
		in a = {answer.ptr, answer.ptr + answer.len};
		return respond(200, blob(&a));
	}
	if (same(path, "/random")) {
		*w.at++ = 0x82, put_key(&w, "max"), *w.at++ = 0xce, put_big(&w, 6, 4), put_key(&w, "min"), *w.at++ = 0xce, put_big(&w, 6, 4);
		if (!ask("default", text("wasmcloud:builtin:numbergen"), "NumberGen.RandomInRange", w.at, &answer)) return fail(answer);
		in a = {answer.ptr, answer.ptr + answer.len};
		return respond(200, decimal(number(&a)));
	}
	if (begins(path, "/log/", &rest)) {
		*w.at++ = 0x82, put_key(&w, "text"), put_str(&w, rest), put_key(&w, "level"), put_key(&w, "info");
		if (!ask("default", text("wasmcloud:builtin:logging"), "Logging.WriteLog", w.at, &answer)) return fail(answer);
		return respond(answer.len ? 500 : 200, text(""));
	}
	if (same(path, "/fail")) return fail(text("planned failure"));
	if (same(path, "/panic")) return open_the_box(len == 0);
	return respond(404, text("no such path"));
}

__attribute__((export_name("__guest_call"))) u32 __guest_call(u32 op_len, u32 len) {
	if (op_len > sizeof operation || len > sizeof request) return fail(text("request too large"));
	__guest_request(operation, request);
	bytes op = {(u8 *)operation, op_len};
	if (same(op, "HttpServer.HandleRequest")) return http(len);
	if (same(op, "Pingpong.Ping")) { __guest_response((const u8 *)"\xd9\x04pong", 6); return 1; }
	if (same(op, "Actor.HealthRequest")) { __guest_response((const u8 *)"\x81\xa7healthy\xc3", 10); return 1; }
	out w = {response};
	put(&w, text("method not handled ")), put(&w, op);
	bytes why = {response, w.at - response};
	return fail(why);
}
