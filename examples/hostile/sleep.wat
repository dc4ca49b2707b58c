;; Sleeps for an hour by poll_oneoff.
;; ends: dead letter: time limit exceeded
(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll
    (param $subscriptions i32) (param $events i32) (param $count i32) (param $happened i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (i64.store (i32.const 24) (i64.const 3600000000000)) ;; a relative timeout, in nanoseconds
    (i32.store (i32.const 16) (i32.const 1))             ;; of the monotonic clock
    (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))
    (unreachable)))
