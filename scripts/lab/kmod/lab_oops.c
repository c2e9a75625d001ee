// SPDX-License-Identifier: GPL-2.0
/*
 * lab_oops: loading it follows a null pointer in the kernel. The kernel reports an oops, kills the process that loaded it
 * and goes on: the lab must call such a boot a failure although everything after it works.
 */
#include <linux/module.h>

static int *volatile nowhere;

static int __init lab_init(void)
{
	*nowhere = 1;
	return 0;
}
module_init(lab_init);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Sandpiper lab: a kernel oops on purpose");
