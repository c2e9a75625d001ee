// Package service is a client of the hub's REST interface: what an operator's command, a demo or a test needs, without the hub itself.
//
// The nouns: a [Client] speaks for one policy; bodies it does not look into are raw JSON, so that nothing the hub says is lost.
// It starts no goroutine of its own.
//
// The trap: the address dialled and the host name in tokens and certificates are two things; [Open] takes both from the hub's directory.
package service
