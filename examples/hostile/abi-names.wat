;; Link, contract, operation and payload of 7 MiB each.
;; ends: dead letter: a name of 7274496 bytes, at most 4096
(module
  (import "wasmbus" "__host_call" (func $host_call
    (param $link i32) (param i32) (param $target i32) (param i32) (param $operation i32) (param i32) (param $payload i32) (param i32)
    (result i32)))
  (memory (export "memory") 112)
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (loop $forever
      (drop (call $host_call
        (i32.const 0) (i32.const 0x6f0000) (i32.const 0) (i32.const 0x6f0000) (i32.const 0) (i32.const 0x6f0000) (i32.const 0) (i32.const 0x6f0000)))
      (br $forever))
    (unreachable)))
