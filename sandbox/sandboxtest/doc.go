// Package sandboxtest helps to test against package sandbox without a kernel,
// and to test that a runtime keeps the contract.
//
// The nouns:
//
//   - [Run] is the contract as a suite of tests; each runtime runs it.
//   - [Fake] is a runtime in memory: a Go function stands for the module's
//     program ([Program]), and its listeners are pipes reached with
//     [FakeInstance.Dial]. It passes the suite.
//
// A goroutine per started instance runs its Program and ends with it. Fake uses
// no network, no disk (except the log FIFO of a Spec that names one) and no
// clock but package time, so that it works inside testing/synctest.
//
// The one trap: a Program must return when its context ends, since that is
// SIGKILL; one that does not hangs Destroy and, inside synctest, the test.
package sandboxtest
