// cpu: max
// Branch target identification (FEAT_BTI): which branches may lead to which instructions of guarded pages.
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
    return finish("bti");
}
