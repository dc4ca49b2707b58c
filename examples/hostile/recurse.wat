;; A function that calls itself for ever.
;; ends: dead letter: stack overflow | time limit exceeded
(module
  (memory (export "memory") 1)
  (func $again (param $n i32) (result i32)
    (i32.add (call $again (i32.add (local.get $n) (i32.const 1))) (i32.const 1)))
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (call $again (i32.const 1))))
