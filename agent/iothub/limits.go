package iothub

import "time"

// Limits of the service (protocol side) and of these parsers. Sizes are bytes unless said otherwise.
const (
	MaxMessage         = 262144 // telemetry: body plus all property keys and values, here and on the service
	MaxCloudToDevice   = 65536  // cloud-to-device message
	MaxMethodPayload   = 131072 // payload of a direct method, each way
	MaxMethodName      = 100    // characters of a direct method's name
	MaxMethodRequest   = MaxMethodPayload + 4096
	MaxID              = 128   // a device id, a module id
	MaxTopic           = 65535 // an MQTT topic: its length prefix has 16 bits
	MaxProperties      = 1024  // members of a bag
	MaxBag             = MaxMessage
	MaxRequestID       = 1024
	MaxName            = 1024 // an input's or method's name in a topic, percent-encoded
	MaxUserName        = 4096
	MaxToken           = 4096
	MaxConnectionText  = 4096 // a connection string
	MaxKeyText         = 1024 // a key as base64
	MaxErrorBody       = 65536
	MaxResponseTimeout = 300 * time.Second // direct method, also the most for connecting
	MinResponseTimeout = 5 * time.Second

	// DefaultResponseTimeout holds for a direct method that names none.
	DefaultResponseTimeout = 30 * time.Second

	// SkewTolerance is how long after its expiry a token still counts, for clocks that differ (edgeHub's figure).
	SkewTolerance = 5 * time.Minute
)
