;; Writes state, publishes a message on the topic "undone", and traps: neither may ever be seen.
;; ends: dead letter: integer divide by zero
(module
  (import "wasmbus" "__host_call" (func $host_call
    (param $link i32) (param i32) (param $target i32) (param i32) (param $operation i32) (param i32) (param $payload i32) (param i32)
    (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "wasmcloud:keyvalue" "KeyValue.Increment" "\82\a3key\a6undone\a5value\01")
  (data (i32.const 64) "edged:pubsub" "PubSub.Publish")
  (data (i32.const 96) "\82\a5topic\a6undone\a5event\84\a2id\a1u\a6source\a1u\a4type\a1u\a4data\c4\01u")
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (if (i32.eqz (call $host_call (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 18) (i32.const 18) (i32.const 18) (i32.const 36) (i32.const 19)))
      (then (return (i32.const 0))))
    (if (i32.eqz (call $host_call (i32.const 0) (i32.const 0)
        (i32.const 64) (i32.const 12) (i32.const 76) (i32.const 14) (i32.const 96) (i32.const 50)))
      (then (return (i32.const 0))))
    (i32.div_u (local.get $operation) (i32.const 0))))
