//! The actor of this suite in Rust without crates, in the style of the kits of 2021: integers in the shortest form, the
//! body of a response as a list of numbers, a panic for what cannot be.
//!
//! rustc --edition 2021 --target wasm32-unknown-unknown --crate-type cdylib -O -o rust.wasm actor.rs

use std::collections::BTreeMap;

#[link(wasm_import_module = "wasmbus")]
extern "C" {
    fn __guest_request(operation: *mut u8, payload: *mut u8);
    fn __guest_response(ptr: *const u8, len: usize);
    fn __guest_error(ptr: *const u8, len: usize);
    fn __host_call(bd: *const u8, bd_len: usize, ns: *const u8, ns_len: usize, op: *const u8, op_len: usize, ptr: *const u8, len: usize) -> usize;
    fn __host_response_len() -> usize;
    fn __host_response(ptr: *mut u8);
    fn __host_error_len() -> usize;
    fn __host_error(ptr: *mut u8);
    fn __console_log(ptr: *const u8, len: usize);
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Bin(Vec<u8>),
    Str(String),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
}

fn decode(p: &mut &[u8]) -> Result<Value, String> {
    fn take<'a>(p: &mut &'a [u8], n: usize) -> Result<&'a [u8], String> {
        if p.len() < n {
            return Err("invalid value: end of input".into());
        }
        let (a, b) = p.split_at(n);
        *p = b;
        Ok(a)
    }
    fn big(p: &mut &[u8], n: usize) -> Result<u64, String> {
        Ok(take(p, n)?.iter().fold(0, |v, b| v << 8 | *b as u64))
    }
    fn many(p: &mut &[u8], n: u64) -> Result<Vec<Value>, String> {
        (0..n).map(|_| decode(p)).collect()
    }
    fn pairs(p: &mut &[u8], n: u64) -> Result<Value, String> {
        let mut m = BTreeMap::new();
        for _ in 0..n {
            match decode(p)? {
                Value::Str(k) => m.insert(k, decode(p)?),
                k => return Err(format!("invalid key {:?}", k)),
            };
        }
        Ok(Value::Map(m))
    }
    fn text(b: &[u8]) -> Result<Value, String> {
        String::from_utf8(b.to_vec()).map(Value::Str).map_err(|e| e.to_string())
    }
    let c = big(p, 1)?;
    Ok(match c {
        0x00..=0x7f => Value::Int(c as i64),
        0x80..=0x8f => pairs(p, c & 15)?,
        0x90..=0x9f => Value::List(many(p, c & 15)?),
        0xa0..=0xbf => text(take(p, (c & 31) as usize)?)?,
        0xc0 => Value::Nil,
        0xc2 | 0xc3 => Value::Bool(c == 0xc3),
        0xc4..=0xc6 => {
            let n = big(p, 1 << (c - 0xc4))?;
            Value::Bin(take(p, n as usize)?.to_vec())
        }
        0xcc..=0xcf => Value::Int(big(p, 1 << (c - 0xcc))? as i64),
        0xd0 => Value::Int(big(p, 1)? as i8 as i64),
        0xd1 => Value::Int(big(p, 2)? as i16 as i64),
        0xd2 => Value::Int(big(p, 4)? as i32 as i64),
        0xd3 => Value::Int(big(p, 8)? as i64),
        0xd9..=0xdb => {
            let n = big(p, 1 << (c - 0xd9))?;
            text(take(p, n as usize)?)?
        }
        0xdc => { let n = big(p, 2)?; Value::List(many(p, n)?) }
        0xdd => { let n = big(p, 4)?; Value::List(many(p, n)?) }
        0xde => { let n = big(p, 2)?; pairs(p, n)? }
        0xdf => { let n = big(p, 4)?; pairs(p, n)? }
        0xe0..=0xff => Value::Int(c as i8 as i64),
        _ => return Err(format!("marker {:02x}", c)),
    })
}

fn encode(v: &Value, out: &mut Vec<u8>) {
    let length = |out: &mut Vec<u8>, n: usize, fix: u8, max: usize, wide: u8| {
        if n < max {
            out.push(fix | n as u8)
        } else {
            out.push(wide);
            out.extend((n as u16).to_be_bytes())
        }
    };
    match v {
        Value::Nil => out.push(0xc0),
        Value::Bool(b) => out.push(0xc2 + *b as u8),
        Value::Int(n @ 0..=0x7f) => out.push(*n as u8),
        Value::Int(n @ 0x80..=0xff) => out.extend([0xcc, *n as u8]),
        Value::Int(n @ 0x100..=0xffff) => { out.push(0xcd); out.extend((*n as u16).to_be_bytes()) }
        Value::Int(n) => { out.push(0xd3); out.extend(n.to_be_bytes()) }
        Value::Bin(b) => { out.push(0xc5); out.extend((b.len() as u16).to_be_bytes()); out.extend(b) }
        Value::Str(s) => { length(out, s.len(), 0xa0, 32, 0xda); out.extend(s.as_bytes()) }
        Value::List(l) => { length(out, l.len(), 0x90, 16, 0xdc); l.iter().for_each(|v| encode(v, out)) }
        Value::Map(m) => {
            length(out, m.len(), 0x80, 16, 0xde);
            for (k, v) in m {
                encode(&Value::Str(k.clone()), out);
                encode(v, out);
            }
        }
    }
}

fn map<const N: usize>(fields: [(&str, Value); N]) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&Value::Map(fields.into_iter().map(|(k, v)| (k.to_string(), v)).collect()), &mut out);
    out
}

fn host_call(binding: &str, namespace: &str, operation: &str, payload: &[u8]) -> Result<Vec<u8>, String> {
    unsafe {
        let ok = __host_call(binding.as_ptr(), binding.len(), namespace.as_ptr(), namespace.len(), operation.as_ptr(), operation.len(), payload.as_ptr(), payload.len());
        if ok != 1 {
            let mut text = vec![0; __host_error_len()];
            __host_error(text.as_mut_ptr());
            return Err(String::from_utf8_lossy(&text).into());
        }
        let mut reply = vec![0; __host_response_len()];
        __host_response(reply.as_mut_ptr());
        Ok(reply)
    }
}

fn respond(status: i64, body: &[u8]) -> Result<Vec<u8>, String> {
    Ok(map([
        ("statusCode", Value::Int(status)),
        ("header", Value::Map(BTreeMap::from([("x-kit".to_string(), Value::List(vec![Value::Str("rust".into())]))]))),
        ("body", Value::List(body.iter().map(|b| Value::Int(*b as i64)).collect())),
    ]))
}

fn shown(reply: Vec<u8>) -> Result<Vec<u8>, String> {
    match decode(&mut &reply[..])? {
        Value::Int(n) => respond(200, n.to_string().as_bytes()),
        Value::Str(s) => respond(200, s.as_bytes()),
        v => Err(format!("unexpected reply {:?}", v)),
    }
}

#[inline(never)]
fn open_the_box(lids: &[u8]) -> u8 {
    lids[lids.len()]
}

fn http(payload: &[u8]) -> Result<Vec<u8>, String> {
    let m = match decode(&mut &payload[..])? {
        Value::Map(m) => m,
        v => return Err(format!("a request is no {:?}", v)),
    };
    let path = match m.get("path") {
        Some(Value::Str(s)) => s.as_str(),
        _ => "",
    };
    let body: &[u8] = match m.get("body") {
        Some(Value::Bin(b)) => b,
        _ => b"",
    };
    match m.get("header") {
        Some(Value::Map(_)) => {}
        _ => return Err("missing field `header`".into()),
    }
    let builtin = "wasmcloud:builtin:numbergen";
    match path.splitn(3, '/').nth(1).unwrap_or("") {
        "echo" => respond(200, body),
        "count" => {
            let payload = map([("key", Value::Str(path[7..].into())), ("value", Value::Int(1))]);
            shown(host_call("default", "wasmcloud:keyvalue", "KeyValue.Increment", &payload)?)
        }
        "ping" => shown(host_call("", &path[6..], "Pingpong.Ping", b"")?),
        "guid" => shown(host_call("default", builtin, "NumberGen.GenerateGuid", b"")?),
        "random" => shown(host_call("default", builtin, "NumberGen.RandomInRange", &map([("min", Value::Int(6)), ("max", Value::Int(6))]))?),
        "log" => {
            let payload = map([("level", Value::Str("info".into())), ("text", Value::Str(path[5..].into()))]);
            match host_call("default", "wasmcloud:builtin:logging", "Logging.WriteLog", &payload)?.len() {
                0 => respond(200, b""),
                n => Err(format!("a unit of {} bytes", n)),
            }
        }
        "fail" => Err("planned failure".into()),
        "panic" => respond(open_the_box(body) as i64, b""),
        _ => respond(404, b"no such path"),
    }
}

fn ping() -> Vec<u8> {
    let mut out = Vec::new();
    encode(&Value::Str("pong".into()), &mut out);
    out
}

fn dispatch(operation: &str, payload: &[u8]) -> Result<Vec<u8>, String> {
    match operation {
        "HttpServer.HandleRequest" => http(payload),
        "Pingpong.Ping" => Ok(ping()),
        // As the real ones do, it wants a value: zero bytes are an error.
        "Actor.HealthRequest" => decode(&mut &payload[..]).map(|_| map([("healthy", Value::Bool(true))])),
        _ => Err(format!("Guest call failed for method {0}: method not handled {0} - unknown method", operation)),
    }
}

#[no_mangle]
pub extern "C" fn __wasmbus_rpc_version() -> u32 {
    1
}

/// What a panic says goes to the console, since Rust has no stderr here.
fn say_panics() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string();
        unsafe { __console_log(text.as_ptr(), text.len()) }
    }));
}

#[no_mangle]
pub extern "C" fn __guest_call(op_len: usize, len: usize) -> usize {
    say_panics();
    let (mut operation, mut payload) = (vec![0; op_len], vec![0; len]);
    unsafe { __guest_request(operation.as_mut_ptr(), payload.as_mut_ptr()) }
    match dispatch(&String::from_utf8_lossy(&operation), &payload) {
        Ok(r) if r.is_empty() => 1,
        Ok(r) => {
            unsafe { __guest_response(r.as_ptr(), r.len()) }
            1
        }
        Err(e) => {
            unsafe { __guest_error(e.as_ptr(), e.len()) }
            0
        }
    }
}
