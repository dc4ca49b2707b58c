;; Traps in the start function of the module.
;; ends: refused: unreachable
(module
  (memory (export "memory") 1)
  (start $begin)
  (func $begin (unreachable))
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32) (i32.const 1)))
