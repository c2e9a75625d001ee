// Package mqtttest is a bare MQTT 3.1.1 client for tests and benchmarks of package mqtt and of those who serve with it.
//
// The nouns: [Dial] (or [Connect] on a connection one has) makes a [Client]; what the server publishes arrives as [Message] on
// its channel. The client does nothing by itself: no keep-alive, no reconnect, and it acknowledges only when told to.
// It encodes with mochi's codec where the server does it by hand, so that each checks the other.
//
// The client owns one reading goroutine, which ends with the connection; Close waits for it.
//
// The trap: a test that does not read Messages stops the reading goroutine after 1024 of them, acknowledgements included.
package mqtttest
