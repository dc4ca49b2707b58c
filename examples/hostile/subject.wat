;; Publishes on a subject of 60,000 bytes: the box sends for all actors over one connection, and its NATS server ends one
;; that sends such a line.
;; ends: handled
(module
  (import "wasmbus" "__host_call" (func $host_call
    (param $link i32) (param i32) (param $target i32) (param i32) (param $operation i32) (param i32) (param $payload i32) (param i32)
    (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "wasmcloud:messaging" "Messaging.Publish")
  (data (i32.const 64) "\83\a7subject\db\00\00\ea`") ;; the subject, and behind it
  (data (i32.const 60078) "\a7replyTo\a0\a4body\c4\00")
  (func (export "__guest_call") (param $operation i32) (param $payload i32) (result i32)
    (if (i32.eq (local.get $operation) (i32.const 19)) ;; Actor.HealthRequest: all is well
      (then (return (i32.const 1))))
    (memory.fill (i32.const 78) (i32.const 120) (i32.const 60000))
    (if (call $host_call (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 19) (i32.const 19) (i32.const 17) (i32.const 64) (i32.const 60030))
      (then (unreachable))) ;; it is refused
    (i32.const 1)))
