;; Traps in wapc_init, which runs when an instance is made.
;; ends: refused: unreachable
(module
  (memory (export "memory") 1)
  (func (export "wapc_init") (unreachable))
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32) (i32.const 1)))
