// Package workload is what a module reaches on its own unix socket: Microsoft's workload API, so that unmodified SDKs find
// their keys, and Sandpiper's own HTTP API under /v1/, so that a shell script needs no SDK, no TLS and no token.
//
// The nouns: a [Server] serves one socket per module, each with a [Caller]; what it knows and does it gets through [Config]
// from the agent. A [Client] is the other end, for the command line and for modules in Go.
//
// Who the caller is follows from two things that it cannot choose: the socket it came through, and the user id that the kernel
// reports for the peer. No request carries a credential.
//
// Who owns the goroutines: [Server.Serve] owns all of its socket and returns when they have ended.
//
// # The API under /v1/
//
// Every answer that is not a success is {"message":"…"}. Documents are JSON; with Accept: application/cbor they are CBOR, and
// a request with Content-Type: application/cbor may carry CBOR. A stream is one document per line (application/x-ndjson), or
// with Accept: application/cbor-seq a CBOR sequence. One stream of each kind may be open per module; a second is refused (409).
//
//	POST /v1/messages/outputs/{output}?key=value&…
//
// sends the body as one message. The query is the message's property bag, spelled as in an MQTT topic: percent-encoded,
// "$."-keys are system properties, a plus is a plus. Content-Type becomes the content type of the message, unless it is curl's
// default for forms. 204 means that the message is as safe as the header Sandpiper-Durability says: "strict" (on disk),
// "relaxed(T)" (on disk within T) or "none" (no route takes it; it was dropped). With Content-Type: application/x-ndjson each line is a message of
// its own, JSON, sent in order; on an error "stored" says how many of them are on disk.
//
//	GET /v1/messages/inputs[?ackTimeoutInSeconds=30]
//	POST /v1/messages/inputs/{id}/ack
//
// streams {"id","input","from","time","properties","body"|"text"|"base64"}. One message is in flight: the next comes after
// the ack of the one before. A message that is not acknowledged within the time-out, or when the stream ends, comes again. The
// body is "body" if its content type is JSON, else "text" if it is UTF-8, else "base64".
//
//	GET /v1/twin
//	PATCH /v1/twin
//	GET /v1/twin/desired[?since=version]
//
// read the twin {"desired","reported"}, each with $version; merge the body into the reported properties (204, its new version in the
// header Sandpiper-Version); and stream desired properties: the whole section first, or what changed since a version, then
// every patch, nulls included, each with $version.
//
//	GET /v1/methods
//	POST /v1/methods/{rid}?status=200
//	POST /v1/methods/call?module=name[&device=id]
//
// stream {"rid","name","payload"} of direct methods called on this module; answer one, the body being the payload; call a
// direct method of another module, with the body and the answer of IoT Hub's HTTPS call.
//
//	POST /v1/health
//
// reports {"healthy":bool,"note":text}; an empty body means healthy.
//
//	GET /v1/hal
//	GET /v1/hal/{name}
//	PUT /v1/hal/{name}
//	GET /v1/hal/{name}/events[?from=seq]
//	POST /v1/hal/{name}/transfer
//	POST /v1/hal/batch
//	POST /v1/hal/leases, PUT or DELETE /v1/hal/leases/{id}
//
// list what pins, buses and sensors this module is granted; read {"value","unit","time","quality"}; drive an output with
// {"value","for","fence"} (204, the fence in HAL-Fence; "for" makes it a pulse that the agent ends); run {"ops":[{"w":hex,"r":bytes}],
// "deadline"}; run {"ops":[{"name",…}]} of one bus with nothing of others between; and lease outputs with {"names","ttl"}. A read with
// ?max_age=1s may answer with the last sample. Events are {"seq","lost","merged","edge","mono","time"} (of CAN "id" and "data" instead of
// the edge), one stream per name, with {"beat":true} after 10 s of silence: lost is what is missing before this one, merged the least
// number of edges that the kernel saw as one. With Upgrade: sandpiper-hal/1, GET /v1/hal becomes a connection of frames: four bytes of
// length and a CBOR map {"id", "name", "value"|"w"|"r"|…} or {"id","ops":[…]} or {"id","watch"}, answered by one with the same id. Errors are {"error":{"code","name","detail","retry_after_ms"}}. Without a [hal] section there are none of these.
//
// The trap: a 204 on a message means kept on this device, not delivered to the hub; a module that must know more uses its own
// acknowledgement end to end.
package workload
