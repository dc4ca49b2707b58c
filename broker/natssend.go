package broker

import (
	_ "unsafe" // for go:linkname

	"github.com/nats-io/nats-server/v2/server"
)

// sendAs publishes in an account as the server itself. A client may not name a
// reply subject under $JS.ACK, and nats-server has no exported way to send one
// in the place of JetStream, which is what its clients acknowledge to
// (docs/decisions/0007-consumers-without-jetstream.md). TestPull_client fails
// if a new nats-server has it differently; look at its signature then.
//
//go:linkname sendAs github.com/nats-io/nats-server/v2/server.(*Server).sendInternalAccountMsgWithReply
func sendAs(s *server.Server, a *server.Account, subject, reply string, header []byte, data any, echo bool) error
