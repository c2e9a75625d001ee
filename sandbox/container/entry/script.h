/* The steps of a script. script.go has the same numbers, and a test compares them. */
enum step {
	DO_JOIN = 1,   /* n, n descriptors: step into these groups of cgroup version 1 */
	DO_CGROUP,     /* a cgroup namespace whose root is the group this process was put into */
	DO_LOOPBACK,   /* bring up lo */
	DO_ROOT,       /* descriptor, path on the host: mount the root there */
	DO_ATTACH,     /* descriptor, directory or not, target: put a mount there */
	DO_MOUNT,      /* type, target, attributes, n, n options of key and value */
	DO_LINK,       /* text, place */
	DO_MASK,       /* path */
	DO_READ_ONLY,  /* path */
	DO_SEAL,       /* path, attributes */
	DO_PIVOT,      /* make the root "/" and leave the host's */
	DO_HOSTNAME,   /* name */
	DO_NULL,       /* bits of the streams that are to be the null device */
	DO_BECOME,     /* uid, gid, n, n groups, working directory */
	DO_WRITABLE,   /* n, n paths: nothing is written elsewhere, if the kernel has Landlock */
	DO_RUN         /* arguments, environment, filter: answer, wait, execute */
};

enum { MAX_FDS = 253 /* SCM_MAX_FD */, MAX_SCRIPT = 8 << 20 };
