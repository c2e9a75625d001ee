// Package upstream keeps one connection to the hub for each identity of the device, and drains what is queued into it.
//
// The nouns: [Upstream] has one link per identity it is told of; a link makes one session after another, with back-off in
// between; a session is one MQTT connection. Its pump reads the identity's lane of the durable queue and publishes in order with
// a window; its twin part fetches the twin, applies desired patches and sends what is reported; direct methods go to
// [Config.Method].
//
// Who owns the goroutines: [Upstream.Run] owns one per link, which is also the one that runs the link's session, and those of
// methods under way; the MQTT client has about ten of its own per connection. All have ended when Run returns.
//
// The connection is Eclipse Paho's, without its store and without its reconnecting: durability and retry are here. A connection
// keeps nothing: after it is lost the next one begins at the first message that is not acknowledged, so the hub may see a
// message twice and never misses one.
//
// Clocks: credentials are minted for each attempt by [Config.Credential]; nothing here asks the time of day except to show it.
// Waiting is by timers, which no clock step moves.
//
// The trap: two parties with the same identity push each other out for ever, because the hub closes the older connection.
// Such a link shows as one that connects again and again.
package upstream
