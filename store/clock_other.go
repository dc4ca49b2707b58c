//go:build !linux

package store

func kernelSynced() bool { return false }
