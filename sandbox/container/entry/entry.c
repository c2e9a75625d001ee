/* The first steps inside a new sandbox, before the Go runtime begins.
 *
 * The process that runs this is the first of its pid namespace, root of its user namespace and of nothing else. It reads one script
 * (see script.go) with its descriptors from the agent's socket, does what it says in order, answers, waits until the agent lets the
 * program go, and becomes the program. It allocates once, starts no thread and trusts nothing that the module could have written:
 * every path is resolved below the new root, and a link on the way is an error.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "script.h"

/* Numbers since Linux 5.2 are the same on every architecture; a libc may be older than they are. */
enum { nr_landlock_create = 444, nr_landlock_add = 445, nr_landlock_restrict = 446, nr_open_tree = 428, nr_move_mount = 429, nr_fsopen = 430, nr_fsconfig = 431, nr_fsmount = 432, nr_close_range = 436, nr_openat2 = 437, nr_mount_setattr = 442 };

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#define OPEN_TREE_CLOEXEC_ O_CLOEXEC
#define AT_RECURSIVE_ 0x8000
#define ON_TARGET (MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)

struct attr { uint64_t set, clear, propagation, userns; }; /* struct mount_attr, which older headers lack */

struct entry {
	int sock, fifo, root;
	int rules;      /* Landlock ruleset; -1 = none */
	int empty;      /* the mount that lies on masked directories; -1 = none yet */
	int fds[MAX_FDS]; /* what came with the script */
	int nfds;
	const uint8_t *at, *end;
};

static int answer_to = -1;

/* refuse tells the agent what did not work, and ends. */
static void __attribute__((noreturn)) refuse(const char *what, const char *which, int err)
{
	char text[1024];
	int n = err ? snprintf(text, sizeof text, "E%s%s%s: %s", what, *which ? " " : "", which, strerror(err)) : snprintf(text, sizeof text, "E%s%s%s", what, *which ? " " : "", which);
	if (n > (int)sizeof text)
		n = sizeof text;
	if (answer_to >= 0 && write(answer_to, text, n) < 0)
		_exit(254);
	_exit(255);
}

static void need(const struct entry *e, size_t n)
{
	if ((size_t)(e->end - e->at) < n)
		refuse("script", "is cut short", 0);
}

static uint32_t number(struct entry *e)
{
	uint32_t v;
	need(e, sizeof v);
	memcpy(&v, e->at, sizeof v);
	e->at += sizeof v;
	return v;
}

static const uint8_t *bytes(struct entry *e, uint32_t *n)
{
	const uint8_t *p;
	*n = number(e);
	need(e, *n);
	p = e->at;
	e->at += *n;
	return p;
}

/* text is a string that ends with its only NUL. */
static const char *text(struct entry *e)
{
	uint32_t n;
	const char *s = (const char *)bytes(e, &n);
	if (n == 0 || strnlen(s, n) != n - 1)
		refuse("script", "holds a text without an end", 0);
	return s;
}

static int descriptor(struct entry *e)
{
	uint32_t n = number(e);
	if (n >= (uint32_t)e->nfds)
		refuse("script", "names a descriptor that did not come", 0);
	return e->fds[n];
}

/* open_below refuses every link on the way, the last one too: O_NOFOLLOW with O_PATH would open the link itself. */
static int open_below(int root, const char *path)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
	while (*path == '/')
		path++;
	return syscall(nr_openat2, root, *path ? path : ".", &how, sizeof how);
}

/* target opens a place to mount on, and makes what is missing of it, one name at a time. */
static int target(struct entry *e, const char *path, int directory)
{
	char name[256];
	int at = open_below(e->root, path);
	if (at >= 0)
		return at;
	if (errno != ENOENT)
		refuse("open mount target", path, errno);
	if ((at = open_below(e->root, "/")) < 0)
		refuse("open root for", path, errno);
	for (const char *p = path; *p;) {
		size_t n;
		int next, last;
		p += strspn(p, "/");
		n = strcspn(p, "/");
		if (n == 0)
			break;
		if (n >= sizeof name)
			refuse("open mount target", path, ENAMETOOLONG);
		memcpy(name, p, n);
		name[n] = 0;
		p += n;
		last = p[strspn(p, "/")] == 0;
		next = open_below(at, name);
		if (next < 0 && errno == ENOENT) {
			if (!last || directory) {
				if (mkdirat(at, name, 0755) < 0 && errno != EEXIST)
					refuse("make mount target", path, errno);
			} else {
				int made = openat(at, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0644);
				if (made < 0 && errno != EEXIST)
					refuse("make mount target", path, errno);
				if (made >= 0)
					close(made);
			}
			next = open_below(at, name);
		}
		if (next < 0)
			refuse("open mount target", path, errno);
		close(at);
		at = next;
	}
	return at;
}

static void attach(int mount, int on, const char *path)
{
	if (syscall(nr_move_mount, mount, "", on, "", ON_TARGET) < 0)
		refuse("mount on", path, errno);
	close(on);
}

/* filesystem makes a mount of the kernel's: type, attributes, n options. An option without a value is a flag. */
static int filesystem(struct entry *e, const char *type, uint32_t attributes, uint32_t options)
{
	int made, fs = syscall(nr_fsopen, type, 1);
	if (fs < 0)
		refuse("file system", type, errno);
	syscall(nr_fsconfig, fs, FSCONFIG_SET_STRING, "source", type, 0);
	while (options-- > 0) {
		const char *key = text(e), *value = text(e);
		long done = *value ? syscall(nr_fsconfig, fs, FSCONFIG_SET_STRING, key, value, 0) : syscall(nr_fsconfig, fs, FSCONFIG_SET_FLAG, key, NULL, 0);
		if (done < 0)
			refuse("option of file system", key, errno);
	}
	if (syscall(nr_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		refuse("make file system", type, errno);
	if ((made = syscall(nr_fsmount, fs, 1, attributes)) < 0)
		refuse("mount file system", type, errno);
	close(fs);
	return made;
}

static int clone_of(int fd, int flags)
{
	return syscall(nr_open_tree, fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC_ | AT_EMPTY_PATH | flags);
}

/* mask hides what is there: a directory below an empty one, anything else below the null device. */
static void mask(struct entry *e, const char *path)
{
	struct stat st;
	int cover, fd = open_below(e->root, path);
	if (fd < 0) {
		if (errno == ENOENT || errno == ENOTDIR)
			return;
		refuse("mask", path, errno);
	}
	if (fstat(fd, &st) < 0)
		refuse("mask", path, errno);
	if (!S_ISDIR(st.st_mode)) {
		int null = open_below(e->root, "/dev/null");
		if (null < 0 || (cover = clone_of(null, 0)) < 0)
			refuse("mask", path, errno);
		close(null);
	} else if (e->empty >= 0) {
		if ((cover = clone_of(e->empty, 0)) < 0)
			refuse("mask", path, errno);
	} else {
		cover = e->empty = filesystem(e, "tmpfs", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, 0);
	}
	attach(cover, fd, path);
	if (cover != e->empty)
		close(cover);
}

static void read_only(struct entry *e, const char *path)
{
	struct attr attr = {.set = MOUNT_ATTR_RDONLY};
	int same, fd = open_below(e->root, path);
	if (fd < 0) {
		if (errno == ENOENT || errno == ENOTDIR)
			return;
		refuse("make read-only", path, errno);
	}
	if ((same = clone_of(fd, AT_RECURSIVE_)) < 0 || syscall(nr_mount_setattr, same, "", AT_EMPTY_PATH | AT_RECURSIVE_, &attr, sizeof attr) < 0)
		refuse("make read-only", path, errno);
	attach(same, fd, path);
	close(same);
}

static void set_root(struct entry *e)
{
	const char *path;
	int root = descriptor(e);
	path = text(e);
	if (syscall(SYS_mount, "", "/", NULL, MS_SLAVE | MS_REC, NULL) < 0)
		refuse("detach from the host's mounts", "", errno);
	if (syscall(nr_move_mount, root, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
		refuse("mount root on", path, errno);
	e->root = root;
}

static void pivot(struct entry *e)
{
	if (fchdir(e->root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
		refuse("enter root", "", errno);
	/* The host's tree lies on top of the new root now. */
	if (syscall(SYS_umount2, ".", 2 /* MNT_DETACH */) < 0 || chdir("/") < 0)
		refuse("leave the host's root", "", errno);
}

static void loopback_up(void)
{
	struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &lo) < 0)
		refuse("bring up loopback", "", errno);
	close(fd);
}

/* null_streams gives those of the first three descriptors that nobody gave a null device of the sandbox's own. */
static void null_streams(uint32_t which)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		refuse("open", "/dev/null", errno);
	for (int n = 0; n < 3; n++)
		if (which & (1u << n) && dup2(fd, n) < 0)
			refuse("null device as stream", "", errno);
	close(fd);
}

/* become takes the module's user and gives up everything else. */
static void become(struct entry *e)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {{0}};
	gid_t groups[64];
	char here[4096];
	uint32_t uid = number(e), gid = number(e), n = number(e);
	const char *cwd;
	int there;
	if (n > sizeof groups / sizeof *groups)
		refuse("groups", "are more than 64", 0);
	for (uint32_t k = 0; k < n; k++)
		groups[k] = number(e);
	cwd = text(e);
	umask(022);
	/* A new session keyring: the agent's would be searched else. A kernel without keys has none to search. */
	if (syscall(SYS_keyctl, 1, NULL) < 0 && errno != ENOSYS)
		refuse("leave the agent's keyring", "", errno);
	there = chdir(cwd);
	if (there < 0 && errno != EACCES)
		refuse("change to directory", cwd, errno);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		refuse("give up new privileges", "", errno);
	for (unsigned long cap = 0; prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0; cap++)
		;
	if (errno != EINVAL) /* the first one that this kernel does not know */
		refuse("give up capabilities", "", errno);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); /* nothing is in it unless something put it there */
	if (setgroups(n, groups) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
		refuse("become user", "", errno);
	if (there < 0 && chdir(cwd) < 0)
		refuse("change to directory", cwd, errno);
	if (syscall(SYS_capset, &head, none) < 0)
		refuse("give up capabilities", "", errno);
	/* A directory outside of the root has no path from here (CVE-2024-21626). */
	if (!getcwd(here, sizeof here) || *here != '/')
		refuse("the working directory is not inside the root:", cwd, 0);
}

/* What Landlock counts as writing (linux/landlock.h), by version of its ABI. */
#define LL_WRITE_FILE (1ull << 1)
#define LL_TREE (0x7full << 4 | 1ull << 11 | 1ull << 12) /* remove, make, symlink */
#define LL_REFER (1ull << 13)                             /* 2: without it no file changes its directory */
#define LL_TRUNCATE (1ull << 14)                          /* 3 */

static void allow(struct entry *e, int fd, uint64_t access, const char *path)
{
	struct { uint64_t access; int32_t fd; } __attribute__((packed)) rule = {access, fd};
	if (syscall(nr_landlock_add, e->rules, 1, &rule, 0) < 0)
		refuse("allow writes to", path, errno);
}

/* writable prepares the rules; run puts them in force. */
static void writable(struct entry *e)
{
	uint32_t n = number(e);
	long abi = syscall(nr_landlock_create, NULL, 0, 1);
	uint64_t file = LL_WRITE_FILE | (abi >= 3 ? LL_TRUNCATE : 0), all = file | LL_TREE | LL_REFER;
	if (abi >= 2 && (e->rules = syscall(nr_landlock_create, &all, sizeof all, 0)) < 0)
		refuse("make rules for writes", "", errno);
	while (n-- > 0) {
		const char *path = text(e);
		struct stat st;
		int fd;
		if (e->rules < 0)
			continue;
		if ((fd = open(path, O_PATH | O_CLOEXEC)) < 0) {
			if (errno == EACCES) /* out of reach: nothing can be written there */
				continue;
			refuse("allow writes to", path, errno);
		}
		if (fstat(fd, &st) < 0)
			refuse("allow writes to", path, errno);
		allow(e, fd, S_ISDIR(st.st_mode) ? all : file, path);
		close(fd);
	}
	/* The streams, which lie outside: /dev/stdout may be opened. */
	for (int fd = 1; fd < 3 && e->rules >= 0; fd++)
		allow(e, fd, file, "the streams");
}

static int executable(const char *path)
{
	struct stat st;
	if (stat(path, &st) < 0)
		return errno;
	if (S_ISDIR(st.st_mode))
		return EISDIR;
	return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0 ? errno : 0;
}

/* find is the program's path, looked up as the module would. */
static const char *find(const char *name, char *const env[])
{
	static char path[4096];
	char quoted[512];
	int err;
	snprintf(quoted, sizeof quoted, "\"%s\": stat %s", name, name);
	if (strchr(name, '/')) {
		if ((err = executable(name)))
			refuse("exec:", quoted, err);
		return name;
	}
	for (; *env; env++) {
		if (strncmp(*env, "PATH=", 5))
			continue;
		for (const char *p = *env + 5;;) {
			size_t n = strcspn(p, ":");
			if (n > 0 && n + strlen(name) + 2 < sizeof path) {
				memcpy(path, p, n);
				path[n] = '/';
				strcpy(path + n + 1, name);
				if (!executable(path))
					return path;
			}
			if (!p[n])
				break;
			p += n + 1;
		}
	}
	snprintf(quoted, sizeof quoted, "\"%s\": executable file not found in $PATH", name);
	refuse("exec:", quoted, 0);
}

static char **list(struct entry *e)
{
	uint32_t n = number(e);
	char **all;
	need(e, n);
	if (!(all = calloc((size_t)n + 1, sizeof *all)))
		refuse("memory", "", ENOMEM);
	for (uint32_t k = 0; k < n; k++)
		all[k] = (char *)text(e);
	return all;
}

/* confine loads the filter and hands its listener to the agent, which answers and counts the calls that no module has a use for. Without a
 * listener (one is there already, or the agent is gone) the kernel itself refuses them. */
static void confine(const struct entry *e, const struct sock_fprog *program)
{
	union { struct cmsghdr head; char space[CMSG_SPACE(sizeof(int))]; } control = {.head = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
	struct iovec iov = {.iov_base = "L", .iov_len = 1};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	int listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, program);
	if (listener < 0) {
		if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, program) < 0)
			_exit(251);
		return;
	}
	memcpy(CMSG_DATA(&control.head), &listener, sizeof listener);
	sendmsg(e->sock, &message, MSG_NOSIGNAL);
}

/* run waits for the agent's word and becomes the program. Nothing can be reported any more. */
static void __attribute__((noreturn)) run(struct entry *e)
{
	char fifo[32];
	int gate;
	uint32_t size;
	char **args = list(e), **env = list(e);
	const char *path;
	const uint8_t *filter = bytes(e, &size);
	struct sock_fprog program = {.len = size / sizeof(struct sock_filter), .filter = (struct sock_filter *)filter};
	if (!args[0])
		refuse("script", "names no program", 0);
	path = find(args[0], env);
	if (write(answer_to, "R", 1) != 1)
		_exit(254);
	snprintf(fifo, sizeof fifo, "/proc/self/fd/%d", e->fifo);
	if ((gate = open(fifo, O_WRONLY | O_CLOEXEC)) < 0 || write(gate, "0", 1) != 1)
		_exit(253);
	if (e->rules >= 0 && syscall(nr_landlock_restrict, e->rules, 0) < 0)
		_exit(250);
	/* No descriptor but the three streams goes on (CVE-2024-21626): the socket and the listener close with the execution. */
	if (fcntl(e->sock, F_SETFD, FD_CLOEXEC) < 0 || syscall(nr_close_range, e->sock + 1, ~0u, 0) < 0)
		_exit(252);
	if (size > 0)
		confine(e, &program);
	execve(path, args, env);
	_exit(errno == ENOENT ? 127 : 126);
}

static void play(struct entry *e)
{
	struct attr attr = {0};
	for (;;) {
		const char *a, *b;
		uint32_t n, flags;
		int fd;
		switch (number(e)) {
		case DO_JOIN:
			for (n = number(e); n-- > 0;)
				if (fd = descriptor(e), write(fd, "0", 1) != 1 || close(fd) < 0)
					refuse("join cgroup", "", errno);
			break;
		case DO_CGROUP:
			if (unshare(CLONE_NEWCGROUP) < 0)
				refuse("cgroup namespace", "", errno);
			break;
		case DO_LOOPBACK:
			loopback_up();
			break;
		case DO_ROOT:
			set_root(e);
			break;
		case DO_ATTACH:
			fd = descriptor(e), n = number(e), a = text(e);
			attach(fd, target(e, a, n), a);
			break;
		case DO_MOUNT:
			a = text(e), b = text(e), flags = number(e), n = number(e);
			fd = filesystem(e, a, flags, n);
			attach(fd, target(e, b, 1), b);
			close(fd);
			break;
		case DO_LINK:
			a = text(e), b = text(e);
			if (symlinkat(a, e->root, b + strspn(b, "/")) < 0 && errno != EEXIST)
				refuse("make link", b, errno);
			break;
		case DO_MASK:
			mask(e, text(e));
			break;
		case DO_READ_ONLY:
			read_only(e, text(e));
			break;
		case DO_SEAL: /* a mount made writable to prepare it */
			a = text(e), attr.set = number(e);
			if ((fd = open_below(e->root, a)) < 0 || syscall(nr_mount_setattr, fd, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0)
				refuse("make read-only", a, errno);
			close(fd);
			break;
		case DO_PIVOT:
			pivot(e);
			break;
		case DO_HOSTNAME:
			a = text(e);
			if (sethostname(a, strlen(a)) < 0)
				refuse("set host name", a, errno);
			break;
		case DO_NULL:
			null_streams(number(e));
			break;
		case DO_BECOME:
			become(e);
			break;
		case DO_WRITABLE:
			writable(e);
			break;
		case DO_RUN:
			run(e);
		default:
			refuse("script", "holds an unknown step", 0);
		}
	}
}

/* receive takes the script's length with the descriptors, then the script. */
static void receive(struct entry *e)
{
	union { struct cmsghdr head; char space[CMSG_SPACE(sizeof e->fds)]; } control;
	uint32_t size;
	struct iovec iov = {.iov_base = &size, .iov_len = sizeof size};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	uint8_t *script;
	ssize_t n = recvmsg(e->sock, &message, MSG_CMSG_CLOEXEC | MSG_WAITALL);
	if (n != sizeof size || size > MAX_SCRIPT || message.msg_flags & MSG_CTRUNC)
		_exit(254); /* the agent is gone */
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
			e->nfds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(e->fds, CMSG_DATA(c), e->nfds * sizeof(int));
		}
	if (!(script = malloc(size)))
		refuse("memory", "", ENOMEM);
	for (uint32_t have = 0; have < size; have += n)
		if ((n = read(e->sock, script + have, size - have)) <= 0)
			_exit(254);
	e->at = script;
	e->end = script + size;
}

/* A module that sets the variable for a copy of this binary gets what it could do itself. */
static void __attribute__((constructor)) sandpiper_entry(void)
{
	static struct entry e = {.sock = 3, .fifo = 4, .root = -1, .rules = -1, .empty = -1};
	if (!getenv("_SANDPIPER_ENTRY"))
		return;
	prctl(PR_SET_NAME, "sandpiper:entry");
	answer_to = e.sock;
	receive(&e);
	play(&e);
}
