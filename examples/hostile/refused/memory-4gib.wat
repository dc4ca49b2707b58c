;; Declares 4 GiB of memory.
;; ends: refused: 
(module
  (memory (export "memory") 65536)
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32) (i32.const 1)))
