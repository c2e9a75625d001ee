// SPDX-License-Identifier: GPL-2.0
/*
 * lab_pwm: a PWM controller with two channels, which remembers what its first channel put out.
 * As many real ones do, it refuses another polarity while a channel is on.
 *   trace  (0644) '1' for each time that channel 0 began to put something out, '0' for each time that it ended; write anything to begin anew
 */
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/pwm.h>
#include <linux/version.h>
static char trace[1024];
module_param_string(trace, trace, sizeof(trace), 0644);
static struct platform_device *pd;
static bool on;

static int lab_apply(struct pwm_chip *c, struct pwm_device *p, const struct pwm_state *s)
{
	bool now = s->enabled && s->duty_cycle > 0;
	size_t n = strlen(trace);

	if (p->state.enabled && s->polarity != p->state.polarity)
		return -EBUSY;
	if (p->hwpwm || now == on)
		return 0;
	on = now;
	if (n < sizeof(trace) - 1) {
		trace[n + 1] = 0;
		trace[n] = now ? '1' : '0';
	}
	return 0;
}

static const struct pwm_ops lab_ops = {
	.apply = lab_apply,
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 7, 0)
	.owner = THIS_MODULE,
#endif
};

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 9, 0)
static struct pwm_chip own;
static struct pwm_chip *chip = &own;
#else
static struct pwm_chip *chip;
#endif

static int __init lab_init(void)
{
	int r;

	pd = platform_device_register_simple("lab-pwm", -1, NULL, 0);
	if (IS_ERR(pd))
		return PTR_ERR(pd);
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 9, 0)
	chip->dev = &pd->dev;
	chip->npwm = 2;
#else
	chip = pwmchip_alloc(&pd->dev, 2, 0);
	if (IS_ERR(chip)) {
		platform_device_unregister(pd);
		return PTR_ERR(chip);
	}
#endif
	chip->ops = &lab_ops;
	r = pwmchip_add(chip);
	if (r) {
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0)
		pwmchip_put(chip);
#endif
		platform_device_unregister(pd);
	}
	return r;
}

static void __exit lab_exit(void)
{
	pwmchip_remove(chip);
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0)
	pwmchip_put(chip);
#endif
	platform_device_unregister(pd);
}
module_init(lab_init);
module_exit(lab_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Sandpiper lab: PWM controller that remembers its output");
