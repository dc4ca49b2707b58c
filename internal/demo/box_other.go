//go:build !linux

package demo

import "syscall"

// ownGroup lets a child have a process group of its own.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
