// cpu: max
// Smaller features of `max`: how they are announced, and what user-mode tests cannot reach of them.
#include "mmu.h"

__asm__(".arch armv8.8-a+rng+sb");

static uint8_t area[4096] __attribute__((aligned(4096)));

static uint64_t field(uint64_t reg, int lsb) { return reg >> lsb & 15; }

static void announced(void) {
    CHECK_EQ(field(READ_SYSREG(id_aa64pfr0_el1), 48), 1);  // DIT
    CHECK_EQ(field(READ_SYSREG(s3_0_c0_c4_1), 0), 1);      // BTI
    CHECK_EQ(field(READ_SYSREG(id_aa64isar0_el1), 60), 1); // RNG
    CHECK_EQ(field(READ_SYSREG(id_aa64isar1_el1), 36), 1); // SB
    CHECK(field(READ_SYSREG(id_aa64isar1_el1), 40) >= 1);  // SPECRES
    uint64_t isar2 = READ_SYSREG(s3_0_c0_c6_2);
    CHECK_EQ(field(isar2, 0), 2);  // WFxT
    CHECK_EQ(field(isar2, 16), 1); // MOPS
    CHECK_EQ(field(isar2, 20), 1); // HBC
    CHECK(field(isar2, 52) >= 1);  // CSSC
    CHECK(field(READ_SYSREG(id_aa64mmfr0_el1), 60) >= 1); // ECV
    CHECK_EQ(field(READ_SYSREG(s3_0_c0_c7_2), 32), 1);    // LSE2
}

static void data_independent_timing(void) {
    WRITE_SYSREG(s3_3_c4_c2_5, 1ul << 24);
    CHECK_EQ(READ_SYSREG(s3_3_c4_c2_5), 1ul << 24);
    ASM("svc #1");
    CHECK_EQ(caught.spsr >> 24 & 1, 1);
    ASM("msr dit, #0\n svc #1");
    CHECK_EQ(caught.spsr >> 24 & 1, 0);
}

static void random_numbers(void) {
    uint64_t last = 0, flags, v, ones = 0, zeros = 0;
    for (int i = 0; i < 64; i++) {
        if (i & 1)
            __asm__ volatile("msr nzcv, %2\n mrs %0, s3_3_c2_c4_0\n mrs %1, nzcv" : "=r"(v), "=r"(flags) : "r"(0xful << 28) : "cc");
        else
            __asm__ volatile("msr nzcv, %2\n mrs %0, s3_3_c2_c4_1\n mrs %1, nzcv" : "=r"(v), "=r"(flags) : "r"(0xful << 28) : "cc");
        CHECK_EQ(flags, 0);
        CHECK(v != last);
        last = v;
        ones |= v;
        zeros |= ~v;
    }
    CHECK_EQ(ones, ~0ul);
    CHECK_EQ(zeros, ~0ul);
    CHECK_EQ(EC(SYNDROME(ASM("msr s3_3_c2_c4_0, x0"))), EC_UNKNOWN);
}

static uint64_t now(void) { ISB(); return READ_SYSREG(cntvct_el0); }

static uint8_t el0_stack[4096] __attribute__((aligned(16)));
static uint64_t el0_wfit(uint64_t until) {
    register uint64_t x5 __asm__("x5") = until;
    __asm__ volatile(".inst 0xd5031025" : : "r"(x5) : "memory"); // wfit x5
    return until;
}

static void waits(void) {
    int waited = 0;
    for (int i = 0; i < 10; i++) {
        uint64_t until = now() + READ_SYSREG(cntfrq_el0) / 1000;
        // A wait may end early, for instance because the machine was stopped meanwhile; but it waits.
        do {
            el0_wfit(until);
            waited++;
        } while ((int64_t)(now() - until) < 0);
        until = now() + READ_SYSREG(cntfrq_el0) / 1000;
        register uint64_t x6 __asm__("x6") = until;
        __asm__ volatile("sevl\n wfe\n .inst 0xd5031006" : : "r"(x6) : "memory"); // wfet x6
    }
    CHECK(waited < 1000);
    // The past does not wait, nor does what has an event.
    uint64_t start = now();
    el0_wfit(0);
    el0_wfit(start);
    register uint64_t x6 __asm__("x6") = ~0ul;
    __asm__ volatile("sevl\n .inst 0xd5031006" : : "r"(x6) : "memory");
    // Trapped at EL0: with the register, and that it is valid.
    WRITE_SYSREG(sctlr_el1, READ_SYSREG(sctlr_el1) & ~(1ul << 16));
    ISB();
    uint64_t stack = (uint64_t)el0_stack + sizeof el0_stack;
    CHECK_EQ(SYNDROME(el0_enter(el0_wfit, ~0ul, stack, 0)), (uint64_t)EC_WFX << 26 | 1u << 25 | 0x1e00000 | 5 << 5 | 1 << 2 | 2);
    CHECK_EQ(SYNDROME(el0_enter(el0_wfit, 0, stack, 0)), ~0ul);
}

static void counters(void) {
    uint64_t a = READ_SYSREG(s3_3_c14_c0_6), b = READ_SYSREG(s3_3_c14_c0_5);
    CHECK(a != 0 && (int64_t)(b - a) >= 0 && b - a < READ_SYSREG(cntfrq_el0));
}

// Ordered and atomic accesses inside 16 aligned bytes need no alignment of their own; SCTLR_EL1.nAA lets the ordered
// ones be anywhere, and SCTLR_EL1.A nothing.
static void unaligned(void) {
    uint64_t v, x30 = 0;
    (void)x30;
    for (int i = 0; i < 64; i++)
        area[i] = (uint8_t)i;
    uint64_t at = PLAY + 3, across = PLAY + 12;
    CHECK_EQ(SYNDROME(__asm__ volatile("ldar %0, [%1]" : "=r"(v) : "r"(at))), ~0ul);
    CHECK_EQ(v, 0x0a09080706050403);
    CHECK_EQ(SYNDROME(__asm__ volatile("ldaddal %2, %0, [%1]" : "=r"(v) : "r"(at), "r"(1ul) : "memory")), ~0ul);
    CHECK_EQ(v, 0x0a09080706050403);
    CHECK_EQ(area[3], 4);
    uint32_t status;
    CHECK_EQ(SYNDROME(__asm__ volatile("ldaxr %w0, [%2]\n stlxr %w1, %w0, [%2]" : "=&r"(v), "=&r"(status) : "r"(at) : "memory")), ~0ul);
    CHECK_EQ(status, 0);
    CHECK_EQ((uint32_t)v, 0x06050404);
    uint64_t expected = 0x06050404;
    CHECK_EQ(SYNDROME(__asm__ volatile("casal %w0, %w2, [%1]" : "+r"(expected) : "r"(at), "r"(0x55555555) : "memory")), ~0ul);
    CHECK_EQ(area[3] << 8 | area[6], 0x5555);
    CHECK_EQ(FSC(SYNDROME(__asm__ volatile("ldar %0, [%1]" : "=r"(v) : "r"(across)))), FSC_ALIGNMENT);
    CHECK_EQ(FSC(SYNDROME(__asm__ volatile("stlr %0, [%1]" : : "r"(v), "r"(across) : "memory"))), FSC_ALIGNMENT);
    CHECK_EQ(FSC(SYNDROME(__asm__ volatile("ldapr %0, [%1]" : "=r"(v) : "r"(across)))), FSC_ALIGNMENT);
    CHECK_EQ(FSC(SYNDROME(__asm__ volatile("swp %0, %0, [%1]" : "=r"(v) : "r"(across)))), FSC_ALIGNMENT);
    CHECK_EQ(caught.far, across);
    CHECK_EQ(FSC(SYNDROME(__asm__ volatile("ldxr %0, [%1]" : "=r"(v) : "r"(across)))), FSC_ALIGNMENT);
    uint64_t sctlr = READ_SYSREG(sctlr_el1);
    WRITE_SYSREG(sctlr_el1, sctlr | 1 << 6);
    ISB();
    CHECK_EQ(SYNDROME(__asm__ volatile("ldar %0, [%1]" : "=r"(v) : "r"(across))), ~0ul);
    CHECK_EQ(v, 0x131211100f0e0d0c);
    CHECK_EQ(FSC(SYNDROME(__asm__ volatile("swp %0, %0, [%1]" : "=r"(v) : "r"(across)))), FSC_ALIGNMENT);
    WRITE_SYSREG(sctlr_el1, sctlr | 1 << 6 | SCTLR_A);
    ISB();
    CHECK_EQ(FSC(SYNDROME(__asm__ volatile("ldar %0, [%1]" : "=r"(v) : "r"(at)))), FSC_ALIGNMENT);
    CHECK_EQ(FSC(SYNDROME(__asm__ volatile("swp %0, %0, [%1]" : "=r"(v) : "r"(at)))), FSC_ALIGNMENT);
    WRITE_SYSREG(sctlr_el1, sctlr);
    ISB();
}

int main(void) {
    announced();
    data_independent_timing();
    random_numbers();
    waits();
    counters();
    ASM("sb\n .inst 0xd50b7380\n .inst 0xd50b73a0\n .inst 0xd50b73e0"); // CFP, DVP and CPP RCTX, X0
    mmu_tables();
    play3[0] = (uint64_t)area | NORMAL | PAGE;
    mmu_on();
    unaligned();
    return finish("features");
}
