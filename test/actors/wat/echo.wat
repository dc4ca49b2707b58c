;; An HTTP echo as Rust made it in 2022: it imports the three functions it needs and no more, and answers every request
;; with status 200 and the request itself as the body.
(module
  (import "wasmbus" "__guest_request" (func $request (param i32 i32)))
  (import "wasmbus" "__guest_response" (func $response (param i32 i32)))
  (import "wasmbus" "__guest_error" (func $error (param i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 1024) "\83\aastatusCode\cc\c8\a6header\80\a4body\c5")
  (data (i32.const 512) "\81\a7healthy\c3")
  (global $body i32 (i32.const 1052)) ;; where the length goes
  (func (export "__wasmbus_rpc_version") (result i32) (i32.const 1))
  (func (export "__guest_call") (param $op i32) (param $len i32) (result i32)
    (call $request (i32.const 0) (i32.const 1054))
    (if (i32.eq (local.get $op) (i32.const 19)) ;; Actor.HealthRequest
      (then
        ;; As serde has it: no bytes at all are no request.
        (if (i32.eqz (local.get $len))
          (then (call $error (i32.const 0) (i32.const 19)) (return (i32.const 0))))
        (call $response (i32.const 512) (i32.const 10))
        (return (i32.const 1))))
    (i32.store8 (global.get $body) (i32.shr_u (local.get $len) (i32.const 8)))
    (i32.store8 offset=1 (global.get $body) (local.get $len))
    (call $response (i32.const 1024) (i32.add (local.get $len) (i32.const 30)))
    (i32.const 1)))
