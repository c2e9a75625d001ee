// Package network joins sandboxes to a network of their own on this host: addresses from one range, a way out through the host's addresses,
// ports of the host that lead in, and nothing from module to module unless it is named.
//
// The nouns: a [Network] has [Member]s; each is a sandbox with an address. A member's interface eth0 is one end of a pair (veth) whose other
// end, on the host, is its alone: there is no bridge device below, every packet is routed by the host and passes its rules, so that
// two modules are apart without a setting of the bridge that some kernels lack. The rules are a table of nftables for each family, written as a
// whole in one transaction whenever a member comes or goes. No program of the host is run. [Resolver] answers members' names through
// the host's resolver.
//
// A Network owns no goroutine; its methods may be called by any. What is there is also written down in the runtime directory, so that the next
// agent neither cuts off a module that runs nor keeps the rule of one that has gone.
//
// The trap: the other end of a pair goes when the sandbox's namespace does, by the kernel's hand. [Network.Leave] only has to be called for
// the rules; one that was forgotten is found by [Network.Sweep].
package network
