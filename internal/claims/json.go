package claims

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/edged-io/edged/internal/strictjson"
)

// unmarshal reads JSON as the kits that wrote the first tokens do. The standard
// decoder would also take what is ambiguous, and replace what is no UTF-8; a token that
// two readers read differently must not pass.
func unmarshal(data []byte, v any) error {
	if !utf8.Valid(data) {
		return errors.New("not UTF-8")
	}
	if err := strictjson.CheckKeys(data, v); err != nil {
		return err
	}
	err := json.Unmarshal(data, v)
	var bad *json.UnmarshalTypeError
	if errors.As(err, &bad) { // its text names types of ours
		return fmt.Errorf("%s is %s, which it can not be", cmp.Or(bad.Field, "it"), bad.Value)
	}
	return err
}
