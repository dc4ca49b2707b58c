;; Megabytes that are only line feeds to __console_log and to stderr: nothing to log, much to look through.
;; ends: dead letter: time limit exceeded
(module
  (import "wasmbus" "__console_log" (func $console_log (param $at i32) (param $length i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write
    (param $file i32) (param $vectors i32) (param $count i32) (param $written i32) (result i32)))
  (memory (export "memory") 64)
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (memory.fill (i32.const 64) (i32.const 10) (i32.const 0x3f0000))
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const 0x3f0000))
    (loop $forever
      (call $console_log (i32.const 64) (i32.const 0x3f0000))
      (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))
      (br $forever))
    (unreachable)))
