package httpserver

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edged-io/edged/internal/httpsettings"
)

// cors answers for pages of other origins (Fetch Standard, 3.2).
type cors httpsettings.CORS

// allow lets the page that asks read the answer, if it may.
func (c *cors) allow(x *exchange) {
	h := x.w.Header()
	h.Add("Vary", "Origin")
	origin := x.r.Header.Get("Origin")
	if origin == "" || !c.origin(origin) {
		return
	}
	h.Set("Access-Control-Allow-Origin", origin)
	if len(c.Exposed) > 0 {
		h.Set("Access-Control-Expose-Headers", strings.Join(c.Exposed, ", "))
	}
}

func (c *cors) origin(origin string) bool {
	return len(c.Origins) == 0 || slices.Contains(c.Origins, "*") || slices.Contains(c.Origins, origin)
}

// isPreflight says whether a browser asks what a page may do.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != ""
}

// preflight answers it.
func (c *cors) preflight(x *exchange) {
	ask := x.r.Header
	method := ask.Get("Access-Control-Request-Method")
	h := x.w.Header()
	for _, name := range []string{"Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"} {
		h.Add("Vary", name)
	}
	var headers []string
	for _, line := range ask.Values("Access-Control-Request-Headers") {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.TrimSpace(name); name != "" {
				headers = append(headers, name)
			}
		}
	}
	switch {
	case !c.origin(ask.Get("Origin")):
		x.refuse(http.StatusForbidden, "pages of this origin are not allowed")
		return
	case !httpsettings.IsToken(method) || len(c.Methods) > 0 && !slices.Contains(c.Methods, method):
		x.refuse(http.StatusForbidden, "this method is not allowed")
		return
	}
	for _, name := range headers {
		if !httpsettings.IsToken(name) || len(c.Headers) > 0 && !slices.ContainsFunc(c.Headers, func(a string) bool { return strings.EqualFold(a, name) }) {
			x.refuse(http.StatusForbidden, "a header is not allowed")
			return
		}
	}
	h.Set("Access-Control-Allow-Origin", ask.Get("Origin"))
	h.Set("Access-Control-Allow-Methods", method)
	if len(headers) > 0 {
		h.Set("Access-Control-Allow-Headers", strings.Join(headers, ", "))
	}
	if c.MaxAge > 0 {
		h.Set("Access-Control-Max-Age", strconv.Itoa(int(c.MaxAge/time.Second)))
	}
	x.send(httpsettings.Default().WriteTimeout, http.StatusNoContent, nil)
}
