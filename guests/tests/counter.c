// cpu: neoverse-n1 max
// smp: 2
// The system counter: the physical and the virtual count are one, and neither goes back, whichever CPU reads it
// (Arm ARM D12.1).
#include "test.h"

static uint64_t shown[2][8] __attribute__((aligned(64)));
static uint64_t done, back;

static uint64_t load_acquire(uint64_t *p) {
    uint64_t v;
    __asm__ volatile("ldar %0, [%1]" : "=r"(v) : "r"(p) : "memory");
    return v;
}
static void store_release(uint64_t *p, uint64_t v) { __asm__ volatile("stlr %0, [%1]" : : "r"(v), "r"(p) : "memory"); }

static uint64_t virtual_count(void) {
    ISB();
    return READ_SYSREG(cntvct_el0);
}
static uint64_t physical_count(void) {
    ISB();
    return READ_SYSREG(cntpct_el0);
}

// Shows what the counter says, and compares it with what the other CPU has shown before; for a fifth of a second.
static void show(uint64_t me) {
    uint64_t frequency = READ_SYSREG(cntfrq_el0), start = virtual_count(), last = start;
    for (uint64_t round = 0; last - start < frequency / 5; round++) {
        uint64_t other = load_acquire(&shown[1 - me][0]);
        uint64_t now = round & 1 ? physical_count() : virtual_count();
        if (now < other || now < last)
            store_release(&back, back + 1);
        last = now;
        store_release(&shown[me][0], now);
    }
}

static void other_cpu(void) {
    show(1);
    store_release(&done, 1);
    for (;;)
        wfi();
}

int main(void) {
    CHECK_EQ(cpu_start(1, other_cpu), 0);
    show(0);
    while (!load_acquire(&done)) {
    }
    CHECK_EQ(back, 0);
    CHECK(shown[0][0] != 0 && shown[1][0] != 0);
    return finish("counter");
}
