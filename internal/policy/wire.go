package policy

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// The request of classic hosts. Nothing is left out: services read each member.
type request struct {
	RequestID string     `json:"requestId"`
	Source    wireSource `json:"source"`
	Target    wireTarget `json:"target"`
	Host      wireHost   `json:"host"`
	Action    Action     `json:"action"`
}

type wireSource struct {
	PublicKey    string   `json:"publicKey"`
	ContractID   string   `json:"contractId"`
	LinkName     string   `json:"linkName"`
	Capabilities []string `json:"capabilities"`
	Issuer       string   `json:"issuer"`
	IssuedOn     string   `json:"issuedOn"`  // unix seconds, as text
	ExpiresAt    *int64   `json:"expiresAt"` // unix seconds
	Expired      bool     `json:"expired"`
}

type wireTarget struct {
	PublicKey  string `json:"publicKey"`
	Issuer     string `json:"issuer"`
	ContractID string `json:"contractId"`
	LinkName   string `json:"linkName"`
}

type wireHost struct {
	PublicKey      string            `json:"publicKey"`
	Issuer         string            `json:"issuer"`
	LatticeID      string            `json:"latticeId"`
	Labels         map[string]string `json:"labels"`
	ClusterIssuers []string          `json:"clusterIssuers"`
}

// blankFor is how long a source that is nobody is said to be good.
const blankFor = time.Minute

func (p *Policy) request(id string, action Action, s Source, t Target) request {
	now, h := p.o.Now(), p.o.Host()
	source := wireSource{PublicKey: s.Key, ContractID: s.Contract, LinkName: s.LinkName, Capabilities: append([]string{}, s.Capabilities...), Issuer: s.Issuer}
	if !s.Issued.IsZero() {
		source.IssuedOn = strconv.FormatInt(s.Issued.Unix(), 10)
	}
	switch {
	case s.Key == "":
		at := now.Add(blankFor).Unix()
		source.ExpiresAt = &at
	case !s.Expires.IsZero():
		at := s.Expires.Unix()
		source.ExpiresAt, source.Expired = &at, !now.Before(s.Expires)
	}
	host := wireHost{h.Key, h.Issuer, h.Lattice, h.Labels, append([]string{}, h.Issuers...)}
	if host.Labels == nil {
		host.Labels = map[string]string{}
	}
	return request{id, source, wireTarget{t.Key, t.Issuer, t.Contract, t.LinkName}, host, action}
}

// response is an answer, or a change of one. Hosts of old read the id of a change under another name.
type response struct {
	RequestID  string `json:"requestId"`
	RequestID2 string `json:"request_id"`
	Permitted  *bool  `json:"permitted"`
	Message    string `json:"message"`
}

func (r response) id() string { return cmp.Or(r.RequestID, r.RequestID2) }

func decodeAnswer(data []byte) (r response, err error) {
	if len(data) > maxAnswer {
		return r, fmt.Errorf("%d bytes, at most %d", len(data), maxAnswer)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return response{}, err
	}
	if r.id() == "" || r.Permitted == nil {
		return response{}, errors.New("want requestId and permitted")
	}
	r.Message = clip(r.Message)
	return r, nil
}
