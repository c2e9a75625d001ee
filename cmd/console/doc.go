// Package console is what the three commands have alike: how they end and what they print.
//
// A verb returns an error; [Execute] makes of it one line and an exit code: 0 done, 1 failed, 2 usage ([Usage]), 130 and 143 ended by SIGINT
// and SIGTERM ([Main]), 141 when nobody reads what it prints, or a code of the verb's own ([Exit]). [Group] is a command that only holds others. [JSON], [Table], [Size] and [Working] are the forms in which they print.
//
// The only goroutines are that of [Working], which ends with the func that it returns, and that of [Main], which lives as long as the process.
//
// The trap: what was typed wrong is told from what failed by the type of the error alone, so a verb that finds a mistake in its own
// arguments must say [Usage]. For the mistakes that cobra finds, which have no type, Execute knows the words.
package console
