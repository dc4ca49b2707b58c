;; Traps in _start, which runs when an instance is made.
;; ends: refused: unreachable
(module
  (memory (export "memory") 1)
  (func (export "_start") (unreachable))
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32) (i32.const 1)))
