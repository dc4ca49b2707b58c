package actor

import "unsafe"

//go:wasmimport wasmbus __guest_request
func guestRequest(operation, payload unsafe.Pointer)

//go:wasmimport wasmbus __guest_response
func guestResponse(p unsafe.Pointer, n uint32)

//go:wasmimport wasmbus __guest_error
func guestError(p unsafe.Pointer, n uint32)

//go:wasmimport wasmbus __host_call
func wasmHostCall(binding unsafe.Pointer, bindingLen uint32, namespace unsafe.Pointer, namespaceLen uint32, operation unsafe.Pointer, operationLen uint32, payload unsafe.Pointer, payloadLen uint32) uint32

//go:wasmimport wasmbus __host_response_len
func hostResponseLen() uint32

//go:wasmimport wasmbus __host_response
func hostResponse(p unsafe.Pointer)

//go:wasmimport wasmbus __host_error_len
func hostErrorLen() uint32

//go:wasmimport wasmbus __host_error
func hostError(p unsafe.Pointer)

// guestCall is what the host calls: 1 is a success, 0 a failure.
//
//go:wasmexport __guest_call
func guestCall(operationLen, payloadLen uint32) uint32 {
	operation := make([]byte, operationLen)
	payload := make([]byte, payloadLen)
	guestRequest(bytesAt(operation), bytesAt(payload))
	response, err := dispatch(string(operation), payload)
	if err != nil {
		text := err.Error()
		guestError(textAt(text), uint32(len(text)))
		return 0
	}
	guestResponse(bytesAt(response), uint32(len(response)))
	return 1
}

func hostCall(binding, namespace, operation string, payload []byte) (response []byte, failure string, ok bool) {
	result := wasmHostCall(textAt(binding), uint32(len(binding)), textAt(namespace), uint32(len(namespace)),
		textAt(operation), uint32(len(operation)), bytesAt(payload), uint32(len(payload)))
	if result != 1 {
		text := make([]byte, hostErrorLen())
		hostError(bytesAt(text))
		return nil, string(text), false
	}
	response = make([]byte, hostResponseLen())
	hostResponse(bytesAt(response))
	return response, "", true
}

func bytesAt(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

func textAt(s string) unsafe.Pointer { return unsafe.Pointer(unsafe.StringData(s)) }
