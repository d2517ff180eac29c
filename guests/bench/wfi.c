// How late a CPU that sleeps in WFI wakes up for its timer: the median and the 99th percentile, in nanoseconds.
#include "timing.h"

enum { SAMPLES = 1000 };
static uint64_t late[SAMPLES];

int main(void) {
    uint64_t frequency = READ_SYSREG(cntfrq_el0);
    gic_setup();
    gic_enable(INTID_TIMER_VIRTUAL, 0x80);
    irq_mask();
    sleep_late(late, SAMPLES, frequency / 500);
    uint64_t tick = 1000000000 / frequency;
    print("wfi %d %d\n", late[SAMPLES / 2] * tick, late[SAMPLES * 99 / 100] * tick);
    return 0;
}

void guest_exception(struct frame *f, uint64_t vector) {
    (void)f;
    (void)vector;
    guest_exit(1);
}
