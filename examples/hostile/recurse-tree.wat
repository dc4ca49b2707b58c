;; Recursion without a loop that is never deep: fib(100), which takes ages.
;; ends: dead letter: time limit exceeded
(module
  (memory (export "memory") 1)
  (func $fib (param $n i64) (result i64)
    (if (i64.lt_u (local.get $n) (i64.const 2)) (then (return (local.get $n))))
    (i64.add (call $fib (i64.sub (local.get $n) (i64.const 1))) (call $fib (i64.sub (local.get $n) (i64.const 2)))))
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (i32.wrap_i64 (call $fib (i64.const 100)))))
