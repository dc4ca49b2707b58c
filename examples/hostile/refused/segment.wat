;; A data segment behind the end of the memory.
;; ends: refused: 
(module
  (memory (export "memory") 1)
  (data (i32.const 0x10000) "nobody will ever read this")
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32) (i32.const 1)))
