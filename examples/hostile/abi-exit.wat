;; Leaves by proc_exit in the middle of a call.
;; ends: dead letter: the guest exited with code 3
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param $code i32)))
  (memory (export "memory") 1)
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (call $exit (i32.const 3))
    (i32.const 1)))
