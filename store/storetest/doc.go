// Package storetest opens real stores for tests: on a real disk, in a folder of
// the test, with the committer running, closed at the end and then looked
// through for damage. There is no fake store, because the real one is fast.
//
// The trap: a store made inside a testing/synctest bubble belongs to it; open it
// there.
package storetest
