;; Never comes out of _initialize.
;; ends: refused: time limit exceeded
(module
  (memory (export "memory") 1)
  (func (export "_initialize") (loop $forever (br $forever)))
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32) (i32.const 1)))
