// cpu: max
// Branch target identification (FEAT_BTI): which branches may lead to which instructions of guarded pages, and what
// exceptions around a branch tell of it.
#include "mmu.h"

__asm__(".arch armv8.6-a");

enum { EC_BTI = 0x0d };
#define GP (1ul << 50)
enum { NOP, BTI, BTI_C, BTI_J, BTI_JC, PACIASP, BRK, TARGETS };

// Each target is four instructions long: this one, XPACLRI, RET.
static const uint32_t targets[TARGETS] = {
    0xd503201f, 0xd503241f, 0xd503245f, 0xd503249f, 0xd50324df, 0xd503233f, 0xd4200000,
};
// Behind them, jumps from a guarded page: bti jc; br x1 and bti jc; br x16.
enum { JUMP_X1 = 128, JUMP_X16 = 136, CALLEE = 256 };

static uint8_t page[4096] __attribute__((aligned(4096)));

static uint64_t blr(uint64_t to) {
    return SYNDROME(__asm__ volatile("blr %0" : : "r"(to) : "x30", "memory"));
}
static uint64_t br(uint64_t to) { // By X5, from a page that is not guarded
    return SYNDROME(__asm__ volatile("mov x5, %0\n adr x30, 1f\n br x5\n1:" : : "r"(to) : "x5", "x30", "memory"));
}
static uint64_t guarded_x1(uint64_t to) {
    return SYNDROME(__asm__ volatile("mov x1, %0\n adr x30, 1f\n mov x16, %1\n br x16\n1:"
                                     : : "r"(to), "r"(PLAY + JUMP_X1) : "x1", "x16", "x30", "memory"));
}
static uint64_t guarded_x16(uint64_t to) {
    return SYNDROME(__asm__ volatile("mov x16, %0\n adr x30, 1f\n mov x5, %1\n br x5\n1:"
                                     : : "r"(to), "r"(PLAY + JUMP_X16) : "x5", "x16", "x30", "memory"));
}
static uint64_t ret(uint64_t to) { // As a return address
    return SYNDROME(__asm__ volatile("adr x30, 1f\n ret %0\n1:" : : "r"(to) : "x30", "memory"));
}

static void may(uint64_t (*branch)(uint64_t), unsigned targets_allowed, uint64_t btype, bool guarded) {
    for (int t = 0; t < TARGETS; t++) {
        uint64_t to = PLAY + 16 * t, esr = branch(to);
        if (t == BRK) {
            CHECK_EQ(EC(esr), EC_BRK);
            CHECK_EQ(caught.spsr >> 10 & 3, btype);
        } else if (!guarded || targets_allowed >> t & 1) {
            CHECK_EQ(esr, ~0ul);
        } else {
            CHECK_EQ(esr, (uint64_t)EC_BTI << 26 | 1u << 25 | btype);
            CHECK_EQ(caught.elr, to);
            CHECK_EQ(caught.spsr >> 10 & 3, btype);
        }
    }
}

static void all(bool guarded, bool strict) {
    unsigned jc = 1 << BTI_JC, c = jc | 1 << BTI_C, j = jc | 1 << BTI_J, pac = 1 << PACIASP;
    may(blr, c | pac, 2, guarded);
    may(br, c | j | pac, 1, guarded);
    may(guarded_x16, c | j | pac, 1, guarded);
    if (guarded)
        may(guarded_x1, j | (strict ? 0 : pac), 3, true);
    else
        may(guarded_x1, 0, 1, false);
    may(ret, ~0u, 0, true);
}

// A direct branch, and what follows a target, are not looked at.
static void others(void) {
    // bti c; nop; b .+8; nop; nop; ret
    static const uint32_t callee[] = {0xd503245f, 0xd503201f, 0x14000002, 0xd503201f, 0xd503201f, 0xd65f03c0};
    for (int i = 0; i < 6; i++)
        ((uint32_t *)page)[CALLEE / 4 + i] = callee[i];
    __asm__ volatile("dsb ish\n ic ialluis\n dsb ish\n isb" : : : "memory");
    CHECK_EQ(blr(PLAY + CALLEE), ~0ul);
    // An exception return brings BTYPE back.
    uint64_t esr = SYNDROME(__asm__ volatile(
        "adr x30, 1f\n msr elr_el1, %0\n mov x1, #0xbc5\n msr spsr_el1, x1\n eret\n1:" : : "r"(PLAY) : "x1", "x30", "memory"));
    CHECK_EQ(esr, (uint64_t)EC_BTI << 26 | 1u << 25 | 2);
    esr = SYNDROME(__asm__ volatile(
        "adr x30, 1f\n msr elr_el1, %0\n mov x1, #0x3c5\n msr spsr_el1, x1\n eret\n1:" : : "r"(PLAY) : "x1", "x30", "memory"));
    CHECK_EQ(esr, ~0ul);
}

// What comes before the target executes tells how it was reached, in guarded pages and others; what comes while it
// executes may also tell nothing (AArch64.TakeException); what comes later must not.
static void to_caller(struct frame *f) { resume = f->x[30]; }
static uint64_t other[512] __attribute__((aligned(4096)));
static const struct {
    uint64_t (*branch)(uint64_t);
    uint64_t btype;
} branches[] = {{blr, 2}, {br, 1}, {guarded_x16, 1}, {guarded_x1, 3}, {ret, 0}};

static void told(const char *what, uint64_t got, uint64_t wanted) {
    if (got != wanted) {
        print("%s: got 0x%x, wanted 0x%x\n", what, got, wanted);
        failures++;
    }
}

static void early(void) {
    enum { NOWHERE = 0x2000, NO_CODE = 0x3000, PLAIN = 0x1000 };
    // ldr x0, [x7]; ret. nop; ldr x0, [x7]. b to what is not there. A NOP as the last of its page.
    uint32_t *plain = (uint32_t *)other;
    plain[0] = 0xf94000e0;
    plain[1] = 0xd65f03c0;
    plain[4] = 0xd503201f;
    plain[5] = 0xf94000e0;
    plain[8] = 0x14000000 | (0x1000 - 32) / 4;
    plain[12] = 0xd4000021; // SVC #1
    plain[16] = 0x00000000; // UDF
    plain[1023] = 0xd503201f;
    __asm__ volatile("dsb ish\n ic ialluis\n dsb ish\n isb" : : : "memory");
    on_entry = to_caller;
    for (int guarded = 0; guarded < 2; guarded++) {
        // What branches is in a guarded page always, so that a BR by X1 is of type 3.
        play3[1] = (uint64_t)other | NORMAL | AP_RO | PAGE;
        play3[3] = (uint64_t)other | NORMAL | PXN | PAGE | (guarded ? GP : 0);
        tlbi_all();
        for (unsigned i = 0; i < sizeof branches / sizeof *branches; i++) {
            uint64_t (*go)(uint64_t) = branches[i].branch, btype = branches[i].btype;
#define BTYPE_TOLD (caught.spsr >> 10 & 3)
            told("not mapped", go(PLAY + NOWHERE + 64), ESR(EC_IABORT, FSC_TRANSLATION + 3));
            told("not mapped: BTYPE", BTYPE_TOLD, btype);
            told("not mapped: FAR", caught.far, PLAY + NOWHERE + 64);
            // Before the branch is found to be a wrong one.
            told("not executable", go(PLAY + NO_CODE), ESR(EC_IABORT, FSC_PERMISSION + 3));
            told("not executable: BTYPE", BTYPE_TOLD, btype);
            told("misaligned", go(PLAY + PLAIN + 2), ESR(EC_PC_ALIGN, 0));
            told("misaligned: BTYPE", BTYPE_TOLD, btype);
            // A breakpoint.
            __asm__ volatile("msr oslar_el1, xzr\n msr mdscr_el1, %0\n msr dbgbvr0_el1, %1\n msr dbgbcr0_el1, %2\n isb\n msr daifclr, #8"
                             : : "r"(1ul << 13 | 1ul << 15), "r"(PLAY + PLAIN + 16), "r"(1ul | 1 << 1 | 15 << 5) : "memory");
            told("breakpoint", go(PLAY + PLAIN + 16), ESR(EC_BREAKPOINT, 0x22));
            __asm__ volatile("msr daifset, #8\n msr dbgbcr0_el1, xzr\n isb" : : : "memory");
            told("breakpoint: BTYPE", BTYPE_TOLD, btype);
            // While the target executes.
            told("a supervisor call", EC(go(PLAY + PLAIN + 48)), EC_SVC);
            CHECK(BTYPE_TOLD == btype || BTYPE_TOLD == 0);
            told("undefined", EC(go(PLAY + PLAIN + 64)), EC_UNKNOWN);
            CHECK(BTYPE_TOLD == btype || BTYPE_TOLD == 0);
            // Behind it.
            told("the next page", go(PLAY + PLAIN + 0xffc), ESR(EC_IABORT, FSC_TRANSLATION + 3));
            told("the next page: BTYPE", BTYPE_TOLD, 0);
            told("the next page: FAR", caught.far, PLAY + NOWHERE);
            told("a direct branch", go(PLAY + PLAIN + 32), ESR(EC_IABORT, FSC_TRANSLATION + 3));
            told("a direct branch: BTYPE", BTYPE_TOLD, 0);
        }
    }
    on_entry = 0;
    resume = 0;
}

// As `early`, for a data abort of the target and of what follows it.
static void data_aborts(void) {
    on_entry = to_caller;
    uint64_t nowhere = 1ul << 50;
    for (unsigned second = 0; second < 2; second++) {
        uint64_t to = PLAY + 0x1000 + (second ? 16 : 0);
        uint64_t esr = SYNDROME(__asm__ volatile("mov x7, %1\n blr %0" : : "r"(to), "r"(nowhere) : "x0", "x7", "x30", "memory"));
        CHECK_EQ(esr, ESR(EC_DABORT, FSC_TRANSLATION));
        CHECK(BTYPE_TOLD == 0 || (!second && BTYPE_TOLD == 2));
        esr = SYNDROME(__asm__ volatile("mov x7, %1\n mov x5, %0\n adr x30, 1f\n br x5\n1:" : : "r"(to), "r"(nowhere) : "x0", "x5", "x7", "x30", "memory"));
        CHECK_EQ(esr, ESR(EC_DABORT, FSC_TRANSLATION));
        CHECK(BTYPE_TOLD == 0 || (!second && BTYPE_TOLD == 1));
    }
    on_entry = 0;
    resume = 0;
}

int main(void) {
    uint32_t *code = (uint32_t *)page;
    for (int t = 0; t < TARGETS; t++) {
        code[4 * t] = targets[t];
        code[4 * t + 1] = 0xd50320ff;
        code[4 * t + 2] = 0xd65f03c0;
    }
    code[JUMP_X1 / 4] = code[JUMP_X16 / 4] = 0xd50324df;
    code[JUMP_X1 / 4 + 1] = 0xd61f0020;
    code[JUMP_X16 / 4 + 1] = 0xd61f0200;
    mmu_tables();
    play3[0] = (uint64_t)page | NORMAL | PAGE | AP_RO;
    mmu_on();
    for (int strict = 0; strict < 2; strict++) {
        uint64_t sctlr = READ_SYSREG(sctlr_el1) & ~(1ul << 36);
        WRITE_SYSREG(sctlr_el1, sctlr | (uint64_t)strict << 36);
        ISB();
        for (int guarded = 0; guarded < 2; guarded++) {
            play3[0] = (uint64_t)page | NORMAL | PAGE | AP_RO | (guarded ? GP : 0);
            tlbi_page(PLAY, 0);
            for (int i = 0; i < 3; i++)
                all(guarded, strict);
        }
    }
    others();
    early();
    data_aborts();
    return finish("bti");
}
