;; Quick steps, so that it is given many, and then loads that each wait for the one before and for memory that no cache
;; has: as slow as steps can be.
;; ends: dead letter: time limit exceeded
(module
  (memory (export "memory") 65)
  (func $chase (param $at i32) (result i32)
    (i32.load (i32.load (i32.load (i32.load (i32.load (i32.load (i32.load (i32.load
    (i32.load (i32.load (i32.load (i32.load (i32.load (i32.load (i32.load (i32.load
    (i32.load (i32.load (i32.load (i32.load (i32.load (i32.load (i32.load (i32.load
      (local.get $at))))))))))))))))))))))))))
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (local $i i32) (local $at i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (loop $link ;; each line of 64 bytes has the address of another one, in an order that nobody guesses
      (i32.store (i32.shl (local.get $i) (i32.const 6))
        (i32.shl (i32.and (i32.add (i32.mul (local.get $i) (i32.const 1664525)) (i32.const 1013904223)) (i32.const 65535)) (i32.const 6)))
      (br_if $link (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 65536))))
    (loop $forever
      (local.set $i (i32.const 0))
      (loop $quick
        (br_if $quick (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 300000))))
      (local.set $i (i32.const 0))
      (loop $slow
        (local.set $at (call $chase (local.get $at)))
        (br_if $slow (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 40000))))
      (br $forever))
    (unreachable)))
