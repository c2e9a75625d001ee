// Package hub is the other end: an IoT Hub small enough for a laptop, for cmd/sandpiper-hub and for tests. It is never part of
// the device binary.
//
// The nouns: a [Hub] serves devices and modules over MQTT, and operators over the service's REST interface. An identity is a
// device or a module with its credentials. A twin is two documents, the service's half and the device's, so that the two never
// wait for each other. A session is one connected identity. An event is one entry of the telemetry log. Everything durable is in
// package state; two hub processes over one state behave as one hub.
//
// Who owns the goroutines: [Hub.Run]. It returns when every listener, connection, watcher and committer has ended.
//
// The trap: what a device sent is acknowledged by the committer of its shard when it is on the disk, which is later than, and on
// another goroutine than, the session that took it.
package hub
