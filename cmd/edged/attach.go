package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/node"
)

func newProviderAttach() *cobra.Command {
	var cfg, creds, config string
	var a node.AttachRequest
	cmd := &cobra.Command{
		Use: "attach KEY", Short: "Make known a provider that somebody else starts", Args: usage(cobra.ExactArgs(1)),
		Long: `Make known a provider that somebody else starts, and print the line that goes to its
standard input. The line has secrets: the login of the provider and the key that it
signs with. The box never starts or stops such a provider, but follows its health and
tells it of links, also after a restart, until it is detached. Attached again, it gets
another line, and the one before is worth nothing.

The provider connects to the NATS listener of the box, or, with --server, to another
server of the lattice such as the hub, with credentials of that one.`,
		Example: `  edged provider attach VDWU… --contract acme:modbus --name press | ./modbus
  edged provider attach VDWU… --contract acme:modbus --server nats://hub.example.com:4222 --creds modbus.creds > line`,
		RunE: func(cmd *cobra.Command, args []string) error {
			a.Key = args[0]
			if a.OwnInbox && a.URL != "" {
				return usageError{errors.New("--own-inbox is not for a --server: what the provider may read there is up to the permissions of its login")}
			}
			if err := loginOf(&a, creds); err != nil {
				return err
			}
			if config != "" {
				text, err := os.ReadFile(config)
				if err != nil {
					return err
				}
				a.Config = string(text)
			}
			b, err := findBox(cfg)
			if err != nil {
				return err
			}
			var line node.Attached
			if err := b.send(cmd.Context(), http.MethodPost, "/providers", &a, &line); err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), line.Line)
			return err
		},
	}
	configFlag(cmd, &cfg)
	cmd.Flags().StringVar(&a.Contract, "contract", "", "contract that it serves (required)")
	cmd.Flags().StringVar(&a.LinkName, "link-name", "default", "link name that it serves")
	cmd.Flags().StringVar(&a.Name, "name", "", "name for people")
	cmd.Flags().StringVar(&config, "configuration", "", "file with what it is configured with (config_json of its host data)")
	cmd.Flags().StringVar(&a.URL, "server", "", "URL of the NATS server that it connects to, where that is not the box")
	cmd.Flags().StringVar(&creds, "creds", "", "credentials file for that server")
	cmd.Flags().BoolVar(&a.ClusterSeed, "cluster-seed", false, "let it sign with the key of the cluster: it can then call actors on other boxes, and speak for anybody")
	cmd.Flags().BoolVar(&a.OwnInbox, "own-inbox", false, "keep it from the inboxes of others, where its kit takes its own from the line, as those of edged do; not with --server, whose permissions decide")
	_ = cmd.MarkFlagRequired("contract")
	_ = cmd.MarkFlagFilename("configuration")
	_ = cmd.MarkFlagFilename("creds", "creds")
	return cmd
}

// loginOf takes the login for another server from a credentials file.
func loginOf(a *node.AttachRequest, creds string) error {
	if creds == "" {
		return nil
	}
	if a.URL == "" {
		return usageError{errors.New("--creds is for a --server")}
	}
	text, err := os.ReadFile(creds)
	if err != nil {
		return err
	}
	part := func(what string) string {
		_, rest, _ := strings.Cut(string(text), "-----BEGIN "+what+"-----")
		body, _, _ := strings.Cut(rest, "------END "+what)
		return strings.TrimSpace(body)
	}
	if a.JWT, a.Seed = part("NATS USER JWT"), part("USER NKEY SEED"); a.JWT == "" || a.Seed == "" {
		return fmt.Errorf("%s is not a credentials file of NATS, with the JWT and the seed of a user", creds)
	}
	return nil
}

func newProviderDetach() *cobra.Command {
	var cfg, link string
	cmd := &cobra.Command{
		Use: "detach KEY", Short: "Forget a provider that was attached", Args: usage(cobra.ExactArgs(1)),
		Long:    "Forget a provider that was attached. Its line is worth nothing any more; its links stay.",
		Example: "  edged provider detach VDWU…",
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := findBox(cfg)
			if err != nil {
				return err
			}
			return b.do(cmd.Context(), http.MethodDelete, "/providers/"+url.PathEscape(args[0])+"/"+url.PathEscape(link), &struct{}{})
		},
	}
	configFlag(cmd, &cfg)
	cmd.Flags().StringVar(&link, "link-name", "default", "link name that it serves")
	return cmd
}
