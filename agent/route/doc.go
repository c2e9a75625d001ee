// Package route is the routing language of edge deployments and the table that applies it: one message in, its
// sinks out.
//
// The nouns: [Route] is one parsed statement, "FROM source INTO sink"; [Rule] is a route with its name, priority
// and time to live, as a deployment holds it; [Router] is the table built from all rules; [Hop] is one answer of it.
//
// The package is pure and a Router never changes: whoever gets a new deployment builds a new Router and swaps the
// pointer.
//
// The trap: a source is a prefix of whole path segments, not a pattern. "/messages/modules/a/*" is also every output
// of a, and "/*" includes twin changes.
package route
