;; A module of the time before: its __host_call has four parameters.
(module
  (import "wapc" "__guest_request" (func (param i32 i32)))
  (import "wapc" "__host_call" (func (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "__guest_call") (param i32 i32) (result i32) (i32.const 1)))
