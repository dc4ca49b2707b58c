;; Counts under one key, for a moment too long: with several messages at once its turns make each other lose until
;; they may run alone, and then it never ends.
;; ends: handled, or dead letter: time limit exceeded
(module
  (import "wasmbus" "__host_call" (func $host_call
    (param $link i32) (param i32) (param $target i32) (param i32) (param $operation i32) (param i32) (param $payload i32) (param i32)
    (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "wasmcloud:keyvalue" "KeyValue.Increment" "\82\a3key\a3hot\a5value\01")
  (global $calls (mut i32) (i32.const 0))
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (local $i i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (drop (call $host_call (i32.const 0) (i32.const 0)
      (i32.const 0) (i32.const 18) (i32.const 18) (i32.const 18) (i32.const 36) (i32.const 16)))
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (loop $moment
      (br_if $moment (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 2000000))))
    (loop $forever (br_if $forever (i32.gt_u (global.get $calls) (i32.const 3))))
    (i32.const 1)))
