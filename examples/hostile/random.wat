;; Four megabytes of random bytes, again and again: long host functions, few steps.
;; ends: dead letter: time limit exceeded
(module
  (import "wasi_snapshot_preview1" "random_get" (func $random (param $at i32) (param $length i32) (result i32)))
  (memory (export "memory") 64)
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (loop $forever
      (drop (call $random (i32.const 0) (i32.const 0x400000)))
      (br $forever))
    (unreachable)))
