// cpu: neoverse-n1 max
// Halves of the address space that EL0 does not see (FEAT_E0PD): accesses from there fail at level 0 without a walk, be
// there a page or not, as do unprivileged ones of EL1; privileged ones do not (Arm ARM D8.4, TCR_EL1.{E0PD1, E0PD0}).
#include "mmu.h"

#define E0PD0 (1ul << 55)
#define E0PD1 (1ul << 56)
#define HIGH 0xffff000000000000ul
static uint8_t page[4096] __attribute__((aligned(4096)));
static uint8_t user_stack[4096] __attribute__((aligned(16)));

#define OPERATION(name, text) \
    static uint64_t name(uint64_t va) { __asm__ volatile(".arch armv8.2-a\n" text : : "r"(va) : "x2", "x3", "memory"); return 0; }
OPERATION(ldr, "ldr x2, [%0]")
OPERATION(str, "str xzr, [%0]")
OPERATION(ldtr, "ldtr x2, [%0]")
OPERATION(sttr, "sttr xzr, [%0]")
OPERATION(ldadd, "ldadd xzr, x2, [%0]")
OPERATION(ldxr, "ldxr x2, [%0]\n clrex")
OPERATION(zva, "dc zva, %0")
static uint64_t call(uint64_t va) { return ((uint64_t(*)(void))(va + 2048))(); }

enum { WNR_BIT = 1 << 6 };
static uint64_t at_el0(uint64_t (*f)(uint64_t), uint64_t va) {
    if (f == call)
        resume = (uint64_t)el0_call_return + USER_CODE;
    uint64_t esr = SYNDROME(el0_enter(f, va, (uint64_t)user_stack + sizeof user_stack + USER_DATA, USER_CODE));
    resume = 0;
    return esr;
}
static uint64_t at_el1(uint64_t (*f)(uint64_t), uint64_t va) { return SYNDROME(f(va)); }
static uint64_t translate(uint64_t va, int el0) {
    if (el0)
        __asm__ volatile("at s1e0r, %0\n isb" : : "r"(va) : "memory");
    else
        __asm__ volatile("at s1e1r, %0\n isb" : : "r"(va) : "memory");
    return READ_SYSREG(par_el1) & 0x7f;
}
#define SET_UAO(v) __asm__ volatile(".inst 0xd500407f | " #v " << 8" : : : "memory")
#define NOTHING (~0ul)

// `closed` as opposed to open to EL0; `status` is what an access to `va` gives without that, 0 if it succeeds.
static void half(uint64_t va, bool closed, uint64_t status) {
    static const struct {
        uint64_t (*run)(uint64_t);
        uint64_t iss;
    } operations[] = {{ldr, 0}, {str, WNR_BIT}, {ldtr, 0}, {sttr, WNR_BIT}, {ldadd, 0}, {ldxr, 0}, {zva, WNR_BIT}};
    for (unsigned i = 0; i < sizeof operations / sizeof *operations; i++) {
        uint64_t found = closed ? FSC_TRANSLATION : status, iss = operations[i].iss | found;
        bool unprivileged = operations[i].run == ldtr || operations[i].run == sttr;
        CHECK_EQ(at_el0(operations[i].run, va), found ? ESR(EC_DABORT_LOWER, iss) : NOTHING);
        if (found)
            CHECK_EQ(caught.far, va);
        uint64_t el1 = unprivileged ? found : status;
        CHECK_EQ(at_el1(operations[i].run, va), el1 ? ESR(EC_DABORT, operations[i].iss | el1) : NOTHING);
        if (unprivileged) {
            SET_UAO(1);
            CHECK_EQ(at_el1(operations[i].run, va), status ? ESR(EC_DABORT, operations[i].iss | status) : NOTHING);
            SET_UAO(0);
        }
    }
    uint64_t found = closed ? FSC_TRANSLATION : status;
    CHECK_EQ(at_el0(call, va), found ? ESR(EC_IABORT_LOWER, found) : NOTHING);
    CHECK_EQ(translate(va, 1), found ? found << 1 | 1 : 0);
    CHECK_EQ(translate(va, 0), status ? status << 1 | 1 : 0);
}

// An exception of EL0's that returns to EL1.
static void back(struct frame *f) {
    if (caught.vector == VECTOR_SYNC_EL0)
        f->spsr = 0x3c5;
}

// The program at EL0 is in the lower half: nothing of it can be fetched.
static void closed_program(void) {
    set_tcr(TCR_BASE | E0PD0);
    resume = (uint64_t)el0_return;
    uint64_t before = caught.count;
    on_entry = back;
    el0_enter(ldr, HIGH, (uint64_t)user_stack + sizeof user_stack + USER_DATA, USER_CODE);
    on_entry = 0;
    resume = 0;
    CHECK_EQ(caught.count, before + 1);
    CHECK_EQ(caught.esr, ESR(EC_IABORT_LOWER, FSC_TRANSLATION));
    CHECK_EQ(caught.far, (uint64_t)ldr + USER_CODE);
    CHECK_EQ(at_el1(ldr, PLAY), NOTHING);
    CHECK_EQ(at_el1(ldtr, PLAY), ESR(EC_DABORT, FSC_TRANSLATION));
    CHECK_EQ(at_el1(sttr, PLAY), ESR(EC_DABORT, WNR_BIT | FSC_TRANSLATION));
    CHECK_EQ(at_el1(ldtr, HIGH), NOTHING);
    CHECK_EQ(translate(PLAY, 1), FSC_TRANSLATION << 1 | 1);
    CHECK_EQ(translate(PLAY, 0), 0);
}
int main(void) {
    bool there = READ_SYSREG(id_aa64mmfr2_el1) >> 60 & 15;
    mmu_tables();
    play3[0] = high3[0] = (uint64_t)page | NORMAL | AP_EL0 | PAGE;
    ((volatile uint32_t *)page)[512] = 0xd65f03c0; // RET
    mmu_on();
    __asm__ volatile("dc cvau, %0\n dsb ish\n ic iallu\n dsb ish\n isb" : : "r"(page + 2048) : "memory");
    WRITE_SYSREG(sctlr_el1, READ_SYSREG(sctlr_el1) | 1ul << 14); // DZE
    ISB();
    for (int closed = 0; closed < 2; closed++) {
        // Without the feature the bits are no bits.
        set_tcr(TCR_BASE | (closed ? E0PD1 : 0));
        half(HIGH, closed && there, 0);
        half(HIGH + 0x1000, closed && there, FSC_TRANSLATION + 3);
        half(HIGH + (1ul << 30), closed && there, FSC_TRANSLATION + 1);
        half(PLAY, false, 0);
        half(PLAY + 0x1000, false, FSC_TRANSLATION + 3);
    }
    // Nothing is walked for EL0, so nothing has been accessed.
    set_tcr(TCR_BASE | E0PD1 | TCR_HA);
    high3[0] &= ~AF;
    tlbi_all();
    if (there && (READ_SYSREG(id_aa64mmfr1_el1) & 15)) {
        CHECK_EQ(at_el0(ldr, HIGH), ESR(EC_DABORT_LOWER, FSC_TRANSLATION));
        CHECK_EQ(at_el1(ldtr, HIGH), ESR(EC_DABORT, FSC_TRANSLATION));
        CHECK_EQ(high3[0] & AF, 0);
        CHECK_EQ(at_el1(ldr, HIGH), NOTHING);
        CHECK_EQ(high3[0] & AF, AF);
    }
    high3[0] |= AF;
    if (there)
        closed_program();
    set_tcr(TCR_BASE);
    return finish("e0pd");
}
