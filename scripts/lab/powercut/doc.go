// Command powercut works on a store until the power goes, and says afterwards whether the store kept its word.
//
//	powercut work [-trace] [-nosync] DIR [LEDGER]   appends, acknowledges and changes documents, and says what it was promised
//	powercut check [-lying] DIR LEDGER              opens what a cut left and compares it with what was promised
//	powercut checks                                 the same for many folders, one after another, as lines of JSON
//
// The nouns: a Ledger is what the store promised, in lines as the workload says them on standard output, and it outlives
// the power; a line is said after the promise and before anything else is asked of the store.
//
// It uses the store's exported names only, so it judges any engine beneath them. With -nosync the process answers its own
// fsync with success and does nothing: such a store must be caught, or the harness is worth nothing.
//
// The trap: the file-level test (go test) traces this program and cuts the folder as a file system may; the variant on a board
// (make lab-powercut) cuts the whole disk below a real ext4. The first is fast and knows nothing of the file system's own
// journal, the second is the other way round.
package main
