;; Two responses: the second one counts.
;; ends: handled
(module
  (import "wasmbus" "__guest_response" (func $response (param $at i32) (param $length i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "\81\a6action\a6reject")
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (call $response (i32.const 16) (i32.const 16))
    (call $response (i32.const 0) (i32.const 0))
    (i32.const 1)))
