//go:build !unix

package runtime

func tryLock(string) (unlock func(), ok bool, err error) { return func() {}, true, nil }
