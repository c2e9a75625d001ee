// Package control is how an operator on the device talks to the agent: HTTP over the unix socket {run_dir}/control.sock.
//
// The nouns are the documents of the answers ([Status], [Module], [Queue], [Step]); their JSON is what `--json` prints and what
// scripts rely on: members are added, never renamed. [Server] answers, [Client] asks; both live here so that they cannot drift.
//
// The server owns no state: every answer comes from a func in [Config] that the agent hands over.
//
// The trap: the socket's mode is not the guard. The caller's uid (SO_PEERCRED) is compared with root and with the agent's own
// uid before a request is read, so a socket left readable by a careless umask opens nothing.
package control
