;; Recursion by tail calls, which takes no stack. Tail calls are not among what modules may use here.
;; ends: refused: invalid module
(module
  (memory (export "memory") 1)
  (func $again (param $n i32) (result i32) (return_call $again (local.get $n)))
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (return_call $again (i32.const 1))))
