;; As many large responses as it can hand over in one call.
;; ends: dead letter: time limit exceeded
(module
  (import "wasmbus" "__guest_response" (func $response (param $at i32) (param $length i32)))
  (memory (export "memory") 64)
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (loop $forever
      (call $response (i32.const 0) (i32.const 0x400000))
      (br $forever))
    (unreachable)))
