// Package selftest holds what goes wrong on purpose on a virtual board: a failing test, panics of a program and of the kernel,
// an oops, hangs, a full disk. `make lab-selftest` runs each alone and looks at what the lab makes of it.
//
// The trap: every test here does its harm only when LAB_TEST_BREAK names it, on a board; else it is skipped.
package selftest
