;; Lines by the logging capability, for ever.
;; ends: dead letter: time limit exceeded
(module
  (import "wasmbus" "__host_call" (func $host_call
    (param $link i32) (param i32) (param $target i32) (param i32) (param $operation i32) (param i32) (param $payload i32) (param i32)
    (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "wasmcloud:builtin:logging" "Logging.WriteLog" "\82\a5level\a4info\a4text\bfa line of thirty-one characters")
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (loop $forever
      (drop (call $host_call (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 25) (i32.const 25) (i32.const 16) (i32.const 41) (i32.const 49)))
      (br $forever))
    (unreachable)))
