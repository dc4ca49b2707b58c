;; Answers a ping, and knows no other operation.
(module
  (import "wasmbus" "__guest_request" (func $request (param i32 i32)))
  (import "wasmbus" "__guest_response" (func $response (param i32 i32)))
  (import "wasmbus" "__guest_error" (func $error (param i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 32) "\a4pong")
  (data (i32.const 64) "Guest call failed for method: method not handled - unknown method")
  (func (export "__guest_call") (param $op i32) (param $len i32) (result i32)
    (call $request (i32.const 1024) (select (i32.const 4096) (i32.const -1) (local.get $len))) ;; no bytes may be anywhere
    (if (i32.ne (local.get $op) (i32.const 13))
      (then (call $error (i32.const 64) (i32.const 65)) (return (i32.const 0))))
    (call $response (i32.const 32) (i32.const 5))
    (i32.const 1)))
