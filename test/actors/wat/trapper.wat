;; Fails at whatever it is given: with a word on the console and a trap in a function that has a name, or, where the
;; payload is empty, without end.
(module
  (import "wasmbus" "__guest_request" (func $request (param i32 i32)))
  (import "wasmbus" "__console_log" (func $log (param i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 32) "the lid is stuck")
  (func $open_the_box (param $lid i32) (result i32)
    (call $log (i32.const 32) (i32.const 16))
    (i32.load (i32.const -8)))
  (func $wait (loop $again (br $again)))
  (func $__guest_call (export "__guest_call") (param $op i32) (param $len i32) (result i32)
    (call $request (i32.const 1024) (i32.const 4096))
    (if (i32.eq (local.get $op) (i32.const 19)) (then (return (i32.const 1)))) ;; health
    (if (i32.eqz (local.get $len)) (then (call $wait)))
    (call $open_the_box (local.get $len))))
