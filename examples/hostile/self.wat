;; Calls itself by its own key, which calls itself by its own key.
;; ends: dead letter: all instances are held by calls that wait for one another | calls are nested too deeply | memory for actors is used up | time limit exceeded
(module
  (import "wasmbus" "__host_call" (func $host_call
    (param $link i32) (param i32) (param $target i32) (param i32) (param $operation i32) (param i32) (param $payload i32) (param i32)
    (result i32)))
  (import "wasmbus" "__host_error_len" (func $host_error_length (result i32)))
  (import "wasmbus" "__host_error" (func $host_error (param $at i32)))
  (import "wasmbus" "__guest_error" (func $error (param $at i32) (param $length i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "hostile/self")
  (data (i32.const 16) "PubSub.OnMessage")
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (if (call $host_call (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 12) (i32.const 16) (i32.const 16) (i32.const 0) (i32.const 0))
      (then (return (i32.const 1))))
    (call $host_error (i32.const 64))
    (call $error (i32.const 64) (call $host_error_length))
    (i32.const 0)))
