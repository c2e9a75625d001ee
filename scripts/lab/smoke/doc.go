// Package smoke holds the tests of the lab itself: one per kernel feature that board tests stand on. They run on a virtual
// board (make lab) and nowhere else; a feature that a board lacks is skipped by name.
//
// The trap: a test here proves that the board can do something, not that the product does it.
package smoke
