// What CPUs have that only a host can give them: scalable vectors and performance counters. Says what there is of both, and
// whether it works, also across exits to the host; then powers off.
#include "guest.h"

enum { LOOPS = 100000, INTID_COUNTERS = 23 };
#define CYCLES (1ul << 31)

static uint64_t failures;

static void check(bool good, const char *what) {
    if (!good) {
        print("extensions: %s FAILED\n", what);
        failures++;
    }
}

// A load from a device and a call, both of which leave the guest.
static void leave(void) {
    mmio_read(UART + 0x18);
    psci(PSCI_VERSION, 0, 0, 0);
}

static void vectors(void) {
    if ((READ_SYSREG(id_aa64pfr0_el1) >> 32 & 15) == 0) {
        print("extensions: no vectors\n");
        return;
    }
    // CPACR_EL1.ZEN; then ZCR_EL1.LEN, as long as can be.
    WRITE_SYSREG(cpacr_el1, READ_SYSREG(cpacr_el1) | 3 << 16);
    ISB();
    WRITE_SYSREG(s3_0_c1_c2_0, 15);
    ISB();
    uint64_t bytes, sum, active;
    __asm__ volatile(".arch_extension sve\n\trdvl %0, #1\n\tindex z31.b, #0, #1\n\tptrue p7.b\n\tsetffr"
                     : "=r"(bytes));
    leave();
    __asm__ volatile(".arch_extension sve\n\tuaddv d30, p7, z31.b\n\tfmov %0, d30\n\trdffr p6.b\n\tcntp %1, p7, p6.b"
                     : "=r"(sum), "=r"(active));
    check(sum == bytes * (bytes - 1) / 2, "a sum of a whole vector");
    check(active == bytes, "the first-fault register");
    print("extensions: vectors of %d bytes\n", bytes);
}

static void spend(void) {
    for (uint64_t n = 0; n < LOOPS; n++)
        __asm__ volatile("" : : "r"(n));
}

static void counters(void) {
    uint64_t version = READ_SYSREG(id_aa64dfr0_el1) >> 8 & 15;
    if (version == 0 || version == 15) {
        print("extensions: no counters\n");
        return;
    }
    // PMCR_EL0: counters on, cycles as 64 bits.
    WRITE_SYSREG(pmcr_el0, READ_SYSREG(pmcr_el0) | 1 | 1 << 6);
    WRITE_SYSREG(pmccfiltr_el0, 0);
    WRITE_SYSREG(pmcntenset_el0, CYCLES);
    ISB();
    uint64_t begin = READ_SYSREG(pmccntr_el0);
    spend();
    leave();
    ISB();
    uint64_t cycles = READ_SYSREG(pmccntr_el0) - begin;
    check(cycles >= LOOPS, "a count of cycles");
    // Its overflow is an interrupt, which is masked and only looked for.
    irq_mask();
    gic_setup();
    gic_enable(INTID_COUNTERS, 0x80);
    WRITE_SYSREG(pmintenset_el1, CYCLES);
    WRITE_SYSREG(pmccntr_el0, -(uint64_t)LOOPS);
    ISB();
    uint64_t taken = 1023;
    for (int n = 0; n < 1000 && taken != INTID_COUNTERS; n++) {
        spend();
        taken = ICC_READ(IAR1);
    }
    check(taken == INTID_COUNTERS, "an interrupt of the counters");
    check(READ_SYSREG(pmovsclr_el0) & CYCLES, "an overflow");
    print("extensions: counters\n");
}

int main(void) {
    vectors();
    counters();
    print("extensions: %d failures\n", failures);
    psci(PSCI_SYSTEM_OFF, 0, 0, 0);
    return 0;
}

void guest_exception(struct frame *f, uint64_t vector) {
    print("extensions: exception %d, ESR %x, ELR %x, FAR %x\n", vector, f->esr, f->elr, f->far);
    psci(PSCI_SYSTEM_OFF, 0, 0, 0);
}
