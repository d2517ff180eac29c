// smp: 4
// Several CPUs: PSCI on and off, exclusives and atomics under contention, ordering, invalidation of translations
// and of code seen by the others, events (Arm ARM B2, D8.17; PSCI, DEN 0022).
#include "mmu.h"

enum { CPUS = 4, ROUNDS = 1000 };
static volatile uint64_t online, go, done, counter_exclusive, counter_atomic, counter_locked, lock, mistakes;
static volatile uint64_t x __attribute__((aligned(128))), y __attribute__((aligned(128)));
static volatile uint64_t seen_pages, stop;
static uint8_t pages[2][4096] __attribute__((aligned(4096)));
static uint32_t code[1024] __attribute__((aligned(4096)));

static void add(volatile uint64_t *p, uint64_t v) {
    uint64_t old, status;
    __asm__ volatile("1: ldxr %0, [%2]\n add %0, %0, %3\n stxr %w1, %0, [%2]\n cbnz %w1, 1b"
                     : "=&r"(old), "=&r"(status) : "r"(p), "r"(v) : "memory");
}
static uint64_t load_acquire(volatile uint64_t *p) {
    uint64_t v;
    __asm__ volatile("ldar %0, [%1]" : "=r"(v) : "r"(p) : "memory");
    return v;
}
static void store_release(volatile uint64_t *p, uint64_t v) {
    __asm__ volatile("stlr %0, [%1]" : : "r"(v), "r"(p) : "memory");
}

static void contend(void) {
    for (int i = 0; i < ROUNDS; i++) {
        add(&counter_exclusive, 1);
        __asm__ volatile(".arch_extension lse\n stadd %0, [%1]" : : "r"(1ul), "r"(&counter_atomic) : "memory");
        uint64_t taken, free = 0, one = 1;
        do { // A lock by compare-and-swap, waiting for an event
            taken = free;
            __asm__ volatile(".arch_extension lse\n casa %0, %1, [%2]" : "+r"(taken) : "r"(one), "r"(&lock) : "memory");
        } while (taken);
        counter_locked = counter_locked + 1;
        store_release(&lock, 0);
    }
}

static void secondary(void) {
    mmu_on();
    add(&online, 1);
    while (load_acquire(&go) < 1)
        __asm__ volatile("wfe");
    contend();
    add(&done, 1);
    __asm__ volatile("sev");
    // Dekker: of two CPUs that store one and load the other, at least one must see the other's store: STLR and
    // LDAR stay in order. QEMU 11 on x86 lets them swap, and fails here now and then.
    if ((READ_SYSREG(mpidr_el1) & 0xff) == 1) {
        for (uint64_t i = 1; i <= ROUNDS; i++) {
            while (load_acquire(&go) < 1 + i) {
            }
            store_release(&y, i);
            uint64_t other = load_acquire(&x);
            store_release(&seen_pages, other << 32 | i);
        }
        // What another CPU maps, and then invalidates, is seen here.
        uint64_t last = 0;
        while (!load_acquire(&stop)) {
            caught.count = 0;  // Faults are part of the game,
            uint64_t v = last; // and leave this
            __asm__ volatile("ldr %0, [%1]" : "+r"(v) : "r"(PLAY) : "memory");
            if (v < last)
                mistakes = mistakes + 1;
            last = v;
        }
    }
    add(&done, 1);
}

static void wait_for(volatile uint64_t *p, uint64_t v, const char *what) {
    uint64_t end = READ_SYSREG(cntvct_el0) + 60 * READ_SYSREG(cntfrq_el0);
    while (load_acquire(p) != v) {
        if (READ_SYSREG(cntvct_el0) > end) {
            print("gave up waiting for %s: %d of %d\n", what, load_acquire(p), v);
            guest_exit(2);
        }
    }
}

static void returns_at_once(void) { add(&done, 1); }
static void runs_new_code(void) {
    mmu_on();
    for (uint64_t i = 1; i <= 500; i++) {
        while (load_acquire(&go) < i) {
        }
        ISB();
        if (((uint64_t(*)(void))code)() != i)
            mistakes = mistakes + 1;
        store_release(&done, i);
    }
}

int main(void) {
    CHECK(psci(PSCI_VERSION, 0, 0, 0) >= 0x10000);
    CHECK_EQ(psci(PSCI_FEATURES, PSCI_CPU_ON, 0, 0), 0);
    CHECK_EQ(psci(PSCI_FEATURES, 0x84000099, 0, 0), (uint64_t)-1);
    CHECK_EQ(psci(PSCI_AFFINITY_INFO, 1, 0, 0), 1); // OFF
    CHECK_EQ(psci(PSCI_AFFINITY_INFO, 0, 0, 0), 0); // ON
    CHECK_EQ(psci(PSCI_AFFINITY_INFO, 77, 0, 0), (uint64_t)-2);
    mmu_tables();
    play3[0] = (uint64_t)pages[0] | NORMAL | PAGE;
    mmu_on();
    // On and off, again and again.
    for (uint64_t i = 1; i <= 20; i++) {
        CHECK_EQ(cpu_start(1, returns_at_once), 0);
        wait_for(&done, i, "a CPU that comes and goes");
        uint64_t end = READ_SYSREG(cntvct_el0) + 60 * READ_SYSREG(cntfrq_el0);
        while (psci(PSCI_AFFINITY_INFO, 1, 0, 0) != 1 && READ_SYSREG(cntvct_el0) < end) {
        }
        CHECK_EQ(psci(PSCI_AFFINITY_INFO, 1, 0, 0), 1);
    }
    done = 0;
    for (uint32_t i = 1; i < CPUS; i++)
        CHECK_EQ(cpu_start(i, secondary), 0);
    wait_for(&online, CPUS - 1, "the CPUs to come");
    store_release(&go, 1);
    __asm__ volatile("sev");
    contend();
    wait_for(&done, 2 * (CPUS - 1) - 1, "the contention to end");
    CHECK_EQ(counter_exclusive, CPUS * ROUNDS);
    CHECK_EQ(counter_atomic, CPUS * ROUNDS);
    CHECK_EQ(counter_locked, CPUS * ROUNDS);

    uint64_t both_old = 0;
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        store_release(&go, 1 + i);
        store_release(&x, i);
        uint64_t mine = load_acquire(&y);
        uint64_t theirs;
        while (((theirs = load_acquire(&seen_pages)) & 0xffffffff) != i) {
        }
        both_old += mine != i && theirs >> 32 != i;
    }
    CHECK_EQ(both_old, 0);

    for (uint64_t i = 1; i <= 500; i++) {
        *(volatile uint64_t *)pages[i % 2] = i;
        play3[0] = 0;
        tlbi_page(PLAY, 0);
        play3[0] = (uint64_t)pages[i % 2] | NORMAL | PAGE;
        published();
        // From here on, no CPU may see the older page.
        *(volatile uint64_t *)pages[(i + 1) % 2] = 0;
    }
    store_release(&stop, 1);
    wait_for(&done, 2 * (CPUS - 1), "the reader to end");
    // The reader takes a fault now and then, and goes on; it must not have seen old pages.
    CHECK_EQ(mistakes, 0);

    uint64_t end = READ_SYSREG(cntvct_el0) + 60 * READ_SYSREG(cntfrq_el0);
    while (psci(PSCI_AFFINITY_INFO, 2, 0, 0) != 1 && READ_SYSREG(cntvct_el0) < end) {
    }
    go = done = 0;
    DSB();
    CHECK_EQ(cpu_start(2, runs_new_code), 0);
    for (uint64_t i = 1; i <= 500; i++) {
        code[0] = 0xd2800000 | (uint32_t)i << 5; // MOVZ X0, #i
        code[1] = 0xd65f03c0;                    // RET
        __asm__ volatile("dc cvau, %0\n dsb ish\n ic ivau, %0\n dsb ish\n isb" : : "r"(code) : "memory");
        store_release(&go, i);
        wait_for(&done, i, "new code");
    }
    CHECK_EQ(mistakes, 0);
    return finish("smp");
}
