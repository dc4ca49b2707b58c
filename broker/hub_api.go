package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// Names on the hub, which hub init creates.
const (
	streamUp        = "EDGE_UP"
	streamDown      = "EDGE_DOWN"
	bucketDesired   = "EDGE_DESIRED"
	bucketReported  = "EDGE_REPORTED"
	bucketArtifacts = "EDGE_ARTIFACTS"

	subjectUp   = "edge.up."
	subjectDown = "edge.down."
)

// Headers of a message in a lane.
const (
	headerEpoch     = "Edged-Epoch"
	headerSeq       = "Edged-Seq"
	headerTime      = "Edged-Time"
	headerTombstone = "Edged-Tombstone"
	headerSubject   = "Edged-Subject"
)

// headerOrigin is on a message to boxes that was copied from one hub to another.
const headerOrigin = "Edged-Origin"

// Codes of JetStream that are answered in different ways.
const (
	codeWrongLastSequence         = 10071
	codeWrongLastSequenceConstant = 10164
	codeBatchIncomplete           = 10176
	codeBatchTooLarge             = 10199
	codeBatchDisabled             = 10174
	codeMessageTooLarge           = 10054
	codeHeaderTooLarge            = 10097
	codeAccountLimits             = 10002
	codeSealed                    = 10109
	codeNoMessage                 = 10037
	codeStreamNotFound            = 10059
)

var (
	// errHubSilent: nobody answered in time, or nobody listens. What was sent
	// may have arrived or not.
	errHubSilent = errors.New("the hub does not answer")
	// errLinkChanged ends what is under way when the link goes down.
	errLinkChanged = errors.New("the link went down")
	errHubAnswer   = errors.New("the hub's answer makes no sense")
)

// hubError is a refusal by the hub's JetStream.
type hubError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *hubError) Error() string {
	return fmt.Sprintf("hub: %.200s (%d)", e.Description, e.ErrCode)
}

// hubAPI speaks to the JetStream of the hub over a connection in the LINK
// account. It may be used by many goroutines.
type hubAPI struct {
	nc      *nats.Conn
	prefix  string // "$JS.hub.API."
	timeout time.Duration
}

// apiPrefix is where the JetStream API of a domain is; "" is the domain of the
// hub itself.
func apiPrefix(domain string) string {
	if domain == "" {
		return "$JS.API."
	}
	return "$JS." + domain + ".API."
}

// hubStream is what a pump needs to know of a stream of the hub.
type hubStream struct {
	created     time.Time // its identity: another time is another stream
	first, last uint64
	maxMsg      int // bytes of a message with its headers; 0 if not set
	atomic      bool
	direct      bool
}

// hubLast is the last message of a lane, as the hub has it.
type hubLast struct {
	hubSeq    uint64
	epoch     string
	seq       uint64
	time      string
	tombstone bool
	data      []byte // nil if only its size was asked for
	size      int    // of the body
}

func (h *hubAPI) request(ctx context.Context, verb string, body []byte) (*nats.Msg, error) {
	wait, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	m, err := h.nc.RequestWithContext(wait, h.prefix+verb, body)
	switch {
	case err == nil:
		return m, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, nats.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("ask for %s: %w", verb, errHubSilent)
	}
	return nil, fmt.Errorf("ask for %s: %w", verb, err)
}

// stream asks for the state of a stream.
func (h *hubAPI) stream(ctx context.Context, name string) (hubStream, error) {
	m, err := h.request(ctx, "STREAM.INFO."+name, nil)
	if err != nil {
		return hubStream{}, err
	}
	s, err := parseStreamInfo(m.Data)
	if isCode(err, codeStreamNotFound) {
		return s, fmt.Errorf("the hub has no stream %s; edged hub init makes it: %w", name, err)
	}
	if err != nil {
		return s, fmt.Errorf("stream %s: %w", name, err)
	}
	return s, nil
}

func parseStreamInfo(data []byte) (hubStream, error) {
	var r struct {
		Error  *hubError `json:"error"`
		Config *struct {
			MaxMsgSize int  `json:"max_msg_size"`
			Atomic     bool `json:"allow_atomic"`
			Direct     bool `json:"allow_direct"`
		} `json:"config"`
		Created time.Time `json:"created"`
		State   struct {
			First uint64 `json:"first_seq"`
			Last  uint64 `json:"last_seq"`
		} `json:"state"`
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return hubStream{}, fmt.Errorf("%w: %w", errHubAnswer, err)
	}
	if r.Error != nil {
		return hubStream{}, r.Error
	}
	if r.Config == nil || r.Created.IsZero() {
		return hubStream{}, errHubAnswer
	}
	return hubStream{
		created: r.Created.UTC(), first: r.State.First, last: r.State.Last,
		maxMsg: max(0, r.Config.MaxMsgSize), atomic: r.Config.Atomic, direct: r.Config.Direct,
	}, nil
}

// last asks for the last message of EDGE_UP that matches filter, which may end
// in ">". ok is false if there is none.
//
// A direct get is preferred, because its subject names the lane and the hub can
// keep a box to its own. Any replica answers it, so the answer may be old. It
// is never newer than the truth.
func (h *hubAPI) last(ctx context.Context, filter string, direct bool) (last hubLast, ok bool, err error) {
	if direct {
		m, err := h.request(ctx, "DIRECT.GET."+streamUp+"."+filter, nil)
		if err != nil {
			return last, false, err
		}
		return parseDirect(m)
	}
	body, err := json.Marshal(map[string]string{"last_by_subj": filter})
	if err != nil {
		return last, false, err
	}
	m, err := h.request(ctx, "STREAM.MSG.GET."+streamUp, body)
	if err != nil {
		return last, false, err
	}
	return parseStored(m.Data)
}

// parseDirect reads the answer to a direct get.
func parseDirect(m *nats.Msg) (last hubLast, ok bool, err error) {
	switch status := m.Header.Get("Status"); status {
	case "":
	case "404":
		return last, false, nil
	default:
		return last, false, fmt.Errorf("%w: status %.3s %.100s", errHubAnswer, status, m.Header.Get("Description"))
	}
	seq, err := strconv.ParseUint(m.Header.Get("Nats-Sequence"), 10, 64)
	if err != nil {
		return last, false, fmt.Errorf("%w: sequence %.40q", errHubAnswer, m.Header.Get("Nats-Sequence"))
	}
	return laneHeaders(seq, m.Header, m.Data), true, nil
}

// parseStored reads the answer to a get through the leader of the stream.
func parseStored(data []byte) (last hubLast, ok bool, err error) {
	var r struct {
		Error   *hubError `json:"error"`
		Message *struct {
			Seq    uint64 `json:"seq"`
			Header []byte `json:"hdrs"`
			Data   []byte `json:"data"`
		} `json:"message"`
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return last, false, fmt.Errorf("%w: %w", errHubAnswer, err)
	}
	switch {
	case r.Error != nil && r.Error.ErrCode == codeNoMessage:
		return last, false, nil
	case r.Error != nil:
		return last, false, r.Error
	case r.Message == nil:
		return last, false, errHubAnswer
	}
	var header nats.Header
	if len(r.Message.Header) > 0 {
		if header, err = nats.DecodeHeadersMsg(r.Message.Header); err != nil {
			return last, false, fmt.Errorf("%w: %w", errHubAnswer, err)
		}
	}
	return laneHeaders(r.Message.Seq, header, r.Message.Data), true, nil
}

// laneHeaders reads what the pump wrote. A message without it, of whoever wrote
// to the lane, has epoch "".
func laneHeaders(hubSeq uint64, h nats.Header, data []byte) hubLast {
	last := hubLast{hubSeq: hubSeq, data: data, size: len(data)}
	if seq, err := strconv.ParseUint(h.Get(headerSeq), 10, 64); err == nil {
		last.epoch, last.seq = h.Get(headerEpoch), seq
		last.time, last.tombstone = h.Get(headerTime), h.Get(headerTombstone) != ""
	}
	return last
}

// pubAck is the hub's answer to the last message of a batch.
type pubAck struct {
	Error *hubError `json:"error"`
	Seq   uint64    `json:"seq"`
	Batch string    `json:"batch"`
	Count int       `json:"count"`
}

// parsePubAck reads an answer to a message of a batch. begun is true for the
// empty one that says that the batch is open.
func parsePubAck(m *nats.Msg) (ack pubAck, begun bool, err error) {
	if m.Header.Get("Status") == "503" {
		return ack, false, errHubSilent
	}
	if len(m.Data) == 0 {
		return ack, true, nil
	}
	if err := json.Unmarshal(m.Data, &ack); err != nil {
		return ack, false, fmt.Errorf("%w: %w", errHubAnswer, err)
	}
	if ack.Error != nil {
		return ack, false, ack.Error
	}
	return ack, false, nil
}

// isCode says whether err is a refusal of the hub with one of these codes.
func isCode(err error, codes ...int) bool {
	var h *hubError
	if !errors.As(err, &h) {
		return false
	}
	for _, c := range codes {
		if h.ErrCode == c {
			return true
		}
	}
	return false
}
