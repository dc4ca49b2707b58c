;; Two functions that call each other for ever.
;; ends: dead letter: stack overflow | time limit exceeded
(module
  (memory (export "memory") 1)
  (func $tick (param $n i32) (result i32) (i32.add (call $tock (local.get $n)) (i32.const 1)))
  (func $tock (param $n i32) (result i32) (i32.add (call $tick (local.get $n)) (i32.const 1)))
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (call $tick (i32.const 1))))
