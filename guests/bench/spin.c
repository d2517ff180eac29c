// Every CPU that there is computes without end: for measuring what it takes to interrupt them.
#include "guest.h"

static volatile uint64_t counters[64][16];

static void spin(void) {
    volatile uint64_t *mine = counters[READ_SYSREG(mpidr_el1) & 63];
    for (;;)
        *mine = *mine + 1;
}

int main(void) {
    for (uint32_t i = 1; i < 8 && cpu_start(i, spin) == 0; i++) {
    }
    spin();
    return 0;
}

void guest_exception(struct frame *f, uint64_t vector) {
    (void)f;
    (void)vector;
    guest_exit(1);
}
