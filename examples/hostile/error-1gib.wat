;; An error text of 1 GiB, of which it has 64 KiB.
;; ends: dead letter: __guest_error: 1073741824 bytes at 0x0 are outside
(module
  (import "wasmbus" "__guest_error" (func $error (param $at i32) (param $length i32)))
  (memory (export "memory") 1)
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (call $error (i32.const 0) (i32.const 0x40000000))
    (i32.const 0)))
