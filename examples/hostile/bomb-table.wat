;; Tables that grow until it is refused: they are not in the linear memory.
;; ends: dead letter: unreachable | time limit exceeded
(module
  (memory (export "memory") 1)
  (table $a 1 funcref)
  (table $b 1 funcref)
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (loop $more
      (br_if $more (i32.ne (table.grow $a (ref.null func) (i32.const 4096)) (i32.const -1))))
    (loop $more
      (br_if $more (i32.ne (table.grow $b (ref.null func) (i32.const 4096)) (i32.const -1))))
    (unreachable)))
