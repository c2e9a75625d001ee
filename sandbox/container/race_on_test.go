//go:build race

package container_test

// raced: the inside of a sandbox is this test binary at first, and under the race
// detector it needs more memory than the limits of these tests.
const raced = true
