;; Never answers when it is asked for its health.
;; ends: refused: time limit exceeded
(module
  (memory (export "memory") 1)
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (loop $forever (br $forever))
    (unreachable)))
