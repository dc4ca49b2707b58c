;; Makes whatever host call it is asked for. The payload is three lengths of a byte each, binding, namespace and
;; operation one after the other, and the rest. It answers with the reply, or with the host's error as its own; an
;; operation of six letters, Regret, fails after a call that went well.
(module
  (import "wasmbus" "__guest_request" (func $request (param i32 i32)))
  (import "wasmbus" "__guest_response" (func $response (param i32 i32)))
  (import "wasmbus" "__guest_error" (func $error (param i32 i32)))
  (import "wasmbus" "__host_call" (func $host (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasmbus" "__host_response_len" (func $length (result i32)))
  (import "wasmbus" "__host_response" (func $reply (param i32)))
  (import "wasmbus" "__host_error_len" (func $errorLength (result i32)))
  (import "wasmbus" "__host_error" (func $why (param i32)))
  (memory (export "memory") 4)
  (func (export "__guest_call") (param $op i32) (param $len i32) (result i32)
    (local $binding i32) (local $namespace i32) (local $operation i32) (local $payload i32)
    (call $request (i32.const 0) (i32.const 1024))
    (if (i32.eq (local.get $op) (i32.const 19)) (then (return (i32.const 1)))) ;; health
    (local.set $binding (i32.const 1027))
    (local.set $namespace (i32.add (local.get $binding) (i32.load8_u (i32.const 1024))))
    (local.set $operation (i32.add (local.get $namespace) (i32.load8_u (i32.const 1025))))
    (local.set $payload (i32.add (local.get $operation) (i32.load8_u (i32.const 1026))))
    (if (i32.eq (i32.const 1)
          (call $host
            (local.get $binding) (i32.load8_u (i32.const 1024))
            (local.get $namespace) (i32.load8_u (i32.const 1025))
            (local.get $operation) (i32.load8_u (i32.const 1026))
            (local.get $payload) (i32.sub (i32.add (i32.const 1024) (local.get $len)) (local.get $payload))))
      (then
        (if (i32.eq (local.get $op) (i32.const 6)) (then (return (i32.const 0))))
        (call $reply (i32.const 131072))
        (call $response (i32.const 131072) (call $length))
        (return (i32.const 1))))
    (call $why (i32.const 131072))
    (call $error (i32.const 131072) (call $errorLength))
    (i32.const 0)))
