// Package broker is the endpoint that modules and downstream devices connect to: IoT Hub's MQTT dialect over TLS and over
// WebSocket, and the HTTPS call of direct methods.
//
// The nouns: a [Broker] has one client per connected identity, one durable session per identity that ever connected
// (subscription set, last desired version delivered), one mailbox per module with a pump for each of its input lanes, and the
// direct method calls that wait for an answer.
//
// Who is speaking is the listener and the token, decided at CONNECT; no topic and no payload is believed about it. A publish
// goes module → message → router → queue, and is acknowledged when the disk has it. Nothing is acknowledged from memory.
//
// All connections of an identity share its session, so that one on its way out cannot undo what a newer one changed.
//
// Goroutines: the connections, WebSockets and method calls over HTTPS belong to [Broker.Serve], the pumps to [Broker.Run]; both return
// when theirs have ended.
//
// The trap: SDKs do not subscribe again after they reconnect. The session on disk is the only record of what a module listens
// to, so it is written before the SUBACK and read at each CONNECT.
//
// Lanes of the queue, shared with upstream: "upstream/{module or _}" holds what one identity sends to the hub,
// "modules/{module}/inputs/{input}" what waits for a module. A body is a message.Message.
//
// What a power cut leaves: a publish whose batch was not committed was not acknowledged, and the SDK sends it again; an input
// delivered but not yet marked as such is delivered again; a subscription answered with SUBACK is on disk.
package broker
