;; A host call with a payload of 4 GiB.
;; ends: dead letter: __host_call: 4294967295 bytes at 0x0 are outside
(module
  (import "wasmbus" "__host_call" (func $host_call
    (param $link i32) (param i32) (param $target i32) (param i32) (param $operation i32) (param i32) (param $payload i32) (param i32)
    (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "wasmcloud:keyvalue" "KeyValue.Set")
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (call $host_call (i32.const 0) (i32.const 0)
      (i32.const 0) (i32.const 18) (i32.const 18) (i32.const 12) (i32.const 0) (i32.const -1))))
