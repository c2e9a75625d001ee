// Package identity answers one question for the whole agent: who is speaking.
//
// The nouns: a [Registry] holds the device's own [Credential] and one [Module] identity (key and generation) per module, all
// made on this device and durable before use; a [CA] anchors the local endpoints; a [Clock] says what time the hub thinks it
// is. [Registry.Authenticate] judges a local CONNECT, [Registry.Password] mints what an upstream connection attempt presents,
// and [Registry.Sync] brings the hub's registry to what is here.
//
// No goroutine lives here: every method runs on its caller's, and the agent calls Sync with back-off.
//
// Nothing in this room expires. Certificates hold from 1970 to 9999, module keys until the module is removed, tokens are
// minted for one connection attempt. The only durable documents are keys, written before they are used.
//
// The trap: the local generation and the local key are what a running module has been given. They never change while the
// identity lives, whatever the hub answers: the hub is made to agree with the device, not the other way round.
package identity
