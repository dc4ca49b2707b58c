;; The key-value counter of 2021: it asks for one Increment, in the very bytes that were observed, and answers with the
;; reply as the body. The keys of its response are in the order body, header, statusCode, and its body is a list of
;; numbers.
(module
  (import "wasmbus" "__guest_request" (func $request (param i32 i32)))
  (import "wasmbus" "__guest_response" (func $response (param i32 i32)))
  (import "wasmbus" "__guest_error" (func $error (param i32 i32)))
  (import "wasmbus" "__host_call" (func $host (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasmbus" "__host_response_len" (func $length (result i32)))
  (import "wasmbus" "__host_response" (func $reply (param i32)))
  (import "wasmbus" "__host_error_len" (func $errorLength (result i32)))
  (import "wasmbus" "__host_error" (func $why (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "default")
  (data (i32.const 32) "wasmcloud:keyvalue")
  (data (i32.const 64) "KeyValue.Increment")
  (data (i32.const 96) "\82\a3key\b2counter::counter:x\a5value\01")
  (data (i32.const 256) "\83\a4body\91\00\a6header\80\aastatusCode\cc\c8")
  (data (i32.const 512) "\81\a7healthy\c3")
  (func (export "__guest_call") (param $op i32) (param $len i32) (result i32)
    (call $request (i32.const 1024) (i32.const 4096))
    (if (i32.eq (local.get $op) (i32.const 19))
      (then (call $response (i32.const 512) (i32.const 10)) (return (i32.const 1))))
    (if (i32.ne (call $host (i32.const 16) (i32.const 7) (i32.const 32) (i32.const 18) (i32.const 64) (i32.const 18) (i32.const 96) (i32.const 31)) (i32.const 1))
      (then
        (call $why (i32.const 4096))
        (call $error (i32.const 4096) (call $errorLength))
        (return (i32.const 0))))
    (if (i32.ne (call $length) (i32.const 1)) (then unreachable)) ;; a bare small integer
    (call $reply (i32.const 263)) ;; into the list
    (call $response (i32.const 256) (i32.const 29))
    (i32.const 1)))
