;; fd_write of 65,536 vectors with 4 MiB each, for ever: a single host call that would write 256 GiB.
;; ends: dead letter: time limit exceeded
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write
    (param $file i32) (param $vectors i32) (param $count i32) (param $written i32) (result i32)))
  (memory (export "memory") 80)
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (local $i i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (loop $more ;; each vector is {0, 4 MiB}
      (i32.store (i32.add (i32.const 0x400000) (i32.mul (local.get $i) (i32.const 8))) (i32.const 0))
      (i32.store (i32.add (i32.const 0x400004) (i32.mul (local.get $i) (i32.const 8))) (i32.const 0x400000))
      (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 65536))))
    (loop $forever
      (drop (call $fd_write (i32.const 1) (i32.const 0x400000) (i32.const 65536) (i32.const 0x4f0000)))
      (br $forever))
    (unreachable)))
