package main

import "github.com/spf13/cobra"

func newProvider() *cobra.Command {
	return group("provider", "Capability providers", newProviderTest())
}
