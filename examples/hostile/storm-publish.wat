;; Publishes without end in one turn.
;; ends: dead letter: time limit exceeded
(module
  (import "wasmbus" "__host_call" (func $host_call
    (param $link i32) (param i32) (param $target i32) (param i32) (param $operation i32) (param i32) (param $payload i32) (param i32)
    (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "edged:pubsub" "PubSub.Publish")
  (data (i32.const 64) "\82\a5topic\a5flood\a5event\84\a2id\a8########\a6source\a5flood\a4type\a5flood\a4data\c5\04\00") ;; and 1024 bytes
  ;; Writes a name at an address, another one each time: letters over what stands there.
  (global $count (mut i32) (i32.const 0))
  (func $number (param $at i32)
    (local $rest i32)
    (global.set $count (i32.add (global.get $count) (i32.const 1)))
    (local.set $rest (global.get $count))
    (loop $letter
      (i32.store8 (local.get $at) (i32.add (i32.const 97) (i32.and (local.get $rest) (i32.const 15))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $letter (local.tee $rest (i32.shr_u (local.get $rest) (i32.const 4))))))
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (loop $forever
      (call $number (i32.const 88)) ;; the id of the event
      (drop (call $host_call (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 12) (i32.const 12) (i32.const 14) (i32.const 64) (i32.const 1088)))
      (br $forever))
    (unreachable)))
