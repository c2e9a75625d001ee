// Package console is what the three commands have alike: how they end and what they print.
//
// A verb returns an error; [Execute] makes of it one line and an exit code: 0 done, 1 failed, 2 usage ([Usage]), 130 interrupted, or a code of the verb's own
// ([Exit]). [Group] is a command that only holds others. [JSON], [Table], [Size] and [Working] are the forms in which they print.
//
// The only goroutine is that of [Working]; the func that it returns ends it.
//
// The trap: what was typed wrong is told from what failed by the type of the error alone, so a verb that finds a mistake in its own
// arguments must say [Usage]. For the mistakes that cobra finds, which have no type, Execute knows the words.
package console
