;; The corners of the guest ABI. The first letter of the operation says which one.
(module
  (import "wasmbus" "__guest_request" (func $request (param i32 i32)))
  (import "wasmbus" "__guest_response" (func $response (param i32 i32)))
  (import "wasmbus" "__guest_error" (func $error (param i32 i32)))
  (import "wasmbus" "__host_call" (func $host (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasmbus" "__host_response_len" (func $length (result i32)))
  (import "wasmbus" "__host_response" (func $reply (param i32)))
  (import "wasmbus" "__host_error_len" (func $errorLength (result i32)))
  (import "wasmbus" "__host_error" (func $why (param i32)))
  (import "wapc" "__console_log" (func $log (param i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 32) "why not")
  (data (i32.const 64) "wasmcloud:builtin:numbergen")
  (data (i32.const 96) "NumberGen.Random32")
  (data (i32.const 128) "fine")
  (data (i32.const 160) "\81\a7healthy\c3")
  ;; ask asks for a number; asking for something else fails.
  (func $ask (param $operationLength i32) (result i32)
    (call $host (i32.const 0) (i32.const 0) (i32.const 64) (i32.const 27) (i32.const 96) (local.get $operationLength) (i32.const 0) (i32.const 0)))
  (func $lengths
    (i32.store (i32.const 256) (call $length))
    (i32.store (i32.const 260) (call $errorLength))
    (call $response (i32.const 256) (i32.const 8)))
  (func (export "__guest_call") (param $op i32) (param $len i32) (result i32)
    (local $letter i32)
    (call $request (i32.const 1024) (i32.const 4096))
    (call $request (i32.const 1024) (i32.const 4096)) ;; twice is as good as once
    (local.set $letter (i32.load8_u (i32.const 1024)))
    (if (i32.eq (local.get $letter) (i32.const 0x41)) ;; A: health
      (then (call $response (i32.const 160) (i32.const 10)) (return (i32.const 1))))
    (if (i32.eq (local.get $letter) (i32.const 0x61)) ;; a: no response
      (then (return (i32.const 1))))
    (if (i32.eq (local.get $letter) (i32.const 0x62)) ;; b: no error
      (then (return (i32.const 0))))
    (if (i32.eq (local.get $letter) (i32.const 0x63)) ;; c: an error, and 1
      (then (call $error (i32.const 32) (i32.const 7)) (return (i32.const 1))))
    (if (i32.eq (local.get $letter) (i32.const 0x64)) ;; d: an error of the host that it does not look at
      (then
        (drop (call $ask (i32.const 5)))
        (call $response (i32.const 128) (i32.const 4))
        (return (i32.const 1))))
    (if (i32.eq (local.get $letter) (i32.const 0x65)) ;; e: neither 0 nor 1
      (then (return (i32.const 2))))
    (if (i32.eq (local.get $letter) (i32.const 0x66)) ;; f: the result of a good call
      (then
        (i32.store (i32.const 256) (call $ask (i32.const 18)))
        (call $response (i32.const 256) (i32.const 4))
        (return (i32.const 1))))
    (if (i32.eq (local.get $letter) (i32.const 0x67)) ;; g: the result of a bad call
      (then
        (i32.store (i32.const 256) (call $ask (i32.const 5)))
        (call $response (i32.const 256) (i32.const 4))
        (return (i32.const 1))))
    (if (i32.eq (local.get $letter) (i32.const 0x68)) ;; h: what is in the slots at the beginning
      (then (call $lengths) (return (i32.const 1))))
    (if (i32.eq (local.get $letter) (i32.const 0x69)) ;; i: what a good call leaves in them after a bad one
      (then (drop (call $ask (i32.const 5))) (drop (call $ask (i32.const 18))) (call $lengths) (return (i32.const 1))))
    (if (i32.eq (local.get $letter) (i32.const 0x6a)) ;; j: and a bad one after a good one
      (then (drop (call $ask (i32.const 18))) (drop (call $ask (i32.const 5))) (call $lengths) (return (i32.const 1))))
    (if (i32.eq (local.get $letter) (i32.const 0x6b)) ;; k: of two responses the last one counts
      (then
        (call $response (i32.const 32) (i32.const 7))
        (call $response (i32.const 128) (i32.const 4))
        (return (i32.const 1))))
    (if (i32.eq (local.get $letter) (i32.const 0x6c)) ;; l: nothing, from nowhere
      (then
        (call $log (i32.const -1) (i32.const 0))
        (call $log (i32.const -1) (i32.const -1)) ;; never fails
        (call $reply (i32.const -1))
        (call $why (i32.const -1))
        (call $response (i32.const -1) (i32.const 0))
        (return (i32.const 1))))
    (if (i32.eq (local.get $letter) (i32.const 0x6d)) ;; m: a response that is not all there
      (then (call $response (i32.const 65535) (i32.const 2)) (return (i32.const 1))))
    (if (i32.eq (local.get $letter) (i32.const 0x6e)) ;; n: a length that wraps around
      (then (call $response (i32.const 32) (i32.const -1)) (return (i32.const 1))))
    (if (i32.eq (local.get $letter) (i32.const 0x6f)) ;; o: says something, and traps
      (then (call $log (i32.const 32) (i32.const 7)) (unreachable)))
    (if (i32.eq (local.get $letter) (i32.const 0x70)) ;; p: an error that is no text
      (then (call $error (i32.const 160) (i32.const 10)) (return (i32.const 0))))
    (call $error (i32.const 32) (i32.const 7))
    (i32.const 0)))
