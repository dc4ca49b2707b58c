package main

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/sdk/go/provider"
)

// echoProvider is the command echo-provider: a provider of Echo.Echo, which answers with
// what it got.
func echoProvider() {
	provider.Main(func(*provider.Host) (provider.Provider, error) { return echo{}, nil })
}

type echo struct{}

func (echo) PutLink(context.Context, provider.Link) error    { return nil }
func (echo) DeleteLink(context.Context, provider.Link) error { return nil }

func (echo) Call(_ context.Context, inv provider.Invocation) ([]byte, error) {
	if inv.Operation != "Echo.Echo" || inv.Link.Values["greeting"] != "hello" {
		return nil, provider.ErrUnknown
	}
	return inv.Payload, nil
}

// scriptArchive writes a script that runs a program into a provider archive:
// programarchive FILE PROGRAM CONTRACT [SEED], signed by the account in the file SEED, or by one that nobody knows.
func scriptArchive(ts *testscript.TestScript, _ bool, args []string) {
	path, err := exec.LookPath(args[1])
	ts.Check(err)
	script := ts.MkAbs("script.sh")
	ts.Check(os.WriteFile(script, []byte("#!/bin/sh\nexec "+path+"\n"), 0o600))
	account, err := claims.Generate(claims.Account)
	ts.Check(err)
	if len(args) > 3 {
		account, err = claims.ParseSeed(strings.TrimSpace(ts.ReadFile(args[3])))
		ts.Check(err)
	}
	key, err := claims.Generate(claims.Service)
	ts.Check(err)
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	c := claims.Claims[claims.ProviderClaims]{Subject: key.Key().String(), Wascap: claims.ProviderClaims{Name: "echo", Contract: args[2], Vendor: "test"}}
	ts.Check(claims.WriteArchive(f, c, map[string]string{claims.Targets(runtime.GOOS, runtime.GOARCH)[0]: script}, account))
	ts.Check(f.Close())
}
