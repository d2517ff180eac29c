// cpu: neoverse-n1 max
// System calls and returns from them, again and again, so that whatever is kept from one to the next is used: what state
// goes along, what changes on the way, and what is unusual after many that were not (Arm ARM D1.3).
#include "mmu.h"

enum { ROUNDS = 5, SPSR_PAN = 1 << 22, DAIF_I = 1 << 7 };
#define PAN s3_0_c4_c2_3
#define READ_PAN() READ_SYSREG_(PAN)

static uint8_t el0_stack[4096] __attribute__((aligned(16)));
static uint64_t alias, data;

static uint64_t at_el0(uint64_t (*function)(uint64_t), uint64_t argument) {
    return el0_enter(function, argument, (uint64_t)el0_stack + sizeof el0_stack + data, alias);
}

// What the handler of the system call saw.
static volatile uint64_t seen_sp, seen_daif, seen_pan, seen_sum;

static uint64_t el0_flags(uint64_t flags) {
    __asm__ volatile("msr nzcv, %0\n svc #0x55\n mrs %0, nzcv" : "+r"(flags) : : "cc", "memory");
    return flags;
}
static uint64_t el0_stack_pointer(uint64_t x) {
    uint64_t sp;
    __asm__ volatile("sub sp, sp, #64\n svc #1\n mov %0, sp\n add sp, sp, #64" : "=r"(sp) : : "memory");
    return sp + x;
}
static uint64_t el0_wfe(uint64_t x) { __asm__ volatile("svc #2\n wfe\n svc #3\n wfe" : : : "memory"); return x; }
static uint64_t el0_exclusive(uint64_t at) {
    uint64_t status;
    __asm__ volatile("ldxr x3, [%1]\n svc #4\n stxr %w0, x3, [%1]" : "=&r"(status) : "r"(at) : "x3", "memory");
    return status;
}
static uint64_t el0_call(uint64_t x) { __asm__ volatile("svc #6" : : : "memory"); return x + 1; }
static uint64_t el0_default_nan(uint64_t fpcr) { __asm__ volatile("msr fpcr, %0\n svc #7" : : "r"(fpcr)); return 0; }
static uint64_t el0_float(uint64_t x) { __asm__ volatile("fmov d0, %0" : : "r"(x)); return x; }

static void look(struct frame *f) {
    seen_sp = READ_SYSREG(sp_el0);
    seen_daif = READ_SYSREG(daif);
    (void)f;
}

static void state_goes_along(void) {
    on_entry = look;
    for (uint64_t n = 0; n < 16 * ROUNDS; n++) {
        uint64_t flags = (n & 15) << 28;
        CHECK_EQ(at_el0(el0_flags, flags), flags);
        CHECK_EQ(caught.esr, ESR(EC_SVC, 0x55));
        CHECK_EQ(caught.vector, VECTOR_SYNC_EL0);
        CHECK_EQ(caught.spsr & 0xf00003ff, flags | 0x3c0);
        CHECK_EQ(*(uint32_t *)(caught.elr - alias - 4), 0xd4000001 | 0x55 << 5);
        CHECK_EQ(seen_daif, 0x3c0);
    }
    for (int n = 0; n < ROUNDS; n++) {
        uint64_t sp = at_el0(el0_stack_pointer, 0);
        CHECK_EQ(seen_sp, sp);
        CHECK_EQ((uint64_t)el0_stack + sizeof el0_stack + data - sp >= 64, 1);
        // A return is an event, and opens the monitor.
        CHECK_EQ(at_el0(el0_wfe, 3), 3);
        if (alias)
            CHECK_EQ(at_el0(el0_exclusive, (uint64_t)&el0_stack[64] + data), 1);
    }
    on_entry = 0;
}

// PSTATE.PAN goes on entry to what SCTLR_EL1.SPAN says, and comes back from SPSR.
static void look_at_pan(struct frame *f) {
    seen_pan = READ_PAN();
    f->spsr ^= SPSR_PAN;
}
static void privileged_access_never(void) {
    if (!(READ_SYSREG(id_aa64mmfr1_el1) >> 20 & 15))
        return;
    uint64_t sctlr = READ_SYSREG(sctlr_el1);
    on_entry = look_at_pan;
    for (int n = 0; n < 2 * ROUNDS; n++) {
        uint64_t span = n & 1 ? SCTLR_SPAN : 0;
        WRITE_SYSREG(sctlr_el1, (sctlr & ~(uint64_t)SCTLR_SPAN) | span);
        ISB();
        uint64_t expected = 0; // el0_enter goes to EL0 without PAN.
        for (int calls = 0; calls < 3; calls++) {
            at_el0(el0_call, 0);
            CHECK_EQ(caught.spsr & SPSR_PAN, expected);
            CHECK_EQ(seen_pan, span ? expected : SPSR_PAN);
            // An exception at EL1 keeps, or sets, and gives back what SPSR has.
            __asm__ volatile("svc #8" : : : "memory");
            uint64_t before = caught.spsr & SPSR_PAN;
            CHECK_EQ(seen_pan, span ? before : SPSR_PAN);
            CHECK_EQ(READ_PAN(), before ^ SPSR_PAN);
        }
    }
    on_entry = 0;
    WRITE_SYSREG(sctlr_el1, sctlr);
    ISB();
    __asm__ volatile(".arch armv8.2-a\n msr pan, #0");
}

// An interrupt that is pending when the return unmasks it comes before the next instruction.
static volatile uint64_t interrupted_at;
static void send_to_self(struct frame *f) {
    ICC_WRITE(SGI1R, 1ul << 24 | 1);
    ISB();
    f->spsr &= ~(uint64_t)DAIF_I;
}
static void take_interrupt(uint32_t intid) {
    interrupted_at = READ_SYSREG(elr_el1);
    ICC_WRITE(EOIR1, intid);
}
static void pending_interrupt(void) {
    on_irq = take_interrupt;
    for (int n = 0; n < ROUNDS; n++) {
        for (int calls = 0; calls < n; calls++)
            at_el0(el0_call, 0);
        on_entry = send_to_self;
        interrupted = interrupted_at = 0;
        CHECK_EQ(at_el0(el0_call, 8), 9);
        CHECK_EQ(interrupted, VECTOR_IRQ_EL0);
        CHECK_EQ(interrupted_at, caught.elr);
        on_entry = 0;
    }
    on_irq = 0;
}

// Returns that are illegal, or to an address with a tag, or to none, among others.
static void unusual_returns(void) {
    static const uint64_t illegal[] = {0x1d3, 0x3c9, 0x3c1, 0x3cd, 0x3c2, 0x3c5 | 1 << 20};
    for (int n = 0; n < ROUNDS; n++) {
        at_el0(el0_call, 0);
        for (unsigned i = 0; i < sizeof illegal / sizeof *illegal; i++) {
            __asm__ volatile("adr x0, 1f\n str x0, [%0]\n msr spsr_el1, %1\n adr x0, 1f\n msr elr_el1, x0\n"
                             "isb\n eret\n nop\n1: nop"
                             : : "r"(&resume), "r"(illegal[i]) : "x0", "memory");
            CHECK_EQ(EC(caught.esr), EC_ILLEGAL);
            CHECK_EQ(caught.spsr & 0x1010000f, 0x100005);
            resume = 0;
        }
        uint64_t tcr = READ_SYSREG(tcr_el1), there;
        WRITE_SYSREG(tcr_el1, tcr | TCR_TBI0);
        ISB();
        __asm__ volatile("adr x0, 1f\n movk x0, #0x5500, lsl #48\n mov x1, #0x3c5\n msr spsr_el1, x1\n msr elr_el1, x0\n"
                         "isb\n eret\n1: adr %0, ." : "=r"(there) : : "x0", "x1", "memory");
        CHECK_EQ(there >> 56, 0);
        WRITE_SYSREG(tcr_el1, tcr);
        ISB();
        __asm__ volatile("adr x0, 1f\n str x0, [%0]\n add x0, x0, #2\n mov x1, #0x3c5\n msr spsr_el1, x1\n msr elr_el1, x0\n"
                         "isb\n eret\n1: nop" : : "r"(&resume) : "x0", "x1", "memory");
        CHECK_EQ(EC(caught.esr), EC_PC_ALIGN);
        resume = 0;
    }
}

// Floating point is the same to both levels, or trapped at one of them.
static void add_nan(struct frame *f) {
    uint64_t nan = 0x7ff8000000001234;
    __asm__ volatile("fmov d0, %0\n fadd d0, d0, d0\n fmov %0, d0" : "+r"(nan));
    seen_sum = nan;
    (void)f;
}
static void floating_point(void) {
    for (int n = 0; n < ROUNDS; n++) {
        on_entry = add_nan;
        uint64_t fpcr = n & 1 ? 1ul << 25 : 0; // DN
        at_el0(el0_default_nan, fpcr);
        CHECK_EQ(seen_sum, fpcr ? 0x7ff8000000000000 : 0x7ff8000000001234);
        on_entry = 0;
        WRITE_SYSREG(cpacr_el1, n & 1 ? 1 << 20 : 3 << 20);
        ISB();
        uint64_t before = caught.count;
        at_el0(el0_float, 0);
        CHECK_EQ(caught.count - before, n & 1);
        add_nan(0);
        CHECK_EQ(caught.count - before, n & 1);
        WRITE_SYSREG(cpacr_el1, 3 << 20);
        ISB();
    }
    WRITE_SYSREG(fpcr, 0);
}

static void all(void) {
    state_goes_along();
    privileged_access_never();
    pending_interrupt();
    unusual_returns();
    floating_point();
}

int main(void) {
    gic_setup();
    gic_enable(1, 0x80);
    // EL0 may wait.
    WRITE_SYSREG(sctlr_el1, READ_SYSREG(sctlr_el1) | 1 << 16 | 1 << 18);
    ISB();
    all();
    mmu_tables();
    mmu_on();
    alias = USER_CODE;
    data = USER_DATA;
    all();
    return finish("levels");
}
