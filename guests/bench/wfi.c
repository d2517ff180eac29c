// How late a CPU that sleeps in WFI wakes up for its timer: the median and the 99th percentile, in nanoseconds.
#include "guest.h"

enum { SAMPLES = 1000 };
static uint64_t late[SAMPLES];

static uint64_t now(void) {
    ISB();
    return READ_SYSREG(cntvct_el0);
}

int main(void) {
    uint64_t frequency = READ_SYSREG(cntfrq_el0);
    gic_setup();
    gic_enable(INTID_TIMER_VIRTUAL, 0x80);
    // Masked: the interrupt ends WFI, but is not taken.
    irq_mask();
    for (int i = 0; i < SAMPLES; i++) {
        uint64_t due = now() + frequency / 500;
        WRITE_SYSREG(cntv_cval_el0, due);
        WRITE_SYSREG(cntv_ctl_el0, 1);
        ISB();
        uint64_t woken;
        do {
            wfi();
            woken = now();
        } while (woken < due);
        late[i] = woken - due;
        WRITE_SYSREG(cntv_ctl_el0, 0);
        ISB();
    }
    for (int i = 1; i < SAMPLES; i++) {
        for (int j = i; j > 0 && late[j - 1] > late[j]; j--) {
            uint64_t swap = late[j];
            late[j] = late[j - 1];
            late[j - 1] = swap;
        }
    }
    uint64_t tick = 1000000000 / frequency;
    print("wfi %d %d\n", late[SAMPLES / 2] * tick, late[SAMPLES * 99 / 100] * tick);
    return 0;
}

void guest_exception(struct frame *f, uint64_t vector) {
    (void)f;
    (void)vector;
    guest_exit(1);
}
