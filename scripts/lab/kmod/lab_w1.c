// SPDX-License-Identifier: GPL-2.0
/*
 * lab_w1: a 1-wire bus with two thermometers (DS18B20, 28-000000000001 and 28-000000000002), which w1_therm drives as it drives real ones.
 *   temp=N,N   (0644) what a conversion measures, in m°C
 *   lost=N,N   (0644) 1 = the supply fails in each conversion: the chip says its power-on value, 85 °C
 *   converts   (0444) conversions so far
 */
#include <linux/module.h>
#include <linux/w1.h>
#define CHIPS 2
static int temp[CHIPS] = { 21000, 21000 };
static int lost[CHIPS];
static uint converts;
module_param_array(temp, int, NULL, 0644);
module_param_array(lost, int, NULL, 0644);
module_param(converts, uint, 0444);

static u8 scratch[CHIPS][9];
static u8 said[9], command;
static int wrote, chip, at;	/* bytes since the reset; who was called, -1 = nobody, CHIPS = all */

static u64 rom(int c)
{
	u8 b[8] = { 0x28, c + 1 };
	u64 v = 0;
	int i;

	b[7] = w1_calc_crc8(b, 7);
	for (i = 7; i >= 0; i--)
		v = v << 8 | b[i];
	return v;
}

static void powered(int c)
{
	static const u8 fresh[8] = { 0x50, 0x05, 0x4b, 0x46, 0x7f, 0xff, 0x0c, 0x10 };

	memcpy(scratch[c], fresh, sizeof(fresh));
}

static void convert(int c)
{
	int raw = temp[c] * 16 / 1000;

	converts++;
	if (lost[c]) {
		powered(c);
		return;
	}
	scratch[c][0] = raw;
	scratch[c][1] = raw >> 8;
	scratch[c][6] = 0x10 - (raw & 15);
}

static u8 lab_reset(void *data)
{
	wrote = at = 0;
	command = 0;
	chip = -1;
	return 0;	/* somebody is there */
}

static void lab_write(void *data, u8 b)
{
	static u64 called;
	static bool match;
	int c, n = wrote++;

	if (n == 0) {
		called = 0;
		match = b == W1_MATCH_ROM;
		chip = b == W1_SKIP_ROM ? CHIPS : -1;
		return;
	}
	if (match && n <= 8) {
		called |= (u64)b << 8 * (n - 1);
		for (c = 0; n == 8 && c < CHIPS; c++)
			if (called == rom(c))
				chip = c;
		return;
	}
	if (chip < 0)
		return;
	if (!command) {
		command = b;
		at = 0;
		for (c = 0; b == W1_CONVERT_TEMP && c < CHIPS; c++)
			if (chip == c || chip == CHIPS)
				convert(c);
		return;
	}
	if (command == W1_WRITE_SCRATCHPAD && at < 3 && chip < CHIPS)
		scratch[chip][2 + at++] = b;
}

static u8 lab_read(void *data)
{
	if (command != W1_READ_SCRATCHPAD || chip < 0 || chip == CHIPS)
		return 0xff;	/* powered by its own wire, converted, or nobody */
	memcpy(said, scratch[chip], 8);
	said[8] = w1_calc_crc8(said, 8);
	return at < 9 ? said[at++] : 0xff;
}

static u8 lab_touch(void *data, u8 bit)
{
	return bit;	/* nobody pulls the wire down: converted, and powered by a wire of its own */
}

static void lab_search(void *data, struct w1_master *m, u8 kind, w1_slave_found_callback found)
{
	int c;

	for (c = 0; kind == W1_SEARCH && c < CHIPS; c++)
		found(m, rom(c));
}

static struct w1_bus_master bus = {
	.touch_bit = lab_touch, .read_byte = lab_read, .write_byte = lab_write, .reset_bus = lab_reset, .search = lab_search,
};

static int __init lab_init(void)
{
	powered(0);
	powered(1);
	return w1_add_master_device(&bus);
}

static void __exit lab_exit(void)
{
	w1_remove_master_device(&bus);
}
module_init(lab_init);
module_exit(lab_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Sandpiper lab: 1-wire bus with two thermometers");
