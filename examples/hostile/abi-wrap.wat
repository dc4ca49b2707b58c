;; A response that begins at the end of the address space and ends at its beginning.
;; ends: dead letter: __guest_response: 32 bytes at 0xfffffff0 are outside
(module
  (import "wasmbus" "__guest_response" (func $response (param $at i32) (param $length i32)))
  (memory (export "memory") 1)
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (call $response (i32.const 0xfffffff0) (i32.const 32))
    (i32.const 1)))
