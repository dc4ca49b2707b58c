;; Takes the answer of a host call that it never made, to an address that it does not have: no bytes fit anywhere.
;; ends: handled
(module
  (import "wasmbus" "__host_response_len" (func $host_response_length (result i32)))
  (import "wasmbus" "__host_response" (func $host_response (param $at i32)))
  (import "wasmbus" "__host_error_len" (func $host_error_length (result i32)))
  (import "wasmbus" "__host_error" (func $host_error (param $at i32)))
  (memory (export "memory") 1)
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (if (i32.or (call $host_response_length) (call $host_error_length)) (then (return (i32.const 0))))
    (call $host_response (i32.const 0))
    (call $host_error (i32.const 0))
    (call $host_response (i32.const 0x10001))
    (i32.const 1)))
