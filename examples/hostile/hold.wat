;; Counts under a key that its other turns count under, and never ends the turn.
;; ends: dead letter: time limit exceeded
(module
  (import "wasmbus" "__host_call" (func $host_call
    (param $link i32) (param i32) (param $target i32) (param i32) (param $operation i32) (param i32) (param $payload i32) (param i32)
    (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "wasmcloud:keyvalue" "KeyValue.Increment" "\82\a3key\a3hot\a5value\01")
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (drop (call $host_call (i32.const 0) (i32.const 0)
      (i32.const 0) (i32.const 18) (i32.const 18) (i32.const 18) (i32.const 36) (i32.const 16)))
    (loop $forever (br $forever))
    (unreachable)))
