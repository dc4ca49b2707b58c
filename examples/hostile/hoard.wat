;; State, half a megabyte at a time, until it is refused.
;; ends: dead letter: unreachable | time limit exceeded
(module
  (import "wasmbus" "__host_call" (func $host_call
    (param $link i32) (param i32) (param $target i32) (param i32) (param $operation i32) (param i32) (param $payload i32) (param i32)
    (result i32)))
  (memory (export "memory") 16)
  (data (i32.const 0) "wasmcloud:keyvalue" "KeyValue.Set")
  (data (i32.const 64) "\82\a3key\a8########\a5value\db\00\08\00\00") ;; and 512 KiB of zeros
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
    (loop $more
      (call $number (i32.const 70))
      (br_if $more (call $host_call (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 18) (i32.const 18) (i32.const 12) (i32.const 64) (i32.const 524313))))
    (unreachable)))
