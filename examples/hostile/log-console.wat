;; Lines of 64 KiB to the log by __console_log, for ever.
;; ends: dead letter: time limit exceeded
(module
  (import "wasmbus" "__console_log" (func $console_log (param $at i32) (param $length i32)))
  (memory (export "memory") 2)
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (memory.fill (i32.const 0) (i32.const 97) (i32.const 65536))
    (loop $forever
      (call $console_log (i32.const 0) (i32.const 65536))
      (br $forever))
    (unreachable)))
