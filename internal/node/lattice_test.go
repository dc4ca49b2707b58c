package node

import "testing"

// What works when every call goes through its encoding works from elsewhere, too.
// make encoded runs all tests of this package so.
func TestNode_encoded(t *testing.T) {
	t.Setenv("EDGED_ENCODE", "1")
	t.Run("swap", TestNode_Reload_swapUnderLoad)
	t.Run("http", TestHTTP)
	t.Run("keys", TestNode_Status_keys)
}
