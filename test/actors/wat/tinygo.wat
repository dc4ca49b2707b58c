;; Has the shape of what TinyGo 0.35 and later makes: WASI for printing and leaving, main exported as _start, which ends
;; by proc_exit(0). It serves only if _start has run.
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasmbus" "__guest_request" (func $request (param i32 i32)))
  (import "wasmbus" "__guest_response" (func $response (param i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 32) "main has run\n")
  (data (i32.const 64) "\20\00\00\00\0d\00\00\00") ;; what to write, and its length
  (data (i32.const 128) "\82\a7healthy\c3\a7message\a0")
  (global $ready (mut i32) (i32.const 0))
  (func (export "_start")
    (drop (call $write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 96)))
    (global.set $ready (i32.const 1))
    (call $exit (i32.const 0))
    unreachable)
  (func (export "__guest_call") (param $op i32) (param $len i32) (result i32)
    (if (i32.eqz (global.get $ready)) (then unreachable))
    (call $request (i32.const 1024) (i32.const 4096))
    (call $response (i32.const 128) (i32.const 19))
    (i32.const 1)))
