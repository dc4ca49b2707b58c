;; A function that calls itself by a table for ever.
;; ends: dead letter: stack overflow | time limit exceeded
(module
  (memory (export "memory") 1)
  (table funcref (elem $again))
  (type $same (func (param i32) (result i32)))
  (func $again (type $same)
    (i32.add (call_indirect (type $same) (local.get 0) (i32.const 0)) (i32.const 1)))
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (call $again (i32.const 1))))
