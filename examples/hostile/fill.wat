;; A loop around one instruction that fills 4 MiB of memory: few steps, much work.
;; ends: dead letter: time limit exceeded
(module
  (memory (export "memory") 64)
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (loop $forever
      (memory.fill (i32.const 0) (i32.const 1) (i32.const 0x400000))
      (memory.copy (i32.const 1) (i32.const 0) (i32.const 0x3fffff))
      (br $forever))
    (unreachable)))
