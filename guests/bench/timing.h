// What the measuring guests have in common: the counter, medians, and sleep that a timer ends.
#ifndef TIMING_H
#define TIMING_H
#include "guest.h"

static inline uint64_t now(void) {
    ISB();
    return READ_SYSREG(cntvct_el0);
}

static inline void sort(uint64_t *all, int count) {
    for (int gap = count / 2; gap > 0; gap /= 2) {
        for (int i = gap; i < count; i++) {
            uint64_t value = all[i];
            int j = i;
            for (; j >= gap && all[j - gap] > value; j -= gap)
                all[j] = all[j - gap];
            all[j] = value;
        }
    }
}

// How late this CPU wakes up from WFI for its timer, `count` times, sorted; it sleeps for `span` each time. Interrupts must
// be masked: the timer's then ends WFI, but is not taken.
static inline void sleep_late(uint64_t *late, int count, uint64_t span) {
    for (int i = 0; i < count; i++) {
        uint64_t due = now() + span, woken;
        WRITE_SYSREG(cntv_cval_el0, due);
        WRITE_SYSREG(cntv_ctl_el0, 1);
        ISB();
        do {
            wfi();
            woken = now();
        } while (woken < due);
        late[i] = woken - due;
        WRITE_SYSREG(cntv_ctl_el0, 0);
        ISB();
    }
    sort(late, count);
}
#endif
